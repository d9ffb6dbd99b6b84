"""A managed image of a VHD. https://learn.microsoft.com/rest/api/compute/images/create-or-update"""

from __future__ import annotations

from typing import Any

from goldimg.config.publish.azure import AzurePublish
from goldimg.errors import PublishFailed
from goldimg.publish.azure.arm import Body, Id, as_body, compute_id, is_ours, settled, state_of
from goldimg.publish.azure.blob import Sent
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.faults import find
from goldimg.publish.azure.names import Names
from goldimg.publish.azure.operations import complete
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource

KIND = "image"


class ManagedImage:
    """The managed image that one image becomes."""

    def __init__(
        self, session: Session, clients: Clients, options: AzurePublish, group: str, names: Names
    ) -> None:
        self._session, self._clients, self._options = session, clients, options
        self._group, self._names = group, names
        self.id = compute_id(clients.subscription, group, "images", names.image)

    def look(self) -> Body | None:
        """The image, None where there is none."""
        return look(self._session, self._clients, self.id)

    def check_free(self, job: Job, found: Body | None) -> None:
        """PublishFailed where another image has the name, unless it is to be replaced."""
        if found is not None and not is_ours(job, found) and not job.force:
            raise PublishFailed(
                f"azure: there is another image {self._names.image} in {self._group}",
                why="it was not made of this artifact, by its tag goldimg-sha256",
                hint="--force replaces it",
            )

    def make(self, job: Job, sent: Sent) -> Resource:
        """The image, made of the VHD that was sent, once Azure has finished it."""
        job.phase("importing")
        found = settled(job, self.look, what="the image", timeout=self._options.timeout)
        self.check_free(job, found)
        if found is not None and is_ours(job, found) and state_of(found) == "Succeeded":
            return Resource(kind=KIND, id=self.id)
        if found is not None:
            delete(job, self._clients, self.id, self._options.timeout)
        resource = job.created(KIND, self.id)
        complete(
            job,
            lambda polling: self._clients.compute.images.begin_create_or_update(
                self._group, self._names.image, self._body(job, sent), polling=polling
            ),
            what="create the image",
            timeout=self._options.timeout,
        )
        return resource

    def _body(self, job: Job, sent: Sent) -> dict[str, Any]:
        source = (
            {"blobUri": sent.source["blob"]}
            if "blob" in sent.source
            else {"managedDisk": {"id": sent.source["disk"]}}
        )
        os_disk = {
            "osType": "Linux",
            "osState": "Generalized",
            "caching": "ReadWrite",
            "storageAccountType": "Standard_LRS",
            **source,
        }
        return {
            "location": self._options.regions[0].split(":")[0],
            "tags": {**self._options.tags, **job.tags},
            "properties": {
                "hyperVGeneration": self._names.generation,
                "storageProfile": {
                    "osDisk": os_disk,
                    "zoneResilient": self._options.zone_resilient,
                },
            },
        }


def look(session: Session, clients: Clients, id_: str) -> Body | None:
    """The image with this id, None where there is none."""
    where = Id.of(id_)
    found = find(
        session, lambda: clients.compute.images.get(where.group, where.names[0]), "get the image"
    )
    return as_body(found) if found is not None else None


def delete(session: Session, clients: Clients, id_: str, timeout: float) -> None:
    """Removes the image; one that is gone is no error."""
    where = Id.of(id_)
    if settled(session, lambda: look(session, clients, id_), what="the image", timeout=timeout):
        complete(
            session,
            lambda polling: clients.compute.images.begin_delete(
                where.group, where.names[0], polling=polling
            ),
            what="delete the image",
            timeout=timeout,
        )
