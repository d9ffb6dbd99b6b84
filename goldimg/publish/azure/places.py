"""Where images go: resource group, storage account, container. Found, or made where asked for.

What is made here is kept when a run fails, for the next one to go on in; it is removed only by
`goldimg gc`, and only while nothing else is in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azure.core.exceptions import HttpResponseError, ResourceExistsError

from goldimg.config.publish.azure import AzurePublish
from goldimg.errors import PublishFailed
from goldimg.publish.azure.arm import Id, as_body, group_id, properties, tags_of
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.faults import call, find
from goldimg.publish.azure.operations import complete
from goldimg.publish.job import Job, Session

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

GROUP, ACCOUNT, CONTAINER = "resource group", "storage account", "container"


class Places:
    """The places that the settings name, in one subscription."""

    def __init__(self, session: Session, clients: Clients, options: AzurePublish) -> None:
        self._session, self._clients, self._options = session, clients, options
        self.group = options.group or ""
        self.region = options.regions[0].split(":")[0] if options.regions else ""
        self.account = options.storage_account or ""
        self.account_group = options.storage_group or self.group

    @property
    def group_id(self) -> str:
        return group_id(self._clients.subscription, self.group)

    @property
    def account_id(self) -> str:
        root = group_id(self._clients.subscription, self.account_group)
        return f"{root}/providers/Microsoft.Storage/storageAccounts/{self.account}"

    # Looking

    def find_group(self, name: str) -> dict[str, Any] | None:
        groups = self._clients.resources.resource_groups
        found = find(self._session, lambda: groups.get(name), "get the resource group")
        return as_body(found) if found is not None else None

    def find_account(self) -> dict[str, Any] | None:
        accounts = self._clients.storage.storage_accounts
        found = find(
            self._session,
            lambda: accounts.get_properties(self.account_group, self.account),
            "get the storage account",
        )
        return as_body(found) if found is not None else None

    def has_container(self, service: BlobServiceClient) -> bool:
        container = service.get_container_client(self._options.container)
        return bool(call(self._session, container.exists, "Get Container Properties"))

    def is_name_free(self) -> str:
        """Why the account's name cannot be had; empty where it can."""
        accounts = self._clients.storage.storage_accounts
        body = {"name": self.account, "type": "Microsoft.Storage/storageAccounts"}
        found = as_body(
            call(self._session, lambda: accounts.check_name_availability(body), "check the name")
        )
        return "" if found.get("nameAvailable") else str(found.get("message", "it is taken"))

    def service(self, account: dict[str, Any] | None = None) -> BlobServiceClient:
        """The blobs of the account; PublishFailed where there is none."""
        found = account or self.find_account()
        endpoints = properties(found or {}).get("primaryEndpoints") or {}
        if "blob" not in endpoints:
            raise PublishFailed(
                f"azure: no storage account {self.account} in {self.account_group}",
                hint="--create makes it",
            )
        return self._clients.blobs(self.account, str(endpoints["blob"]))

    # Making

    def make_group(self, job: Job) -> None:
        resource = job.created(GROUP, self.group_id, is_resumable=True)
        groups = self._clients.resources.resource_groups
        body = {"location": self.region, "tags": self._tags(job)}
        try:
            call(
                job, lambda: groups.create_or_update(self.group, body), "create the resource group"
            )
        except HttpResponseError:
            if self.find_group(self.group) is None:
                job.journal.remove(resource)
            raise

    def make_account(self, job: Job) -> None:
        """A storage account that nobody may read from anonymously."""
        resource = job.created(ACCOUNT, self.account_id, is_resumable=True)
        body = {
            "location": self.region,
            "sku": {"name": "Standard_LRS"},
            "kind": "StorageV2",
            "tags": self._tags(job),
            "properties": {
                "allowBlobPublicAccess": False,
                "minimumTlsVersion": "TLS1_2",
                "supportsHttpsTrafficOnly": True,
            },
        }
        try:
            complete(
                job,
                lambda polling: self._clients.storage.storage_accounts.begin_create(
                    self.account_group, self.account, body, polling=polling
                ),
                what="create the storage account",
                timeout=self._options.timeout,
            )
        except HttpResponseError:
            if self.find_account() is None:
                job.journal.remove(resource)
            raise

    def make_container(self, job: Job, service: BlobServiceClient) -> None:
        container = service.get_container_client(self._options.container)
        resource = job.created(CONTAINER, container.url.split("?")[0], is_resumable=True)
        try:
            call(job, container.create_container, "Create Container")
        except ResourceExistsError:  # made by an attempt whose answer was lost
            return
        except HttpResponseError:
            job.journal.remove(resource)
            raise

    def _tags(self, job: Job) -> dict[str, str]:
        return {**self._options.tags, "goldimg-run": job.run_id}

    # Removing

    def delete_container(self, service: BlobServiceClient, name: str) -> None:
        container = service.get_container_client(name)
        if not call(self._session, container.exists, "Get Container Properties"):
            return
        blobs = call(self._session, lambda: next(iter(container.list_blobs()), None), "List Blobs")
        if blobs is not None:
            self._session.say(f"container {name} is kept: it is not empty")
            return
        call(self._session, container.delete_container, "Delete Container")

    def delete_account(self, id_: str) -> None:
        where = Id.of(id_)
        found = self.find_account()
        if found is None:
            return
        service = self.service(found)
        kept = call(
            self._session, lambda: next(iter(service.list_containers()), None), "List Containers"
        )
        if kept is not None or "goldimg-run" not in tags_of(found):
            self._session.say(f"storage account {where.names[0]} is kept: it is not empty")
            return
        accounts = self._clients.storage.storage_accounts
        call(
            self._session,
            lambda: accounts.delete(where.group, where.names[0]),
            "delete the storage account",
        )

    def delete_group(self, id_: str) -> None:
        name = id_.rpartition("/")[2]
        found = self.find_group(name)
        if found is None:
            return
        listed = self._clients.resources.resources
        inside = call(
            self._session,
            lambda: next(iter(listed.list_by_resource_group(name)), None),
            "list the resource group",
        )
        if inside is not None or "goldimg-run" not in tags_of(found):
            self._session.say(f"resource group {name} is kept: it is not empty")
            return
        complete(
            self._session,
            lambda polling: self._clients.resources.resource_groups.begin_delete(
                name, polling=polling
            ),
            what="delete the resource group",
            timeout=self._options.timeout,
        )
