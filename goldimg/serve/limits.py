"""How much one address may ask, and counts of what was asked: tables that all workers share.

Both lie in anonymous memory that is mapped before the workers are forked, so that a limit is the
server's and not each worker's, at a size that no number of addresses changes.
"""

from __future__ import annotations

import functools
import mmap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network

SLOTS = 4096  # addresses that are remembered
PROBES = 8  # places where an address may stand
WORKERS = 128  # processes that count by themselves
MINUTE = 60.0


class Buckets:
    """A token bucket for each address: `rate` requests a minute, `burst` at once. 0: no limit.

    Of IPv6 it is the /64 that counts. When the table is full the address that asked longest ago is
    forgotten, and may then ask anew. Workers do not lock one another out: two that look at the same
    moment may both let a request pass.
    """

    def __init__(
        self,
        rate: int,
        *,
        burst: int | None = None,
        slots: int = SLOTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = rate
        self.burst = float(burst or max(1, rate))
        self._slots, self._clock = slots, clock
        self._lock = threading.Lock()
        memory = memoryview(mmap.mmap(-1, slots * 24))
        self._keys = memory[: slots * 8].cast("Q")
        self._levels = memory[slots * 8 : slots * 16].cast("d")
        self._times = memory[slots * 16 :].cast("d")

    def take(self, address: str) -> float:
        """0 where the request may pass, else in how many seconds the next one may."""
        if not self.rate:
            return 0.0
        key = hash(_network(address)) & 0xFFFFFFFFFFFFFFFE | 1  # 0 is a free place
        now = self._clock()
        with self._lock:
            at = self._place(key, now)
            gained = (now - self._times[at]) * self.rate / MINUTE
            level = min(self.burst, self._levels[at] + max(0.0, gained))
            self._times[at] = now
            self._levels[at] = level - 1 if level >= 1 else level
        return 0.0 if level >= 1 else (1 - level) * MINUTE / self.rate

    def _place(self, key: int, now: float) -> int:
        places = [(key + step) % self._slots for step in range(PROBES)]
        for at in places:
            if self._keys[at] == key:
                return at
        at = min(places, key=lambda place: self._times[place] if self._keys[place] else -1.0)
        self._keys[at], self._levels[at], self._times[at] = key, self.burst, now
        return at


@functools.lru_cache(maxsize=SLOTS)
def _network(address: str) -> str:
    try:
        there = ip_address(address)
    except ValueError:
        return address
    return address if there.version == 4 else str(ip_network(f"{there}/64", strict=False))


class Counters:
    """How often each pair of `rows` and `columns` happened, in all workers together.

    What is in neither list counts as the last of it.
    """

    def __init__(self, rows: Sequence[str], columns: Sequence[str]) -> None:
        self._rows = {name: at for at, name in enumerate(rows)}
        self._columns = {name: at for at, name in enumerate(columns)}
        self._size = len(rows) * len(columns)
        self._lock = threading.Lock()
        self._counts = memoryview(mmap.mmap(-1, WORKERS * self._size * 8)).cast("Q")
        self._own = 0

    def begin(self, worker: int) -> None:
        """From now on this process counts in a place of its own: no two that live share one."""
        self._own = (worker % WORKERS) * self._size

    def add(self, row: str, column: str) -> None:
        """Counts one more."""
        place = self._rows.get(row, len(self._rows) - 1) * len(self._columns)
        place += self._columns.get(column, len(self._columns) - 1)
        with self._lock:
            self._counts[self._own + place] += 1

    def totals(self) -> Iterator[tuple[str, str, int]]:
        """(row, column, count) of all that ever happened."""
        for row, first in self._rows.items():
            for column, second in self._columns.items():
                place = first * len(self._columns) + second
                count = sum(self._counts[place :: self._size])
                if count:
                    yield row, column, count
