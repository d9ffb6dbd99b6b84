"""Compress once, write many: compressed 64 KiB clusters for every format that is made of them.

Deflate blocks with a window of 4 KiB that end on a byte border are, with a last empty block, a
qcow2 cluster; between a zlib header and an Adler-32 a VMDK grain; and joined to others a gzip
member. So one pass over the disk can feed any number of files, and what one file's pass has
deflated serves the next file's (`store.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

from goldimg.formats import deflate, direct, round_up
from goldimg.formats.source import CLUSTER, Disk, is_zero
from goldimg.formats.store import Origin, Packed
from goldimg.formats.stream import Output, Ticker, in_order


class Cluster(NamedTuple):
    """One cluster of `disk`; `offset` is its place on it, in bytes.

    `packed` is what `pour` made of it, by default a piece of a deflate stream without an end, and
    empty where all is zero; `adler` and `crc` are the Adler-32 and CRC-32 of its bytes.
    """

    disk: Disk
    offset: int
    packed: bytes | memoryview
    adler: int
    crc: int
    origin: Origin | None = None

    @property
    def raw(self) -> bytes:
        """Its bytes, always 64 KiB: the last one of a disk is filled up with zeros."""
        return self.disk.pread(self.offset, CLUSTER)


class Sink(Protocol):
    """A file in the making that takes clusters in ascending order of their offsets."""

    output: Output

    def feed(self, cluster: Cluster) -> int | None:
        """Writes one cluster; where in the file it is packed, None where it is not."""


def pour(
    disk: Disk,
    sinks: Sequence[Sink],
    ticker: Ticker,
    compress: Callable[[memoryview], bytes] = deflate.cluster,
) -> None:
    """Feeds the clusters of `disk` to each of `sinks`, in order, compressed in threads.

    All-zero clusters are left out, whether the disk's file has a hole there or not.
    """

    def packed(span: tuple[int, int]) -> list[Cluster]:
        there = _Span(disk, *span)
        return [there.cluster(at, compress) for at in range(span[0], sum(span), CLUSTER)]

    for (_, length), clusters in zip(disk.spans(), in_order(packed, disk.spans()), strict=True):
        for cluster in clusters:
            for sink in sinks if cluster.packed else ():
                place = sink.feed(cluster)
                if disk.store and cluster.origin:
                    packed_as = (cluster.packed, cluster.adler, cluster.crc)
                    disk.store.wrote(compress, cluster.origin, packed_as, sink.output, place)
        ticker.advance(length)


_own = threading.local()


def _buffer() -> memoryview:
    """Memory of this thread alone, the same each time."""
    if not hasattr(_own, "buffer"):
        _own.buffer = memoryview(direct.buffer())
    return cast(memoryview, _own.buffer)


class _Span:
    """Some clusters of a disk, which are read together, and only if one of them is not known.

    One at a time in a thread.
    """

    def __init__(self, disk: Disk, offset: int, length: int) -> None:
        self._disk, self._offset, self._length = disk, offset, length
        self._data: memoryview | None = None

    def _raw(self, offset: int) -> memoryview:
        if self._data is None:
            self._data = _buffer()[: round_up(self._length, CLUSTER)]
            self._disk.read_into(self._data, self._offset)
        return self._data[offset - self._offset : offset - self._offset + CLUSTER]

    def cluster(self, offset: int, compress: Callable[[memoryview], bytes]) -> Cluster:
        disk = self._disk

        def make() -> Packed:
            raw = self._raw(offset)
            if is_zero(raw):
                return b"", 0, 0
            return compress(raw), deflate.adler32(raw), deflate.crc32(raw)

        origin = disk.origin(offset) if disk.store else None
        packed = disk.store.get(compress, origin, make) if disk.store and origin else make()
        return Cluster(disk, offset, *packed, origin=origin)
