"""A gzip of one sparse tar member `disk.raw`, a whole number of GiB.

Sources: Google Cloud, "Import disks manually", requirements of the image file; GNU tar manual,
"Storing Sparse Files, Old GNU Format".
"""

from __future__ import annotations

from pathlib import Path

from goldimg.errors import VerificationFailed
from goldimg.formats import Heed, Progress, Written, round_up, tarball
from goldimg.formats.clusters import Cluster, pour
from goldimg.formats.gz import GzipReader, GzipWriter
from goldimg.formats.source import CLUSTER, Disk
from goldimg.formats.stream import BLOCK, Output, Ticker, draft
from goldimg.run import Runner

GIB = 1 << 30
MEMBER = "disk.raw"


def write(
    source: Disk,
    target: Path,
    *,
    epoch: int = 0,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Written:
    """Writes `source` to `target` as tar.gz, the disk filled up with a hole to a whole GiB.

    The member belongs to root and has the time `epoch` (seconds since 1970).
    """
    size = round_up(source.size, GIB)
    ticker = Ticker(source.claimed, progress, runner)
    with draft(target) as made:
        with GzipWriter(made.output) as stream:
            extents = tuple(source.extents())
            stream.write(tarball.sparse_header(MEMBER, size, extents, epoch=epoch))
            pour(source, [_Data(stream, made.output, source.size)], ticker)
            stream.write(tarball.padding(stream.position) + tarball.END)
            stream.write(tarball.padding(stream.position, tarball.RECORD))
        return made.done(size)


class _Data:
    """The part of the archive that holds what is not a hole; `size` is the disk's, in bytes."""

    def __init__(self, stream: GzipWriter, output: Output, size: int) -> None:
        self._stream, self.output, self._size = stream, output, size

    def feed(self, cluster: Cluster) -> int | None:
        """Appends one cluster, of the last one only what is on the disk."""
        length = min(CLUSTER, self._size - cluster.offset)
        if length == CLUSTER:
            return self._stream.write_piece(cluster.packed, cluster.crc, CLUSTER)
        self._stream.write(cluster.raw[:length])
        return None


def check_front(path: Path) -> None:
    """Reads header and sparse map; VerificationFailed as `check` raises it."""
    with GzipReader(path) as stream:
        _check_header(stream)


def check(path: Path, heed: Heed | None = None) -> None:
    """Reads the whole archive; VerificationFailed names the first offset that breaks a rule."""
    with GzipReader(path, heed) as stream:
        stored = _check_header(stream)
        stream.skip(stored)
        rest = stream.exactly(-stored % tarball.BLOCK + len(tarball.END))
        while rest:
            if any(rest):
                raise stream.fail("more than one member, or no end of the archive")
            rest = stream.read(BLOCK)
        if stream.position % tarball.BLOCK:
            raise stream.fail("the archive is not a whole number of 512-byte blocks")
        stream.finish()


def _check_header(stream: GzipReader) -> int:
    """Checks header and sparse map, and returns the bytes of data that follow."""
    block = stream.exactly(tarball.BLOCK)
    try:
        entry = tarball.parse(block)
        pairs = tarball.sparse_pairs(block, 386, tarball.SPARSE_IN_HEADER)
        size, goes_on = tarball.number(block[483:495]), block[482]
        while goes_on:
            block = stream.exactly(tarball.BLOCK)
            pairs += tarball.sparse_pairs(block, 0, tarball.SPARSE_IN_EXTENSION)
            goes_on = block[504]
    except (VerificationFailed, ValueError) as error:
        raise stream.fail(str(error)) from error
    for fault, message in (
        (entry.name != MEMBER, f"the member is '{entry.name}', must be '{MEMBER}'"),
        (entry.magic != tarball.GNU_MAGIC, "the archive is not in the old GNU format"),
        (entry.type != b"S", "the member is not a sparse file"),
        (size == 0 or size % GIB != 0, f"the disk's size, {size}, is not a whole number of GiB"),
        (entry.size != sum(length for _, length in pairs), "the sparse map and the size differ"),
        (not _in_order(pairs, size), "the sparse map is not in order inside the disk"),
    ):
        if fault:
            raise stream.fail(message)
    return entry.size


def _in_order(pairs: list[tuple[int, int]], size: int) -> bool:
    position = 0
    for offset, length in pairs:
        if offset < position:
            return False
        position = offset + length
    return position <= size
