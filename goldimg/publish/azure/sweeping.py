"""What runs left in Azure unfinished: by metadata, tags and provisioning states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from azure.core.exceptions import HttpResponseError

from goldimg.config.publish.azure import AzurePublish
from goldimg.publish.azure import blob, disk, gallery, image
from goldimg.publish.azure.arm import as_body, properties, state_of, tags_of
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.faults import call
from goldimg.publish.azure.places import Places
from goldimg.publish.job import Session
from goldimg.publish.journal import Resource
from goldimg.publish.publisher import UNFINISHED, Orphan

RUN = "goldimg-run"
_STATE = next(iter(UNFINISHED.items()))


def find_orphans(
    session: Session, clients: Clients, options: AzurePublish, places: Places
) -> list[Orphan]:
    """Unfinished blobs, upload disks, and images and versions that are not 'Succeeded'."""
    found: list[Orphan] = []
    if places.find_group(places.group) is not None:
        found += _disks(session, clients, places.group)
        found += _images(session, clients, places.group)
    if options.gallery is not None:
        group = options.gallery.group or places.group
        found += _versions(session, clients, group, options.gallery.name)
    if options.storage_account and places.find_account() is not None:
        found += _blobs(session, options, places)
    return found


def _age(text: object) -> float | None:
    """Seconds since a time in ISO 8601."""
    if not text:
        return None
    when = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    return (datetime.now(UTC) - when).total_seconds()


def _orphan(kind: str, id_: str, tags: Mapping[str, str], age: float | None) -> Orphan:
    run_id = tags.get(RUN) or tags.get(blob.RUN, "")
    return Orphan(resource=Resource(kind=kind, id=id_), run_id=run_id, age=age)


def _listed(session: Session, listing: Any, *where: str) -> list[dict[str, Any]]:
    try:
        found = call(session, lambda: list(listing(*where)), "list")
    except HttpResponseError as error:
        if error.status_code == 404:
            return []
        raise
    return [as_body(it) for it in found]


def _disks(session: Session, clients: Clients, group: str) -> Iterator[Orphan]:
    for it in _listed(session, clients.compute.disks.list_by_resource_group, group):
        if _STATE in tags_of(it).items() and RUN in tags_of(it):
            age = _age(properties(it).get("timeCreated"))
            yield _orphan(disk.KIND, str(it["id"]), tags_of(it), age)


def _images(session: Session, clients: Clients, group: str) -> Iterator[Orphan]:
    for it in _listed(session, clients.compute.images.list_by_resource_group, group):
        if RUN in tags_of(it) and state_of(it) != "Succeeded":
            yield _orphan(image.KIND, str(it["id"]), tags_of(it), None)


def _versions(session: Session, clients: Clients, group: str, name: str) -> Iterator[Orphan]:
    compute = clients.compute
    for definition in _listed(session, compute.gallery_images.list_by_gallery, group, name):
        listing = compute.gallery_image_versions.list_by_gallery_image
        for it in _listed(session, listing, group, name, str(definition["name"])):
            if RUN not in tags_of(it) or state_of(it) in ("Succeeded", "Updating"):
                continue
            profile = properties(it).get("publishingProfile") or {}
            age = _age(profile.get("publishedDate"))
            yield _orphan(gallery.VERSION, str(it["id"]), tags_of(it), age)


def _blobs(session: Session, options: AzurePublish, places: Places) -> Iterator[Orphan]:
    service = places.service()
    if not places.has_container(service):
        return
    container = service.get_container_client(options.container)
    listed = call(session, lambda: list(container.list_blobs(include=["metadata"])), "List Blobs")
    for it in listed:
        metadata = it.metadata or {}
        if blob.STATE in metadata and blob.RUN in metadata:
            url = blob.plain_url(container.get_blob_client(it.name))
            yield _orphan(blob.KIND, url, metadata, _age(it.last_modified))
