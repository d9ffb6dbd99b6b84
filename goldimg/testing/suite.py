"""Runs the checks of one image in a process of their own, and gathers their results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import goldimg
from goldimg.errors import GoldimgError, Interrupted, MissingTool
from goldimg.project import Site, write_text
from goldimg.run import Runner
from goldimg.testing.plugin_names import CHECKS, PLUGIN, TRIAL

TESTS_D = "tests.d"  # of the site
WHOLE = 1800.0  # seconds that all checks of an image may take
Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """How one check ended, and why it did not pass; `seconds` that it took."""

    name: str
    outcome: Outcome
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the checks are told: testinfra's `host` with its options, what is known of the image.

    `seconds` is how long each check may take, `report` where results go.
    """

    root: str
    host: str
    options: Mapping[str, Any]
    facts: Mapping[str, str]
    image: Mapping[str, Any]
    seconds: float
    report: str


def check_installed() -> None:
    """Raises MissingTool where pytest or testinfra is not there."""
    from importlib.util import find_spec

    missing = [name for name in ("pytest", "testinfra") if find_spec(name) is None]
    if missing:
        raise MissingTool(
            f"{' and '.join(missing)}: not installed, which goldimg test needs",
            hint="pip install 'goldimg[test]'",
        )


def site_checks(site: Site, provider: str) -> list[Path]:
    """The site's own checks: those for all images, then the provider's."""
    directory = site.root / TESTS_D
    found = [*sorted(directory.glob("*.py")), *sorted((directory / provider).glob("*.py"))]
    return [path for path in found if path.name != "conftest.py" and path.name[0] != "_"]


def run_checks(
    trial: Trial,
    files: Sequence[Path],
    scratch: Path,
    runner: Runner,
    *,
    prefix: Sequence[str] = (),
    log: Path,
) -> list[Check]:
    """Runs the checks in `files` and returns their results, whatever becomes of pytest.

    `prefix` are words before pytest's command line. What pytest prints goes to `log`.
    """
    told, ini = scratch / "trial.json", scratch / "pytest.ini"
    write_text(told, json.dumps(asdict(trial)), mode=0o600)
    write_text(ini, "[pytest]\n")
    environment = {
        TRIAL: str(told),
        "PYTHONPATH": str(Path(goldimg.__file__).resolve().parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    words = [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider"]
    words += ["-c", str(ini), f"--rootdir={trial.root}", "--import-mode=importlib"]
    words += ["--continue-on-collection-errors"]
    fault = ""
    try:
        done = runner.run(
            [*prefix, *words, *map(str, files)],
            env=environment,
            cwd=Path(trial.root),
            timeout=WHOLE,
            log=log,
            check=False,
        )
        if done.code not in (0, 1, 2):
            fault = (done.stderr.strip() or done.stdout.strip())[-500:] or f"code {done.code}"
    except Interrupted:
        raise
    except GoldimgError as error:
        fault = str(error)
    return results_of(Path(trial.report), fault)


def results_of(report: Path, fault: str = "") -> list[Check]:
    """The results in a report; a check that began and never ended has failed, with `fault`."""
    lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    checks: dict[str, Check] = {}
    begun = ""
    for line in map(json.loads, lines):
        if "begins" in line:
            begun = str(line["begins"])
            continue
        check = Check(**line)
        known = checks.get(check.name)
        if known is None or known.outcome == "passed":  # what failed afterwards counts
            checks[check.name] = check
    if begun and begun not in checks:
        why = fault or "it never ended"
        checks[begun] = Check(name=begun, outcome="failed", why=why)
    elif fault:
        checks["pytest"] = Check(name="pytest", outcome="failed", why=fault)
    elif not checks:
        checks["pytest"] = Check(name="pytest", outcome="failed", why="no check was run")
    return list(checks.values())


def own_checks(kind: str) -> Path:
    """goldimg's checks of machines or of containers."""
    return CHECKS / f"{kind}.py"
