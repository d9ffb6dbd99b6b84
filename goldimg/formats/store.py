"""Compressed clusters that several disks share, each made once.

The layers of a build stand on few bases, and most of a layer is its base; a cluster of a base is
known by where it is in the base's file, so that nothing has to be hashed to find it again. Once it
is in one artifact, the next one takes it from there: nothing is kept twice.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from goldimg.formats.direct import File, Windows

LOCKS = 64
WINDOWS = 4  # of a file, in memory
Origin = tuple[object, int]  # which file of which state, and where in it
# a compressed cluster; Adler-32 and CRC-32 of what it was
Packed = tuple[bytes | memoryview, int, int]
Key = tuple[object, Origin]  # in which way it is compressed, and what


class Written(Protocol):
    """A file in the making, as `stream.Output` is one."""

    settled: int  # bytes from its start that are in the file

    def fileno(self) -> int:
        """Its descriptor."""


class _Artifact:
    """A file that was or is being written, and may have no name any more."""

    def __init__(self, output: Written) -> None:
        self._output = output  # held, so that its id is not used again
        self._file = File(Path(f"/proc/self/fd/{output.fileno()}"), os.O_RDONLY)
        self._windows = Windows(self._fill, WINDOWS)

    def close(self) -> None:
        self._file.close()

    def read(self, start: int, length: int) -> memoryview:
        """What is there; less where the file is not so far. OSError as of reading."""
        data = memoryview(bytearray(length))
        return data[: self._windows.copy(data, start)]

    def _fill(self, into: memoryview, offset: int) -> int:
        there = self._output.settled - offset  # what is written meanwhile may be half there
        return min(there, self._file.get(into, offset))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a cluster is."""

    file: _Artifact
    start: int
    length: int
    adler: int
    crc: int


class Store:
    """Remembers compressed clusters for as long as it lives: first themselves, then their places.

    Of two threads that want the same cluster one makes it and the other waits. Safe for any
    threads; holds a descriptor for each file that was written, and in memory what is not yet in it.
    """

    def __init__(self, *, is_keeping: bool = True) -> None:
        self._is_keeping = is_keeping
        self._index: dict[Key, Packed | _Place] = {}
        self._zeros: dict[Origin, bool] = {}
        self._files: dict[int, _Artifact] = {}  # by the id of the output
        self._coming: dict[int, deque[tuple[Key, _Place]]] = {}
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._index.clear()
            self._zeros.clear()
            self._coming.clear()
            for file in self._files.values():
                file.close()
            self._files.clear()

    def get(self, kind: object, origin: Origin, make: Callable[[], Packed]) -> Packed:
        """The cluster of `origin` compressed in the way `kind`, made by `make` unless known."""
        if not self._is_keeping:
            return make()
        key = (kind, origin)
        with self._locks[hash(key) % LOCKS]:
            found = self._index.get(key)
            if found is None:
                found = self._index[key] = make()
                self._zeros[origin] = not found[0]
        if not isinstance(found, _Place):
            return found
        with contextlib.suppress(OSError):
            data = found.file.read(found.start, found.length)
            if len(data) == found.length:
                return data, found.adler, found.crc
        return make()

    def is_zero(self, origin: Origin) -> bool | None:
        """Whether the cluster of `origin` is all zero; None where nobody has asked for it yet."""
        return self._zeros.get(origin)

    def wrote(
        self, kind: object, origin: Origin, packed: Packed, output: Written, start: int | None
    ) -> None:
        """`packed`, which is what `get` gave, is at `start` of `output` now or will be soon.

        None where it is not there at all: it is forgotten, since nothing is kept in memory.
        """
        key, (data, adler, crc) = (kind, origin), packed
        if not self._is_keeping or isinstance(self._index.get(key), _Place):
            return
        if start is None:
            self._index.pop(key, None)
            return
        with self._lock:
            if id(output) not in self._files:
                self._files[id(output)] = _Artifact(output)
                self._coming[id(output)] = deque()
            place = _Place(self._files[id(output)], start, len(data), adler, crc)
            coming = self._coming[id(output)]
            coming.append((key, place))
            while coming and coming[0][1].start + coming[0][1].length <= output.settled:
                known, there = coming.popleft()
                if known in self._index:
                    self._index[known] = there
