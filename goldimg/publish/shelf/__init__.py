"""Files for people who fetch them: boxes with the catalog that lists them, appliances.

What is published lies as in artifacts/: `<version>/<OS>/<provider>/<file>`, and `<OS>.json`, which
Vagrant reads (https://developer.hashicorp.com/vagrant/docs/boxes/format). Files first, the catalog
last: it never names what is not there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from goldimg.catalog.boxes import Box, box_name, file_name
from goldimg.catalog.merge import is_ours, merge, providers_of
from goldimg.config.publish.shelf import FORMS, VirtualboxPublish, VmwarePublish
from goldimg.errors import GoldimgError, MissingTool, PublishFailed
from goldimg.formats import box
from goldimg.providers import all_providers
from goldimg.publish.image import File
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import Change, Promoting, Promotion
from goldimg.publish.publisher import Call, Orphan, Preview, Publication, Publisher
from goldimg.publish.shelf.promoting import NOTE, with_channels
from goldimg.publish.shelf.stores import Changed, Directory, HttpPut, Store

Options = VirtualboxPublish | VmwarePublish
FILE, ENTRY = "file", "catalog entry"
ATTEMPTS = 10  # to write a catalog that others write too


class ShelfPublisher(Publisher[Any]):
    """Puts an image's files somewhere. Subclasses say which, and whether a catalog lists them."""

    options: Options
    has_catalog: ClassVar[bool] = False

    def __init__(self, options: Options, session: Session) -> None:
        super().__init__(options, session)

    @property
    def target(self) -> str:
        return f"{self.name} {self._to}"

    @property
    def _to(self) -> str:
        return self.options.to or ""

    @cached_property
    def _store(self) -> Store:
        if not self.options.to:
            raise PublishFailed(
                f"{self.name}: no place is named",
                hint=f"set publish.{self.name}.to in templates/site.yml: {FORMS}",
            )
        return store_at(self.options.to)

    @property
    def _url(self) -> str:
        """Where readers find what is put there."""
        if self.options.url:
            return self.options.url
        parts = urlsplit(self._to)
        if parts.scheme in ("http", "https", "file"):
            return self._to
        if parts.scheme:
            raise PublishFailed(
                f"{self.name}: nobody knows by which URL {self._to} is read",
                hint=f"set publish.{self.name}.url, such as https://images.example.com",
            )
        return Path(self._to).expanduser().resolve().as_uri()

    def _files(self, job: Job) -> list[File]:
        """What is published of the image."""
        return [job.image.file(self.artifact)]

    def _key(self, job: Job, file: File) -> str:
        image = job.image
        return f"{image.version}/{image.os_name}/{image.provider}/{file.path.name}"

    def check(self, job: Job) -> Preview:
        provider = all_providers()[job.image.provider]
        files = self._files(job)
        url = self._url
        made = job.call(lambda: self._store.check(create=self.options.create), what="check")
        for file in files:
            job.check_cancelled()
            provider.check(file.path)
        calls = [Call(operation="create", detail=made)] if made else []
        calls += [Call(operation="put", detail=self._key(job, it), size=it.size) for it in files]
        names = {"to": self._to, "url": url}
        if self.has_catalog:
            calls.append(Call(operation="merge", detail=file_name(job.image.os_name, "")))
            names["box"] = box_name(job.image.namespace, job.image.os_name, "")
        return Preview(account="", names=names, calls=tuple(calls))

    def find(self, job: Job) -> Publication | None:
        if self._store.check(create=self.options.create):
            return None
        there = [self._is_there(job, file) for file in self._files(job)]  # asks of every file
        if not all(there) or (self.has_catalog and not self._is_listed(job)):
            return None
        return self._publication(job)

    def _is_there(self, job: Job, file: File) -> bool:
        """Whether this very file is there; PublishFailed where another one is."""
        key = self._key(job, file)
        found = job.call(lambda: self._store.stat(key), what=f"look for {key}")
        if found is None:
            return False
        known = found.sha256 or job.journal.get(f"put {key}") or self._recorded(job, key)
        if found.size == file.size and known == file.sha256:
            return True
        if found.size == file.size and known is None and self._is_same(job, key, file):
            return True
        if job.force or job.journal.find(FILE, key):
            return False
        raise PublishFailed(
            f"{self.name}: {key} is at {self._to} already, and is another file",
            hint="build another version, or replace it with --force",
        )

    def _is_same(self, job: Job, key: str, file: File) -> bool:
        """Reads the copy, where that costs nothing but a read of this machine's."""
        if not isinstance(self._store, Directory):
            return False
        import hashlib

        with (self._store.root / key).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256

    def _recorded(self, job: Job, key: str) -> str | None:
        """The SHA-256 that an earlier publication says it has put there."""
        records = job.image.manifest.get("publications", [])
        for record in records if isinstance(records, list) else []:
            if record.get("target") == self.target and key in record.get("hashes", {}):
                return str(record["hashes"][key])
        return None

    def publish(self, job: Job) -> Publication:
        if self._store.check(create=self.options.create):
            self._store.prepare()
        files = self._files(job)
        total, done = sum(file.size for file in files), [0]

        def progress(count: int) -> None:
            done[0] += count
            job.progress(min(done[0], total), total)

        job.phase("uploading")
        for file in files:
            key = self._key(job, file)
            if self._is_there(job, file):
                progress(file.size)
                continue
            # `where` is the key, so that a file is found again; a file is whole or not there.
            job.created(FILE, key, key, is_resumable=True)
            start = done[0]

            def put(key: str = key, file: File = file, start: int = start) -> None:
                done[0] = start
                self._store.put(job, key, file.path, file.sha256, progress)

            job.call(put, what=f"put {file.path.name}")
            job.note(f"put {key}", file.sha256)
        if self.has_catalog:
            job.phase("listing")
            self._list(job)
        return self._publication(job)

    # --- the catalog ----------------------------------------------------------------------------

    def _boxes(self, job: Job) -> list[Box]:
        return [
            Box(
                os_name=job.image.os_name,
                version=job.image.version,
                provider=box.provider_of(file.path),
                catalog="",
                path=self._key(job, file),
                size=file.size,
                sha256=file.sha256,
            )
            for file in self._files(job)
            if file.path.suffix == ".box"
        ]

    def _is_listed(self, job: Job) -> bool:
        key = file_name(job.image.os_name, "")
        found = job.call(lambda: self._store.read(key), what=f"read {key}")
        return found is not None and self._merged(job, found[0]) == found[0]

    def _list(self, job: Job) -> None:
        key = file_name(job.image.os_name, "")
        with self._store.held(key, job):
            self._replace(job, key, lambda data: self._merged(job, data))

    def _replace(self, session: Session, key: str, change: Any) -> None:
        """Reads, changes and writes a catalog, anew where somebody else was quicker."""
        for _ in range(ATTEMPTS):
            found = session.call(lambda: self._store.read(key), what=f"read {key}")
            data, mark = found or (b"", None)
            new = change(data)
            if new == data:
                return
            try:
                session.call(
                    lambda new=new, mark=mark: self._store.write(key, new, mark),  # type: ignore[misc]
                    what=f"write {key}",
                )
            except Changed:
                session.pause(0.2)
                continue
            return
        raise PublishFailed(f"{self.name}: {key} is written by others all the time")

    def _merged(self, job: Job, data: bytes) -> bytes:
        existing = parsed(data, self._to)
        mine = self._boxes(job)
        others = [
            it
            for it in listed(existing, self._url, job.image.os_name)
            if (it.version, it.provider) not in {(own.version, own.provider) for own in mine}
        ]
        merged = merge(
            existing,
            [*others, *mine],
            name=box_name(job.image.namespace, job.image.os_name, ""),
            description=job.image.os_name,
            base_url=self._url,
        )
        for note in merged.notes:
            job.warn(note)
        return rendered(merged.catalog)

    # --- the result, and the other way round ----------------------------------------------------

    def _publication(self, job: Job) -> Publication:
        files = self._files(job)
        keys = {self._key(job, file): file.sha256 for file in files}
        catalog = file_name(job.image.os_name, "")
        resources = [Resource(kind=FILE, id=key, where=key) for key in keys]
        if self.has_catalog:
            entry = f"{job.image.version} in {catalog}"
            resources.insert(0, Resource(kind=ENTRY, id=entry, where=catalog))
        urls = [f"{self._url}/{key}" for key in keys]
        return Publication(
            name=job.image.name,
            ids={self._to: f"{self._url}/{catalog}" if self.has_catalog else urls[0]},
            resources=tuple(resources),
            urls=(*([f"{self._url}/{catalog}"] if self.has_catalog else []), *urls),
            hashes=keys,
            verified=self._store.proof,
        )

    def delete(self, resource: Resource) -> None:
        if resource.kind == FILE:
            self.session.call(lambda: self._store.delete(resource.id), what="remove")
            return
        version = resource.id.partition(" in ")[0]

        def without(data: bytes) -> bytes:
            if not data:
                return data
            existing = parsed(data, self._to)
            os_name = resource.where.removesuffix(".json")
            kept = [it for it in listed(existing, self._url, os_name) if it.version != version]
            name, text = str(existing.get("name", "")), str(existing.get("description", ""))
            merged = merge(existing, kept, name=name, description=text, base_url=self._url)
            return rendered(merged.catalog)

        self._replace(self.session, resource.where, without)

    def promoting(self, promotion: Promotion) -> Promoting:
        if not self.has_catalog:
            return super().promoting(promotion)
        key = file_name(promotion.os_name, "")
        found = self.session.call(lambda: self._store.read(key), what=f"read {key}")
        if found is None:
            raise PublishFailed(f"{self.name}: there is no {key} at {self._to} any more")

        def changed(data: bytes) -> bytes:
            existing = parsed(data, self._to)
            new = with_channels(existing, promotion)
            return data if new == existing else rendered(new)

        if changed(found[0]) == found[0]:
            return Promoting(notes=(NOTE,))
        make = partial(self._replace, self.session, key, changed)
        words = f"{key} says {promotion.to.version}: {', '.join(promotion.to.channels)}"
        return Promoting(changes=(Change(what=words, make=make),), notes=(NOTE,))

    def orphans(self) -> list[Orphan]:
        return []  # files are whole or not there; what the journal knows is found without us

    def is_transient(self, error: BaseException) -> bool:
        return self._store.is_transient(error)

    def explain(self, error: BaseException) -> GoldimgError:
        if isinstance(error, GoldimgError):
            return error
        return self._store.explain(error) or super().explain(error)


def store_at(to: str) -> Store:
    """The store that a place names; MissingTool where its SDK is not installed."""
    parts = urlsplit(to)
    prefix = parts.path.strip("/")
    prefix = f"{prefix}/" if prefix else ""
    try:
        if parts.scheme in ("http", "https"):
            return HttpPut(to)
        if parts.scheme in ("s3", "gs", "azure"):
            from goldimg.publish.shelf.clouds import CLOUDS

            return CLOUDS[parts.scheme](parts.netloc, prefix)
    except ModuleNotFoundError as error:
        extra = {"s3": "aws", "gs": "gcp", "azure": "azure"}[parts.scheme]
        raise MissingTool(
            f"{to} needs the Python package of '{error.name}'",
            hint=f"pip install 'goldimg[{extra}]'",
        ) from error
    path = unquote(parts.path) if parts.scheme == "file" else to
    return Directory(Path(path).expanduser())


def parsed(data: bytes, to: str) -> dict[str, Any]:
    """A catalog's JSON; PublishFailed where it is none, for it may be somebody's work."""
    if not data:
        return {}
    try:
        found = json.loads(data)
    except ValueError as error:
        raise PublishFailed(f"the catalog at {to} is not valid JSON", why=str(error)) from error
    if not isinstance(found, dict):
        raise PublishFailed(f"the catalog at {to} is not one")
    return found


def listed(catalog: dict[str, Any], base_url: str, os_name: str) -> Sequence[Box]:
    """Our entries in a catalog, as boxes under the same URL; others are not ours to touch."""
    versions = catalog.get("versions")
    found = []
    for version in versions if isinstance(versions, list) else []:
        for entry in providers_of(version):
            url = str(entry.get("url", ""))
            if not is_ours(entry) or not url.startswith(f"{base_url.rstrip('/')}/"):
                continue
            found.append(
                Box(
                    os_name=os_name,
                    version=str(version.get("version", "")),
                    provider=str(entry.get("name", "")),
                    catalog="",
                    path=unquote(url.removeprefix(f"{base_url.rstrip('/')}/")),
                    size=0,
                    sha256=str(entry.get("checksum", "")),
                )
            )
    return found


def rendered(catalog: dict[str, Any]) -> bytes:
    """A catalog as it stands in its file."""
    return (json.dumps(catalog, indent=2, ensure_ascii=False) + "\n").encode()
