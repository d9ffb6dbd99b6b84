"""The SDK's clients: one set for a command, credentials from the SDK's own chain or environment.

Their own retries are off: goldimg.publish.retry is the one policy. Every call has timeouts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.storage.blob import BlobClient, BlobServiceClient

from goldimg.errors import ConfigError

# Resource Manager and sign-in: https://learn.microsoft.com/azure/azure-government/
# compare-azure-government-global-azure, https://learn.microsoft.com/azure/china/resources-developer-guide
CLOUDS = {
    "public": ("https://management.azure.com", "https://login.microsoftonline.com"),
    "usgovernment": ("https://management.usgovcloudapi.net", "https://login.microsoftonline.us"),
    "china": ("https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
}
# Seconds to connect, and without a byte of an answer.
TIMEOUTS: dict[str, Any] = {"connection_timeout": 20, "read_timeout": 120, "retry_total": 0}
# What the SDK logs reaches people as an error with its reason, or not at all.
logging.getLogger("azure").addHandler(logging.NullHandler())
CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
SAS_TOKEN, ACCOUNT_KEY = "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_KEY"


class Clients:
    """Clients of one subscription, made when they are first needed."""

    def __init__(
        self,
        cloud: str,
        subscription: str,
        *,
        workers: int = 8,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.subscription, self._workers, self._environ = subscription, workers, environ
        self.url, self._authority = CLOUDS.get(cloud, (cloud, ""))

    @cached_property
    def credential(self) -> Any:
        """The chain: https://learn.microsoft.com/python/api/azure-identity"""
        given = self._environ.get("AZURE_AUTHORITY_HOST")
        authority = {} if given or not self._authority else {"authority": self._authority}
        return DefaultAzureCredential(**authority)

    def _of(self, kind: Any) -> Any:
        return kind(
            self.credential,
            self.subscription,
            base_url=self.url,
            credential_scopes=[f"{self.url}/.default"],
            **TIMEOUTS,
        )

    @cached_property
    def compute(self) -> Any:
        """Images, disks, galleries: bodies go in and come out in the REST reference's words."""
        return self._of(ComputeManagementClient)

    @cached_property
    def resources(self) -> Any:
        """Resource groups and providers."""
        from azure.mgmt.resource.resources import ResourceManagementClient

        return self._of(ResourceManagementClient)

    @cached_property
    def storage(self) -> Any:
        """Storage accounts."""
        from azure.mgmt.storage import StorageManagementClient

        return self._of(StorageManagementClient)

    @property
    def blob_way(self) -> str:
        """How blobs are authorized, for people."""
        for name in (CONNECTION_STRING, SAS_TOKEN, ACCOUNT_KEY):
            if self._environ.get(name):
                return name
        return "the identity"

    def blobs(self, account: str, endpoint: str) -> BlobServiceClient:
        """The account's blobs, authorized by what the environment holds, else by the identity.

        ConfigError where AZURE_STORAGE_CONNECTION_STRING belongs to another account.
        """
        text = self._environ.get(CONNECTION_STRING)
        if text:
            found = BlobServiceClient.from_connection_string(text, **self._many, **TIMEOUTS)
            if found.account_name != account:
                raise ConfigError(
                    f"{CONNECTION_STRING} is of the storage account {found.account_name}, "
                    f"publish.azure.storage_account is {account}",
                    hint=f"unset {CONNECTION_STRING}, or correct it",
                )
            return found
        credential: Any = self.credential
        if sas := self._environ.get(SAS_TOKEN):
            credential = sas.removeprefix("?")
        elif key := self._environ.get(ACCOUNT_KEY):
            credential = {"account_name": account, "account_key": key}
        return BlobServiceClient(endpoint, credential=credential, **self._many, **TIMEOUTS)

    def disk_pages(self, sas_url: str) -> BlobClient:
        """The pages of a managed disk, by the URL that grants access to them."""
        return BlobClient.from_blob_url(sas_url, **self._many, **TIMEOUTS)

    @property
    def _many(self) -> dict[str, Any]:
        """A transport with a connection for each worker, where the SDK's own keeps ten."""
        session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=self._workers + 2)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return {"transport": RequestsTransport(session=session, session_owner=False)}
