"""An artifact held to its manifest and its format while it is sent.

What the front of a file and its tables tell is checked before the first byte; what takes reading
all of it runs beside the sending, and no image is made of what was sent before it has ended well.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from goldimg.errors import Interrupted, VerificationFailed
from goldimg.formats import Heed
from goldimg.formats.stream import Digest, digest_of
from goldimg.publish.image import File
from goldimg.publish.journal import Journal

NOTED = "proven"  # the journal's key: what a run that goes on need not read again
CRC32C = "crc32c"  # which hashlib does not know
BUILD_AGAIN = "build it again with --force"

Check = Callable[[Path, Heed], None]


class Proof:
    """The proof of one file: its SHA-256 where `algorithms` are asked for, its format by `check`.

    Each reads in a thread of its own, mostly out of the page cache; holes are not read. What was
    proven is noted in the journal with the file's size and time.
    """

    def __init__(
        self, file: File, journal: Journal, check: Check, algorithms: Sequence[str] = ()
    ) -> None:
        self._file, self._journal, self._check = file, journal, check
        self._algorithms = ("sha256", *algorithms) if algorithms else ()
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._futures: list[Future[None]] = []
        self._digests: dict[str, str] = {}
        self._left = 0  # threads
        self._mark: list[int] = []  # of the file as the threads began, where it is to be noted
        self._done = threading.Event()

    def begin(self, *, is_noted: bool = True) -> None:
        """Starts the threads, unless an earlier run has proven this very file.

        Without `is_noted` nothing is written, nor more digested than the SHA-256.
        """
        noted = self._journal.get(NOTED) or {}
        digests, there = noted.get("digests", {}), mark(self._file)
        if noted.get("file") == there and set(self._algorithms) <= set(digests):
            self._digests = digests
            return
        names = self._algorithms if is_noted else self._algorithms[:1]
        self._left, self._mark = 1 + len(names), there if is_noted else []
        self._pool = ThreadPoolExecutor(self._left, "proof")
        self._futures = [self._pool.submit(self._check, self._file.path, self._heed)]
        self._futures += [self._pool.submit(self._digest, name) for name in names]
        for future in self._futures:
            future.add_done_callback(self._ended)

    def close(self) -> None:
        """Ends the threads, wherever they are."""
        self._is_over.set()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._pool is None or self._done.is_set()

    def raise_fault(self) -> None:
        """Raises what was found to be wrong so far."""
        for future in self._futures:
            if future.done() and not future.cancelled():
                future.result()

    @property
    def digests(self) -> Mapping[str, str]:
        """The digests in hex, by `algorithms`, once it is done."""
        self.raise_fault()
        return self._digests

    def _heed(self) -> None:
        if self._is_over.is_set():
            raise Interrupted

    def _digest(self, name: str) -> None:
        found = digest_of(self._file.path, new(name), self._heed).hex()
        if name == "sha256" and found != self._file.sha256:
            raise changed(self._file.path)
        with self._lock:
            self._digests[name] = found

    def _ended(self, _: Future[None]) -> None:
        """Called as each thread ends; after the last the note is written, if all was well."""
        with self._lock:
            self._left -= 1
            if self._left:
                return
        try:
            is_sound = not any(it.cancelled() or it.exception() for it in self._futures)
            if is_sound and self._mark:
                self._journal.set(NOTED, {"file": self._mark, "digests": self._digests})
        finally:
            self._done.set()


def changed(path: Path) -> VerificationFailed:
    """The error that an artifact is not what its manifest says any more."""
    return VerificationFailed(
        f"{path} is not what was built",
        why="its SHA-256 is another than manifest.json says",
        hint=BUILD_AGAIN,
    )


def new(name: str) -> Digest:
    """A digest by hashlib's name, or CRC32C."""
    if name == CRC32C:
        import google_crc32c

        checksum: Digest = google_crc32c.Checksum()
        return checksum
    return hashlib.new(name, usedforsecurity=False)


def mark(file: File) -> list[int]:
    """What tells that a file is the one that was read."""
    found = file.path.stat()
    return [found.st_size, found.st_mtime_ns]
