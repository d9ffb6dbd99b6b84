"""VMDK, streamOptimized: deflated grains and their tables, in the order a reader meets them.

Source of every rule: VMware, "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and
"Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from pathlib import Path
from typing import Literal

from goldimg.formats import Heed, Progress, Region, Written, deflate, round_up
from goldimg.formats.clusters import Cluster, pour
from goldimg.formats.source import CLUSTER, Disk
from goldimg.formats.stream import Output, Ticker, draft
from goldimg.run import Runner

Adapter = Literal["ide", "lsilogic", "buslogic"]

SECTOR = 512
MAGIC = 0x564D444B  # "KDMV"
VERSION = 3
FLAGS = 1 | 1 << 16 | 1 << 17  # the newline test is valid, grains are compressed, markers are used
GRAIN = CLUSTER // SECTOR  # sectors
TABLE_ENTRIES = 512  # grains in a grain table
AT_END = 0xFFFF_FFFF_FFFF_FFFF  # the footer, not the header, knows the grain directory
DESCRIPTOR_OFFSET, DESCRIPTOR_SECTORS = 1, 20
OVERHEAD = 128  # sectors before the first grain
# magic, version, flags, capacity, grain size, descriptor offset and size, entries in a grain table,
# redundant and real grain directory, overhead, unclean, newline test, compression (1: deflate)
HEADER = struct.Struct("<IIIQQQQIQQQB4sH433x")
NEWLINES = b"\n \r\n"
MARKER = struct.Struct("<QII")  # sectors or place, 0, kind
GRAIN_MARKER = struct.Struct("<QI")  # place in sectors, bytes that follow
END_OF_STREAM, GRAIN_TABLE, GRAIN_DIRECTORY, FOOTER = range(4)
ZLIB_HEADER = b"\x78\x01"  # RFC 1950: deflate, a window of 32 KiB or less, fastest
# heads and sectors a track that VMware gives to a disk on such an adapter
GEOMETRY: dict[Adapter, tuple[int, int]] = {
    "ide": (16, 63),
    "lsilogic": (255, 63),
    "buslogic": (255, 63),
}
MOST_CYLINDERS = {"ide": 16383, "lsilogic": 65535, "buslogic": 65535}


def capacity_of(size: int) -> int:
    """The sectors of a disk of `size` bytes."""
    return round_up(size, SECTOR) // SECTOR


def header(capacity: int, directory: int) -> bytes:
    """The first sector, and the footer: they differ only in the place of the grain directory."""
    return HEADER.pack(
        *(MAGIC, VERSION, FLAGS, capacity, GRAIN, DESCRIPTOR_OFFSET, DESCRIPTOR_SECTORS),
        *(TABLE_ENTRIES, 0, directory, OVERHEAD, 0, NEWLINES, 1),
    )


def descriptor(capacity: int, *, adapter: Adapter, hardware: int, name: str, seed: str) -> bytes:
    """The text that describes the disk; its content id comes from `seed`."""
    heads, sectors = GEOMETRY[adapter]
    cylinders = min(MOST_CYLINDERS[adapter], max(1, capacity // (heads * sectors)))
    identity = hashlib.sha256(f"{seed}:{capacity}".encode()).hexdigest()
    # ffffffff would mean "no parent", fffffffe "never written"
    content_id = min(int(identity[:8], 16), 0xFFFFFFFD)
    text = f"""\
# Disk DescriptorFile
version=1
CID={content_id:08x}
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW {capacity} SPARSE "{name}"

# The Disk Data Base
#DDB

ddb.adapterType = "{adapter}"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "{sectors}"
ddb.longContentID = "{identity[8:40]}"
ddb.virtualHWVersion = "{hardware}"
"""
    return text.encode().ljust(DESCRIPTOR_SECTORS * SECTOR, b"\0")


class VmdkSink:
    """A VMDK in the making, at the current end of `output`; `size` is the disk's, in bytes."""

    def __init__(
        self,
        output: Output,
        size: int,
        *,
        name: str,
        adapter: Adapter = "lsilogic",
        hardware: int = 11,
        seed: str = "",
    ) -> None:
        self.output, self._start = output, output.position
        self._capacity = capacity_of(size)
        tables = -(-self._capacity // (GRAIN * TABLE_ENTRIES))
        self._directory = array("I", bytes(4 * tables))
        self._table = array("I", bytes(4 * TABLE_ENTRIES))
        self._number = 0  # of the grain table that is being filled
        text = descriptor(self._capacity, adapter=adapter, hardware=hardware, name=name, seed=seed)
        front = header(self._capacity, AT_END) + text
        output.write(front.ljust(OVERHEAD * SECTOR, b"\0"))

    def _sector(self) -> int:
        return (self.output.position - self._start) // SECTOR

    def feed(self, cluster: Cluster) -> int:
        """Appends one grain."""
        number, index = divmod(cluster.offset // CLUSTER, TABLE_ENTRIES)
        if number != self._number:
            self._end_table()
            self._number = number
        self._table[index] = self._sector()
        out, packed = self.output, cluster.packed
        end = deflate.LAST + cluster.adler.to_bytes(4, "big")
        size = len(ZLIB_HEADER) + len(packed) + len(end)
        out.write(GRAIN_MARKER.pack(cluster.offset // SECTOR, size) + ZLIB_HEADER)
        place = out.position
        out.write(packed)
        out.write(end + bytes(-(GRAIN_MARKER.size + size) % SECTOR))
        return place

    def _end_table(self) -> None:
        if any(self._table):
            self._marker(GRAIN_TABLE, 4 * TABLE_ENTRIES)
            self._directory[self._number] = self._sector()
            self._padded(_little_endian(self._table))
            self._table = array("I", bytes(4 * TABLE_ENTRIES))

    def finish(self) -> None:
        """Appends the tables that are left, footer and end-of-stream marker, and nothing more."""
        self._end_table()
        self._marker(GRAIN_DIRECTORY, 4 * len(self._directory))
        directory = self._sector()
        self._padded(_little_endian(self._directory))
        self._marker(FOOTER, SECTOR)
        self.output.write(header(self._capacity, directory))
        self._marker(END_OF_STREAM, 0)

    def _marker(self, kind: int, size: int) -> None:
        self._padded(MARKER.pack(round_up(size, SECTOR) // SECTOR, 0, kind))

    def _padded(self, data: bytes) -> None:
        self.output.write(data + bytes(-len(data) % SECTOR))


def _little_endian(entries: array[int]) -> bytes:
    return struct.pack(f"<{len(entries)}I", *entries)


def write(
    source: Disk,
    target: Path,
    *,
    adapter: Adapter = "lsilogic",
    hardware: int = 11,
    seed: str = "",
    name: str | None = None,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Written:
    """Writes `source` to `target` as a streamOptimized VMDK; its last sector ends the stream.

    `hardware` is VMware's virtual hardware version, `seed` gives the content id, and `name` (the
    target's unless given) is the file name that the descriptor holds.
    """
    ticker = Ticker(source.claimed, progress, runner)
    with draft(target) as made:
        sink = VmdkSink(
            made.output,
            source.size,
            name=name or target.name,
            adapter=adapter,
            hardware=hardware,
            seed=seed,
        )
        pour(source, [sink], ticker)
        sink.finish()
        return made.done(capacity_of(source.size) * SECTOR)


def check(path: Path | Region, heed: Heed | None = None) -> int:
    """Reads the whole file and returns its disk's size in bytes.

    VerificationFailed names the offset and the rule that it breaks.
    """
    from goldimg.formats import vmdk_check

    region = path if isinstance(path, Region) else Region.whole(path)
    return vmdk_check.check(region, heed) * SECTOR
