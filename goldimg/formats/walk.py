"""Tells what is in a mounted file system, as a tar archive whose files are places on the disk.

    python -m goldimg.formats.walk DIRECTORY [NEWEST]

writes to standard output, one after the other: a place and a length, each of 64 bits. Where the
place is HERE, so many bytes of the archive follow; where it is ZEROS, so many zeros belong there;
otherwise so many bytes of the file system's device from that place on. The kernel tells the places
(FIEMAP), so that nobody has to read a file through the mount: its layers below (loop device, FUSE)
would copy every byte four times.

Runs where the mount is, in a mount namespace of its own, and with a Python of its own: other
threads do not wait for it. Sources: the kernel's Documentation/filesystems/fiemap.rst; acl(5); the
values of POSIX ACLs in linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from fcntl import ioctl
from typing import IO

from goldimg.formats import tarball

ITEM = struct.Struct("<QQ")
HERE, ZEROS = 2**64 - 1, 2**64 - 2
LONGEST = 1 << 20  # bytes that follow one HERE
# What a container makes anew each time it starts, as directories that stay empty.
RUNTIME = (b"./dev", b"./proc", b"./sys", b"./run")
LOST_FOUND = b"./lost+found"
SELINUX = "security.selinux"
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
ACLS = {ACCESS: b"SCHILY.acl.access", DEFAULT: b"SCHILY.acl.default"}
ACL_HEADER = 4  # bytes: the version
ACL_ENTRY = struct.Struct("<HHI")
ACL_TAGS = {1: "user", 2: "user", 4: "group", 8: "group", 0x10: "mask", 0x20: "other"}
ACL_NAMED = (2, 8)

FS_IOC_FIEMAP = 0xC020660B
# start, length, flags, extents mapped, room for extents, reserved
FIEMAP = struct.Struct("=QQIIII")
# logical, physical, length, reserved, flags, reserved
EXTENT = struct.Struct("=QQQ16xI12x")
EXTENTS = 128  # asked for at once
LAST, UNWRITTEN, MERGED, SHARED = 0x1, 0x800, 0x1000, 0x2000
PLAIN = LAST | UNWRITTEN | MERGED | SHARED  # other flags: no place on the device tells the content
NO_MAP = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL)
KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


class Teller:
    """Writes the archive of the tree below `root` to `out`."""

    def __init__(self, root: bytes, out: IO[bytes], newest: int | None) -> None:
        self._root, self._out, self._newest = root, out, newest
        self._size = 0  # of the archive so far
        self._text = bytearray()  # of it, that is not told yet
        self._firsts: dict[int, bytes] = {}  # by inode, the name of what has several

    def tell(self) -> None:
        """All members, sorted by name, and the end of the archive. OSError names what failed."""
        for name in sorted(_names(self._root, b".")):
            self._member(name)
        self._here(tarball.END)
        self._here(tarball.padding(self._size, tarball.RECORD))
        self._flush()

    def _member(self, name: bytes) -> None:
        path = self._root + name[1:]
        found = os.lstat(path)
        kind = KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return  # a device or a socket
        link, size = b"", 0
        if kind != b"5" and found.st_nlink > 1:
            first = self._firsts.setdefault(found.st_ino, name)
            if first is not name:
                kind, link = b"1", first
        if kind == b"2":
            link = os.readlink(path)  # noqa: PTH115 - names are bytes here
        elif kind == b"0":
            size = found.st_size
        time = found.st_mtime_ns // 10**9
        self._here(
            tarball.member_header(
                name + b"/" if kind == b"5" else name,
                kind,
                mode=stat.S_IMODE(found.st_mode),
                owner=(found.st_uid, found.st_gid),
                size=size,
                time=time if self._newest is None else min(time, self._newest),
                link=link,
                attributes=() if kind == b"1" else _attributes(path, found.st_mode),
            )
        )
        if size:
            self._content(path, size)
            self._here(tarball.padding(size))

    def _content(self, path: bytes, size: int) -> None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            places = _places(file, size)
            if places is None:
                position = 0
                while position < size:
                    data = os.pread(file, min(LONGEST, size - position), position)
                    if not data:
                        raise OSError(errno.EIO, "the file ends early", path)
                    self._here(data)
                    position += len(data)
                return
        finally:
            os.close(file)
        self._flush()
        for place, length in places:
            self._out.write(ITEM.pack(place, length))
        self._size += size

    def _here(self, data: bytes) -> None:
        self._text += data
        self._size += len(data)
        if len(self._text) >= LONGEST // 2:
            self._flush()

    def _flush(self) -> None:
        if self._text:
            self._out.write(ITEM.pack(HERE, len(self._text)))
            self._out.write(self._text)
            self._text.clear()


def _names(root: bytes, below: bytes) -> Iterator[bytes]:
    """`below` and everything in it, as paths from `root` on."""
    waiting = [below]
    while waiting:
        directory = waiting.pop()
        yield directory
        if directory in RUNTIME:
            continue
        with os.scandir(root + directory[1:]) as entries:
            for entry in entries:
                name = directory + b"/" + entry.name
                if name == LOST_FOUND:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                else:
                    yield name


def _attributes(path: bytes, mode: int) -> Iterator[tuple[bytes, bytes]]:
    """The extended attributes as GNU tar writes them, but SELinux's.

    ACLs come twice: readers that know no text form of them (Docker) take the attribute.
    """
    names = sorted(os.listxattr(path, follow_symlinks=False))
    if ACCESS not in names and DEFAULT in names:
        yield (
            ACLS[ACCESS],
            "".join(
                f"{who}::{_letters(mode >> shift)}\n"
                for who, shift in (("user", 6), ("group", 3), ("other", 0))
            ).encode(),
        )
    for name in names:
        if name == SELINUX:
            continue
        value = os.getxattr(path, name, follow_symlinks=False)
        if name in ACLS:
            yield ACLS[name], _acl_text(value)
        yield b"SCHILY.xattr." + os.fsencode(name), value


def _acl_text(value: bytes) -> bytes:
    """Owners by number: whom a number means is for the image to say, not for this host."""
    lines = []
    for tag, allowed, number in ACL_ENTRY.iter_unpack(value[ACL_HEADER:]):
        who = str(number) if tag in ACL_NAMED else ""
        lines.append(f"{ACL_TAGS[tag]}:{who}:{_letters(allowed)}\n")
    return "".join(lines).encode()


def _letters(allowed: int) -> str:
    pairs = zip("rwx", (4, 2, 1), strict=True)
    return "".join(letter if allowed & bit else "-" for letter, bit in pairs)


def _places(file: int, size: int) -> list[tuple[int, int]] | None:
    """Where the first `size` bytes of the file are; None where only reading tells them."""
    found: list[tuple[int, int]] = []
    position = 0
    try:
        for start, place, length, flags in _extents(file, size):
            if flags & ~PLAIN:
                return None
            end = min(start + length, size)
            if start > position:
                found.append((ZEROS, start - position))
            if end > start:
                found.append((ZEROS if flags & UNWRITTEN else place, end - start))
            position = max(position, end)
    except OSError as error:
        if error.errno in NO_MAP:
            return None
        raise
    if position < size:
        found.append((ZEROS, size - position))
    return found


def _extents(file: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """(place in the file, place on the device, length, flags) of each extent, in order."""
    position = 0
    while position < size:
        room = bytearray(FIEMAP.size + EXTENTS * EXTENT.size)
        FIEMAP.pack_into(room, 0, position, size - position, 0, 0, EXTENTS, 0)
        ioctl(file, FS_IOC_FIEMAP, room)
        count = FIEMAP.unpack_from(room)[3]
        if not count:
            return
        for number in range(count):
            extent = EXTENT.unpack_from(room, FIEMAP.size + number * EXTENT.size)
            yield extent
            position = extent[0] + extent[2]
        if extent[3] & LAST:
            return


def main() -> None:
    """The program; what it cannot read ends it with a line that says so."""
    root = os.fsencode(sys.argv[1])
    newest = int(sys.argv[2]) if len(sys.argv) > 2 else None
    with open(1, "wb", buffering=LONGEST, closefd=False) as out:
        try:
            Teller(root, out, newest).tell()
        except OSError as error:
            name = os.fsdecode(error.filename or b"").removeprefix(sys.argv[1])
            raise SystemExit(f"{name or 'the file system'}: {error.strerror}") from None


if __name__ == "__main__":
    main()
