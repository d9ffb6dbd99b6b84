"""Writing large files: ordered work in threads, hashing on the way, holes that stay holes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from goldimg.formats import Progress, Written
from goldimg.project import writing
from goldimg.run import Runner

BLOCK = 1 << 20  # bytes handled at once: large enough for the threads, small enough for memory
_ZEROS = bytes(BLOCK)
_PENDING = 8  # blocks that wait for the hash
WRITEBACK = 32 * BLOCK  # bytes after which the disk is put to work

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ticker:
    """Counts bytes of the source for `progress`; raises Interrupted when `runner` is cancelled."""

    def __init__(self, total: int, progress: Progress | None, runner: Runner | None) -> None:
        self._total, self._done = total, 0
        self._progress, self._runner = progress, runner

    def advance(self, count: int) -> None:
        """`count` more bytes of the source are done."""
        if self._runner:
            self._runner.check_cancelled()
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


def threads() -> int:
    """How many threads deflate at once: a core each, at most eight."""
    return min(8, len(os.sched_getaffinity(0)))


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`function` of each item, computed in threads, in the order of `items`, a few ahead."""
    workers = threads()
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, "deflate") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * workers:
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
        self.position = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._sha = hashlib.sha256() if hashed else None
        self._hash_start = 0
        self._hasher = ThreadPoolExecutor(1, "sha256")
        self._pending: deque[Future[None]] = deque()
        self._parts: list[bytes] = []  # the last bytes before `position`, not yet in the file
        self._waiting = 0
        self._started = 0  # the kernel is writing what is before this
        self._starter = ThreadPoolExecutor(1, "writeback")

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                os.ftruncate(self._file, self.position)
        finally:
            self._hasher.shutdown(cancel_futures=kind is not None)
            self._starter.shutdown(cancel_futures=True)
            os.close(self._file)

    def write(self, data: bytes) -> None:
        """Appends `data`."""
        self._parts.append(data)
        self._waiting += len(data)
        self.position += len(data)
        if self._waiting >= BLOCK:
            self._flush()

    def skip(self, count: int) -> None:
        """Appends `count` zero bytes as a hole."""
        self._flush()
        self.position += count
        sha = self._sha
        if sha and count:

            def update(number: int) -> None:
                _hash_zeros(sha, number)

            for start in range(0, count, 64 * BLOCK):
                self._hash(update, min(64 * BLOCK, count - start))

    def begin_hash(self) -> None:
        """From here on the digest counts."""
        self._flush()
        self._sha, self._hash_start = hashlib.sha256(), self.position

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrites what was written before at `offset`."""
        # A hash cannot go back.
        assert self._sha is None or offset + len(data) <= self._hash_start  # noqa: S101
        self._flush()
        self._put(data, offset)

    def digest(self) -> bytes:
        """The SHA-256 of everything from the start of the hash on."""
        assert self._sha is not None  # noqa: S101
        self._flush()
        while self._pending:
            self._pending.popleft().result()
        return self._sha.digest()

    def _flush(self) -> None:
        """Writes what is waiting, many small pieces at once, and hashes it."""
        if not self._waiting:
            return
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._waiting = [], 0
        self._put(data, self.position - len(data))
        if self._sha:
            self._hash(self._sha.update, data)
        if self.position - self._started >= WRITEBACK:
            self._starter.submit(_start_writing, self._file, self._started, self.position)
            self._started = self.position

    def _put(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._file, view, offset)
            view, offset = view[count:], offset + count

    def _hash(self, function: Callable[[Item], None], item: Item) -> None:
        self._pending.append(self._hasher.submit(function, item))
        if len(self._pending) > _PENDING:
            self._pending.popleft().result()


def _start_writing(file: int, start: int, end: int) -> None:
    """Has the kernel write the range now, so that the fsync at the end finds little to do.

    What is dirty stays in memory, as posix_fadvise(2) tells, so a second reading is free.
    """
    with contextlib.suppress(OSError):
        os.posix_fadvise(file, start, end - start, os.POSIX_FADV_DONTNEED)


def _hash_zeros(sha: hashlib._Hash, count: int) -> None:
    for _ in range(count // BLOCK):
        sha.update(_ZEROS)
    sha.update(_ZEROS[: count % BLOCK])


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


def sha256_of(path: Path, ticker: Ticker | None = None) -> bytes:
    """The SHA-256 of the whole file, holes not read but counted as zeros."""
    sha = hashlib.sha256()
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size, position = os.fstat(file).st_size, 0
        for offset, length in data_ranges(file, 0, size):
            _hash_zeros(sha, offset - position)
            position = offset + length
            for data in pieces(file, offset, length):
                sha.update(data)
                if ticker:
                    ticker.advance(len(data))
        _hash_zeros(sha, size - position)
    finally:
        os.close(file)
    return sha.digest()


def pieces(file: int, offset: int, length: int) -> Iterator[bytes]:
    """The bytes of a range of `file`, a block at a time; OSError where the file ends early."""
    end = offset + length
    while offset < end:
        data = os.pread(file, min(BLOCK, end - offset), offset)
        if not data:
            raise OSError(f"the file ends at {offset}, {end - offset} bytes early")
        offset += len(data)
        yield data
