"""Tar headers: ustar, pax, and GNU's old sparse format.

Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual,
"Basic Tar Format" and "Storing Sparse Files, Old GNU Format".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from goldimg.errors import GoldimgError, VerificationFailed

BLOCK = 512
RECORD = 10240  # GNU tar fills the archive up to this
END = bytes(2 * BLOCK)
USTAR_MAX = 8 << 30  # bytes: eleven octal digits
OWNER_MAX = 8**7  # the first number of an owner that seven octal digits do not hold
NAME_MAX = 100  # bytes
SPARSE_IN_HEADER, SPARSE_IN_EXTENSION = 4, 21
# name, mode, uid, gid, size, time, checksum, type, link
COMMON = struct.Struct("100s8s8s8s12s12s8sc100s")
# magic and version, user, group, major, minor, prefix (155) and rest (12), or GNU's fields
USTAR_TAIL = struct.Struct("8s32s32s8s8s155s12x")
# magic and version, user, group, major, minor, atime, ctime, offset, long names, pad, sparse map,
# whether it goes on, real size, rest
GNU_TAIL = struct.Struct("8s32s32s8s8s12s12s12s4sx96sB12s17x")
DEVICES = (b"3", b"4")  # character and block
EXTENSIONS = (b"x", b"L", b"K")  # of the header that follows: pax, and GNU's long names
USTAR_MAGIC, GNU_MAGIC = b"ustar\x0000", b"ustar  \0"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a header says. `type` is the type flag; `size` the bytes that follow in the archive."""

    name: str
    size: int
    type: bytes
    magic: bytes


def octal(value: int, width: int) -> bytes:
    """A numeric field: octal digits and NUL or, beyond them, GNU's base-256."""
    digits = width - 1
    if value < 8**digits:
        return f"{value:0{digits}o}".encode() + b"\0"
    return b"\x80" + value.to_bytes(digits, "big")


def number(field: bytes) -> int:
    """The value of a numeric field; ValueError where it is neither octal nor base-256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.rstrip(b"\0 ") or b"0", 8)


def _sealed(common: bytes, tail: bytes) -> bytes:
    """The block with its checksum: the sum of all bytes, the field itself taken as blanks."""
    total = sum(common) + sum(tail)
    return common[:148] + f"{total:06o}\0 ".encode() + common[156:] + tail


def _common(name: str, size: int, mode: int, epoch: int, kind: bytes) -> bytes:
    encoded = name.encode()
    if len(encoded) > 99:
        raise GoldimgError(f"{name}: a name of more than 99 bytes does not fit into a tar header")
    return COMMON.pack(
        *(encoded, octal(mode, 8), octal(0, 8), octal(0, 8), octal(size, 12), octal(epoch, 12)),
        *(b" " * 8, kind, b""),
    )


def ustar_header(name: str, size: int, *, epoch: int = 0, mode: int = 0o644) -> bytes:
    """The header of a regular file of `size` bytes; GoldimgError where ustar cannot hold it."""
    if size >= USTAR_MAX:
        raise GoldimgError(
            f"{name} has {size} bytes", why="a ustar archive holds files of less than 8 GiB"
        )
    tail = USTAR_TAIL.pack(USTAR_MAGIC, b"root", b"root", octal(0, 8), octal(0, 8), b"")
    return _sealed(_common(name, size, mode, epoch, b"0"), tail)


def member_header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    owner: tuple[int, int],
    size: int = 0,
    time: int = 0,
    link: bytes = b"",
    attributes: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """The header of a file of any kind, a pax header before it where ustar cannot hold all.

    `owner` is uid and gid, `time` in seconds since 1970; `attributes` are records of the pax header
    besides those that the rest needs.
    """
    records = list(attributes)
    for key, text in ((b"path", name), (b"linkpath", link)):
        if len(text) > NAME_MAX or not text.isascii():
            records.append((key, text))
    for key, value, end in (
        (b"uid", owner[0], OWNER_MAX),
        (b"gid", owner[1], OWNER_MAX),
        (b"size", size, USTAR_MAX),
        (b"mtime", time, USTAR_MAX),
    ):
        if not 0 <= value < end:
            records.append((key, str(value).encode()))
    header = _any_header(name, kind, mode, owner, size, time, link)
    if not records:
        return header
    data = b"".join(_record(key, value) for key, value in records)
    extension = _any_header(b"PaxHeaders/" + name, b"x", 0o644, (0, 0), len(data), 0, b"")
    return extension + data + padding(len(data)) + header


def _any_header(
    name: bytes,
    kind: bytes,
    mode: int,
    owner: tuple[int, int],
    size: int,
    time: int,
    link: bytes,
) -> bytes:
    """What does not fit is cut off; a pax header says it."""
    uid, gid = (number if number < OWNER_MAX else 0 for number in owner)
    size, time = (number if 0 <= number < USTAR_MAX else 0 for number in (size, time))
    common = COMMON.pack(
        *(name[:NAME_MAX], octal(mode, 8), octal(uid, 8), octal(gid, 8), octal(size, 12)),
        *(octal(time, 12), b" " * 8, kind, link[:NAME_MAX]),
    )
    tail = USTAR_TAIL.pack(USTAR_MAGIC, b"", b"", octal(0, 8), octal(0, 8), b"")
    return _sealed(common, tail)


def _record(key: bytes, value: bytes) -> bytes:
    """A record of a pax header; its length, in decimal, counts itself."""
    rest = len(key) + len(value) + 3  # a blank, an equals sign and a newline
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def gnu_header(name: str, size: int, *, epoch: int = 0, mode: int = 0o644) -> bytes:
    """The header of a regular file of any size, which GNU's base-256 numbers allow."""
    tail = GNU_TAIL.pack(GNU_MAGIC, b"root", b"root", b"", b"", b"", b"", b"", b"", b"", 0, b"")
    return _sealed(_common(name, size, mode, epoch, b"0"), tail)


def padding(size: int, step: int = BLOCK) -> bytes:
    """The zeros that fill `size` bytes up to a multiple of `step`."""
    return bytes(-size % step)


def sparse_header(
    name: str, size: int, extents: Sequence[tuple[int, int]], *, epoch: int = 0
) -> bytes:
    """The blocks before the data of a sparse file of `size` bytes that has data in `extents`."""
    stored = sum(length for _, length in extents)
    pairs = [octal(offset, 12) + octal(length, 12) for offset, length in extents]
    if not extents or sum(extents[-1]) < size:
        pairs.append(octal(size, 12) + octal(0, 12))  # a hole at the end has a mark of its own
    more = len(pairs) > SPARSE_IN_HEADER
    tail = GNU_TAIL.pack(
        *(GNU_MAGIC, b"root", b"root", b"", b"", b"", b"", b"", b""),
        *(b"".join(pairs[:SPARSE_IN_HEADER]), more, octal(size, 12)),
    )
    blocks = [_sealed(_common(name, stored, 0o644, epoch, b"S"), tail)]
    rest = pairs[SPARSE_IN_HEADER:]
    for start in range(0, len(rest), SPARSE_IN_EXTENSION):
        part = b"".join(rest[start : start + SPARSE_IN_EXTENSION])
        goes_on = start + SPARSE_IN_EXTENSION < len(rest)
        blocks.append(part.ljust(504, b"\0") + bytes((goes_on,)) + bytes(7))
    return b"".join(blocks)


def parse(block: bytes) -> Entry:
    """What a header block says; VerificationFailed where its checksum or a number is wrong."""
    try:
        fields = COMMON.unpack(block[: COMMON.size])
        blank = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
        if number(fields[6]) != blank:
            raise VerificationFailed("the tar header's checksum is wrong")
        return Entry(
            name=fields[0].rstrip(b"\0").decode("utf-8", "surrogateescape"),
            size=number(fields[4]),
            type=fields[7],
            magic=block[257:265],
        )
    except (ValueError, struct.error) as error:
        raise VerificationFailed(f"not a tar header: {error}") from error


def sparse_pairs(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
    """The (offset, length) pairs that a header or extension block holds from byte `start` on."""
    found = []
    for at in range(start, start + 24 * count, 24):
        if not block[at]:
            break
        found.append((number(block[at : at + 12]), number(block[at + 12 : at + 24])))
    return found


def not_after(block: bytes, newest: int) -> bytes:
    """The header with `newest` for its time where that is later; its checksum is made anew."""
    if number(block[136:148]) <= newest:
        return block
    common = block[:136] + octal(newest, 12) + b" " * 8 + block[156 : COMMON.size]
    return _sealed(common, block[COMMON.size :])


class DeviceSieve:
    """Passes an archive on in pieces, without its device nodes and the headers that belong to them.

    A member that changed after `newest`, in seconds since 1970, gets that time.

    What is no tar header any more (the end of the archive, or damage) is passed on as it is.
    """

    def __init__(self, write: Callable[[bytes], None], newest: int | None = None) -> None:
        self._write, self._newest = write, newest
        self._rest = b""  # less than a block
        self._left = 0  # bytes of the open member that follow
        self._held: list[bytes] | None = None  # an extension, whose member is not known yet
        self._is_at_end = False

    def take(self, chunk: bytes) -> None:
        """Takes the next bytes of the archive."""
        data, position = self._rest + chunk, 0
        while position < len(data):
            if self._is_at_end or self._left:
                step = len(data) - position
                if not self._is_at_end:
                    step = min(step, self._left)
                    self._left -= step
                self._pass(data[position : position + step])
            elif len(data) - position >= BLOCK:
                step = BLOCK
                self._header(data[position : position + BLOCK])
            else:
                break
            position += step
        self._rest = data[position:]

    def _header(self, block: bytes) -> None:
        try:
            entry = parse(block)
        except VerificationFailed:
            self._is_at_end = True
            self._release()
            self._write(block)
            return
        self._left = entry.size + -entry.size % BLOCK
        if self._newest is not None:
            block = not_after(block, self._newest)
        if entry.type in EXTENSIONS:
            self._held = [*(self._held or []), block]
        elif entry.type in DEVICES:
            self._held = None
        else:
            self._release()
            self._write(block)

    def _pass(self, data: bytes) -> None:
        if self._held is None:
            self._write(data)
        else:
            self._held.append(data)

    def _release(self) -> None:
        held, self._held = self._held, None
        for data in held or ():
            self._write(data)
