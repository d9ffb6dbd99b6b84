"""Fetch one file over HTTP: resumable, in bounded time, retried only where a retry can help."""

import contextlib
import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3

from goldimg import __version__
from goldimg.errors import GoldimgError
from goldimg.iso.checksums import hash_into
from goldimg.project import free_bytes, write_text


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a download is: bytes so far, bytes in all where known, bytes a second."""

    done: int
    total: int | None
    rate: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits of the network: seconds, and how many failures without a byte of progress."""

    connect: float = 10.0
    read: float = 60.0
    failures: int = 5
    wait: float = 1.0  # before the first retry; doubles up to 30


class Refused(Exception):
    """The server will not give the file, however often it is asked."""


class Broken(Exception):
    """The transfer failed in a way that may pass."""

    has_progress = False


READ = 1 << 16  # bytes; of an unfinished read nothing reaches us when the connection breaks
# What a later attempt may overcome (https://www.rfc-editor.org/rfc/rfc9110#section-15).
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LASTING = (
    requests.exceptions.SSLError,
    requests.exceptions.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
)
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


def new_session() -> requests.Session:
    """A session as all downloads use it; proxies and CA bundles come from the environment."""
    session = requests.Session()
    # Identity: a Range counts the bytes of the file and not of a compressed transfer.
    session.headers.update({"User-Agent": f"goldimg/{__version__}", "Accept-Encoding": "identity"})
    return session


def shown(url: str) -> str:
    """The URL without a name, password or query in it: those may be secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def reason(error: BaseException) -> str:
    """Why the network failed, in a few words and without the URL."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    text = str(error)
    for words, meaning in (
        ("NameResolution", "host name not found"),
        ("Name or service not known", "host name not found"),
        ("Connection refused", "connection refused"),
        ("No route to host", "no route to host"),
        ("CERTIFICATE_VERIFY_FAILED", "certificate not trusted"),
        ("timed out", "timed out"),
        ("IncompleteRead", "the transfer was cut off"),
        ("Connection reset", "connection reset"),
        ("RemoteDisconnected", "connection closed without an answer"),
    ):
        if words in text:
            return meaning
    return type(error).__name__ if isinstance(error, NETWORK) else text


@dataclass(kw_only=True)
class Download:
    """One file on its way into `part`, which a later run continues; at the end `sha256` is its."""

    session: requests.Session
    part: Path
    policy: Policy
    cancel: threading.Event
    check: Callable[[], None]  # raises where the user asked to stop
    progress: Callable[[Progress], None] | None = None
    was_resumed: bool = False
    sha256: str = ""

    def fetch(self, url: str) -> None:
        """Fetches `url` to its end; `sha256` is then the file's. Raises Refused or GoldimgError.

        Attempts go on as long as each brings bytes; `policy.failures` in a row without any end it.
        """
        stuck = 0

        def is_hopeless(state: tenacity.RetryCallState) -> bool:
            nonlocal stuck
            error = state.outcome.exception() if state.outcome else None
            stuck = 0 if getattr(error, "has_progress", False) else stuck + 1
            return stuck >= self.policy.failures

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Broken),
            stop=is_hopeless,
            wait=tenacity.wait_exponential(multiplier=self.policy.wait, max=30.0),
            sleep=tenacity.sleep_using_event(self.cancel),
            reraise=True,
        )
        try:
            retrying(self._attempt, url)
        except Broken as error:
            raise Refused(f"{error} ({self.policy.failures} attempts in a row)") from None

    def _attempt(self, url: str) -> None:
        self.check()
        before = _size(self.part)
        try:
            self._transfer(url, before)
        except _LASTING as error:
            raise Refused(reason(error)) from error
        except (Broken, *NETWORK) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(self.part, None) from error
            if isinstance(error, OSError) and error.filename is not None:
                raise GoldimgError(
                    f"cannot write {self.part}", why=(error.strerror or "").lower()
                ) from error
            passing = Broken(str(error) if isinstance(error, Broken) else reason(error))
            passing.has_progress = _size(self.part) > before
            raise passing from error

    def _transfer(self, url: str, start: int) -> None:
        headers = self._range_headers(url, start) if start else {}
        limits = (self.policy.connect, self.policy.read)
        with self.session.get(url, headers=headers, stream=True, timeout=limits) as response:
            code = response.status_code
            if code == 416 and start:
                # Nothing lies behind what is here already. The digest tells whether it is the file.
                self.was_resumed = True
                self.sha256 = hash_into(self.part).hexdigest()
                return
            if code in PASSING:
                raise Broken(f"HTTP {code}")
            if code not in (200, 206):
                raise Refused(f"HTTP {code} {response.reason or ''}".strip())
            if code == 206 and not _starts_at(response, start):
                self.part.unlink(missing_ok=True)
                raise Broken("the server answered with another range")
            self._receive(url, response, start if code == 206 else 0)

    def _range_headers(self, url: str, start: int) -> dict[str, str]:
        headers = {"Range": f"bytes={start}-"}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            known = json.loads(self._memory.read_text(encoding="utf-8"))
            # On another mirror the validator differs though the file does not: the digest decides.
            if known.get("url") == shown(url) and known.get("validator"):
                headers["If-Range"] = str(known["validator"])
        return headers

    @property
    def _memory(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _receive(self, url: str, response: requests.Response, start: int) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding not in ("", "identity"):
            raise Refused(f"the server compresses the file ({encoding}) though asked not to")
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        if total is not None and total - start > free_bytes(self.part.parent):
            raise _full(self.part, total - start)
        self.was_resumed = start > 0
        digest = hash_into(self.part, limit=start) if start else hashlib.sha256()
        _remember(self._memory, url, response)
        meter = _Meter(start=start, total=total, report=self.progress)
        with self.part.open("r+b" if start else "wb") as stream:
            stream.truncate(start)
            stream.seek(start)
            for chunk in response.iter_content(READ):
                self.check()
                stream.write(chunk)
                digest.update(chunk)
                meter.add(len(chunk))
        if total is not None and meter.done != total:
            raise Broken("the transfer was cut off")
        self.sha256 = digest.hexdigest()

    def keep(self, target: Path) -> None:
        """Gives what was fetched its final name; it is on disk before the name is."""
        with self.part.open("rb") as stream:
            os.fsync(stream.fileno())
        self.part.replace(target)
        self._memory.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forgets what was fetched."""
        self.part.unlink(missing_ok=True)
        self._memory.unlink(missing_ok=True)


class _Meter:
    def __init__(
        self, *, start: int, total: int | None, report: Callable[[Progress], None] | None
    ) -> None:
        self.done, self._start, self._total, self._report = start, start, total, report
        self._began = time.monotonic()

    def add(self, count: int) -> None:
        self.done += count
        if self._report:
            elapsed = max(time.monotonic() - self._began, 0.001)
            rate = (self.done - self._start) / elapsed
            self._report(Progress(done=self.done, total=self._total, rate=rate))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _starts_at(response: requests.Response, start: int) -> bool:
    """https://www.rfc-editor.org/rfc/rfc9110#section-14.4: `bytes 100-199/200`."""
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _remember(memory: Path, url: str, response: requests.Response) -> None:
    """Keeps the validator for If-Range, which must be a strong one (RFC 9110, section 13.1.5)."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
    write_text(memory, json.dumps({"url": shown(url), "validator": validator}) + "\n")


def _full(part: Path, missing: int | None) -> GoldimgError:
    need = f"{missing / (1 << 20):.0f} MiB are still to come, " if missing else ""
    free = free_bytes(part.parent) / (1 << 20)
    return GoldimgError(
        f"no space left for {part.name.removesuffix('.part')}",
        why=f"{need}{free:.0f} MiB are free in {part.parent}",
        hint="free some space, or set cache_dir in templates/site.yml; what is there is continued",
    )
