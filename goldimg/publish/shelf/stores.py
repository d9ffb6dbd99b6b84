"""Where files are put: a directory, or a server that takes PUT requests.

A Store keeps whole files under keys (paths with slashes) and tells what it has. Keys come from
artifact names alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import requests

from goldimg import __version__
from goldimg.errors import GoldimgError, PublishFailed
from goldimg.iso.download import reason
from goldimg.project import make_directory, waiting_lock, writing
from goldimg.publish.job import Job
from goldimg.publish.retry import PASSING

Progress = Callable[[int], None]  # bytes that have gone, since the last call
BLOCK = 1 << 20
TIMEOUT = (10.0, 120.0)  # seconds to connect, and between two reads


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a store tells of a file: its size in bytes, its SHA-256 where the store knows it.

    `mark` changes whenever the content does.
    """

    size: int
    sha256: str | None
    mark: str


class Changed(Exception):
    """Somebody else has written the file meanwhile."""


class Store(ABC):
    """A place for files. Calls are single attempts: the caller retries."""

    proof: str  # how a file that was put is proven, for people

    @abstractmethod
    def check(self, *, create: bool) -> str | None:
        """PublishFailed where the place cannot be used; what `prepare` will make, if anything."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to make
        """Makes the place, where `check` said so."""

    @abstractmethod
    def stat(self, key: str) -> Stored | None:
        """What is under the key, None where nothing is."""

    @abstractmethod
    def put(self, job: Job, key: str, path: Path, sha256: str, progress: Progress) -> None:
        """Puts a file there, whole or not at all, and proves it as `proof` says."""

    @abstractmethod
    def read(self, key: str) -> tuple[bytes, str] | None:
        """A small file's content and mark, None where there is none."""

    @abstractmethod
    def write(self, key: str, data: bytes, mark: str | None) -> None:
        """Replaces a small file whose mark is `mark` (None: there is none); Changed otherwise."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes a file; one that is gone is no error."""

    @abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Whether a later attempt may do better."""

    def explain(self, error: BaseException) -> GoldimgError | None:
        """The error for people, None where there is nothing to add."""
        return None

    @contextlib.contextmanager
    def held(self, key: str, job: Job) -> Iterator[None]:
        """Keeps others of this machine from writing the file meanwhile, where that can be."""
        yield


class Directory(Store):
    """A directory of this machine or of a mounted file system."""

    proof = "SHA-256 of the copy, read again"

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self, *, create: bool) -> str | None:
        if self.root.is_dir():
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise PublishFailed(f"{self.root} is not writable")
            return None
        if not create:
            raise PublishFailed(f"{self.root} is no directory", hint="make it, or say --create")
        return str(self.root)

    def prepare(self) -> None:
        make_directory(self.root)

    def stat(self, key: str) -> Stored | None:
        path = self.root / key
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = path.stat()
            return Stored(size=found.st_size, sha256=None, mark=str(found.st_mtime_ns))
        return None

    def put(self, job: Job, key: str, path: Path, sha256: str, progress: Progress) -> None:
        free = shutil.disk_usage(self.root).free
        if free < path.stat().st_size:
            raise PublishFailed(
                f"{self.root} has no room for {path.name}",
                why=f"{path.stat().st_size >> 20} MiB are needed, {free >> 20} MiB are free",
            )
        with writing(self.root / key) as temporary:
            with path.open("rb") as source, temporary.open("xb") as target:
                while data := source.read(BLOCK):
                    job.check_cancelled()
                    target.write(data)
                    progress(len(data))
            with temporary.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != sha256:
                raise ConnectionError(f"the copy of {path.name} differs: {found}")
            temporary.chmod(0o644)

    def read(self, key: str) -> tuple[bytes, str] | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            data = (self.root / key).read_bytes()
            return data, hashlib.sha256(data).hexdigest()
        return None

    def write(self, key: str, data: bytes, mark: str | None) -> None:
        found = self.read(key)
        if (found[1] if found else None) != mark:
            raise Changed
        with writing(self.root / key) as temporary:
            temporary.write_bytes(data)
            temporary.chmod(0o644)

    def delete(self, key: str) -> None:
        path = self.root / key
        path.unlink(missing_ok=True)
        for parent in path.relative_to(self.root).parents:
            if parent != Path():
                with contextlib.suppress(OSError):  # something else is in it
                    (self.root / parent).rmdir()

    @contextlib.contextmanager
    def held(self, key: str, job: Job) -> Iterator[None]:
        with waiting_lock(self.root / f".{Path(key).name}.lock", job.check_cancelled):
            yield

    def is_transient(self, error: BaseException) -> bool:
        return isinstance(error, ConnectionError | TimeoutError)


class HttpPut(Store):
    """A web server that takes PUT, such as WebDAV or an artifact repository.

    Credentials come from ~/.netrc (or NETRC), as curl's do. PUT and If-Match: RFC 9110, sections
    9.3.4 and 13.1.1. Many servers ignore If-Match: two sites that publish to one catalog at the
    same moment may then lose an entry, which the next publication of the loser puts back.
    """

    proof = "its size, as the server tells it: a server of files has no digest to offer"

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": f"goldimg/{__version__}"})

    def _at(self, key: str) -> str:
        return f"{self._url}/{quote(key)}"

    def _ask(self, method: str, key: str, **more: object) -> requests.Response:
        answer = self._session.request(
            method, self._at(key), timeout=TIMEOUT, allow_redirects=False, **more  # type: ignore[arg-type]
        )  # fmt: skip
        if answer.status_code in PASSING:
            raise ConnectionError(f"HTTP {answer.status_code}")
        if answer.status_code in (401, 403):
            raise PublishFailed(
                f"{self._url} refuses {method}: HTTP {answer.status_code}",
                hint="credentials for it belong into ~/.netrc",
            )
        return answer

    def check(self, *, create: bool) -> str | None:
        self._ask("HEAD", "")
        return None

    def stat(self, key: str) -> Stored | None:
        answer = self._ask("HEAD", key, headers={"Accept-Encoding": "identity"})
        if answer.status_code in (404, 410):
            return None
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length", -1))
        mark = answer.headers.get("ETag", "") or answer.headers.get("Last-Modified", "")
        return Stored(size=size, sha256=None, mark=mark)

    def put(self, job: Job, key: str, path: Path, sha256: str, progress: Progress) -> None:
        with path.open("rb") as source:
            reader = Counted(source, path.stat().st_size, job, progress)
            answer = self._ask("PUT", key, data=reader)
        if answer.status_code >= 300:
            raise PublishFailed(f"{self._url} refuses {path.name}: HTTP {answer.status_code}")
        found = self.stat(key)
        if found is None or found.size not in (-1, path.stat().st_size):
            raise ConnectionError(f"{path.name} did not arrive whole")

    def read(self, key: str) -> tuple[bytes, str] | None:
        answer = self._ask("GET", key)
        if answer.status_code in (404, 410):
            return None
        answer.raise_for_status()
        return answer.content, answer.headers.get("ETag", "")

    def write(self, key: str, data: bytes, mark: str | None) -> None:
        condition = {"If-Match": mark} if mark else {}
        if mark is None:
            condition = {"If-None-Match": "*"}
        answer = self._ask("PUT", key, data=data, headers=condition)
        if answer.status_code == 412:
            raise Changed
        if answer.status_code >= 300:
            raise PublishFailed(f"{self._url} refuses {key}: HTTP {answer.status_code}")

    def delete(self, key: str) -> None:
        answer = self._ask("DELETE", key)
        if answer.status_code >= 300 and answer.status_code not in (404, 410):
            raise PublishFailed(f"{self._url} refuses to remove {key}: HTTP {answer.status_code}")

    def is_transient(self, error: BaseException) -> bool:
        lasting = (requests.exceptions.SSLError, requests.exceptions.InvalidURL)
        passing = (requests.ConnectionError, requests.Timeout, ConnectionError)
        return isinstance(error, passing) and not isinstance(error, lasting)

    def explain(self, error: BaseException) -> GoldimgError | None:
        if isinstance(error, requests.RequestException):
            return PublishFailed(f"{self._url}: {reason(error)}")
        return None


class Counted:
    """A file that tells how much of it was read, and stops where the user asks."""

    def __init__(self, stream: object, size: int, job: Job, progress: Progress) -> None:
        self._stream, self._size, self._job, self._progress = stream, size, job, progress

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        self._job.check_cancelled()
        data: bytes = self._stream.read(BLOCK if size < 0 else size)  # type: ignore[attr-defined]
        self._progress(len(data))
        return data
