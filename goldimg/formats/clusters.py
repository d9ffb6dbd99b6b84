"""Compress once, write many: compressed 64 KiB clusters for every format that is made of them.

A raw deflate stream with a 4 KiB window is a qcow2 cluster as it stands and, between a zlib header
and an Adler-32, a VMDK grain; so one pass over the disk can feed any number of files, and what one
file's pass has deflated serves the next file's (`store.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from goldimg.formats import deflate
from goldimg.formats.source import CLUSTER, ZERO, Disk
from goldimg.formats.store import Origin, Packed
from goldimg.formats.stream import Output, Ticker, in_order


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster of `disk`; `offset` is its place on it, in bytes.

    `packed` is what `pour` made of it, by default a raw deflate stream, and empty where all is
    zero; `adler` is the Adler-32 of its bytes.
    """

    disk: Disk
    offset: int
    packed: bytes
    adler: int
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
    compress: Callable[[bytes], bytes] = deflate.raw,
) -> None:
    """Feeds the clusters of `disk` to each of `sinks`, in order, compressed in threads.

    All-zero clusters are left out, whether the disk's file has a hole there or not.
    """

    def packed(span: tuple[int, int]) -> list[Cluster]:
        offset, length = span
        return [_cluster(disk, at, compress) for at in range(offset, offset + length, CLUSTER)]

    for (_, length), clusters in zip(disk.spans(), in_order(packed, disk.spans()), strict=True):
        for cluster in clusters:
            for sink in sinks if cluster.packed else ():
                place = sink.feed(cluster)
                if disk.store and cluster.origin:
                    packed_as = (cluster.packed, cluster.adler)
                    disk.store.wrote(compress, cluster.origin, packed_as, sink.output, place)
        ticker.advance(length)


def _cluster(disk: Disk, offset: int, compress: Callable[[bytes], bytes]) -> Cluster:
    def make() -> Packed:
        raw = disk.pread(offset, CLUSTER)
        if raw == ZERO:
            return b"", 0
        return compress(raw), deflate.adler32(raw)

    origin = disk.origin(offset) if disk.store else None
    data, adler = disk.store.get(compress, origin, make) if disk.store and origin else make()
    return Cluster(disk=disk, offset=offset, packed=data, adler=adler, origin=origin)
