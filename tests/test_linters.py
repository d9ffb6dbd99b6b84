"""Linters and type checks are tests: what they find is a failure like any other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import needs

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def run(*argv: str | Path) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv[0]}\n{done.stdout}\n{done.stderr}"


def tracked(*patterns: str) -> list[Path]:
    """Files of the project; without git, everything that is not made or installed."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout to know the project's own files")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    said = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in said.splitlines() if (ROOT / name).is_file()]


def test_ruff_finds_nothing() -> None:
    run(BIN / "ruff", "check")


def test_ruff_would_change_no_format() -> None:
    run(BIN / "ruff", "format", "--check", "--quiet")


def test_types_are_strict() -> None:
    run(BIN / "mypy")


def test_shell_scripts_are_clean() -> None:
    needs("shellcheck")
    named = re.compile(rb"#!.*\b(sh|bash|busybox)\b|# shellcheck .*shell=")
    with_shell = [path for path in tracked() if named.match(path.read_bytes()[:80])]
    scripts = [path for path in with_shell if path.suffix != ".j2"]
    others = [path for path in tracked("*.sh") if path not in with_shell]
    assert len(scripts) >= 3
    run("shellcheck", "--severity=style", *scripts)
    run("shellcheck", "--severity=style", "--shell=sh", *others)


def test_only_run_py_starts_processes() -> None:
    starters = [
        path.relative_to(ROOT).as_posix()
        for path in tracked("goldimg/*.py", "goldimg/**/*.py")
        if re.search(r"^\s*(import|from) subprocess|os\.(system|popen|exec|spawn)",
                     path.read_text(), re.MULTILINE)
    ]  # fmt: skip
    assert starters == ["goldimg/run.py"]


def test_no_provider_is_a_special_case_outside_its_module() -> None:
    special = re.compile(
        r"""provider(\.name)?\s*[=!]=|==\s*["'](aws|azure|docker|gcp|openstack|virtualbox|vmware)["']"""
    )
    for path in tracked("goldimg/*.py", "goldimg/**/*.py"):
        if path.parent.name in ("providers", "formats"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            allowed = "entry.provider == provider.name" in line
            assert allowed or not special.search(line), f"{path}:{number}: {line.strip()}"


def test_no_file_names_this_machine_or_a_mirror() -> None:
    """Addresses of mirrors come from the host's apt or from the site, never from the project."""
    own = Path("/etc/apt")
    sources = [*own.glob("sources.list"), *own.glob("sources.list.d/*")]
    text = "\n".join(path.read_text() for path in sources if path.is_file())
    hosts = set(re.findall(r"https?://([^/\s]+)", text))
    for path in tracked():
        content = path.read_bytes().decode("utf-8", "ignore")
        for host in hosts:
            assert host not in content, f"{path} names {host}"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
