"""An image into an engine: loaded without a name, proven by the engine itself, then named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from docker import errors

from goldimg.catalog.version import compare
from goldimg.publish.docker import content as contents
from goldimg.publish.docker.archive import Archive
from goldimg.publish.docker.content import Content
from goldimg.publish.docker.engine import Engine, Refused, names_of
from goldimg.publish.job import Job, Rejected, brief
from goldimg.publish.journal import Resource

LATEST = "latest"
LOADED, NAME = "image", "name"  # kinds of resources


@dataclass(frozen=True, kw_only=True)
class Loading:
    """One image and one engine. `replaced` are the images that lost the version's name to it."""

    engine: Engine
    job: Job
    content: Content
    replaced: list[str] = field(default_factory=list)

    def load(self) -> str:
        """The id of the image in the engine, loaded unless it is there."""
        found = self.there()
        if found is None:
            self.job.created(LOADED, self.content.id)
            self.job.phase("loading")
            self._load()
            found = self.there()
            if found is None:
                raise Rejected("docker: the engine does not show the image that it loaded")
            self.job.created(LOADED, found, is_resumable=True)
            if found != self.content.id:  # a store that names images by their manifests
                self.job.journal.remove(Resource(kind=LOADED, id=self.content.id))
        else:
            self.job.say("the engine has the image already")
        return found

    def _load(self) -> None:
        """Sends the image; where the engine finds fault with what arrived, once more."""
        archive = Archive(self.job, self.content)
        try:
            self.job.call(lambda: self.engine.load(archive), what="load")
        except Refused as error:
            self.job.warn(f"{error}; it is sent again")
            self.job.call(lambda: self.engine.load(archive), what="load")

    def there(self) -> str | None:
        """The id of this very image in the engine, None where it is not."""
        for image in self.job.call(
            lambda: self.engine.labelled(self.content.layer.sha256), what="images"
        ):
            id_ = str(image["Id"])
            inspected = self.job.call(lambda: self.engine.inspect(id_), what="inspect")  # noqa: B023
            if inspected and self.content.is_it(inspected):
                return id_
        return None

    def name(self, id_: str, repository: str, tag: str) -> None:
        """Gives the image a name, which another image may lose to it."""
        name = f"{repository}:{tag}"
        before = self.job.call(lambda: self.engine.inspect(name), what="inspect")
        if before and before["Id"] == id_:
            return
        self.job.created(NAME, f"{name}@{id_}")
        self.job.call(lambda: self.engine.tag(id_, repository, tag), what="tag")
        self.job.created(NAME, f"{name}@{id_}", is_resumable=True)
        if before and tag != LATEST:
            self.replaced.append(str(before["Id"]))

    def drop_replaced(self) -> None:
        """Removes images that goldimg made and that have lost their last name to this one."""
        for id_ in self.replaced:
            old = self.engine.inspect(id_)
            labels = ((old or {}).get("Config") or {}).get("Labels") or {}
            if old is None or names_of(old) or contents.LABEL not in labels:
                continue
            try:
                self.engine.remove(id_)
            except errors.APIError as error:
                self.job.warn(f"image {id_[:19]} that it replaces stays: {brief(error)}")
            else:
                self.job.say(f"image {id_[:19]} is replaced")

    def higher(self, repository: str) -> str | None:
        """The version that is latest, where it is not this image but a higher one; else empty.

        None where nothing or something lower is latest.
        """
        found = self.job.call(lambda: self.engine.inspect(f"{repository}:{LATEST}"), what="inspect")
        if found and self.content.is_it(found):
            return ""
        return version_of(found) if is_newer(version_of(found), self.job.image.version) else None

    def move_latest(self, id_: str, repository: str) -> None:
        """Calls the image latest, too, unless a higher version is called so."""
        higher = self.higher(repository)
        if higher:
            self.job.say(f"latest stays at {higher} in the engine")
        elif higher is None:
            self.name(id_, repository, LATEST)


def version_of(inspected: Mapping[str, Any] | None) -> str:
    """The version in the labels of an image, empty where it has none."""
    labels = ((inspected or {}).get("Config") or {}).get("Labels") or {}
    return str(labels.get(f"{contents.OCI}version", ""))


def is_newer(there: str, ours: str) -> bool:
    """Whether the version `there` is higher than ours."""
    return bool(there) and compare(there, ours) > 0
