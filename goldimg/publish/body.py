"""A file as the body of one request: of known length, read and hashed ahead of the network."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from goldimg.publish.image import File
from goldimg.publish.job import Job
from goldimg.publish.proof import changed

CHUNK = 1 << 20  # bytes
AHEAD = 4  # chunks read before the network asks for them: all that is held in memory


class Body:
    """What requests takes as `data`: it sends Content-Length, and iterates from the start again.

    Each iteration hashes what it yields by `algorithms`; `hashes` holds the hex digests once it has
    come to its end. The last chunk is held back until the SHA-256 of all is known to be that of the
    manifest, and the job's proof has ended: an artifact that changed since it was built, or breaks
    its format, never arrives whole.
    """

    def __init__(self, job: Job, file: File, algorithms: Sequence[str] = ("sha512",)) -> None:
        self._job, self._file = job, file
        self._algorithms = tuple(dict.fromkeys(("sha256", *algorithms)))
        self.hashes: dict[str, str] = {}

    def __len__(self) -> int:
        return self._file.size

    def __iter__(self) -> Iterator[bytes]:
        self.hashes, done = {}, 0
        reader = _Reader(self._file.path, self._algorithms)
        try:
            while done < self._file.size:
                self._job.check_cancelled()
                chunk = reader.next()
                done += len(chunk)
                if done >= self._file.size or not chunk:
                    self._check(done, reader, at_end=not chunk)
                yield chunk
                self._job.progress(done, self._file.size)
        finally:
            reader.close()

    def _check(self, done: int, reader: _Reader, *, at_end: bool) -> None:
        found = reader.digests() if done == self._file.size and not at_end else {}
        if found.get("sha256") != self._file.sha256:
            raise changed(self._file.path)
        self._job.proven()
        self.hashes = found


def hashes_of(job: Job, path: Path, *algorithms: str) -> dict[str, str]:
    """The hex digests of a file, by `hashlib`'s names."""
    sums = {name: hashlib.new(name) for name in algorithms}
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            job.check_cancelled()
            for it in sums.values():
                it.update(chunk)
    return {name: it.hexdigest() for name, it in sums.items()}


class _Reader:
    """Reads and hashes in a thread of its own."""

    def __init__(self, path: Path, algorithms: Sequence[str]) -> None:
        self._path = path
        self._sums = {name: hashlib.new(name) for name in algorithms}
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read", daemon=True)
        self._thread.start()

    def next(self) -> bytes:
        """The next chunk, empty after the last."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def digests(self) -> dict[str, str]:
        """The digests of the whole file; to be asked for once its last chunk was given."""
        while self.next():
            pass
        return {name: it.hexdigest() for name, it in self._sums.items()}

    def close(self) -> None:
        """Ends the thread."""
        self._is_closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._path.open("rb") as stream:
                while not self._is_closed.is_set() and (chunk := stream.read(CHUNK)):
                    for it in self._sums.values():
                        it.update(chunk)
                    self._queue.put(chunk)
            self._queue.put(b"")
        except BaseException as error:
            self._queue.put(error)
