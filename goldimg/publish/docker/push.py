"""An image into a registry: blobs that are not there yet, the manifest last.

The layer is the artifact itself, so the registry checks it against the very SHA-256 that the build
wrote down. An upload goes on from the last chunk that arrived whole; a registry that lost a chunk
half-way (distribution 2 drops such uploads) gets it from the start again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from goldimg.errors import PublishFailed
from goldimg.publish.docker.content import Content, digest
from goldimg.publish.docker.registry import Registry, RegistryError
from goldimg.publish.job import Job, Rejected

UPLOAD = "upload"  # the kind of a resource: an upload that is not finished
PIECE = 1 << 20  # bytes that are read at once
GONE = (400, 404, 416)


class Slice:
    """A part of a file as the body of a request: known length, from its start each time."""

    def __init__(self, path: Path, offset: int, size: int, tell: Callable[[int], None]) -> None:
        self._path, self._offset, self._size, self._tell = path, offset, size, tell

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            done = 0
            while done < self._size:
                piece = stream.read(min(PIECE, self._size - done))
                if not piece:
                    raise PublishFailed(f"{self._path} became shorter while it was sent")
                yield piece
                done += len(piece)
                self._tell(self._offset + done)


@dataclass(kw_only=True)
class Push:
    """One image on its way to one repository; `chunk` in bytes, 0 for all at once."""

    registry: Registry
    job: Job
    content: Content
    chunk: int

    def send(self, tag: str) -> None:
        """Sends what is missing, tags it and proves it."""
        self._layer()
        self._config()
        self.tag(tag)
        self.verify(tag)

    def tag(self, tag: str) -> None:
        """Makes a tag name the image."""
        manifest = self.content.manifest_bytes
        self.job.call(lambda: self.registry.put_manifest(tag, manifest), what="manifest")

    def verify(self, tag: str) -> None:
        """Reads manifest, configuration and the layer's size back; Rejected where they differ."""
        found = self.job.call(lambda: self.registry.manifest(tag), what="manifest")
        if found != self.content.manifest_bytes:
            raise Rejected(f"docker: the registry shows another manifest as {tag}")
        config = self.job.call(lambda: self.registry.config(found), what="config")
        size = self._there(self.content.layer_digest)
        if config != self.content.config or size != self.content.layer.size:
            raise Rejected(f"docker: the registry has other blobs than were sent for {tag}")

    def _there(self, blob: str) -> int | None:
        return self.job.call(lambda: self.registry.size_of(blob), what="blob")

    def _config(self) -> None:
        data = self.content.config_bytes
        if self._there(digest(data)) == len(data):
            return

        def call() -> None:
            upload = self.registry.start()
            upload = self.registry.send(upload, 0, len(data), data)
            self.registry.finish(upload, digest(data))

        self.job.call(call, what="config")

    def _layer(self) -> None:
        layer, blob = self.content.layer, self.content.layer_digest
        if self._there(blob) == layer.size:
            self.job.say("the registry has the layer already")
            return
        self.job.phase("pushing")
        for attempt in (1, 2):
            upload = _Upload(push=self, url=self._left())
            upload.run()
            try:
                self.job.call(lambda: self._finish(upload.url, blob), what="blob")  # noqa: B023
            except RegistryError as error:
                if error.status not in GONE or attempt == 2:
                    raise
                self.job.warn(f"{error}; the layer is sent again")
                self.forget()
            else:
                self.forget()
                return

    def _finish(self, upload: str, blob: str) -> None:
        try:
            self.registry.finish(upload, blob)
        except RegistryError as error:
            # where the answer to an earlier attempt was lost, the blob is there and the upload gone
            is_there = error.status in GONE and self.registry.size_of(blob)
            if is_there != self.content.layer.size:
                raise

    def _left(self) -> str:
        """Where an earlier run's upload goes on; empty where none was left."""
        found = self.job.journal.find(UPLOAD, self.registry.host)
        return str(self.job.journal.get(f"{UPLOAD} {found.id}") or "") if found else ""

    def remember(self, url: str) -> None:
        """Notes where the upload goes on; its address may change with each chunk."""
        id_ = f"{self.registry.repository}@{urlsplit(url).path}"
        if self.job.journal.find(UPLOAD, self.registry.host) is None:
            self.job.created(UPLOAD, id_, self.registry.host, is_resumable=True)
        self.job.note(f"{UPLOAD} {id_}", url)

    def forget(self) -> None:
        """Notes that there is no upload any more."""
        while found := self.job.journal.find(UPLOAD, self.registry.host):
            self.job.journal.remove(found)


@dataclass(kw_only=True)
class _Upload:
    """The upload of the layer; `url` is empty, or where an earlier run was."""

    push: Push
    url: str
    offset: int = 0
    is_sure: bool = False  # that the registry has exactly `offset` bytes

    def run(self) -> None:
        """Sends every chunk; a Ctrl-C ends it between two, so that nothing has to be sent twice."""
        size = self.push.content.layer.size
        while True:
            self.push.job.call(self._step, what="blob")
            if self.offset >= size and self.is_sure:
                return

    def _step(self) -> None:
        registry, size = self.push.registry, self.push.content.layer.size
        if not self.is_sure:
            self._locate()
            return
        step = min(self.push.chunk or size, size - self.offset)

        def tell(done: int) -> None:
            self.push.job.progress(done, size)

        data = Slice(self.push.content.layer.path, self.offset, step, tell)
        self.is_sure = False
        self.url = registry.send(self.url, self.offset, step, data)
        self.offset, self.is_sure = self.offset + step, True
        self.push.remember(self.url)

    def _locate(self) -> None:
        """Finds out where the registry is, or starts from nothing."""
        job, had = self.push.job, self.offset
        found = self.push.registry.resume(self.url) if self.url else None
        if found is not None:
            self.url, self.offset = found
            if self.offset:
                job.say(f"the upload goes on after {self.offset} bytes")
        else:
            if self.url:
                job.say(
                    f"the registry dropped an upload that was cut off after {had or 'some'} bytes; "
                    "the layer is sent from the start"
                )
            self.push.forget()
            self.url, self.offset = self.push.registry.start(), 0
            self.push.remember(self.url)
        self.is_sure = True
