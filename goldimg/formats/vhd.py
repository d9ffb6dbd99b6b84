"""VHD, fixed: the raw disk, a whole number of MiB, and a footer of 512 bytes.

Sources: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0 (footer, checksum, appendix
"CHS Calculation"); Azure, "Prepare a Linux image" (whole MiB, fixed only).
"""

from __future__ import annotations

import os
import struct
import uuid
from pathlib import Path

from goldimg.errors import VerificationFailed
from goldimg.formats import Progress, Written, round_up
from goldimg.formats.source import Disk
from goldimg.formats.stream import Output, Ticker, draft
from goldimg.run import Runner

MIB = 1 << 20
SECTOR = 512
# cookie, features, version, data offset, timestamp, creator, its version and host, original and
# current size, cylinders, heads, sectors, type, checksum, unique id, saved state
FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
COOKIE = b"conectix"
FEATURES = 2  # the reserved bit, which is always set
VERSION = 0x00010000
NO_DATA_OFFSET = 0xFFFF_FFFF_FFFF_FFFF
FIXED = 2
# Readers that know a creator decide by it whether the size is the footer's or the geometry's; this
# one stands for "the footer's".
CREATOR, CREATOR_VERSION, CREATOR_HOST = b"qem2", 0x00050003, b"Wi2k"
EPOCH = 946684800  # 2000-01-01 UTC, where the footer's clock begins
CHECKSUM_AT = 64
MOST_SECTORS = 65535 * 16 * 255


def geometry(sectors: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors a track, as the specification's appendix computes them."""
    sectors = min(sectors, MOST_SECTORS)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    track = 17
    tracks = sectors // track
    heads = max(4, -(-tracks // 1024))
    if tracks >= heads * 1024 or heads > 16:
        track, heads = 31, 16
        tracks = sectors // track
    if tracks >= heads * 1024:
        track, heads = 63, 16
        tracks = sectors // track
    return tracks // heads, heads, track


def checksum(footer: bytes) -> int:
    """The ones' complement of the sum of the footer's bytes, its own field taken as zero."""
    return ~(sum(footer[:CHECKSUM_AT]) + sum(footer[CHECKSUM_AT + 4 :])) & 0xFFFFFFFF


def footer(size: int, unique: bytes, epoch: int) -> bytes:
    """The footer of a fixed disk of `size` bytes, made at `epoch` (seconds since 1970)."""
    fields = (
        *(COOKIE, FEATURES, VERSION, NO_DATA_OFFSET, max(0, epoch - EPOCH)),
        *(CREATOR, CREATOR_VERSION, CREATOR_HOST, size, size, *geometry(size // SECTOR), FIXED),
    )
    blank = FOOTER.pack(*fields, 0, unique, 0)
    return FOOTER.pack(*fields, checksum(blank), unique, 0)


def write(
    source: Disk,
    target: Path,
    *,
    epoch: int = 0,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Written:
    """Writes `source` to `target` as a fixed VHD, filled up with zeros to a whole MiB.

    The file is as sparse as the disk. Its unique id comes from its content, its time stamp is
    `epoch` in seconds since 1970 (before 2000: zero).
    """
    size = round_up(source.size, MIB)
    ticker = Ticker(size, progress, runner)
    with draft(target) as made:
        out = made.output
        for offset, data in source.filled():
            _hole(out, offset, ticker)
            out.write(data)
            ticker.advance(len(data))
        _hole(out, size, ticker)
        unique = uuid.UUID(bytes=out.digest()[:16], version=4).bytes
        out.write(footer(size, unique, epoch))
        return made.done(size)


def _hole(out: Output, end: int, ticker: Ticker) -> None:
    """Skips to `end` in steps, since the zeros of a hole are hashed too."""
    while step := min(64 * MIB, end - out.position):
        out.skip(step)
        ticker.advance(step)


def check(path: Path) -> None:
    """Validates footer and size of a fixed VHD; VerificationFailed names offset and rule."""
    size = path.stat().st_size - SECTOR
    if size < MIB or size % MIB:
        raise VerificationFailed(f"{path}: the disk's size, {size}, is not a whole number of MiB")
    with path.open("rb") as stream:
        stream.seek(size, os.SEEK_SET)
        raw = stream.read(SECTOR)
    found = FOOTER.unpack(raw)
    expected = (
        (0, "cookie", found[0], COOKIE),
        (8, "features", found[1], FEATURES),
        (12, "format version", found[2], VERSION),
        (16, "data offset", found[3], NO_DATA_OFFSET),
        (48, "current size", found[9], size),
        (56, "geometry", found[10:13], geometry(size // SECTOR)),
        (60, "disk type", found[13], FIXED),
        (64, "checksum", found[14], checksum(raw)),
        (84, "saved state", found[16], 0),
        (85, "reserved bytes", raw[85:], bytes(427)),
    )
    for at, name, is_, should in expected:
        if is_ != should:
            raise VerificationFailed(
                f"{path}: offset {size + at}: VHD {name} is {is_!r}, must be {should!r}"
            )
    if found[15] == bytes(16):
        raise VerificationFailed(f"{path}: offset {size + 68}: VHD unique id is all zero")
