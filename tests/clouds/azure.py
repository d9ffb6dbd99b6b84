"""The Azure that publishing is tested against: Azurite for blobs, our own Resource Manager (arm).

All of it is spoken to as users speak to Azure: https with bearer tokens from a managed identity,
which its usual variables name. The blobs are reached through a front that refuses what Azurite
forgets to (pages over 4 MiB or beyond the blob, bodies without an MD5) and that fails when told to.
What this does not prove beyond arm's list: a real token service, throttling as Azure does it, and
the speed of either.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from azure.storage.blob import (
    BlobClient,
    BlobSasPermissions,
    BlobServiceClient,
    ContainerClient,
    generate_blob_sas,
)

from tests.clouds import proxy
from tests.clouds.arm.compute import Compute
from tests.clouds.arm.galleries import Galleries
from tests.clouds.arm.groups import SUBSCRIPTION, Groups
from tests.clouds.arm.service import Manager, listening, serving
from tests.clouds.azurite import ACCOUNT, DISKS, KEY, SPARE, azurite_running, certificate, token

MOST = 4 << 20  # https://learn.microsoft.com/rest/api/storageservices/put-page


class _Front(proxy._Handler):
    """What stands before Azurite: rules that it forgets, and failures."""

    certificate: Path
    wrong: list[str]

    def _connect(self) -> http.client.HTTPConnection:
        context = ssl.create_default_context(cafile=str(self.certificate))
        assert isinstance(self.behind, int)
        return http.client.HTTPSConnection("127.0.0.1", self.behind, timeout=300, context=context)

    def do_PUT(self) -> None:
        if "comp=page" in self.path and self.headers.get("x-ms-page-write", "").lower() == "update":
            self._check_page()
        self._handle()

    def _check_page(self) -> None:
        start, end = self.headers["x-ms-range"].removeprefix("bytes=").split("-")
        length = int(self.headers["Content-Length"])
        if length > MOST or length != int(end) - int(start) + 1 or int(start) % 512 or length % 512:
            self.wrong.append(f"{self.path.split('?')[0]}: {length} bytes at {start}")
        if "Content-MD5" not in self.headers:
            self.wrong.append(f"{self.path.split('?')[0]}: no MD5 at {start}")


class Log(list[Any]):
    """A list of requests that tells somebody of each."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, seen: Any) -> None:
        super().append(seen)
        self._tell()


@dataclass(kw_only=True)
class Cloud:
    """A running Azure."""

    manager: Manager
    groups: Groups
    compute: Compute
    galleries: Galleries
    blobs: proxy.Proxy  # failures of blob storage, and what was asked of it
    wrong: list[str]  # requests that Azure refuses and Azurite does not
    direct: str  # Azurite itself
    certificate: Path
    tokens: str
    on_request: Callable[[], None] | None = None  # called after each, of either service

    def tell(self) -> None:
        if self.on_request:
            self.on_request()

    @property
    def environment(self) -> dict[str, str]:
        """What a user's shell holds: a managed identity, and whom to trust."""
        return {
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "IDENTITY_ENDPOINT": self.tokens,
            "IDENTITY_HEADER": "tests",
            "REQUESTS_CA_BUNDLE": str(self.certificate),
            "AZURE_STORAGE_CONNECTION_STRING": "",
            "AZURE_STORAGE_SAS_TOKEN": "",
            "AZURE_STORAGE_KEY": "",
        }

    def service(self, account: str = ACCOUNT) -> BlobServiceClient:
        """A plain client of Azurite, behind the front."""
        return BlobServiceClient(
            f"{self.direct}/{account}",
            credential={"account_name": account, "account_key": KEY},
            connection_verify=str(self.certificate),
            retry_total=1,
        )

    def connection_string(self, account: str = ACCOUNT) -> str:
        return (
            f"DefaultEndpointsProtocol=https;AccountName={account};AccountKey={KEY};"
            f"BlobEndpoint={self.blobs.url}/{account}"
        )

    def stored(self, account: str = ACCOUNT) -> dict[str, list[str]]:
        """Containers, and the names in each."""
        service = self.service(account)
        return {
            it.name: sorted(
                blob.name for blob in service.get_container_client(it.name).list_blobs()
            )
            for it in service.list_containers()
        }

    def blob(self, name: str, container: str = "images") -> BlobClient:
        return self.service().get_blob_client(container, name)

    def kinds(self) -> list[str]:
        """Types and names of all resources but groups, sorted."""
        self.manager.settle()
        return sorted(
            f"{it['type'].split('/', 1)[1]} {it['name']}"
            for it in self.manager.resources.values()
            if not it["type"].endswith("resourceGroups")
        )

    def find(self, type_: str, name: str) -> dict[str, Any]:
        """The resource of a type and name."""
        self.manager.settle()
        [found] = [
            it
            for it in self.manager.resources.values()
            if it["type"].lower().endswith(type_.lower()) and it["name"] == name
        ]
        return found

    def reset(self) -> None:
        """An empty subscription, in which nothing fails."""
        self.on_request = None
        self.manager.heal()
        self.manager.resources.clear()
        self.manager.operations.clear()
        self.blobs.heal()
        self.wrong.clear()
        self.compute.most_disks, self.compute.sas_seconds = 100, None
        self.compute.users = {}
        self.galleries.most_replicas = 100
        for account in (ACCOUNT, SPARE, DISKS):
            service = self.service(account)
            for found in service.list_containers():
                service.delete_container(found.name)

    def furnish(self, group: str = "images", region: str = "westeurope") -> None:
        """A resource group with the storage account and its container, as an admin makes them."""
        root = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}"
        self._put(root, {"location": region})
        body = {"location": region, "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"}
        self._put(f"{root}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}", body)
        self.service().create_container("images")

    def _put(self, path: str, body: dict[str, Any]) -> None:
        before, self.manager.seconds = self.manager.seconds, 0.0
        self.manager.answer("PUT", path, body)
        self.manager.settle()
        self.manager.seconds = before


class _Disks:
    """The pages of managed disks, and the VHDs that images are made of: all in Azurite."""

    def __init__(self, direct: str, front: str, certificate: Path) -> None:
        self.direct, self.front, self.certificate = direct, front, certificate
        self._container: ContainerClient | None = None

    def _client(self, name: str) -> BlobClient:
        account, container, blob = DISKS, "disks", name.replace(":", "-")
        if name.startswith("https://"):
            parts = unquote(urlsplit(name).path).split("/", 3)
            account, container, blob = parts[1:4]
        service = BlobServiceClient(
            f"{self.direct}/{account}",
            credential={"account_name": account, "account_key": KEY},
            connection_verify=str(self.certificate),
        )
        found = service.get_container_client(container)
        if account == DISKS and not found.exists():
            found.create_container()
        return found.get_blob_client(blob)

    def create(self, name: str, size: int) -> None:
        self._client(name).create_page_blob(size)

    def delete(self, name: str) -> None:
        client = self._client(name)
        if client.exists():
            client.delete_blob()

    def sas(self, name: str, permission: str, seconds: int) -> str:
        client = self._client(name)
        signature = generate_blob_sas(
            DISKS,
            "disks",
            client.blob_name,
            account_key=KEY,
            permission=BlobSasPermissions(read=permission == "r", write=permission == "w"),
            expiry=datetime.now(UTC) + timedelta(seconds=seconds),
        )
        return f"{self.front}/{DISKS}/disks/{client.blob_name}?{signature}"

    def read(self, url: str, offset: int, length: int) -> tuple[int, bytes]:
        client = self._client(url)
        if not client.exists():
            raise KeyError(url)
        found = client.get_blob_properties()
        if found.blob_type != "PageBlob":
            raise KeyError(url)
        data = client.download_blob(offset, length).readall() if length else b""
        return int(found.size), data


def disk_pages(cloud: Cloud, id_: str) -> BlobClient:
    """The pages of a managed disk."""
    from tests.clouds.arm.compute import disk_name

    blobs = cloud.compute.blobs
    assert isinstance(blobs, _Disks)
    return blobs._client(disk_name(id_))


@contextlib.contextmanager
def fronted(port: int, tls: tuple[Path, Path], wrong: list[str]) -> Iterator[proxy.Proxy]:
    """A front before Azurite's port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)

    class Handler(_Front):
        certificate = tls[0]
        behind = port

    Handler.wrong = wrong
    Handler.proxy = proxy.Proxy(url="", port=0)
    with listening(Handler, context) as front:
        Handler.proxy.port, Handler.proxy.url = front, f"https://127.0.0.1:{front}"
        yield Handler.proxy


@contextlib.contextmanager
def running(directory: Path, *, is_fronted: bool = True, in_memory: bool = True) -> Iterator[Cloud]:
    """A whole Azure, empty. Without the front Azurite's own speed is what is measured."""
    tls = certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)
    wrong: list[str] = []
    with (
        azurite_running(directory, tls=tls, in_memory=in_memory) as direct,
        fronted(int(direct.rpartition(":")[2]), tls, wrong) as front,
    ):
        manager = Manager()
        disks = _Disks(direct, front.url, tls[0])
        url = front.url if is_fronted else direct
        accounts = {name: f"{url}/{name}/" for name in (ACCOUNT, SPARE)}
        groups = Groups(manager, accounts)
        compute = Compute(manager, disks)
        galleries = Galleries(manager, compute, disks)
        manager.make_token = lambda audience: _give(manager, audience)
        with serving(manager, context) as tokens:
            cloud = Cloud(
                manager=manager,
                groups=groups,
                compute=compute,
                galleries=galleries,
                blobs=front,
                wrong=wrong,
                direct=direct,
                certificate=tls[0],
                tokens=tokens,
            )
            manager.log, front.log = Log(cloud.tell), Log(cloud.tell)
            yield cloud


def _give(manager: Manager, audience: str) -> str:
    found = token(audience)
    manager.tokens.add(found)
    return found
