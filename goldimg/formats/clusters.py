"""Compress once, write many: deflated 64 KiB clusters for every format that is made of them.

A raw deflate stream with a 4 KiB window is a qcow2 cluster as it stands and, between a zlib header
and an Adler-32, a VMDK grain; so one pass over the disk can feed any number of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from goldimg.formats import deflate
from goldimg.formats.source import CLUSTER, Disk
from goldimg.formats.stream import Ticker, in_order


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster that is not all zero; `offset` is its place on the disk, in bytes.

    `raw` is always 64 KiB: the last one of a disk is filled up with zeros. `deflated` is a raw
    deflate stream of it, `adler` its Adler-32.
    """

    offset: int
    raw: bytes
    deflated: bytes
    adler: int


class Sink(Protocol):
    """A file in the making that takes clusters in ascending order of their offsets."""

    def feed(self, cluster: Cluster) -> None:
        """Writes one cluster."""


def pour(disk: Disk, sinks: Sequence[Sink], ticker: Ticker) -> None:
    """Feeds every cluster of `disk` to each of `sinks`, in order, deflated in threads."""

    def deflated(block: tuple[int, int]) -> list[Cluster]:
        offset, length = block
        return [_cluster(disk, at) for at in range(offset, offset + length, CLUSTER)]

    for (_, length), clusters in zip(disk.blocks(), in_order(deflated, disk.blocks()), strict=True):
        for cluster in clusters:
            for sink in sinks:
                sink.feed(cluster)
        ticker.advance(length)


def _cluster(disk: Disk, offset: int) -> Cluster:
    raw = disk.pread(offset, CLUSTER)
    return Cluster(offset=offset, raw=raw, deflated=deflate.raw(raw), adler=deflate.adler32(raw))
