"""What the benchmarks of publishing share; each provider's is a module with `measure`."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path


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
