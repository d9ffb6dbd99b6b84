"""docs/verified.md: for every OS and provider what was built, booted or only validated, and when.

Tests that prove something of an OS and a provider `note` it while they run. What they have noted in
this checkout's cache becomes part of the tracked record, and the document, by

    python -m tests.verified
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from goldimg.config.settings import list_oses
from goldimg.plan import digest_files
from goldimg.project import Site
from goldimg.providers import all_providers

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests/verified.json"
DOCUMENT = ROOT / "docs/verified.md"
NOTES = Path(os.environ.get("GOLDIMG_CACHE", ROOT / ".cache")) / "verified.json"

# What can be shown of an image, the strongest first: its letter and what it means.
CHECKS = {
    "booted": ("B", "built as a whole, its artifact booted and looked at from inside"),
    "tasks": (
        "T",
        "its playbooks run as a whole in a root that stands for the OS: real dnf, rpm, systemctl "
        "and sshd, and packages that are nearly empty; dnf for EL7's yum, too (tests/el_root.py)",
    ),
    "packer": ("P", "its Packer template, accepted by `packer validate`"),
    "kickstart": (
        "K",
        "its kickstart or preseed, rendered and accepted by its release's validator",
    ),
    "lint": (
        "L",
        "its playbooks, accepted by Ansible's parser and ansible-lint's profile production",
    ),
}
# Systems for machines of metal: no image is made of them.
METAL = ("Debian-12-metal",)
Record = dict[str, dict[str, dict[str, Any]]]  # check -> "OS provider" -> what was noted


def content_id() -> str:
    """Stands for whatever shapes an image: playbooks, kickstarts, OS files."""
    paths = [
        path
        for name in ("ansible", "kickstart", "templates/os")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return digest_files((str(path.relative_to(ROOT)), path.read_bytes()) for path in paths)[:12]


def note(
    check: str,
    os_names: Iterable[str],
    providers: Iterable[str],
    tools: Mapping[str, str],
    **facts: object,
) -> None:
    """Notes that `check` held just now for each of these images; `facts` are shown beside it."""
    if check not in CHECKS:
        raise ValueError(check)
    entry = {
        "date": datetime.now(UTC).date().isoformat(),
        "content": content_id(),
        "tools": dict(sorted(tools.items())),
        **facts,
    }
    names = list(providers)
    NOTES.parent.mkdir(parents=True, exist_ok=True)
    with NOTES.open("a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        noted: Record = json.loads(stream.read() or "{}")
        for os_name in os_names:
            for provider in names:
                noted.setdefault(check, {})[f"{os_name} {provider}"] = entry
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(noted, indent=1, sort_keys=True))


def load(path: Path) -> Record:
    """A record; empty where there is none."""
    if not path.exists():
        return {}
    found: Record = json.loads(path.read_text(encoding="utf-8"))
    return found


def merged(record: Record, noted: Record) -> Record:
    """What holds after this session: the newer of both, of operating systems that there are."""
    cells = {f"{os_name} {provider}" for os_name in systems() for provider in all_providers()}
    return {
        check: {
            cell: entry
            for cell, entry in {**record.get(check, {}), **noted.get(check, {})}.items()
            if cell in cells
        }
        for check in CHECKS
    }


def systems() -> list[str]:
    """Every OS that images are made of."""
    return [name for name in list_oses(Site(root=ROOT)) if name not in METAL]


def level(record: Record, os_name: str, provider: str) -> str:
    """What may be said of an image, in a word or two."""
    held = [check for check in CHECKS if f"{os_name} {provider}" in record.get(check, {})]
    if "booted" in held:
        return "built and booted"
    return "validated" if held else "nothing"


def render(record: Record) -> str:
    """The document."""
    providers = list(all_providers())
    lines = [
        "# What was verified",
        "",
        "Written by `python -m tests.verified` out of what the tests have noted; do not edit.",
        "",
        "No package of EL can be had where these tests run. Of an EL image everything is validated",
        "and nothing is booted; of a Debian image without a B the same is true.",
        "",
        f"| OS | {' | '.join(providers)} |",
        f"|---|{'---|' * len(providers)}",
    ]
    for os_name in systems():
        cells = [_cell(record, os_name, provider) for provider in providers]
        lines.append(f"| {os_name} | {' | '.join(cells)} |")
    lines += ["", "| letter | meaning | when, of which content, with |", "|---|---|---|"]
    for check, (letter, meaning) in CHECKS.items():
        lines.append(f"| {letter} | {meaning} | {_told(record.get(check, {}))} |")
    lines += ["", "Content is a digest of `ansible/`, `kickstart/` and `templates/os/`.", ""]
    return "\n".join([*lines, *_images(record.get("booted", {}))])


def _cell(record: Record, os_name: str, provider: str) -> str:
    held = [
        letter
        for check, (letter, _) in CHECKS.items()
        if f"{os_name} {provider}" in record.get(check, {})
    ]
    return f"{level(record, os_name, provider)} ({''.join(held)})" if held else "nothing"


def _told(entries: Mapping[str, Mapping[str, Any]]) -> str:
    said: dict[str, None] = {}
    for entry in entries.values():
        tools = ", ".join(f"{name} {version}" for name, version in entry["tools"].items())
        said[f"{entry['date']}, {entry['content']}: {tools}"] = None
    return "; ".join(said) or "never"


def _images(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not entries:
        return []
    lines = ["| image | packages | files, MiB | artifact, MiB |", "|---|---|---|---|"]
    for cell, entry in sorted(entries.items()):
        numbers = [entry.get(name, "") for name in ("packages", "used_mib", "artifact_mib")]
        lines.append(f"| {cell} | {' | '.join(str(number) for number in numbers)} |")
    return [*lines, ""]


def main() -> int:
    """Takes over what was noted, and writes the document."""
    record = merged(load(RECORD), load(NOTES))
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    DOCUMENT.write_text(render(record), encoding="utf-8")
    print(f"{DOCUMENT.relative_to(ROOT)} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
