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
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ALIGNMENT = 4096  # bytes: of place, length and memory; no device here wants more
BUFFER = 1 << 20  # bytes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
DIRECT_FROM = 1 << 18  # bytes: below it, a request costs more than the copy that it saves
TRIALS, TRY_EVERY = 8, 32  # reads that alternate at first, and how often the dearer way is tried
LATELY = 0.25  # how much the last read counts
WAITING = 1 / 8  # what a second of waiting costs, in seconds of CPU time
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


class Reader(File):
    """Reads pieces of a file the way that costs less: through the page cache or past it.

    That depends on the device, on what is cached and, in a virtual machine, on its host, which may
    have taken away the memory behind a page that was not touched for long. So each way is tried now
    and then, and the cheaper one used else. For any threads.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDONLY)
        self._costs = [0.0, 0.0]  # seconds for each byte of late: through the cache, past it
        self._count = 0

    def read(self, into: memoryview, offset: int) -> int:
        """Fills `into` with what is there from `offset` on; says how much, less only at the end."""
        done = 0
        while done < len(into) and (count := self._read(into[done:], offset + done)):
            done += count
        return done

    def _read(self, into: memoryview, offset: int) -> int:
        if self._direct is None or len(into) < DIRECT_FROM:
            return os.preadv(self.file, [into], offset)
        self._count += 1
        is_direct = self._costs[1] <= self._costs[0]
        if self._count <= TRIALS or self._count % TRY_EVERY == 0:
            is_direct = self._count % 2 == 0 if self._count <= TRIALS else not is_direct
        clock, started = time.monotonic(), time.thread_time()
        count = self.get(into, offset) if is_direct else os.preadv(self.file, [into], offset)
        # Others work while one waits; while it computes, they cannot.
        cost = time.thread_time() - started + (time.monotonic() - clock) * WAITING
        now, before = cost / len(into), self._costs[is_direct]
        self._costs[is_direct] = before + (now - before) * LATELY if before else now
        return count


class Windows:
    """What was read of late, in pieces of BUFFER bytes, for those who want less at once.

    `read` fills memory with what is at an offset and says how much is there. What it had not when
    it was asked is asked for again. For any threads; one of them reads at a time.
    """

    def __init__(self, read: Callable[[memoryview, int], int], count: int) -> None:
        self._read, self._count = read, count
        self._lock = threading.Lock()
        self._pieces: OrderedDict[int, tuple[memoryview, int]] = OrderedDict()

    def copy(self, into: memoryview, offset: int) -> int:
        """Fills `into` with what is at `offset`; says how much, less only where no more is."""
        done = 0
        with self._lock:
            while done < len(into):
                number, skipped = divmod(offset + done, BUFFER)
                data, end = self._piece(number, skipped)
                part = data[skipped : min(end, skipped + len(into) - done)]
                if not part:
                    break
                into[done : done + len(part)] = part
                done += len(part)
        return done

    def _piece(self, number: int, wanted: int) -> tuple[memoryview, int]:
        """The piece with that number, and how many bytes of it there are: more than `wanted`, if
        there are so many at all."""
        data, end = self._pieces.pop(number, (None, 0))
        if data is None:
            is_full = len(self._pieces) == self._count
            data = self._pieces.popitem(last=False)[1][0] if is_full else memoryview(buffer())
        if end <= wanted:
            end = self._read(data, number * BUFFER)
        self._pieces[number] = data, end
        return data, end


def read_ahead(file: File, offset: int, length: int) -> Iterator[memoryview]:
    """The bytes of a range, a buffer at a time, the next one read meanwhile.

    Each is overwritten when the one after the next is asked for. OSError where the file ends early.
    """
    spare, end = [memoryview(buffer()), memoryview(buffer())], offset + length
    surplus = offset % ALIGNMENT
    position = offset - surplus  # where direct reading can begin
    with ThreadPoolExecutor(1, "read") as pool:
        coming = pool.submit(file.get, spare[0], position)
        while position < end:
            count = coming.result()
            if count <= surplus:
                raise OSError(f"the file ends at {position + count}, before {end}")
            data = spare[0][surplus : min(count, end - position)]
            position, surplus = position + count, 0
            spare.reverse()
            if position < end:
                coming = pool.submit(file.get, spare[0], position)
            yield data
