"""The publisher for container engines and registries.

The engine gets the image without a name, and its names once it is proven; the registry gets the
layer, then the manifest. `latest` moves last, and only to a higher version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from goldimg.config.publish.docker import DockerPublish
from goldimg.errors import GoldimgError, PublishFailed
from goldimg.publish.docker import content as contents
from goldimg.publish.docker.archive import digests
from goldimg.publish.docker.content import Content
from goldimg.publish.docker.engine import Engine, address, names_of
from goldimg.publish.docker.errors import explained, is_transient
from goldimg.publish.docker.loading import LATEST, LOADED, NAME, Loading, is_newer, version_of
from goldimg.publish.docker.promoting import promoting
from goldimg.publish.docker.push import UPLOAD, Push
from goldimg.publish.docker.registry import Registry, credentials_of
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import Promoting, Promotion
from goldimg.publish.proof import changed
from goldimg.publish.publisher import Call, Orphan, Preview, Publication, Publisher

MANIFEST = "manifest"  # the kind of a registry's resource


class DockerPublisher(Publisher[DockerPublish]):
    """Images in an engine, in a registry, or in both."""

    name = "docker"
    extra = "docker"
    artifact = "tar.gz"

    def __init__(self, options: DockerPublish, session: Session) -> None:
        super().__init__(options, session)
        self._engine = Engine()
        self._content: Content | None = None

    @property
    def target(self) -> str:
        places = [f"engine {address()}"] if self.options.engine else []
        places += [f"registry {self.options.registry}"] if self.options.registry else []
        return " and ".join(places)

    @property
    def place(self) -> str:
        return f"{self.target}, {self.options.repository}"

    # -- before the first byte

    def check(self, job: Job) -> Preview:
        repository, tag = contents.repository(job.image, self.options), contents.tag(job.image)
        content = self._content_of(job)
        accounts = []
        if self.options.engine:
            account = job.call(self._engine.account, what="version")
            accounts.append(account)
            self._check_platform(account, content)
        if self.options.registry:
            registry = self._registry(repository)
            job.call(lambda: registry.manifest(tag), what="manifest")
            accounts.append(f"registry {self.options.registry}")
        return Preview(
            account=" and ".join(accounts),
            names={
                "image": f"{repository}:{tag}",
                "id": content.id,
                **({"manifest": content.manifest_digest} if self.options.registry else {}),
            },
            calls=tuple(self._calls(content, repository, tag)),
            notes=("an engine takes an image in one request: a load that is cut off starts again",)
            if self.options.engine
            else (),
        )

    def _check_platform(self, account: str, content: Content) -> None:
        if not account.endswith(f"linux/{content.config['architecture']}"):
            self.session.warn(f"{account} cannot run the image itself: it is for another platform")

    def _calls(self, content: Content, repository: str, tag: str) -> list[Call]:
        calls = []
        if self.options.engine:
            calls.append(Call(operation="POST /images/load", size=content.layer.size))
        if self.options.registry:
            host = self.options.registry
            calls += [
                Call(operation=f"PATCH {host}/v2/{repository}/blobs", size=content.layer.size),
                Call(operation=f"PUT {host}/v2/{repository}/manifests/{tag}"),
            ]
        if self.options.engine:
            calls.append(Call(operation="POST /images/<id>/tag", detail=f"{repository}:{tag}"))
        if self.options.latest:
            calls.append(Call(operation="tag latest", detail="where no higher version has it"))
        return calls

    def _content_of(self, job: Job) -> Content:
        if self._content is None:
            file = job.image.file(self.artifact)
            found = digests(job, file.path)
            if found.compressed != file.sha256:
                raise changed(file.path)
            self._content = Content(
                image=job.image, options=self.options, layer=file, diff_id=found.content
            )
        return self._content

    def _registry(self, repository: str) -> Registry:
        host = self.options.registry or ""
        return Registry(
            host,
            repository,
            plain_http=self.options.plain_http,
            credentials=credentials_of(host),
        )

    # -- there already?

    def find(self, job: Job) -> Publication | None:
        content = self._content_of(job)
        repository, tag = contents.repository(job.image, self.options), contents.tag(job.image)
        is_there = True
        if self.options.engine:
            named = job.call(lambda: self._engine.inspect(f"{repository}:{tag}"), what="inspect")
            if named and not content.is_it(named) and not job.force:
                raise self._taken(f"{repository}:{tag}", "the engine", named, content, job)
            is_there = bool(named) and content.is_it(named or {})
            if is_there and self.options.latest:
                is_there = self._loading(job).higher(repository) is not None
        if self.options.registry:
            registry = self._registry(repository)
            manifest = job.call(lambda: registry.manifest(tag), what="manifest")
            if manifest and manifest != content.manifest_bytes and not job.force:
                config = job.call(lambda: registry.config(manifest), what="config") or {}
                where = f"registry {self.options.registry}"
                raise self._taken(
                    f"{repository}:{tag}", where, {"Config": config.get("config")}, content, job
                )
            is_there = is_there and manifest == content.manifest_bytes
            if is_there and self.options.latest:
                is_there = self._higher(job, registry) is not None
            if is_there:
                self._push(job, registry).verify(tag)
        return self._publication(job) if is_there else None

    def _taken(
        self, name: str, where: str, found: Mapping[str, Any], content: Content, job: Job
    ) -> PublishFailed:
        labels = (found.get("Config") or {}).get("Labels") or {}
        why = "it is no image of goldimg's"
        if labels.get(contents.LABEL) == content.layer.sha256:
            why = "it is the same root file system with other settings"
        elif contents.LABEL in labels:
            why = "it is another build of the version"
        return PublishFailed(
            f"docker: {name} is taken in {where}",
            why=why,
            hint=f"replace it: goldimg upload docker -O {job.image.os_name} "
            f"--version {job.image.version} --force",
        )

    # -- publishing

    def publish(self, job: Job) -> Publication:
        repository, tag = contents.repository(job.image, self.options), contents.tag(job.image)
        loading = self._loading(job)
        id_ = loading.load() if self.options.engine else ""
        registry = self._registry(repository)
        if self.options.registry:
            self._send(job, registry, tag)
        job.phase("tagging")
        if id_:
            loading.name(id_, repository, tag)
        if id_ and self.options.latest:
            loading.move_latest(id_, repository)
        if self.options.registry and self.options.latest:
            self._move_latest(job, registry)
        loading.drop_replaced()
        return self._publication(job)

    def _send(self, job: Job, registry: Registry, tag: str) -> None:
        before = job.call(lambda: registry.manifest(tag), what="manifest")
        ours = self._content_of(job)
        id_ = f"{registry.repository}@{ours.manifest_digest}"
        if before is None:
            job.created(MANIFEST, id_, registry.host)
        self._push(job, registry).send(tag)
        if before is None:
            job.created(MANIFEST, id_, registry.host, is_resumable=True)

    def _loading(self, job: Job) -> Loading:
        return Loading(engine=self._engine, job=job, content=self._content_of(job))

    def _push(self, job: Job, registry: Registry) -> Push:
        chunk = self.options.chunk << 20
        return Push(registry=registry, job=job, content=self._content_of(job), chunk=chunk)

    def _higher(self, job: Job, registry: Registry) -> str | None:
        """The registry's latest, as `Loading.higher` tells the engine's."""
        manifest = job.call(lambda: registry.manifest(LATEST), what="manifest")
        if manifest is None or manifest == self._content_of(job).manifest_bytes:
            return None if manifest is None else ""
        config = job.call(lambda: registry.config(manifest), what="config") or {}
        version = version_of({"Config": config.get("config")})
        return version if is_newer(version, job.image.version) else None

    def _move_latest(self, job: Job, registry: Registry) -> None:
        """Moves the registry's latest here, unless a higher version has it."""
        higher = self._higher(job, registry)
        if higher:
            job.say(f"latest stays at {higher} in the registry")
        elif higher is None:
            self._push(job, registry).tag(LATEST)

    def _publication(self, job: Job) -> Publication:
        content = self._content_of(job)
        repository, tag = contents.repository(job.image, self.options), contents.tag(job.image)
        ids, resources, urls = {}, [], []
        hashes = {"diff_id": content.diff_id}
        proofs = []
        if self.options.registry:
            host = self.options.registry
            ids[host] = f"{repository}@{content.manifest_digest}"
            urls.append(f"{host}/{repository}:{tag}")
            hashes |= {"manifest": content.manifest_digest, "layer": content.layer_digest}
            resources.append(Resource(kind=MANIFEST, id=ids[host], where=host))
            proofs.append("the registry holds the artifact under its own SHA-256")
        if self.options.engine:
            id_ = self._loading(job).there() or content.id
            ids[address()] = id_
            hashes["config"] = id_
            for name in (LATEST, tag):
                resources.append(Resource(kind=NAME, id=f"{repository}:{name}@{id_}"))
            resources.append(Resource(kind=LOADED, id=id_))
            proofs.append("the engine's layer has the digest of the artifact's content")
        return Publication(
            name=f"{repository}:{tag}",
            ids=ids,
            resources=tuple(resources),
            urls=tuple(urls),
            hashes=hashes,
            verified="; ".join(proofs),
        )

    # -- removing

    def delete(self, resource: Resource) -> None:
        name, _, id_ = resource.id.partition("@")
        if resource.kind == MANIFEST:
            registry = self._registry(name)
            self.session.call(lambda: registry.delete_manifest(id_), what="manifest-delete")
        elif resource.kind == UPLOAD:
            self._registry(name).abandon(id_)
        elif resource.kind == NAME:
            self.session.call(lambda: self._unname(name, id_), what="rmi")
        else:
            self.session.call(lambda: self._unload(resource.id), what="rmi")

    def _unname(self, name: str, id_: str) -> None:
        """Takes a name from our image; engines remove an image with its last name."""
        found = self._engine.inspect(name)
        if found and found["Id"] == id_:
            self._engine.remove(name)

    def _unload(self, id_: str) -> None:
        """Removes an image, unless somebody has given it a name of their own."""
        found = self._engine.inspect(id_)
        if found and names_of(found):
            names = ", ".join(names_of(found))
            self.session.warn(f"image {id_[:19]} stays: it is also called {names}")
        elif found:
            self._engine.remove(id_)

    def promoting(self, promotion: Promotion) -> Promoting:
        engine = self._engine if self.options.engine else None
        registry = self._registry if self.options.registry else None
        return promoting(self.session, engine, registry, promotion)

    def orphans(self) -> list[Orphan]:
        """Images of goldimg's without a name: loads that no run has finished.

        Engines tell an image's time of building, not that of its loading, and the image tells no
        run, which would make it another one each time. A registry lists no unfinished uploads; it
        purges them by itself.
        """
        if not self.options.engine:
            return []
        found = self.session.call(self._engine.labelled, what="images")
        return [
            Orphan(resource=Resource(kind=LOADED, id=str(it["Id"])), run_id="", age=None)
            for it in found
            if not names_of(it)
        ]

    # -- errors

    def is_transient(self, error: BaseException) -> bool:
        return is_transient(error)

    def explain(self, error: BaseException) -> GoldimgError:
        return explained(error, self.options.registry or "")
