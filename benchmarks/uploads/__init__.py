"""What the benchmarks of publishing share; each provider's is a module with `measure`."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from goldimg.artifacts import finish
from goldimg.layout import lay_out
from tests.publishing import OS, Shop, convert


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of sending an image: wall-clock seconds, bytes sent, bytes of resident memory."""

    provider: str
    what: str
    seconds: float
    sent: int
    rss: int


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


def timed(
    argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None
) -> tuple[float, int]:
    """(seconds, highest resident memory in bytes) of a process that ends well."""
    started = time.monotonic()
    everything = {**os.environ, **(env or {})}
    process = subprocess.Popen(argv, cwd=cwd, env=everything, stdout=subprocess.DEVNULL)
    peak = Peak(process.pid)
    assert process.wait() == 0, argv
    return time.monotonic() - started, peak.bytes
