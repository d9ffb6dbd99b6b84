"""Processes that builds leave behind: who started them, which they are, and their end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.project import Site, locked, make_directory

OWNER = "GOLDIMG_OWNER"  # in the environment of every child: who started it, even after our death
CLAIM = "owner"  # in a working directory: whose it is
TRIAL = "again"  # of the cache: what `goldimg build --verify-reproducible` builds
DYING = 5.0  # seconds that a killed process may take to let go of its files


def owner() -> str:
    """This process, as no other is called until the host boots again: id, start, PID namespace."""
    return f"{os.getpid()}-{_began(os.getpid())}-{_namespace()}"


def _began(pid: int) -> str:
    """When a process began, in clock ticks since the host's boot (proc(5)); empty when it is gone.

    A zombie is gone: it holds nothing any more.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _namespace() -> str:
    """Where process ids mean what they mean here (pid_namespaces(7))."""
    return "".join(char for char in str(Path("/proc/self/ns/pid").readlink()) if char.isdigit())


def working_in(directory: Path) -> list[int]:
    """The ids of every QEMU, Packer and Ansible that works on files in `directory`."""
    marker = f"{directory}/".encode()
    found = []
    for pid, entry in _processes():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            names = [Path(os.fsdecode(word)).name for word in words[:2]]
            ours = any(name.startswith(("qemu-system", "packer", "ansible")) for name in names)
            if ours and any(marker in word for word in words):
                found.append(pid)
    return found


def reap(directory: Path) -> list[int]:
    """Kills every QEMU, Packer and Ansible that works on files in `directory`; returns their ids.

    The last resort after a stop: Packer, told to end, can leave its QEMU behind.
    """
    found = working_in(directory)
    _kill(found)
    return found


def reap_orphans() -> list[int]:
    """Kills what was started by a goldimg that is gone, killed before it could end it.

    Everything that goldimg starts, and what that starts in turn, knows in its environment by which
    process; one that is still there keeps its own. Returns the ids.
    """
    marker = f"{OWNER}=".encode()
    found = []
    for pid, entry in _processes():
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            named = [os.fsdecode(word) for word in variables if word.startswith(marker)]
            if named and _is_gone(named[0].partition("=")[2]):
                found.append(pid)
    _kill(found)
    return found


def claim(work: Path) -> None:
    """Makes `work` an empty directory of this process's; what still works in it is ended first."""
    reap(work)
    shutil.rmtree(work, ignore_errors=True)
    make_directory(work)
    (work / CLAIM).write_text(owner(), encoding="ascii")


def release(work: Path) -> None:
    """What `work` holds was left there on purpose; the next `claim` removes it."""
    (work / CLAIM).unlink(missing_ok=True)


def sweep(directory: Path) -> list[Path]:
    """Removes the working directories in `directory` whose process is gone without a `release`.

    They hold what only a killed build leaves: half a disk, and secrets. Returns them.
    """
    found = []
    for mark in sorted(directory.glob(f"*.work/{CLAIM}")):
        with contextlib.suppress(FileNotFoundError):
            if _is_gone(mark.read_text(encoding="ascii")):
                reap(mark.parent)
                shutil.rmtree(mark.parent, ignore_errors=True)
                found.append(mark.parent)
    return found


@contextlib.contextmanager
def on_trial(site: Site) -> Iterator[Site]:
    """The site with an empty scratch place for what builds make; nothing of that is left after the
    block. GoldimgError where another run has it.
    """
    place = site.cache / TRIAL
    with locked(_trial_lock(site), what=f"an image of {site.root}", doing="built once more"):
        _clear_trial(place)
        try:
            yield dataclasses.replace(site, trial=place)
        finally:
            _clear_trial(place)


def sweep_trial(site: Site) -> None:
    """Removes what a killed run has left of `on_trial`."""
    if (site.cache / TRIAL).exists():
        with contextlib.suppress(GoldimgError), locked(_trial_lock(site), what=TRIAL):
            _clear_trial(site.cache / TRIAL)


def _trial_lock(site: Site) -> Path:
    return site.cache / "locks" / f"{TRIAL}.lock"


def _clear_trial(place: Path) -> None:
    sweep(place / "layers")
    shutil.rmtree(place, ignore_errors=True)


def _is_gone(name: str) -> bool:
    """Whether an owner that was a process of this namespace has ended."""
    number, _, more = name.partition("-")
    began, _, namespace = more.partition("-")
    return number.isdigit() and namespace == _namespace() and _began(int(number)) != began


def _processes() -> Iterator[tuple[int, Path]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            yield int(entry.name), entry


def _kill(pids: Sequence[int]) -> None:
    """Kills, and waits until the dead have let go of their files."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + DYING
    while any(_began(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
