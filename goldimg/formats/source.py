"""The disk that formats are written from: a raw file with holes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType

from goldimg.errors import GoldimgError
from goldimg.formats import round_up
from goldimg.formats.stream import BLOCK, data_ranges
from goldimg.project import free_bytes, make_directory
from goldimg.run import Runner

CLUSTER = 1 << 16  # bytes: what qcow2 calls a cluster and a VMDK a grain, and our finest hole
_ZERO = bytes(CLUSTER)


class Disk:
    """A raw disk in the file `path`, opened for reading; `size` in bytes.

    A context manager. It never writes to the file, which must not change meanwhile.
    """

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
        os.close(self._file)

    def pread(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; beyond the end of the disk they are zero."""
        parts, missing = [], length
        while missing > 0 and (data := os.pread(self._file, missing, offset)):
            parts.append(data)
            offset, missing = offset + len(data), missing - len(data)
        return b"".join(parts) + bytes(missing)

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
        seen = 0  # clusters before this are done: two data ranges can share one
        for start, length in data_ranges(self._file, 0, self.size):
            first = max(seen, start // CLUSTER * CLUSTER)
            end = min(self.size, round_up(start + length, CLUSTER))
            for offset in self._filled(first, end):
                if found and sum(found[-1]) == offset:
                    found[-1] = (found[-1][0], found[-1][1] + CLUSTER)
                else:
                    found.append((offset, CLUSTER))
            seen = end
        if found:
            offset, length = found[-1]
            found[-1] = (offset, min(length, self.size - offset))
        return tuple(found)

    def _filled(self, start: int, end: int) -> Iterator[int]:
        """Offsets of the clusters between `start` and `end` that hold a byte other than zero."""
        for block in range(start, end, BLOCK):
            data = self.pread(block, round_up(min(BLOCK, end - block), CLUSTER))
            for at in range(0, len(data), CLUSTER):
                if data[at] or data[at : at + CLUSTER] != _ZERO:
                    yield block + at

    def blocks(self) -> Iterator[tuple[int, int]]:
        """The extents, cut into pieces of at most 1 MiB that begin at a cluster."""
        for start, length in self._extents:
            for offset in range(start, start + length, BLOCK):
                yield offset, min(BLOCK, start + length - offset)


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
