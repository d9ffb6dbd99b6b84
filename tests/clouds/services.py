"""Installs and starts foreign services for the tests, and ends them.

What pip brings lies in `.cache/test-services/<name>-<digest of its requirements>` of the checkout:
installed once, by whoever comes first, and used by every later run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "test-services"


def environment(name: str, *requirements: str) -> Path:
    """A virtual environment with the requirements (exact ones, `name==version`)."""
    mark = hashlib.sha256(" ".join((sys.version, *sorted(requirements))).encode()).hexdigest()[:12]
    path = CACHE / f"{name}-{mark}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / "complete").exists():
            shutil.rmtree(path, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", path], check=True)
            install: list[str | Path] = [path / "bin/pip", "install", "--quiet", *requirements]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"pip install {requirements}:\n{done.stderr}"
            (path / "complete").touch()
    return path


@contextlib.contextmanager
def started(
    argv: Sequence[str | Path],
    *,
    log: Path,
    is_ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    seconds: float = 60,
) -> Iterator[subprocess.Popen[bytes]]:
    """A service that answers; its process group is ended with the block, itself with this process.

    `is_ready` is asked ten times a second for `seconds`; an OSError of it means not yet.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *(str(word) for word in argv)],
            env={**os.environ, **(env or {})},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    try:
        _wait(process, log, is_ready, seconds)
        yield process
    finally:
        stop(process)


def _wait(
    process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool], seconds: float
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            if is_ready():
                return
        time.sleep(0.1)
    said = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    raise AssertionError(f"{log.stem} did not start (exit code {process.poll()}):\n{said}")


def stop(process: subprocess.Popen[bytes], seconds: float = 3) -> None:
    """Ends a process by TERM, and what is left of its group by KILL."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
