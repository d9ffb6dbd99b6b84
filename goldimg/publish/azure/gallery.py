"""A Compute Gallery: the gallery, an image definition for each OS, a version for each image.

https://learn.microsoft.com/azure/virtual-machines/shared-image-galleries,
https://learn.microsoft.com/rest/api/compute/gallery-image-versions/create-or-update
"""

from __future__ import annotations

from typing import Any

from azure.core.exceptions import HttpResponseError

from goldimg.config.publish.azure import AzureGallery, AzurePublish
from goldimg.errors import PublishFailed
from goldimg.publish.azure.arm import (
    Body,
    Id,
    as_body,
    compute_id,
    is_ours,
    properties,
    settled,
    state_of,
    tags_of,
)
from goldimg.publish.azure.blob import Sent
from goldimg.publish.azure.bodies import definition_body, profile_body
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.faults import call, find
from goldimg.publish.azure.names import Names, next_version, regions_of, version_of
from goldimg.publish.azure.operations import complete
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import FORMER, role_of

GALLERY, DEFINITION, VERSION = "gallery", "image definition", "image version"
NUMBER = "gallery-version"  # in the journal, where it was counted


class Gallery:
    """The gallery of the settings, and one image's place in it."""

    def __init__(
        self, session: Session, clients: Clients, options: AzurePublish, group: str, names: Names
    ) -> None:
        assert options.gallery is not None  # noqa: S101 - the caller has looked
        self._session, self._clients, self._options = session, clients, options
        self.settings: AzureGallery = options.gallery
        self.group, self.names = options.gallery.group or group, names
        self.name = options.gallery.name

    @property
    def id(self) -> str:
        return compute_id(self._clients.subscription, self.group, "galleries", self.name)

    @property
    def definition_id(self) -> str:
        return f"{self.id}/images/{self.names.definition}"

    def version_id(self, number: str) -> str:
        return f"{self.definition_id}/versions/{number}"

    # Looking

    def look(self) -> Body | None:
        """The gallery, None where there is none."""
        return look(self._session, self._clients, self.id)

    def look_definition(self) -> Body | None:
        """The image definition, None where there is none."""
        return look(self._session, self._clients, self.definition_id)

    def versions(self) -> list[Body]:
        """Every version of the definition."""
        listing = self._clients.compute.gallery_image_versions.list_by_gallery_image
        found = find(
            self._session,
            lambda: list(listing(self.group, self.name, self.names.definition)),
            "list the image versions",
        )
        return [as_body(it) for it in found or []]

    def version_of(self, job: Job) -> tuple[str, Body | None]:
        """The image's version number and what is there under it; an empty number if yet uncounted.

        PublishFailed where another image has the number, unless it is to be replaced.
        """
        if self.settings.version == "increment":
            for found in self.versions():
                if is_ours(job, found) and tags_of(found).get("goldimg-os") == job.image.os_name:
                    return str(found["name"]), found
            return str(job.journal.get(NUMBER) or ""), None
        number = version_of(job.image)
        there = look(self._session, self._clients, self.version_id(number))
        if there is not None and not is_ours(job, there) and not job.force:
            raise PublishFailed(
                f"azure: {self.name}/{self.names.definition} has another version {number}",
                why="it was not made of this artifact, by its tag goldimg-sha256",
                hint="--force replaces it",
            )
        return number, there

    def check_definition(self, found: Body) -> list[str]:
        """What of an existing definition contradicts the settings: it cannot be changed."""
        there, wanted = properties(found), self._definition["properties"]
        wrong = []
        for key in ("osType", "osState", "hyperVGeneration", "identifier", "architecture"):
            default = {"hyperVGeneration": "V1", "architecture": "x64"}.get(key)
            if (there.get(key) or default) != wanted[key]:
                wrong.append(f"{key} is {there.get(key) or default}, wanted is {wanted[key]}")
        return wrong

    def is_as_wanted(self, found: Body) -> bool:
        """Whether a version of ours has all its regions, replicas and marks."""
        there = properties(found).get("publishingProfile") or {}
        have = {
            (
                _plain(it.get("name", "")),
                it.get("regionalReplicaCount"),
                it.get("storageAccountType"),
            )
            for it in there.get("targetRegions") or []
        }
        wanted = {
            (it.name, it.replicas, it.storage) for it in regions_of(self._options, self.settings)
        }
        is_excluded = bool(there.get("excludeFromLatest"))
        return have == wanted and is_excluded == self._wants_exclusion(found)

    def _wants_exclusion(self, found: Body) -> bool:
        """As the settings say, unless a channel had a say in it since."""
        role = role_of(tags_of(found))
        return role == FORMER if role else self.settings.exclude_from_latest

    # Making

    def make(self, job: Job) -> None:
        """The gallery."""
        job.created(GALLERY, self.id)
        body = {"location": self._region, "tags": {**self._options.tags, "goldimg-run": job.run_id}}
        complete(
            job,
            lambda polling: self._clients.compute.galleries.begin_create_or_update(
                self.group, self.name, body, polling=polling
            ),
            what="create the gallery",
            timeout=self._options.timeout,
        )

    def make_definition(self, job: Job) -> None:
        """The image definition."""
        job.created(DEFINITION, self.definition_id)
        body = self._definition
        body["tags"] = {
            **self._options.tags,
            "goldimg-os": job.image.os_name,
            "goldimg-run": job.run_id,
        }
        complete(
            job,
            lambda polling: self._clients.compute.gallery_images.begin_create_or_update(
                self.group, self.name, self.names.definition, body, polling=polling
            ),
            what="create the image definition",
            timeout=self._options.timeout,
        )

    def make_version(self, job: Job, sent: Sent) -> Resource:
        """The version, made of what was sent and replicated to every region."""
        job.phase("importing")
        number, found = self.version_of(job)
        if not number:
            number = next_version([str(it["name"]) for it in self.versions()])
            job.note(NUMBER, number)
        if found is not None:
            found = self.settle(job, number)
        if found is None:
            self._put(job, number, sent.source)
        return Resource(kind=VERSION, id=self.version_id(number))

    def settle(self, job: Job, number: str) -> Body | None:
        """Waits for a version that is being made; removes one that failed, or is to be replaced."""
        id_ = self.version_id(number)
        found = settled(
            job,
            lambda: look(job, self._clients, id_),
            what="the image version",
            timeout=self._options.timeout,
        )
        if found is None or (is_ours(job, found) and state_of(found) == "Succeeded"):
            return found
        delete(job, self._clients, id_, self._options.timeout)
        return None

    def update(self, job: Job, found: Body) -> Resource:
        """Gives a version that is there the regions, replicas and marks of the settings."""
        job.phase("replicating")
        number = str(found["name"])
        profile = properties(found).get("storageProfile") or {}
        source = (profile.get("osDiskImage") or {}).get("source") or {}
        is_excluded = self._wants_exclusion(found)
        self._write(job, number, {"osDiskImage": {"source": source}}, tags_of(found), is_excluded)
        return Resource(kind=VERSION, id=self.version_id(number))

    def _put(self, job: Job, number: str, source: dict[str, Any]) -> None:
        # resumable: Azure goes on with it, and the next run waits for its end
        resource = job.created(VERSION, self.version_id(number), is_resumable=True)
        where = (
            {"uri": source["blob"], "storageAccountId": source["account"]}
            if "blob" in source
            else {"id": source["disk"]}
        )
        tags = {**self._options.tags, **job.tags}
        try:
            self._write(job, number, {"osDiskImage": {"source": where}}, tags)
        except HttpResponseError:
            there = look(job, self._clients, resource.id)
            if there is None or state_of(there) in ("Failed", "Canceled"):
                delete(job, self._clients, resource.id, self._options.timeout)
                job.journal.remove(resource)
            raise

    def _write(
        self, job: Job, number: str, storage: Body, tags: Any, is_excluded: bool | None = None
    ) -> None:
        profile = profile_body(self.settings, regions_of(self._options, self.settings))
        if is_excluded is not None:
            profile["excludeFromLatest"] = is_excluded
        inner: dict[str, Any] = {"publishingProfile": profile, "storageProfile": storage}
        if self.settings.block_deletion_before_end_of_life:
            inner["safetyProfile"] = {"blockDeletionBeforeEndOfLife": True}
        body = {"location": self._region, "tags": dict(tags), "properties": inner}
        complete(
            job,
            lambda polling: self._clients.compute.gallery_image_versions.begin_create_or_update(
                self.group, self.name, self.names.definition, number, body, polling=polling
            ),
            what="create the image version",
            timeout=self._options.timeout,
        )

    @property
    def _region(self) -> str:
        return self._options.regions[0].split(":")[0]

    @property
    def _definition(self) -> dict[str, Any]:
        return definition_body(self.settings, self.names, self._region)


def _plain(region: str) -> str:
    """`West Europe` as `westeurope`: Azure answers with either."""
    return region.lower().replace(" ", "")


def look(session: Session, clients: Clients, id_: str) -> Body | None:
    """A gallery, definition or version, None where there is none."""
    where, compute = Id.of(id_), clients.compute
    get = (compute.galleries.get, compute.gallery_images.get, compute.gallery_image_versions.get)[
        len(where.names) - 1
    ]
    what = (GALLERY, DEFINITION, VERSION)[len(where.names) - 1]
    found = find(session, lambda: get(where.group, *where.names), f"get the {what}")
    return as_body(found) if found is not None else None


def delete(session: Session, clients: Clients, id_: str, timeout: float) -> None:
    """Removes a gallery, definition or version; what is gone is no error.

    A gallery or definition that has come to hold anything else is kept.
    """
    where, compute = Id.of(id_), clients.compute
    what = (GALLERY, DEFINITION, VERSION)[len(where.names) - 1]
    found = settled(session, lambda: look(session, clients, id_), what=what, timeout=timeout)
    if found is None:
        return
    if _holds_any(session, clients, where):
        session.say(f"{what} {where.names[-1]} is kept: it is not empty")
        return
    begin: Any = (
        compute.galleries.begin_delete,
        compute.gallery_images.begin_delete,
        compute.gallery_image_versions.begin_delete,
    )[len(where.names) - 1]
    complete(
        session,
        lambda polling: begin(where.group, *where.names, polling=polling),
        what=f"delete the {what}",
        timeout=timeout,
    )


def _holds_any(session: Session, clients: Clients, where: Id) -> bool:
    compute = clients.compute
    if len(where.names) == 3:
        return False
    listing: Any = (
        compute.gallery_images.list_by_gallery
        if len(where.names) == 1
        else compute.gallery_image_versions.list_by_gallery_image
    )
    inside = call(session, lambda: next(iter(listing(where.group, *where.names)), None), "list")
    return inside is not None
