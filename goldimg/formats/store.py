"""Compressed clusters that several disks share, each made once.

The layers of a build stand on few bases, and most of a layer is its base; a cluster of a base is
known by where it is in the base's file, so that nothing has to be hashed to find it again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from goldimg.project import free_bytes

LIMIT = 4 << 30  # bytes
SHARE = 4  # of the free space, at most a quarter
LOCKS = 64
Origin = tuple[object, int]  # which file of which state, and where in it
Packed = tuple[bytes, int]  # a compressed cluster, and the Adler-32 of what it was


class Store:
    """Keeps compressed clusters for as long as it lives, in one file that has no name.

    Of two threads that want the same cluster one makes it and the other waits. What does not fit
    (4 GiB, or a quarter of the free space) is made again each time. Safe for any threads.
    """

    def __init__(self, *, is_keeping: bool = True) -> None:
        self._is_keeping = is_keeping
        self._file: int | None = None
        self._end = self._limit = 0
        self._index: dict[tuple[object, Origin], tuple[int, int, int]] = {}
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._lock = threading.Lock()

    def open(self, directory: Path) -> None:
        """Makes the file in `directory`, unless it is there. Nothing of it survives the process."""
        with self._lock:
            if self._file is None and self._is_keeping:
                with tempfile.TemporaryFile(dir=directory) as file:
                    self._file = os.dup(file.fileno())
                self._limit = min(LIMIT, free_bytes(directory) // SHARE)

    def close(self) -> None:
        """Forgets everything and gives the space back."""
        with self._lock:
            self._index.clear()
            if self._file is not None:
                os.close(self._file)
            self._file, self._end = None, 0

    def get(self, kind: object, origin: Origin, make: Callable[[], Packed]) -> Packed:
        """The cluster of `origin` compressed in the way `kind`, made by `make` unless kept."""
        if self._file is None:
            return make()
        key = (kind, origin)
        with self._locks[hash(key) % LOCKS]:
            found = self._index.get(key)
            if found is None:
                packed = make()
                self._keep(key, packed)
                return packed
        start, length, adler = found
        return os.pread(self._file, length, start), adler

    def _keep(self, key: tuple[object, Origin], packed: Packed) -> None:
        data, adler = packed
        with self._lock:
            start = self._end
            if self._file is None or start + len(data) > self._limit:
                return
            self._end += len(data)
        with contextlib.suppress(OSError):  # a full disk: it is only a cache
            if os.pwrite(self._file, data, start) == len(data):
                self._index[key] = (start, len(data), adler)
