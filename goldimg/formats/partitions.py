"""What is on a disk: its partitions, and the kind of file system in each.

Sources: UEFI specification 2.10, section 5 (MBR and GPT); the kernel's Documentation/filesystems
(ext4 and XFS superblocks); LVM2's label_header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from goldimg.formats.source import Disk

SECTOR = 512
EXTENDED = (0x05, 0x0F, 0x85)
PROTECTIVE = 0xEE
MOST_ENTRIES = 128

Kind = Literal["ext", "xfs", "lvm", "extended", "other"]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A range of the disk, in bytes, and what it holds."""

    offset: int
    size: int
    kind: Kind


def find(disk: Disk) -> list[Partition]:
    """The partitions of `disk`; the whole disk as one where it begins with a file system."""
    whole = _kind(disk, 0)
    if whole != "other":
        return [Partition(offset=0, size=disk.size, kind=whole)]
    return [
        Partition(
            offset=first * SECTOR,
            size=sectors * SECTOR,
            kind="extended" if is_extended else _kind(disk, first * SECTOR),
        )
        for first, sectors, is_extended in _table(disk)
        if sectors > 0 and (first + sectors) * SECTOR <= disk.size
    ]


def plain_root(disk: Disk) -> Partition | None:
    """The one Linux file system of `disk`; None where it has more than one, or LVM."""
    linux = [part for part in find(disk) if part.kind != "other"]
    if len(linux) == 1 and linux[0].kind in ("ext", "xfs"):
        return linux[0]
    return None


def was_cut_short(disk: Disk, part: Partition) -> bool:
    """Whether an ext4 there was not brought to an end: its journal holds what it has not written.

    `s_feature_incompat` with RECOVER, https://docs.kernel.org/filesystems/ext4/super.html
    """
    block = disk.pread(part.offset + 1024, 1024)
    return part.kind == "ext" and bool(struct.unpack_from("<I", block, 0x60)[0] & 0x4)


def _table(disk: Disk) -> Iterator[tuple[int, int, bool]]:
    """(first sector, sectors, whether it is an extended partition) of each entry."""
    mbr = disk.pread(0, SECTOR)
    if mbr[510:] != b"\x55\xaa":
        return
    entries = [struct.unpack_from("<4xB3xII", mbr, 446 + 16 * number) for number in range(4)]
    if any(kind == PROTECTIVE for kind, _, _ in entries):
        yield from _gpt(disk)
        return
    for kind, first, sectors in entries:
        if kind:
            yield first, sectors, kind in EXTENDED


def _gpt(disk: Disk) -> Iterator[tuple[int, int, bool]]:
    header = disk.pread(SECTOR, SECTOR)
    if header[:8] != b"EFI PART":
        return
    at, count, size = struct.unpack_from("<QII", header, 72)
    if not 128 <= size <= 4096:
        return
    for number in range(min(count, MOST_ENTRIES)):
        entry = disk.pread(at * SECTOR + number * size, 48)
        first, last = struct.unpack_from("<QQ", entry, 32)
        if any(entry[:16]):
            yield first, last + 1 - first, False


def _kind(disk: Disk, offset: int) -> Kind:
    start = disk.pread(offset, 4 * SECTOR)
    if start[1024 + 56 : 1024 + 58] == b"\x53\xef":
        return "ext"
    if start[:4] == b"XFSB":
        return "xfs"
    if any(start[at : at + 8] == b"LABELONE" for at in range(0, 4 * SECTOR, SECTOR)):
        return "lvm"
    return "other"
