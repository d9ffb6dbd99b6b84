"""Writing large files: ordered work in threads, hashing on the way, holes that stay holes."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from goldimg.formats import Heed, Progress, Written, direct
from goldimg.project import writing
from goldimg.run import Runner

BLOCK = 1 << 20  # bytes handled at once: large enough for the threads, small enough for memory
_ZEROS = bytes(BLOCK)
_PENDING = 8  # pieces of a hole that wait for the hash
AHEAD = 4  # results that may wait for an earlier one
_BUFFERS = 4  # of an output: one is filled while others are written and hashed

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ticker:
    """Counts bytes of the source for `progress`; raises Interrupted when `runner` is cancelled."""

    def __init__(self, total: int, progress: Progress | None, runner: Runner | None) -> None:
        self._total, self._done = total, 0
        self._progress, self._runner = progress, runner

    def advance(self, count: int) -> None:
        """`count` more bytes of the source are done."""
        self.heed()
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)

    def heed(self) -> None:
        """Raises Interrupted when it is time."""
        if self._runner:
            self._runner.check_cancelled()


def threads() -> int:
    """How many threads deflate at once: a core each, at most eight."""
    return min(8, len(os.sched_getaffinity(0)))


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 0
) -> Iterator[Result]:
    """`function` of each item, computed in threads, in the order of `items`.

    At most `workers` + AHEAD results wait. A core each is enough, even though some wait for the
    disk now and then: with more threads, Python's lock costs more than they bring.
    """
    workers = workers or threads()
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, "work") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > workers + AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Output:
    """A file written from front to back, its SHA-256 computed beside the writing.

    With `hashed=False` nothing is hashed until `begin_hash`. What is not hashed may be patched.
    """

    def __init__(self, path: Path, *, hashed: bool = True) -> None:
        direct.keep_memory()
        self.position = 0
        self.settled = 0  # bytes from the start that are in the file
        self._file = direct.File(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._sha = hashlib.sha256() if hashed else None
        self._hash_start = 0
        self._hasher = ThreadPoolExecutor(1, "sha256")
        self._writer = ThreadPoolExecutor(1, "write")
        self._buffer: mmap.mmap | None = None  # takes what is before `position`
        self._begin = self._end = 0  # of the bytes in it
        self._spare: list[mmap.mmap] = []
        self._buffers = 0
        # What threads are at work on; when they are done, the buffer is spare, and everything
        # before the position in the file.
        self._busy: deque[tuple[mmap.mmap | None, int, list[Future[None]]]] = deque()

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._settle()
                os.ftruncate(self._file.file, self.position)
        finally:
            self._hasher.shutdown(cancel_futures=kind is not None)
            self._writer.shutdown(cancel_futures=kind is not None)
            self._file.close()

    def fileno(self) -> int:
        """Its descriptor, good for reading what is settled."""
        return self._file.file

    def write(self, data: bytes | memoryview) -> None:
        """Appends `data`."""
        start = 0
        while start < len(data):
            if self._buffer is None:
                self._buffer = self._take()
                # As far from a page's start in memory as in the file: direct writing wants that.
                self._begin = self._end = self.position % direct.ALIGNMENT
            count = min(len(data) - start, direct.BUFFER - self._end)
            whole = count == len(data)
            self._buffer[self._end : self._end + count] = (
                data if whole else data[start : start + count]
            )
            self._end += count
            self.position += count
            start += count
            if self._end == direct.BUFFER:
                self._flush()

    def skip(self, count: int) -> None:
        """Appends `count` zero bytes as a hole."""
        self._flush()
        self.position += count
        if sha := self._sha:
            for start in range(0, count, 64 * BLOCK):
                length = min(64 * BLOCK, count - start)
                zeros = self._hasher.submit(_take_zeros, sha, length)
                self._busy.append((None, self.settled, [zeros]))
                self._wait(_PENDING)

    def begin_hash(self) -> None:
        """From here on the digest counts."""
        self._flush()
        self._sha, self._hash_start = hashlib.sha256(), self.position

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrites what was written before at `offset`."""
        # A hash cannot go back.
        assert self._sha is None or offset + len(data) <= self._hash_start  # noqa: S101
        self._settle()
        self._file.put(memoryview(data), offset)

    def digest(self) -> bytes:
        """The SHA-256 of everything from the start of the hash on."""
        assert self._sha is not None  # noqa: S101
        self._settle()
        return self._sha.digest()

    def _flush(self) -> None:
        """Has what is waiting written and hashed."""
        if self._buffer is None:
            return
        data = memoryview(self._buffer)[self._begin : self._end]
        futures = [self._writer.submit(self._file.put, data, self.position - len(data))]
        if self._sha:
            futures.append(self._hasher.submit(self._sha.update, data))
        self._busy.append((self._buffer, self.position, futures))
        self._buffer = None

    def _take(self) -> mmap.mmap:
        if not self._spare and self._buffers < _BUFFERS:
            self._buffers += 1
            return direct.buffer()
        while not self._spare:
            self._wait(len(self._busy) - 1)
        return self._spare.pop()

    def _settle(self) -> None:
        """Everything is in the file, and in the hash."""
        self._flush()
        self._wait(0)

    def _wait(self, count: int) -> None:
        """Until the threads have no more than `count` pieces of work."""
        while len(self._busy) > count:
            free, end, futures = self._busy.popleft()
            for future in futures:
                future.result()
            self.settled = max(self.settled, end)
            if free is not None:
                self._spare.append(free)


class Draft:
    """A file being made; `done` says what it became, and must be called inside the block."""

    def __init__(self, target: Path, temporary: Path, output: Output) -> None:
        self._target, self.temporary, self.output = target, temporary, output

    def done(self, virtual_size: int | None, digest: bytes | None = None) -> Written:
        """The record of the finished file; `digest` where the output itself computed none."""
        return Written(
            path=self._target,
            size=self.output.position,
            sha256=(digest or self.output.digest()).hex(),
            virtual_size=virtual_size,
        )


@contextlib.contextmanager
def draft(target: Path, *, hashed: bool = True) -> Iterator[Draft]:
    """A new file that appears at `target` when the block ends well, and not at all otherwise."""
    with writing(target) as temporary, Output(temporary, hashed=hashed) as output:
        yield Draft(target, temporary, output)


def data_ranges(file: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is not a hole in `file` between `start` and `end`: lseek(2)."""
    position = start
    while position < end:
        try:
            data = os.lseek(file, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        if data >= end:
            return
        position = min(end, os.lseek(file, data, os.SEEK_HOLE))
        yield data, position - data


class Digest(Protocol):
    """What takes bytes and tells their digest, as hashlib's objects do."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


def sha256_of(path: Path, heed: Heed | None = None, *, is_new: bool = False) -> bytes:
    """The SHA-256 of the whole file; see `digest_of`."""
    return digest_of(path, hashlib.sha256(), heed, is_new=is_new)


def digest_of(
    path: Path, digest: Digest, heed: Heed | None = None, *, is_new: bool = False
) -> bytes:
    """`digest` of the whole file, holes not read but counted as zeros.

    `is_new` where an Output has written it, so that the page cache has nothing of it.
    """
    with closing(direct.File(path, os.O_RDONLY)) as opened:
        read = partial(direct.read_ahead, opened) if is_new else partial(pieces, opened.file)
        size, position = os.fstat(opened.file).st_size, 0
        for offset, length in data_ranges(opened.file, 0, size):
            _take_zeros(digest, offset - position, heed)
            for data in read(offset, length):
                if heed:
                    heed()
                digest.update(data)
            position = offset + length
        _take_zeros(digest, size - position, heed)
    return digest.digest()


def _take_zeros(digest: Digest, count: int, heed: Heed | None = None) -> None:
    for start in range(0, count, BLOCK):
        if heed:
            heed()
        digest.update(_ZEROS if count - start >= BLOCK else _ZEROS[: count - start])


def pieces(file: int, offset: int, length: int) -> Iterator[bytes]:
    """The bytes of a range of `file`, a block at a time; OSError where the file ends early."""
    end = offset + length
    while offset < end:
        data = os.pread(file, min(BLOCK, end - offset), offset)
        if not data:
            raise OSError(f"the file ends at {offset}, {end - offset} bytes early")
        offset += len(data)
        yield data
