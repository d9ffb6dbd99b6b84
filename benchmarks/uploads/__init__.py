"""What the benchmarks of publishing share; each provider's is a module with `measure`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from goldimg.artifacts import finish
from goldimg.layout import lay_out
from tests.publishing import OS, Shop, convert

# What `goldimg upload` says it is doing from the first byte until it is known what arrived. What is
# before (the start, checks) and after (imports, sharing) an SDK's plain call does not do.
SENDING = {
    "checking the file",
    "comparing what is there",
    "completing",
    "composing",
    "loading",
    "pushing",
    "reading back",
    "reading the file",
    "uploading",
    "verifying",
}
PHASES = SENDING | {
    "checking",
    "cleaning up",
    "copying",
    "finishing",
    "importing",
    "listing",
    "preparing",
    "registering",
    "replicating",
    "sharing",
    "tagging",
}
SAID = re.compile(rb" *\d+:\d\d \[\w+\] (.+)")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process: wall-clock and CPU seconds, bytes of resident memory at most.

    `phases` are goldimg's own, in order, each with its seconds; empty of a plain call.
    """

    seconds: float
    cpu: float
    rss: int
    phases: Mapping[str, float] = field(default_factory=dict)

    @property
    def sending(self) -> float:
        """Seconds from the first byte until what arrived was proven; of a plain call all."""
        if not self.phases:
            return self.seconds
        return sum(seconds for name, seconds in self.phases.items() if name in SENDING)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of sending an image, and the bytes that went."""

    provider: str
    what: str
    run: Run
    sent: int


class Peak:
    """The highest resident memory of a process, in bytes, from /proc.

    What wait4(2) tells is no use: it begins with that of the process that started it.
    """

    def __init__(self, pid: int) -> None:
        self.bytes, self._status = 0, Path(f"/proc/{pid}/status")
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while found := re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text()):
                self.bytes = max(self.bytes, int(found[1]) << 10)
                time.sleep(0.05)


def make_site(root: Path, provider: str, raw: Path, site_yml: str) -> Shop:
    """A site with the provider's finished artifact of the disk in `raw`."""
    lay_out(root)
    (root / "templates/site.yml").write_text(site_yml)
    shop = Shop(root=root, provider=provider, version="1.0.0")
    staging = shop.directory / ".staging"
    staging.mkdir(parents=True)
    written = convert(shop, staging, raw, seed="benchmark")
    about = {"os": OS, "version": shop.version, "provider": provider, "firmware": "bios"}
    finish(shop.directory, staging, written, about)
    return shop


def timed(argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> Run:
    """A process that ends well."""
    started = time.monotonic()
    process = begun(argv, cwd, env)
    peak, phases = Peak(process.pid), _Phases(started)
    assert process.stderr
    for line in process.stderr:
        phases.take(line)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (argv, phases.last)
    return Run(
        seconds=time.monotonic() - started,
        cpu=used.ru_utime + used.ru_stime,
        rss=peak.bytes,
        phases=phases.ended(),
    )


def begun(
    argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A process whose standard error is to be read."""
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def killed(
    argv: Sequence[str | Path],
    cwd: Path,
    is_time: Callable[[], bool],
    env: Mapping[str, str] | None = None,
) -> None:
    """A process that is killed as soon as `is_time` says so."""
    process = begun(argv, cwd, env)
    while process.poll() is None and not is_time():
        time.sleep(0.1)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()


class _Phases:
    """Reads goldimg's plain display; everything before the first phase is `starting`."""

    def __init__(self, started: float) -> None:
        self._begun, self._name = started, "starting"
        self._found: dict[str, float] = {}
        self.last = b""

    def take(self, line: bytes) -> None:
        """Takes a line of standard error."""
        self.last = line
        said = SAID.fullmatch(line.rstrip())
        if said and (name := said[1].decode()) in PHASES:
            self._change(name)

    def _change(self, name: str) -> None:
        now = time.monotonic()
        self._found[self._name] = self._found.get(self._name, 0.0) + now - self._begun
        self._begun, self._name = now, name

    def ended(self) -> dict[str, float]:
        """The seconds of each phase; nothing where none was told."""
        if self._name == "starting" and not self._found:
            return {}
        self._change("")
        return self._found
