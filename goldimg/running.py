"""Which builds run now, seen from another process that disturbs none of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from goldimg.project import Site


def run_name() -> str:
    """What this run is called in `events.jsonl`: when it began, and its process."""
    return f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"


def pid_of(run: str) -> int:
    """The process of a run; 0 where the name is of another form."""
    number = run.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def running_pids(site: Site) -> dict[int, list[str]]:
    """The processes that build images of this site now, with the names of the locks they hold.

    /proc/locks is read, since trying a lock could make a build that starts just then fail.
    https://man7.org/linux/man-pages/man5/proc_locks.5.html
    """
    held = _holders()
    found: dict[int, list[str]] = {}
    for path in sorted((site.cache / "locks").glob("*.lock")):
        text = path.read_text(encoding="ascii").strip()
        if text.isdigit() and (int(text), path.stat().st_ino) in held:
            found.setdefault(int(text), []).append(path.stem)
    return found


def _holders() -> set[tuple[int, int]]:
    """(process, inode) of every lock on this host.

    Devices are not compared: what stat says of them differs on file systems in layers.
    """
    found = set()
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        words = line.split()
        if "->" not in words:  # an arrow marks those who wait
            found.add((int(words[4]), int(words[5].split(":")[2])))
    return found
