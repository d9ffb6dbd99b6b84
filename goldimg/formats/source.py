"""The disk that formats are written from: a raw file with holes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType

from goldimg.errors import GoldimgError
from goldimg.formats import round_up
from goldimg.formats.direct import buffer
from goldimg.formats.store import Origin, Store
from goldimg.formats.stream import AHEAD, BLOCK, data_ranges, in_order
from goldimg.project import free_bytes, make_directory
from goldimg.run import Runner

CLUSTER = 1 << 16  # bytes: what qcow2 calls a cluster and a VMDK a grain, and our finest hole
ZERO = bytes(CLUSTER)


class Disk:
    """A raw disk in the file `path`, opened for reading; `size` in bytes.

    A context manager. It never writes to the file, which must not change meanwhile. Subclasses read
    disks in other files; `image_format` is what QEMU calls the kind of `path`.
    """

    image_format = "raw"
    store: Store | None = None  # of compressed clusters that this disk shares with others
    path: Path
    size: int

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size
        if self.size == 0:
            os.close(self._file)
            raise GoldimgError(f"{path} is empty", why="a disk has at least one sector")

    def __enter__(self) -> Disk:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is read any more."""
        os.close(self._file)

    def pread(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; beyond the end of the disk they are zero."""
        parts, missing = [], length
        while missing > 0 and (data := os.pread(self._file, missing, offset)):
            parts.append(data)
            offset, missing = offset + len(data), missing - len(data)
        if len(parts) == 1 and not missing:
            return parts[0]
        return b"".join(parts) + bytes(missing)

    def read_into(self, into: memoryview, offset: int) -> None:
        """Fills `into` with the bytes from `offset` on, zeros where that is beyond the end."""
        into[:] = self.pread(offset, len(into))

    def origin(self, offset: int) -> Origin | None:
        """What the cluster at `offset` is known by to other disks that share it; None: nothing."""
        return None

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what may hold a byte other than zero, in order."""
        return data_ranges(self._file, 0, self.size)

    def extents(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of the runs of 64 KiB clusters that are not all zero, in order.

        They depend on the disk's content alone, never on where its file happens to have holes. The
        last ends at the end of the disk at the latest.
        """
        return iter(self._extents)

    @property
    def allocated(self) -> int:
        """Bytes in all extents."""
        return sum(length for _, length in self._extents)

    @cached_property
    def _extents(self) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        into = memoryview(buffer())
        for start, whole in self.spans():
            for offset, length in self._filled_in(start, into[:whole]):
                if found and sum(found[-1]) == offset:
                    found[-1] = (found[-1][0], found[-1][1] + length)
                else:
                    found.append((offset, length))
        return tuple(found)

    def _filled_in(self, start: int, into: memoryview) -> Iterator[tuple[int, int]]:
        """The runs of clusters that are not all zero; only what nobody knows is read, to `into`."""
        known = [self._is_zero(start + at) for at in range(0, len(into), CLUSTER)]
        if None in known:
            self.read_into(into, start)
            known = _zeros(into)
        for at, length in _runs(known, len(into)):
            yield start + at, length

    def _is_zero(self, offset: int) -> bool | None:
        """Whether the cluster there is all zero, where somebody has found out."""
        origin = self.origin(offset) if self.store else None
        return self.store.is_zero(origin) if self.store and origin else None

    @cached_property
    def _claimed(self) -> tuple[tuple[int, int], ...]:
        """(offset, length) of what may hold data, from cluster to cluster or to the disk's end."""
        found: list[tuple[int, int]] = []
        seen = 0  # clusters before this are done: two data ranges can share one
        for start, length in self._ranges():
            first = max(seen, start // CLUSTER * CLUSTER)
            seen = max(seen, min(self.size, round_up(start + length, CLUSTER)))
            if first < seen:
                found.append((first, seen - first))
        return tuple(found)

    @property
    def claimed(self) -> int:
        """Bytes that may hold data, told without reading any: what a writer has before it."""
        return sum(length for _, length in self._claimed)

    def spans(self) -> Iterator[tuple[int, int]]:
        """What may hold data, in pieces of at most 1 MiB that begin at a cluster."""
        return _cut(self._claimed)

    def filled(self) -> Iterator[tuple[int, memoryview]]:
        """(offset, data) of the clusters that are not all zero, up to 1 MiB in a piece, in order.

        The disk is read once, ahead of who asks; what `extents` would say is not needed for it. A
        piece is gone when the next one is asked for.
        """
        spare = itertools.cycle([memoryview(buffer()) for _ in range(AHEAD + 3)])

        def read(job: tuple[tuple[int, int], memoryview]) -> tuple[int, memoryview]:
            (offset, length), into = job
            self.read_into(into[:length], offset)
            return offset, into[:length]

        for start, data in in_order(read, zip(self.spans(), spare, strict=False), workers=1):
            for at, length in _runs(_zeros(data), len(data)):
                yield start + at, data[at : at + length]


def _cut(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, length in ranges:
        for offset in range(start, start + length, BLOCK):
            yield offset, min(BLOCK, start + length - offset)


def is_zero(data: memoryview) -> bool:
    """Whether all of it is zero: at most a cluster. The first byte tells it of most."""
    return not data[0] and bytes(data) == ZERO[: len(data)]


def _zeros(data: memoryview) -> list[bool | None]:
    """Of each cluster of `data`, whether it is all zero."""
    return [is_zero(data[at : at + CLUSTER]) for at in range(0, len(data), CLUSTER)]


def _runs(zeros: Iterable[bool | None], length: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the runs of clusters that are not zero, in `length` bytes of them."""
    position = 0
    for zero, group in itertools.groupby(zeros):
        end = min(length, position + CLUSTER * sum(1 for _ in group))
        if not zero:
            yield position, end - position
        position = end


@contextlib.contextmanager
def flattened(qcow2: Path, scratch: Path, runner: Runner) -> Iterator[Disk]:
    """The disk that a guest sees in `qcow2` and its backing chain, as one sparse raw file.

    The file is in `scratch` and is removed when the block ends, however it ends. GoldimgError where
    the file system of `scratch` has no room for what the chain can hold.
    """
    make_directory(scratch)
    need, have = _space_needed(qcow2, runner), free_bytes(scratch)
    if have < need:
        raise GoldimgError(
            f"not enough disk space in {scratch} to convert {qcow2.name}",
            why=f"{need >> 20} MiB are needed, {have >> 20} MiB are free",
            hint=f"free some space in {scratch}",
        )
    raw = scratch / f".{qcow2.stem}.{secrets.token_hex(4)}.raw"
    try:
        runner.run(
            # Out-of-order writes by eight coroutines; qemu-img turns zeros into holes by itself.
            ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-W", "-m", "8", qcow2, raw],
            reason="convert disk images",
        )
        with Disk(raw) as disk:
            yield disk
    finally:
        raw.unlink(missing_ok=True)


def _space_needed(qcow2: Path, runner: Runner) -> int:
    """Bytes that the raw file will allocate at most, from the map of the chain."""
    shown = runner.run(
        ["qemu-img", "map", "-f", "qcow2", "--output=json", qcow2], reason="convert disk images"
    )
    try:
        return sum(part["length"] for part in json.loads(shown.stdout) if part["data"])
    except ValueError:  # a map beyond what the runner keeps
        return 0
