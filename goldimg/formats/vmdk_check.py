"""Reads a streamOptimized VMDK as a stream, like the strictest of its readers.

Source of every rule: VMware, "Virtual Disk Format 5.0".
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from types import TracebackType

from goldimg.errors import VerificationFailed
from goldimg.formats import Heed, Region, deflate
from goldimg.formats.source import CLUSTER
from goldimg.formats.stream import in_order
from goldimg.formats.vmdk import (
    AT_END,
    DESCRIPTOR_OFFSET,
    DESCRIPTOR_SECTORS,
    FOOTER,
    GRAIN,
    GRAIN_DIRECTORY,
    GRAIN_MARKER,
    GRAIN_TABLE,
    HEADER,
    MAGIC,
    MARKER,
    OVERHEAD,
    SECTOR,
    TABLE_ENTRIES,
    header,
)

MOST_IN_GRAIN = 2 * CLUSTER  # bytes; deflate grows random data by less than a thousandth
Grain = tuple[int, int]  # where its data is, in bytes, and how long


def check(region: Region, heed: Heed | None = None) -> int:
    """Validates every sector of the VMDK in `region` and returns its capacity in sectors.

    Header and descriptor, each marker, each grain's data and checksum, the tables against the
    grains, the footer against the header, and that the stream ends where the file ends.
    """
    with _Stream(region) as stream:
        for _ in in_order(stream.inflate, stream.walk()):
            if heed:
                heed()
        return stream.capacity


class _Stream:
    def __init__(self, region: Region) -> None:
        self.region = region
        self.file = os.open(region.path, os.O_RDONLY | os.O_CLOEXEC)
        self.position = 0
        self.last = -1  # the grain seen last
        self.grains: dict[int, int] = {}  # by number, of the grain table that is open
        self.tables: dict[int, int] = {}
        self.capacity = 0

    def __enter__(self) -> _Stream:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        os.close(self.file)

    def fail(self, message: str, offset: int | None = None) -> VerificationFailed:
        place = self.position if offset is None else offset
        return VerificationFailed(f"{self.region.path}: offset {place}: VMDK: {message}")

    def take(self, count: int) -> bytes:
        data = os.pread(self.file, count, self.region.offset + self.position)
        if len(data) != count or self.position + count > self.region.size:
            raise self.fail("the file ends early")
        self.position += count
        return data

    def walk(self) -> Iterator[Grain]:
        """Yields the grains on the way from the header to the end-of-stream marker."""
        self.front()
        directory: int | None = None
        while True:
            value, size, kind = MARKER.unpack(self.take(MARKER.size))
            self.position -= MARKER.size
            if size:
                yield self.grain()
                continue
            if any(self.take(SECTOR)[MARKER.size :]):
                raise self.fail("a marker is not filled up with zeros", self.position - SECTOR)
            if kind == GRAIN_TABLE and directory is None:
                self.table(value)
            elif kind == GRAIN_DIRECTORY and directory is None:
                directory = self.directory(value)
            elif kind == FOOTER and directory is not None and value == 1:
                if self.take(SECTOR) != header(self.capacity, directory):
                    raise self.fail("the footer differs from the header", self.position - SECTOR)
                break
            else:
                raise self.fail(f"an unexpected marker of kind {kind}", self.position - SECTOR)
        if any(self.take(SECTOR)):
            raise self.fail("no end-of-stream marker", self.position - SECTOR)
        if self.position != self.region.size:
            raise self.fail("surplus bytes after the end-of-stream marker")

    def front(self) -> None:
        raw = self.take(OVERHEAD * SECTOR)
        fields = HEADER.unpack(raw[:SECTOR])
        if fields[0] != MAGIC:
            raise self.fail("wrong magic", 0)
        self.capacity = fields[3]
        if not self.capacity or raw[:SECTOR] != header(self.capacity, AT_END):
            raise self.fail("the header is not that of a streamOptimized disk", 0)
        start = DESCRIPTOR_OFFSET * SECTOR
        end = start + DESCRIPTOR_SECTORS * SECTOR
        text = raw[start:end].rstrip(b"\0").decode("utf-8", "replace").splitlines()
        for line in ('createType="streamOptimized"', "parentCID=ffffffff", "version=1"):
            if line not in text:
                raise self.fail(f"the descriptor has no line {line}", start)
        extents = [line.split()[1:3] for line in text if line.startswith("RW ")]
        if extents != [[str(self.capacity), "SPARSE"]]:
            raise self.fail("the descriptor's extent is not the header's capacity", start)
        if any(raw[end:]):
            raise self.fail("bytes between descriptor and grains", end)

    def grain(self) -> Grain:
        sector = self.position // SECTOR
        place, size = GRAIN_MARKER.unpack(self.take(GRAIN_MARKER.size))
        number, rest = divmod(place, GRAIN)
        if rest or place >= self.capacity or number <= self.last or size > MOST_IN_GRAIN:
            raise self.fail("a grain out of order or off the disk", sector * SECTOR)
        if self.grains and number // TABLE_ENTRIES != self.last // TABLE_ENTRIES:
            raise self.fail("a grain table is missing", sector * SECTOR)
        self.last = number
        self.grains[number % TABLE_ENTRIES] = sector
        start = self.position
        self.position += size
        if any(self.take(-self.position % SECTOR)):
            raise self.fail("a grain is not filled up with zeros", start)
        return start, size

    def inflate(self, grain: Grain) -> None:
        start, size = grain
        data = os.pread(self.file, size, self.region.offset + start)
        inflater = deflate.inflater(15)
        try:
            raw = inflater.decompress(data, CLUSTER + 1)
        except deflate.ERRORS as error:
            raise self.fail(f"a grain does not inflate: {error}", start) from error
        if len(raw) != CLUSTER or not inflater.eof or inflater.unused_data:
            raise self.fail(f"a grain inflates to {len(raw)} bytes, not {CLUSTER}", start)

    def table(self, sectors: int) -> None:
        at = self.position
        if sectors * SECTOR != 4 * TABLE_ENTRIES or not self.grains:
            raise self.fail("a grain table of the wrong size, or of no grains")
        entries = struct.unpack(f"<{TABLE_ENTRIES}I", self.take(4 * TABLE_ENTRIES))
        if {index: sector for index, sector in enumerate(entries) if sector} != self.grains:
            raise self.fail("a grain table does not match the grains before it", at)
        self.tables[self.last // TABLE_ENTRIES] = at // SECTOR
        self.grains = {}

    def directory(self, sectors: int) -> int:
        at = self.position
        count = -(-self.capacity // (GRAIN * TABLE_ENTRIES))
        if sectors != -(-4 * count // SECTOR) or self.grains:
            raise self.fail("a grain directory of the wrong size, or before the last grain table")
        raw = self.take(sectors * SECTOR)
        entries = struct.unpack(f"<{count}I", raw[: 4 * count])
        found = {index: sector for index, sector in enumerate(entries) if sector}
        if found != self.tables or any(raw[4 * count :]):
            raise self.fail("the grain directory does not match the grain tables", at)
        return at // SECTOR
