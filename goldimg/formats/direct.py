"""Large files written and read past the page cache: O_DIRECT of open(2), where there is such.

An image is written once and read by somebody else, later: a copy of it in memory costs time, and
pushes out what others work with. File systems without O_DIRECT (tmpfs before Linux 6.6, FUSE) get
ordinary calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ALIGNMENT = 4096  # bytes: of place, length and memory; no device here wants more
BUFFER = 1 << 20  # bytes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)


def buffer() -> mmap.mmap:
    """BUFFER bytes of memory that begin at a page."""
    return mmap.mmap(-1, BUFFER)


@functools.cache
def keep_memory() -> None:
    """Has the C library keep the memory of blocks that are freed, for the next ones.

    It gives them back to the kernel else, which clears them anew each time: a tenth of the CPU time
    of a conversion. Up to 64 MiB stay with the process. Nothing happens without glibc: mallopt(3).
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)


class File:
    """A file open for ordinary calls as `file` and, where that works, for direct ones beside it.

    The kernel keeps the two coherent. Used by one writing thread at a time.
    """

    def __init__(self, path: Path, flags: int, mode: int = 0o644) -> None:
        self.file = os.open(path, flags | os.O_CLOEXEC, mode)
        again = flags & ~(os.O_CREAT | os.O_EXCL) | os.O_DIRECT | os.O_CLOEXEC
        self._direct: int | None = None
        with contextlib.suppress(OSError):
            self._direct = os.open(path, again)

    def close(self) -> None:
        os.close(self.file)
        if self._direct is not None:
            os.close(self._direct)

    def put(self, data: memoryview, offset: int) -> None:
        """Writes all of `data` at `offset`.

        Direct where its memory is aligned as `offset` is, except what fills no page.
        """
        head = min(len(data), -offset % ALIGNMENT)
        whole = (len(data) - head) // ALIGNMENT * ALIGNMENT
        done = head
        try:
            while self._direct is not None and done < head + whole:
                done += os.pwrite(self._direct, data[done : head + whole], offset + done)
                if done % ALIGNMENT != head % ALIGNMENT:
                    break  # a part of a page: a full disk, which the next call tells
        except OSError as error:
            if error.errno not in REFUSED:
                raise
        self._put(data[:head], offset)
        self._put(data[done:], offset + done)

    def _put(self, data: memoryview, offset: int) -> None:
        while data:
            count = os.pwrite(self.file, data, offset)
            data, offset = data[count:], offset + count

    def get(self, into: memoryview, offset: int) -> int:
        """Reads to the start of `into`, and says how much; 0 at the end of the file."""
        if self._direct is not None and offset % ALIGNMENT == 0 and len(into) % ALIGNMENT == 0:
            with contextlib.suppress(OSError):
                return os.preadv(self._direct, [into], offset)
        return os.preadv(self.file, [into], offset)


def read_ahead(file: File, offset: int, length: int) -> Iterator[memoryview]:
    """The bytes of a range, a buffer at a time, the next one read meanwhile.

    Each is overwritten when the one after the next is asked for. OSError where the file ends early.
    """
    spare, end = [memoryview(buffer()), memoryview(buffer())], offset + length
    with ThreadPoolExecutor(1, "read") as pool:
        coming = pool.submit(file.get, spare[0], offset)
        while offset < end:
            count = coming.result()
            if not count:
                raise OSError(f"the file ends at {offset}, {end - offset} bytes early")
            data = spare[0][: min(count, end - offset)]
            offset += len(data)
            spare.reverse()
            if offset < end:
                coming = pool.submit(file.get, spare[0], offset)
            yield data
