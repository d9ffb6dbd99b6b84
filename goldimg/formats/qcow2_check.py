"""Reads a whole qcow2 file against its format: header, tables, counts and every cluster's data.

Source of every rule: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from goldimg.errors import VerificationFailed
from goldimg.formats import Heed, deflate, zstd
from goldimg.formats.qcow2 import (
    CLUSTER_BITS,
    COMPRESSED,
    COMPRESSED_OFFSET,
    COMPRESSION_TYPE_AT,
    COPIED,
    COUNTS,
    HEADER,
    MAGIC,
    OFFSET,
    REFCOUNT_ORDER,
    SECTOR,
    SECTORS_SHIFT,
    TABLE_ENTRIES,
    VERSION,
    WITH_COMPRESSION_TYPE,
    ZSTD,
    ZSTD_HEADER_SIZE,
    big_endian,
)
from goldimg.formats.source import CLUSTER
from goldimg.formats.stream import in_order

UNPACKING: tuple[type[Exception], ...] = (*deflate.ERRORS, zstd.Damaged)
BATCH = 64  # clusters that a thread inflates at once


def check(path: Path, heed: Heed | None = None, *, has_data: bool = True) -> None:
    """Validates a qcow2 file as goldimg writes them; VerificationFailed names offset and rule.

    Accepted: version 3, 64 KiB clusters, zlib, or zstd with the feature bit and the header that
    belong to it, no backing file, no snapshots, no encryption, no other feature bits. Every count
    must be exact and every compressed cluster must inflate to 64 KiB; not so without `has_data`.
    """
    with _Image(path, heed, has_data=has_data) as image:
        image.check()


class _Image:
    def __init__(self, path: Path, heed: Heed | None, *, has_data: bool) -> None:
        self.path, self.heed, self.has_data = path, heed, has_data
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.file).st_size
        self.is_zstd = False
        self.counts = array("I", bytes(4 * -(-self.size // CLUSTER)))

    def __enter__(self) -> _Image:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        os.close(self.file)

    def fail(self, offset: int, message: str) -> VerificationFailed:
        return VerificationFailed(f"{self.path}: offset {offset}: {message}")

    def read(self, offset: int, length: int, what: str) -> bytes:
        data = os.pread(self.file, length, offset)
        if len(data) != length:
            raise self.fail(offset, f"the file ends inside {what}")
        return data

    def check(self) -> None:
        head = HEADER.unpack(self.read(0, HEADER.size, "the header"))
        l1_size, l1_offset, refcounts, clusters = head[7:11]
        size = head[5]
        self.is_zstd = head[13] == WITH_COMPRESSION_TYPE
        header_size = ZSTD_HEADER_SIZE if self.is_zstd else HEADER.size
        expected = (
            (0, "magic", head[0], MAGIC),
            (4, "version", head[1], VERSION),
            (8, "backing file", head[2:4], (0, 0)),
            (20, "cluster bits", head[4], CLUSTER_BITS),
            (32, "encryption", head[6], 0),
            (36, "entries in the L1 table", l1_size, max(1, -(-size // CLUSTER // TABLE_ENTRIES))),
            (60, "number of snapshots", head[11:13], (0, 0)),
            (72, "incompatible features", head[13], self.is_zstd * WITH_COMPRESSION_TYPE),
            (80, "compatible features", head[14], 0),
            (88, "autoclear features", head[15], 0),
            (96, "refcount order", head[16], REFCOUNT_ORDER),
            (100, "header length", head[17], header_size),
        )
        for at, name, is_, should in expected:
            if is_ != should:
                raise self.fail(at, f"{name} is {is_}, must be {should}")
        rest = self.read(HEADER.size, CLUSTER - HEADER.size, "the first cluster")
        if self.is_zstd and rest[0] != ZSTD:
            raise self.fail(COMPRESSION_TYPE_AT, f"the compression type is {rest[0]}, must be 1")
        if any(rest[self.is_zstd :]):
            raise self.fail(HEADER.size, "header extensions, which goldimg does not write")
        if size == 0 or size % SECTOR:
            raise self.fail(24, f"the virtual size, {size}, is not a whole number of sectors")
        self.refer(0, CLUSTER)
        self.check_data(l1_offset, l1_size, size)
        self.check_counts(refcounts, clusters)

        if self.size % CLUSTER or not self.counts[-1]:
            raise self.fail(self.size, "surplus bytes at the end of the file")

    def check_data(self, l1_offset: int, l1_size: int, size: int) -> None:
        packed = self.entries(l1_offset, l1_size, "the L1 table")
        self.refer(l1_offset, 8 * l1_size)
        batches = _batched(self.compressed(packed, size))
        for _ in in_order(self.inflate, batches) if self.has_data else batches:
            if self.heed:
                self.heed()

    def compressed(self, l1: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
        """(offset, length) of the compressed clusters; the other kinds are checked on the way."""
        for number, l1_entry in enumerate(l1):
            if not l1_entry:
                continue
            offset = self.standard(l1_entry, "L1 entry")
            self.refer(offset, CLUSTER)
            for index, entry in enumerate(self.entries(offset, TABLE_ENTRIES, "an L2 table")):
                if not entry:
                    continue
                if (number * TABLE_ENTRIES + index) * CLUSTER >= size:
                    raise self.fail(offset + 8 * index, "an entry beyond the end of the disk")
                if not entry & COMPRESSED:
                    place = self.standard(entry, "L2 entry")
                    self.refer(place, CLUSTER)
                    continue
                if entry & COPIED:
                    raise self.fail(offset + 8 * index, "a compressed cluster marked as copied")
                start = entry & COMPRESSED_OFFSET
                sectors = (entry & ~COMPRESSED) >> SECTORS_SHIFT
                length = (sectors + 1) * SECTOR - start % SECTOR
                self.refer(start, length)
                yield start, length

    def inflate(self, batch: list[tuple[int, int]]) -> None:
        for start, length in batch:
            packed = self.read(start, length, "a cluster")
            is_whole = True
            try:
                if self.is_zstd:
                    data = zstd.decompress(packed, CLUSTER + 1)
                else:
                    inflater = deflate.inflater(-12)
                    data = inflater.decompress(packed, CLUSTER + 1)
                    is_whole = inflater.eof
            except UNPACKING as error:
                raise self.fail(start, f"a cluster does not inflate: {error}") from error
            if len(data) != CLUSTER or not is_whole:
                raise self.fail(start, f"a cluster inflates to {len(data)} bytes, not {CLUSTER}")

    def entries(self, offset: int, count: int, what: str) -> array[int]:
        if offset % CLUSTER or not offset:
            raise self.fail(offset, f"{what} is not at a cluster border")
        return array("Q", big_endian(array("Q", self.read(offset, 8 * count, what))))

    def standard(self, entry: int, what: str) -> int:
        """The place that a standard entry names; it must be unshared, aligned and not reserved."""
        offset = entry & OFFSET
        if entry != offset | COPIED or offset % CLUSTER or not offset:
            raise self.fail(offset, f"{what} {entry:#x} has reserved bits or is not aligned")
        return offset

    def refer(self, offset: int, length: int) -> None:
        last = (offset + length - 1) // CLUSTER
        if last >= len(self.counts):
            raise self.fail(offset, "a reference beyond the end of the file")
        for number in range(offset // CLUSTER, last + 1):
            self.counts[number] += 1

    def check_counts(self, table: int, clusters: int) -> None:
        """Compares the stored counts with the references that were found."""
        if not 0 < clusters <= len(self.counts):
            raise self.fail(56, f"a refcount table of {clusters} clusters")
        self.refer(table, clusters * CLUSTER)
        blocks = self.entries(table, clusters * TABLE_ENTRIES, "the refcount table")
        for offset in filter(None, blocks):
            self.refer(offset, CLUSTER)
        for number in range(-(-len(self.counts) // COUNTS)):
            if not blocks[number]:
                raise self.fail(table + 8 * number, "a refcount block is missing")
            raw = array("H", self.read(blocks[number], CLUSTER, "a refcount block"))
            stored = array("H", big_endian(raw))
            found = self.counts[number * COUNTS : (number + 1) * COUNTS]
            found.extend([0] * (COUNTS - len(found)))
            for index, (is_, should) in enumerate(zip(stored, found, strict=True)):
                if is_ != should:
                    at = blocks[number] + 2 * index
                    raise self.fail(at, f"a reference count is {is_}, must be {should}")


def _batched(items: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    batch: list[tuple[int, int]] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
