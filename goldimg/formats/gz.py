"""One gzip member, deflated in threads; and the strict reader of such files.

Source: RFC 1952. The blocks are cut by position in the stream, and around what comes packed: the
bytes do not depend on threads or on the sizes of the writes.
"""

from __future__ import annotations

import mmap
import struct
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from goldimg.errors import VerificationFailed
from goldimg.formats import Heed, deflate
from goldimg.formats.direct import buffer
from goldimg.formats.stream import BLOCK, Output, threads

# magic, deflate, no flags, no time, fastest (4), made on Unix (3)
HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 3))
GZIP_WINDOW = 31


class GzipWriter:
    """Compresses what it is given into `output`; a context manager, whose end ends the member."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._size = self._crc = 0
        self._block: mmap.mmap | None = None
        self._filled = 0  # bytes of it
        self._spare: list[mmap.mmap] = []
        self._pending: deque[tuple[Future[bytes], mmap.mmap]] = deque()
        self._workers = threads()
        self._pool = ThreadPoolExecutor(self._workers, "gzip")
        output.write(HEADER)

    def __enter__(self) -> GzipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                trailer = struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)
                self._output.write(deflate.LAST + trailer)
        finally:
            self._pool.shutdown(cancel_futures=True)

    @property
    def position(self) -> int:
        """Bytes taken so far, before compression."""
        return self._size + (self._filled if self._block else 0)

    def write(self, data: bytes | memoryview) -> None:
        """Appends `data`."""

        def copy(into: memoryview, done: int) -> None:
            into[:] = data[done : done + len(into)]

        self.fill(len(data), copy)

    def fill(self, length: int, read: Callable[[memoryview, int], None]) -> None:
        """Appends `length` bytes, which `read` puts where it is told: (memory, how many before)."""
        done = 0
        while done < length:
            if self._block is None:
                self._block, self._filled = self._spare.pop() if self._spare else buffer(), 0
            end = min(BLOCK, self._filled + length - done)
            read(memoryview(self._block)[self._filled : end], done)
            done += end - self._filled
            self._filled = end
            if end == BLOCK:
                self._cut()

    def write_stored(self, data: bytes | memoryview) -> None:
        """Appends `data` that would not shrink."""
        self._flush()
        self._size += len(data)
        self._crc = deflate.crc32(data, self._crc)
        self._output.write(deflate.stored_piece(data))

    def write_piece(self, packed: bytes | memoryview, crc: int, length: int) -> int:
        """Appends `length` bytes that `deflate.piece` has packed; their CRC-32 is `crc`.

        Returns the place in the output where they are now.
        """
        self._flush()
        self._size += length
        self._crc = deflate.crc32_joined(self._crc, crc, length)
        place = self._output.position
        self._output.write(packed)
        return place

    def _cut(self) -> None:
        """What comes next begins a block."""
        if self._block is None:
            return
        data = memoryview(self._block)[: self._filled]
        self._size += len(data)
        self._crc = deflate.crc32(data, self._crc)
        self._pending.append((self._pool.submit(deflate.piece, data), self._block))
        self._block = None
        self._wait(2 * self._workers)

    def _flush(self) -> None:
        self._cut()
        self._wait(0)

    def _wait(self, count: int) -> None:
        """Until no more than `count` blocks are being compressed."""
        while len(self._pending) > count:
            future, block = self._pending.popleft()
            self._output.write(future.result())
            self._spare.append(block)


class GzipReader:
    """Reads a file that must be exactly one gzip member; VerificationFailed says where it is not.

    A context manager. `position` counts decompressed bytes. `heed` is called before each piece of
    the file, `tap` with each piece of what it holds.
    """

    def __init__(
        self,
        path: Path,
        heed: Heed | None = None,
        tap: Callable[[bytes], object] | None = None,
    ) -> None:
        self.path, self.position, self._heed, self._tap = path, 0, heed, tap
        self._stream = path.open("rb")
        self._inflater = deflate.inflater(GZIP_WINDOW)
        self._ready = b""

    def __enter__(self) -> GzipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def fail(self, message: str) -> VerificationFailed:
        """The error that names the place in the decompressed stream."""
        return VerificationFailed(f"{self.path}: offset {self.position}: {message}")

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer only at the end of the member."""
        parts = []
        while count and (self._ready or self._fill()):
            part, self._ready = self._ready[:count], self._ready[count:]
            parts.append(part)
            count -= len(part)
            self.position += len(part)
        return b"".join(parts)

    def exactly(self, count: int) -> bytes:
        """`count` bytes, or the error that the stream ends early."""
        data = self.read(count)
        if len(data) != count:
            raise self.fail("the stream ends early")
        return data

    def skip(self, count: int) -> None:
        """Passes over `count` bytes, which must be there."""
        while count:
            if not self._ready and not self._fill():
                raise self.fail("the stream ends early")
            step = min(count, len(self._ready))
            self._ready = self._ready[step:]
            self.position += step
            count -= step

    def finish(self) -> None:
        """Checks that the member ends here, and the file with it."""
        if self.read(1):
            raise self.fail("data after the end of the archive")
        if self._inflater.unused_data or self._stream.read(1):
            raise self.fail("bytes after the end of the gzip member")

    def _fill(self) -> bool:
        while not self._ready and not self._inflater.eof:
            if self._heed:
                self._heed()
            data = self._inflater.unconsumed_tail or self._stream.read(1 << 16)
            if not data:
                raise self.fail("the gzip member has no end")
            try:
                self._ready = self._inflater.decompress(data, BLOCK)
            except deflate.ERRORS as error:
                raise self.fail(f"not gzip: {error}") from error
            if self._tap and self._ready:
                self._tap(self._ready)
        return bool(self._ready)
