"""A VHD as managed disk, by direct upload: no storage account is needed.

The disk is made for an upload of so many bytes, opened for writing (a SAS that only this process
knows), filled like a page blob, closed, and opened for reading to prove what arrived.
https://learn.microsoft.com/azure/virtual-machines/linux/disks-upload-vhd-to-managed-disk-cli
"""

from __future__ import annotations

import threading
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient

from goldimg.config.publish.azure import AzurePublish
from goldimg.errors import PublishFailed
from goldimg.formats.source import Disk
from goldimg.publish.azure import pages
from goldimg.publish.azure.arm import (
    Id,
    as_body,
    compute_id,
    is_ours,
    properties,
    settled,
    state_of,
)
from goldimg.publish.azure.blob import Sent
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.faults import find
from goldimg.publish.azure.names import Names
from goldimg.publish.azure.operations import complete
from goldimg.publish.job import Job, Rejected, Session
from goldimg.publish.journal import Resource
from goldimg.publish.publisher import UNFINISHED
from goldimg.publish.transfer import Block

KIND = "disk"
# https://learn.microsoft.com/rest/api/compute/disks/create-or-update (uploadSizeBytes)
LEAST, MOST = 20_972_032, 35_183_298_347_520
GRANTED = 24 * 3600  # seconds that a SAS lasts; a run that takes longer asks for another
OPEN = ("ActiveUpload", "ActiveSAS")


class Access:
    """The disk's pages, for writing or reading: grants anew where the SAS has expired."""

    def __init__(self, session: Session, clients: Clients, id_: str, level: str) -> None:
        self._session, self._clients, self._id, self._level = session, clients, Id.of(id_), level
        self._lock = threading.Lock()
        self._client: BlobClient | None = None

    def client(self) -> BlobClient:
        """The client, with a SAS that was good when it was given."""
        with self._lock:
            if self._client is None:
                self._client = self._clients.disk_pages(self._grant())
            return self._client

    def renew(self, old: BlobClient) -> None:
        """The SAS of `old` has been refused: the next call of `client` gets another."""
        with self._lock:
            if self._client is old:
                self._client = None

    def _grant(self) -> str:
        given = complete(
            self._session,
            lambda polling: self._clients.compute.disks.begin_grant_access(
                self._id.group,
                self._id.names[0],
                {"access": self._level, "durationInSeconds": GRANTED},
                polling=polling,
            ),
            what=f"beginGetAccess ({self._level})",
            timeout=600,
            final="location",
        )
        url = as_body(given).get("accessSAS") if given is not None else None
        if not url:
            raise PublishFailed("azure: the disk was opened, but Azure gave no URL for it")
        return str(url)


def close(session: Session, clients: Clients, id_: str) -> None:
    """Ends every access to the disk; an upload is complete with that."""
    where = Id.of(id_)
    complete(
        session,
        lambda polling: clients.compute.disks.begin_revoke_access(
            where.group, where.names[0], polling=polling
        ),
        what="endGetAccess",
        timeout=600,
    )


def look(session: Session, clients: Clients, id_: str) -> dict[str, Any] | None:
    """The disk, None where there is none."""
    where = Id.of(id_)
    found = find(
        session, lambda: clients.compute.disks.get(where.group, where.names[0]), "get the disk"
    )
    return as_body(found) if found is not None else None


def upload(job: Job, clients: Clients, options: AzurePublish, names: Names, group: str) -> Sent:
    """The image's VHD as managed disk, proven and closed."""
    id_ = compute_id(clients.subscription, group, "disks", names.image)
    file = job.image.file("vhd")
    found = settled(job, lambda: look(job, clients, id_), what="the disk", timeout=options.timeout)
    if found and not is_ours(job, found) and not job.force:
        raise PublishFailed(
            f"azure: there is another disk {names.image}", hint="--force replaces it"
        )
    if found and (not is_ours(job, found) or _is_useless(job, found)):
        delete(job, clients, id_, options.timeout)
        found = None
    resource = job.created(KIND, id_, is_resumable=True, is_temporary=True)
    if found is None:
        _create(job, clients, options, names, resource)
    job.phase("uploading")
    with Disk(file.path) as disk:
        blocks = pages.blocks_of(disk)
        if not job.journal.get("is-closed"):
            _fill(job, clients, id_, disk, blocks, options.workers)
        _verify(job, clients, id_, disk, blocks, options)
        job.phase("checking the file")
        job.proven()
    how = "page ranges were compared" if options.verify == "ranges" else "every page was read back"
    return Sent(
        resource=resource,
        source={"disk": id_},
        verified=f"an MD5 of each range was checked by Azure, and the disk's {how}",
        hashes={"sha256": file.sha256},
    )


def _is_useless(job: Job, found: dict[str, Any]) -> bool:
    """Whether a disk of ours cannot be gone on with: closed, and not by a run that we know."""
    state = properties(found).get("diskState")
    if properties(found).get("provisioningState") != "Succeeded":
        return True
    return state not in ("ReadyToUpload", "ActiveUpload") and not job.journal.get("is-closed")


def _create(
    job: Job, clients: Clients, options: AzurePublish, names: Names, resource: Resource
) -> None:
    id_ = resource.id
    job.journal.forget_blocks(pages.NAME)
    job.note("is-closed", False)
    where = Id.of(id_)
    body = {
        "location": options.regions[0].split(":")[0],
        "sku": {"name": "Standard_LRS"},
        "tags": {**options.tags, **job.tags, **UNFINISHED},
        "properties": {
            "osType": "Linux",
            "hyperVGeneration": names.generation,
            "creationData": {
                "createOption": "Upload",
                "uploadSizeBytes": job.image.file("vhd").size,
            },
        },
    }
    try:
        complete(
            job,
            lambda polling: clients.compute.disks.begin_create_or_update(
                where.group, where.names[0], body, polling=polling
            ),
            what="create the disk",
            timeout=options.timeout,
        )
    except HttpResponseError:
        there = look(job, clients, id_)
        if there is None or state_of(there) != "Succeeded":
            delete(job, clients, id_, options.timeout)
            job.journal.remove(resource)
        raise


def _fill(
    job: Job, clients: Clients, id_: str, disk: Disk, blocks: list[Block], workers: int
) -> None:
    access = Access(job, clients, id_, "Write")
    while True:
        client = access.client()
        try:
            pages.send(job, disk, blocks, lambda client=client: client, workers)  # type: ignore[misc]
            break
        except HttpResponseError as error:
            if error.status_code != 403 or access.client() is not client:
                raise
            job.say("Azure no longer takes the disk's SAS: asking for another")
            access.renew(client)
    close(job, clients, id_)
    job.note("is-closed", True)


def _verify(
    job: Job, clients: Clients, id_: str, disk: Disk, blocks: list[Block], options: AzurePublish
) -> None:
    job.phase("verifying")
    client = Access(job, clients, id_, "Read").client()
    try:
        pages.check_ranges(job, blocks, client)
        if options.verify == "content":
            pages.check_content(job, disk, blocks, client, options.workers)
    except Rejected:
        job.note("is-closed", False)
        raise
    close(job, clients, id_)


def delete(session: Session, clients: Clients, id_: str, timeout: float) -> None:
    """Removes the disk, open or not; one that is gone is no error."""
    found = settled(session, lambda: look(session, clients, id_), what="the disk", timeout=timeout)
    if found is None:
        return
    if properties(found).get("diskState") in OPEN:
        close(session, clients, id_)
    where = Id.of(id_)
    complete(
        session,
        lambda polling: clients.compute.disks.begin_delete(
            where.group, where.names[0], polling=polling
        ),
        what="delete the disk",
        timeout=timeout,
    )
