"""The disk in a streamOptimized VMDK, read at any place without unpacking the rest.

Source of every rule: VMware, "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and
"Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterator
from types import TracebackType

from goldimg.errors import VerificationFailed
from goldimg.formats import Region, deflate
from goldimg.formats.source import CLUSTER
from goldimg.formats.vmdk import (
    AT_END,
    GRAIN,
    GRAIN_MARKER,
    HEADER,
    MAGIC,
    SECTOR,
    TABLE_ENTRIES,
)

_AHEAD = GRAIN_MARKER.size + CLUSTER + 4096  # bytes that hold any grain, deflated or grown


class VmdkDisk:
    """The disk in the VMDK at `region`; `size` in bytes. Safe to read from several threads.

    A context manager. Memory holds 4 bytes for each 64 KiB of the disk. It trusts the tables:
    `vmdk.check` says whether they are right.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self._file = os.open(region.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size, self._grains = self._tables()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> VmdkDisk:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        os.close(self._file)

    def _fail(self, message: str, offset: int) -> VerificationFailed:
        return VerificationFailed(f"{self.region.path}: offset {offset}: VMDK: {message}")

    def _read(self, offset: int, count: int) -> bytes:
        data = os.pread(self._file, count, self.region.offset + offset)
        if len(data) != count:
            raise self._fail("the file ends early", offset)
        return data

    def _tables(self) -> tuple[int, array[int]]:
        """The disk's size in bytes, and the sector of each grain; 0 for those that are zero."""
        fields = HEADER.unpack(self._read(0, SECTOR))
        magic, directory = fields[0], fields[9]
        if directory == AT_END:  # footer marker, footer, end-of-stream marker
            fields = HEADER.unpack(self._read(self.region.size - 2 * SECTOR, SECTOR))
            directory = fields[9]
        if (
            {magic, fields[0]} != {MAGIC}
            or fields[4] != GRAIN
            or fields[8] not in (0, AT_END)
            or not fields[3]
        ):
            raise self._fail("not a streamOptimized disk with grains of 64 KiB", 0)
        capacity = fields[3]
        count = -(-capacity // (GRAIN * TABLE_ENTRIES))
        grains = array("I")
        raw = self._read(directory * SECTOR, 4 * count)
        for sector in struct.unpack(f"<{count}I", raw):
            size = 4 * TABLE_ENTRIES
            grains.frombytes(self._read(sector * SECTOR, size) if sector else bytes(size))
        if sys.byteorder == "big":
            grains.byteswap()
        return capacity * SECTOR, grains

    def extents(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of the runs of grains that the file holds, in order."""
        start = None
        count = -(-self.size // CLUSTER)
        for number in range(count + 1):
            is_there = number < count and self._grains[number] != 0
            if is_there and start is None:
                start = number
            elif not is_there and start is not None:
                end = min(number * CLUSTER, self.size)
                yield start * CLUSTER, end - start * CLUSTER
                start = None

    def pread(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; beyond the end of the disk they are zero."""
        first, last = offset // CLUSTER, -(-(offset + length) // CLUSTER)
        data = b"".join(self._grain(number) for number in range(first, last))
        start = offset - first * CLUSTER
        return data if not start and len(data) == length else data[start : start + length]

    def _grain(self, number: int) -> bytes:
        sector = self._grains[number] if number < len(self._grains) else 0
        if not sector:
            return _ZERO
        at = sector * SECTOR
        # not past the region: what follows the disk in an archive is no part of it
        data = self._read(at, min(_AHEAD, self.region.size - at))
        place, size = GRAIN_MARKER.unpack_from(data)
        if place != number * GRAIN or GRAIN_MARKER.size + size > len(data):
            raise self._fail("a grain is not where its table says", at)
        try:
            raw: bytes = deflate.inflater(15).decompress(
                memoryview(data)[GRAIN_MARKER.size : GRAIN_MARKER.size + size], CLUSTER
            )
        except deflate.ERRORS as error:
            raise self._fail(f"a grain does not inflate: {error}", at) from error
        if len(raw) != CLUSTER:
            raise self._fail(f"a grain inflates to {len(raw)} bytes", at)
        return raw


_ZERO = bytes(CLUSTER)
