"""qcow2 version 3, compressed by cluster with zlib's algorithm or zstd, without a backing file.

Source of every rule: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import Literal

from goldimg.errors import GoldimgError
from goldimg.formats import Heed, Progress, Written, deflate, round_up, zstd
from goldimg.formats.clusters import Cluster, pour
from goldimg.formats.source import CLUSTER, Disk
from goldimg.formats.stream import Output, Ticker, draft, sha256_of
from goldimg.run import Runner

Compression = Literal["zlib", "zstd"]
MAGIC = 0x514649FB
VERSION = 3
CLUSTER_BITS = 16
SECTOR = 512
# magic, version, backing offset and size, cluster bits, size, crypt method, l1 size and offset,
# refcount table offset and clusters, snapshots and their offset, incompatible, compatible and
# autoclear features, refcount order, header length
HEADER = struct.Struct(">IIQIIQIIQQIIQQQQII")
REFCOUNT_ORDER = 4  # 16 bits a count
TABLE_ENTRIES = CLUSTER // 8  # entries in an L2 table, and in a cluster of any 8-byte table
COUNTS = CLUSTER * 8 >> REFCOUNT_ORDER  # counts in a refcount block
COPIED = 1 << 63
COMPRESSED = 1 << 62
SECTORS_SHIFT = 62 - (CLUSTER_BITS - 8)  # where "additional sectors" begin in a compressed entry
OFFSET = (1 << 56) - (1 << 9)  # the bits of a standard entry that hold a place in the file
COMPRESSED_OFFSET = (1 << SECTORS_SHIFT) - 1
# Incompatible feature bit 3: the byte after the fields above names the algorithm, 1 for zstd, and
# zeros fill the header up to a multiple of 8.
WITH_COMPRESSION_TYPE = 1 << 3
COMPRESSION_TYPE_AT, ZSTD, ZSTD_HEADER_SIZE = HEADER.size, 1, 112
LARGEST = 1 << 46  # bytes; keeps the L1 table below the 32 MiB that QEMU accepts


class Qcow2Sink:
    """A qcow2 file in the making: data first, then the tables, then the header in front.

    The clusters that it is fed must be packed as `compression` says.
    """

    def __init__(self, output: Output, size: int, compression: Compression = "zlib") -> None:
        if size > LARGEST:
            raise GoldimgError(f"a disk of {size} bytes is too large for qcow2")
        self.output, self._size = output, round_up(size, SECTOR)
        self._is_zstd = compression == "zstd"
        self._l2: dict[int, array[int]] = {}
        self._counts = array("H", [1])  # by host cluster; the first holds the header
        output.skip(CLUSTER)

    def feed(self, cluster: Cluster) -> int | None:
        """Stores a cluster compressed, or as it is where that is not smaller."""
        place = None
        end = b"" if self._is_zstd else deflate.LAST
        if len(cluster.packed) + len(end) < CLUSTER:
            place = self.output.position
            entry = self._compressed(cluster.packed, end)
        else:
            self._align()
            entry = self.output.position | COPIED
            self._append(cluster.raw)
        table, index = divmod(cluster.offset // CLUSTER, TABLE_ENTRIES)
        if table not in self._l2:
            self._l2[table] = array("Q", bytes(CLUSTER))
        self._l2[table][index] = entry
        return place

    def _compressed(self, data: bytes | memoryview, end: bytes) -> int:
        start = self.output.position
        # Readers take whole sectors, the first of which holds the first byte.
        extra = (start + len(data) + len(end) - 1) // SECTOR - start // SECTOR
        self._append(data, end)
        return COMPRESSED | extra << SECTORS_SHIFT | start

    def _append(self, data: bytes | memoryview, end: bytes = b"") -> None:
        """Writes both at the end, and counts a reference to each host cluster that they touch."""
        first = self.output.position // CLUSTER
        self.output.write(data)
        self.output.write(end)
        last = (self.output.position - 1) // CLUSTER
        self._counts.extend([0] * (last + 1 - len(self._counts)))
        for number in range(first, last + 1):
            self._counts[number] += 1

    def _align(self) -> None:
        self.output.skip(-self.output.position % CLUSTER)

    def finish(self) -> None:
        """Writes the tables and the header; the file is complete."""
        l1 = array("Q", bytes(8 * max(1, -(-self._size // (CLUSTER * TABLE_ENTRIES)))))
        for number, table in sorted(self._l2.items()):
            l1[number] = self._table(table) | COPIED
        l1_offset = self._table(l1)
        self._align()
        refcounts, clusters = self._refcounts()
        features = (WITH_COMPRESSION_TYPE if self._is_zstd else 0, 0, 0)
        length = ZSTD_HEADER_SIZE if self._is_zstd else HEADER.size
        header = HEADER.pack(
            *(MAGIC, VERSION, 0, 0, CLUSTER_BITS, self._size, 0, len(l1), l1_offset),
            *(refcounts, clusters, 0, 0, *features, REFCOUNT_ORDER, length),
        )
        if self._is_zstd:
            header += bytes((ZSTD,))
        self.output.patch(0, header.ljust(length, b"\0"))

    def _table(self, entries: array[int]) -> int:
        """Writes a table at a cluster border, big-endian, and returns where."""
        self._align()
        offset = self.output.position
        self._append(big_endian(entries))
        return offset

    def _refcounts(self) -> tuple[int, int]:
        """Writes the refcount table and its blocks; returns its offset and length in clusters."""
        used = self.output.position // CLUSTER
        blocks = tables = 0
        # The blocks and the table count themselves: grow both until they cover all.
        while blocks * COUNTS < used + blocks + tables or tables * TABLE_ENTRIES < blocks:
            blocks = -(-(used + blocks + tables) // COUNTS)
            tables = max(1, -(-blocks // TABLE_ENTRIES))
        start = self.output.position
        counts = self._counts
        counts.extend([0] * (used - len(counts)))
        counts.extend([1] * (tables + blocks))
        counts.extend([0] * (blocks * COUNTS - len(counts)))
        first = start + tables * CLUSTER
        table = array("Q", [first + number * CLUSTER for number in range(blocks)])
        self.output.write(big_endian(table))
        self._align()
        self.output.write(big_endian(counts))
        return start, tables


def big_endian(entries: array[int]) -> bytes:
    """The entries as the file holds them."""
    swapped = array(entries.typecode, entries)
    if struct.pack("=H", 1) == struct.pack("<H", 1):
        swapped.byteswap()
    return swapped.tobytes()


def write(
    source: Disk,
    target: Path,
    *,
    compression: Compression = "zlib",
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Written:
    """Writes `source` to `target` as compressed qcow2; all-zero clusters take no space.

    The virtual size is the disk's, up to a whole sector. QEMU 1.1 and newer read zlib's, 5.1 and
    newer zstd's. MissingTool where zstd is wanted and its package absent.
    """
    ticker = Ticker(source.claimed, progress, runner)
    with draft(target, hashed=False) as made:
        sink = Qcow2Sink(made.output, source.size, compression)
        compress = zstd.compress if compression == "zstd" else deflate.cluster
        pour(source, [sink], ticker, compress)
        sink.finish()
        # The header, which comes first, is known last: the hash needs its own pass.
        digest = sha256_of(made.temporary, ticker.heed, is_new=True)
        return made.done(round_up(source.size, SECTOR), digest)


def check_front(path: Path) -> None:
    """Reads header, tables and counts; VerificationFailed as `check` raises it."""
    from goldimg.formats import qcow2_check

    qcow2_check.check(path, has_data=False)


def check(path: Path, heed: Heed | None = None) -> None:
    """Reads the whole file; VerificationFailed names the offset and the rule that it breaks."""
    from goldimg.formats import qcow2_check

    qcow2_check.check(path, heed)
