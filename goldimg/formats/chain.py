"""The disk that a guest sees in a qcow2 file and its backing files, read without a copy of it.

Source of every rule: QEMU's docs/interop/qcow2.txt. What is rare (encryption, external data files,
subclusters, other cluster sizes, backing files of other formats) is `Unsupported` here; qemu-img
reads that.
"""

from __future__ import annotations

import contextlib
import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.formats import deflate, zstd
from goldimg.formats.direct import Reader
from goldimg.formats.qcow2 import (
    CLUSTER_BITS,
    COMPRESSED,
    COMPRESSED_OFFSET,
    COMPRESSION_TYPE_AT,
    HEADER,
    MAGIC,
    OFFSET,
    TABLE_ENTRIES,
    WITH_COMPRESSION_TYPE,
    ZSTD,
    big_endian,
)
from goldimg.formats.source import CLUSTER, ZERO, Disk, flattened
from goldimg.formats.store import Origin, Store
from goldimg.run import Runner

READS_ZERO = 1  # in a standard entry of version 3
DIRTY = 1  # reference counts may be wrong, which matters only to writers
BACKING_FORMAT = 0xE2792ACA
LONGEST_NAME = 1023
# Our own map's entries: a place below 2**56, the image's number above it, COMPRESSED on top.
IMAGE_SHIFT = 56
PLACE = (1 << IMAGE_SHIFT) - 1
MOST_IMAGES = 32


UNPACKING: tuple[type[Exception], ...] = (*deflate.ERRORS, zstd.Damaged)


class Unsupported(GoldimgError):
    """A valid image, perhaps, but none that is read here."""


@dataclass(frozen=True, kw_only=True)
class _Image:
    """One file of the chain. `identity` changes when the file does."""

    path: Path
    file: Reader
    size: int
    version: int
    l1: array[int]
    backing: Path | None
    is_zstd: bool
    identity: object


class Chain(Disk):
    """The disk in the qcow2 file `path`; Unsupported where qemu-img has to read it.

    A cluster's `origin` is its place in a backing file, where other disks find the same cluster.
    """

    image_format = "qcow2"

    def __init__(self, path: Path, store: Store | None = None) -> None:
        self.path, self.store = path, store
        self._images: list[_Image] = []
        try:
            self._open_all()
            self.size = self._images[0].size
            self._tables = self._merged()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for image in self._images:
            image.file.close()

    def _open_all(self) -> None:
        path: Path | None = self.path
        while path is not None:
            if len(self._images) == MOST_IMAGES:
                raise Unsupported(f"{self.path} stands on {MOST_IMAGES} images or more")
            image = _open(path)
            self._images.append(image)
            path = image.backing
        top = self._images[0].size
        for image in self._images[1:]:
            # What follows a shorter backing file is zero, whatever its last cluster holds.
            if image.size < top and image.size % CLUSTER:
                raise Unsupported(f"{image.path} ends inside a cluster")

    def _merged(self) -> dict[int, array[int]]:
        """By number of the L2 table: each cluster's place in the uppermost image that has it."""
        tables: dict[int, array[int]] = {}
        smallest = self.size
        sizes = []
        for image in self._images:  # a file in between that is shorter cuts what is below it
            smallest = min(smallest, image.size)
            sizes.append(-(-smallest // CLUSTER))
        for number in reversed(range(len(self._images))):
            image, clusters = self._images[number], sizes[number]
            for index, entry in enumerate(image.l1):
                end = min(TABLE_ENTRIES, clusters - index * TABLE_ENTRIES)
                if entry & OFFSET and end > 0:
                    merged = tables.setdefault(index, array("Q", bytes(8 * TABLE_ENTRIES)))
                    _overlay(merged, image, entry & OFFSET, end, number << IMAGE_SHIFT)
        return tables

    def _entry(self, cluster: int) -> int:
        table = self._tables.get(cluster // TABLE_ENTRIES)
        return table[cluster % TABLE_ENTRIES] if table else 0

    def _ranges(self) -> Iterator[tuple[int, int]]:
        start = length = 0
        for number, table in sorted(self._tables.items()):
            for index, entry in enumerate(table):
                if not entry:
                    continue
                offset = (number * TABLE_ENTRIES + index) * CLUSTER
                if offset != start + length:
                    if length:
                        yield start, length
                    start, length = offset, 0
                length += CLUSTER
        if length:
            yield start, min(length, self.size - start)

    def origin(self, offset: int) -> Origin | None:
        entry = self._entry(offset // CLUSTER)
        number = _image_of(entry)
        if number == 0 or offset + CLUSTER > self.size:
            return None
        return self._images[number].identity, entry & PLACE

    def pread(self, offset: int, length: int) -> bytes:
        into = bytearray(length)
        self.read_into(memoryview(into), offset)
        return bytes(into)

    def read_into(self, into: memoryview, offset: int) -> None:
        position, end = offset, max(offset, min(self.size, offset + len(into)))
        while position < end:
            entry, start = self._entry(position // CLUSTER), position % CLUSTER
            count = min(CLUSTER - start, end - position)
            at = position - offset
            if not entry:
                into[at : at + count] = ZERO[:count]
            elif entry & COMPRESSED:
                into[at : at + count] = self._inflated(entry)[start : start + count]
            else:
                count = self._in_one_piece(entry, position, end)
                self._stored(into[at : at + count], entry, start)
            position += count
        into[end - offset :] = bytes(len(into) - (end - offset))

    def _in_one_piece(self, entry: int, position: int, end: int) -> int:
        """Bytes from `position` on that follow one another in one file."""
        cluster, count = position // CLUSTER, CLUSTER - position % CLUSTER
        while position + count < end:
            cluster, entry = cluster + 1, entry + CLUSTER
            if self._entry(cluster) != entry:
                break
            count += CLUSTER
        return min(count, end - position)

    def _stored(self, into: memoryview, entry: int, start: int) -> None:
        count = self._images[_image_of(entry)].file.read(into, (entry & PLACE) + start)
        if count < len(into):  # a file may end inside its last cluster
            into[count:] = bytes(len(into) - count)

    def _inflated(self, entry: int) -> bytes:
        image, place = self._images[_image_of(entry)], entry & PLACE
        # Compressed clusters are smaller than others, or they would not be compressed.
        packed = os.pread(image.file.file, CLUSTER, place)
        try:
            if image.is_zstd:
                data = zstd.decompress(packed, CLUSTER)
            else:
                data = deflate.inflater(-12).decompress(packed, CLUSTER)
        except UNPACKING as error:
            raise GoldimgError(f"{image.path}: offset {place}: {error}") from error
        if len(data) != CLUSTER:
            raise GoldimgError(f"{image.path}: offset {place}: a cluster is damaged")
        return data


def _image_of(entry: int) -> int:
    return entry >> IMAGE_SHIFT & (MOST_IMAGES - 1)


def _overlay(merged: array[int], image: _Image, place: int, end: int, number: int) -> None:
    """Puts the first `end` entries of the L2 table at `place` over those of lower images."""
    for index, entry in enumerate(_table(image.file, image.path, place, TABLE_ENTRIES)[:end]):
        if not entry:
            continue
        if entry & COMPRESSED:
            merged[index] = entry & COMPRESSED_OFFSET | number | COMPRESSED
        elif image.version > 2 and entry & READS_ZERO:
            merged[index] = 0
        elif entry & OFFSET:
            merged[index] = entry & OFFSET | number


def _table(file: Reader, path: Path, offset: int, entries: int) -> array[int]:
    data = os.pread(file.file, 8 * entries, offset)
    if len(data) != 8 * entries:
        raise Unsupported(f"{path}: offset {offset}: the file ends inside a table")
    return array("Q", big_endian(array("Q", data)))


def _open(path: Path) -> _Image:
    file = Reader(path)
    try:
        return _read(path, file)
    except BaseException:
        file.close()
        raise


def _read(path: Path, file: Reader) -> _Image:
    first = os.pread(file.file, CLUSTER, 0)
    if len(first) < HEADER.size:
        raise Unsupported(f"{path} is not a qcow2 image")
    head = HEADER.unpack(first[: HEADER.size])
    magic, version, name_at, name_size, bits, size, crypt, l1_size, l1_at = head[:9]
    incompatible = head[13] if version > 2 else 0
    if (magic, bits, crypt) != (MAGIC, CLUSTER_BITS, 0) or version not in (2, 3) or not size:
        raise Unsupported(f"{path} is not a plain qcow2 image with clusters of 64 KiB")
    if incompatible & ~(DIRTY | WITH_COMPRESSION_TYPE):
        raise Unsupported(f"{path} has features {incompatible:#x}")
    is_zstd = bool(incompatible & WITH_COMPRESSION_TYPE) and first[COMPRESSION_TYPE_AT] == ZSTD
    backing = None
    if name_at:
        backing = _backing(path, first, head[17] if version > 2 else 72, name_at, name_size)
    found = os.fstat(file.file)
    return _Image(
        path=path,
        file=file,
        size=size,
        version=version,
        l1=_table(file, path, l1_at, l1_size),
        backing=backing,
        is_zstd=is_zstd,
        identity=(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns),
    )


def _backing(path: Path, first: bytes, extensions: int, name_at: int, name_size: int) -> Path:
    """The backing file, where it is a local qcow2 file that says so."""
    at = extensions
    kind, size = struct.unpack_from(">II", first, at)
    while kind and kind != BACKING_FORMAT and at + 16 + size < name_at:
        at += 8 + -(-size // 8) * 8
        kind, size = struct.unpack_from(">II", first, at)
    if kind != BACKING_FORMAT or first[at + 8 : at + 8 + size] != b"qcow2":
        raise Unsupported(f"{path}: the backing file is not said to be qcow2")
    name = os.fsdecode(first[name_at : name_at + min(name_size, LONGEST_NAME)])
    if ":" in name.partition("/")[0]:
        raise Unsupported(f"{path}: the backing file is not a local one")
    return path.parent / name


@contextlib.contextmanager
def opened(
    qcow2: Path, scratch: Path, runner: Runner, store: Store | None = None
) -> Iterator[Disk]:
    """The disk that a guest sees in `qcow2` and its backing files, read where it is.

    What `store` knows of backing files is compressed once for all disks that are opened with it. An
    image of an unusual kind is first flattened there, to a raw file.
    """
    try:
        disk: Disk = Chain(qcow2, store)
    except Unsupported:
        with flattened(qcow2, scratch, runner) as disk:
            yield disk
        return
    with disk:
        yield disk
