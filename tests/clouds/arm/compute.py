"""Managed images and disks. Rules: https://learn.microsoft.com/rest/api/compute/"""

from __future__ import annotations

import re
import struct
from datetime import UTC, datetime
from typing import Any, Protocol

from tests.clouds.arm.bodies import check_body
from tests.clouds.arm.groups import ACCOUNT_TYPE, GROUP, ROOT, check_region, new_resource
from tests.clouds.arm.service import Answer, Asked, Body, Manager, Refusal

COMPUTE = GROUP + r"/providers/microsoft\.compute"
IMAGE, DISK = "Microsoft.Compute/images", "Microsoft.Compute/disks"
MIB = 1 << 20


class Blobs(Protocol):
    """What is stored in Azurite, for the services inside Azure."""

    def create(self, name: str, size: int) -> None:
        """A managed disk's pages."""

    def delete(self, name: str) -> None:
        """Removes them."""

    def sas(self, name: str, permission: str, seconds: int) -> str:
        """A URL that allows this."""

    def read(self, url: str, offset: int, length: int) -> tuple[int, bytes]:
        """The size of a page blob and a part of it; KeyError where there is none."""


def now() -> str:
    return datetime.now(UTC).isoformat()


def check_vhd(blobs: Blobs, url: str) -> None:
    """https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic"""
    try:
        size, _ = blobs.read(url, 0, 0)
        _, footer = blobs.read(url, size - 512, 512)
    except KeyError:
        raise Refusal(400, "StorageErrorBlobNotFound", f"no page blob at {url}") from None
    current, kind = struct.unpack(">48xQ4xI448x", footer)
    if not footer.startswith(b"conectix") or kind != 2:
        raise Refusal(400, "InvalidVhd", "The cookie value in the VHD footer is not supported.")
    if current % MIB or current + 512 != size:
        raise Refusal(400, "InvalidVhd", f"unsupported virtual size {current}: not a whole MiB")


class Compute:
    """Routes of images and disks."""

    def __init__(self, manager: Manager, blobs: Blobs) -> None:
        self.manager, self.blobs = manager, blobs
        self.most_disks = 100
        self.users: dict[str, list[Body]] = {}  # machines and scale sets, by kind
        self.sas_seconds: int | None = None  # shorter than asked for
        name = r"(?P<name>[^/]+)"
        manager.routes += [
            (COMPUTE + "/images", self.list_),
            (COMPUTE + f"/images/{name}", self.image),
            (
                ROOT + r"/providers/microsoft\.compute/"
                "(?P<kind>virtualmachines|virtualmachinescalesets)",
                self.machines,
            ),
            (COMPUTE + "/disks", self.list_),
            (COMPUTE + f"/disks/{name}", self.disk),
            (COMPUTE + f"/disks/{name}/(?P<act>begingetaccess|endgetaccess)", self.access),
        ]

    def list_(self, asked: Asked) -> Answer:
        self.manager.get(asked.path.split("/providers/")[0])
        return Answer(status=200, body={"value": self.manager.under(asked.path)})

    def _delete(self, asked: Asked, type_: str) -> Answer:
        key = asked.path.lower()
        if key not in self.manager.resources:
            return Answer(status=204)

        def gone() -> None:
            self.manager.resources.pop(key, None)

        return Answer(
            status=202, operation=self.manager.begin(gone, type_=f"delete {type_}", location=True)
        )

    # Images: https://learn.microsoft.com/rest/api/compute/images/create-or-update

    def image(self, asked: Asked) -> Answer:
        if asked.method == "DELETE":
            return self._delete(asked, IMAGE)
        if asked.method == "GET":
            return Answer(status=200, body=self.manager.get(asked.path))
        if asked.method == "PATCH":
            return self._tag(asked)
        self.manager.get(asked.path.split("/providers/")[0])
        check_body(asked.body, "Image")
        if not re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,78}[A-Za-z0-9_])?", asked.parts["name"]):
            raise Refusal(400, "InvalidParameter", "The image's name is invalid.")
        where = check_region(asked.body.get("location"))
        properties: Body = asked.body["properties"]
        if properties.get("hyperVGeneration") not in ("V1", "V2"):
            raise Refusal(400, "InvalidParameter", "hyperVGeneration is required")
        os_disk: Body = properties["storageProfile"]["osDisk"]
        self._check_source(os_disk, where)
        old = self.manager.resources.get(asked.path.lower())
        if old and old["properties"]["storageProfile"] != properties["storageProfile"]:
            raise Refusal(
                409, "PropertyChangeNotAllowed", "Changing property 'image.osDisk' is not allowed."
            )
        return self._put(asked, IMAGE, where, 201)

    def _tag(self, asked: Asked) -> Answer:
        """https://learn.microsoft.com/rest/api/compute/images/update"""
        found = self.manager.get(asked.path)
        if set(asked.body) != {"tags"}:
            raise Refusal(400, "InvalidParameter", "only tags can be changed here")
        found["tags"] = asked.body["tags"]
        return Answer(status=200, body=found)

    def machines(self, asked: Asked) -> Answer:
        """Machines or scale sets that a test has put there, of the whole subscription."""
        kind = asked.parts["kind"].lower()
        return Answer(status=200, body={"value": self.users.get(kind, [])})

    def _put(self, asked: Asked, type_: str, where: str, status: int) -> Answer:
        key = asked.path.lower()
        resource = new_resource(asked, type_, where)
        state = resource["properties"]
        state["provisioningState"] = "Creating"
        self.manager.resources[key] = resource

        def done() -> None:
            state["provisioningState"] = "Succeeded"

        def failed() -> None:
            state["provisioningState"] = "Failed"

        operation = self.manager.begin(done, type_=type_, fails=failed)
        return Answer(status=status, body=resource, operation=operation)

    def _check_source(self, os_disk: Body, where: str) -> None:
        if "blobUri" in os_disk:
            check_vhd(self.blobs, os_disk["blobUri"])
            name = account_of(os_disk["blobUri"])
            found = [it for it in self.manager.under(ROOT, ACCOUNT_TYPE) if it["name"] == name]
            if not found or found[0]["location"] != where:
                raise Refusal(
                    400, "InvalidParameter", "The blob's account is not in the image's region."
                )
        else:
            self.check_disk(os_disk["managedDisk"]["id"])

    def check_disk(self, id_: str) -> None:
        """Refuses a disk that images cannot be made of now."""
        disk = self.manager.get(id_)
        if disk["properties"]["diskState"] != "Unattached":
            raise Refusal(409, "OperationNotAllowed", "The disk is being uploaded or has a SAS.")
        check_vhd(self.blobs, disk_name(id_))

    # Disks: https://learn.microsoft.com/azure/virtual-machines/linux/disks-upload-vhd-to-managed-disk-cli

    def disk(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            return Answer(status=200, body=self.manager.get(asked.path))
        if asked.method == "DELETE":
            return self._delete_disk(asked)
        self.manager.get(asked.path.split("/providers/")[0])
        check_body(asked.body, "Disk")
        if not re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,78}[A-Za-z0-9_])?", asked.parts["name"]):
            raise Refusal(400, "InvalidParameter", "The disk's name is invalid.")
        where = check_region(asked.body.get("location"))
        creation: Body = asked.body["properties"]["creationData"]
        size = creation.get("uploadSizeBytes", 0)
        if creation["createOption"] != "Upload":
            raise Refusal(400, "InvalidParameter", "only createOption Upload is known here")
        if not 20972032 <= size <= 35183298347520 or size % 512:
            raise Refusal(400, "InvalidParameter", f"disk.creationData.uploadSizeBytes {size}")
        old = self.manager.resources.get(asked.path.lower())
        if old:
            if old["properties"]["creationData"] != creation:
                raise Refusal(409, "PropertyChangeNotAllowed", "creationData cannot be changed")
            return Answer(status=200, body=old)
        if len(self.manager.under(ROOT, DISK)) >= self.most_disks:
            raise Refusal(
                409, "OperationNotAllowed", "exceeding approved Standard Disks quota. Limit: 0"
            )
        return self._make_disk(asked, where, size)

    def _make_disk(self, asked: Asked, where: str, size: int) -> Answer:
        resource = new_resource(asked, DISK, where)
        resource["properties"] |= {
            "diskState": "ReadyToUpload",
            "timeCreated": now(),
            "provisioningState": "Creating",
        }
        resource["properties"]["creationData"] = dict(asked.body["properties"]["creationData"])
        self.manager.resources[asked.path.lower()] = resource
        self.blobs.create(disk_name(asked.path), size)

        def done() -> None:
            resource["properties"]["provisioningState"] = "Succeeded"

        def failed() -> None:
            resource["properties"]["provisioningState"] = "Failed"

        operation = self.manager.begin(done, type_=DISK, fails=failed)
        return Answer(status=202, body=resource, operation=operation)

    def _delete_disk(self, asked: Asked) -> Answer:
        found = self.manager.resources.get(asked.path.lower())
        if found and found["properties"]["diskState"] in ("ActiveUpload", "ActiveSAS"):
            raise Refusal(409, "OperationNotAllowed", "The disk has an active SAS.")
        answer = self._delete(asked, DISK)
        if found:
            self.blobs.delete(disk_name(asked.path))
        return answer

    def access(self, asked: Asked) -> Answer:
        disk = self.manager.get(asked.path.rpartition("/")[0])
        state = disk["properties"]
        if asked.parts["act"].lower() == "endgetaccess":
            if state["diskState"] in ("ActiveUpload", "ActiveSAS"):
                state["diskState"] = "Unattached"
            return Answer(status=202, operation=self.manager.begin(lambda: None, location=True))
        check_body(asked.body, "GrantAccessData")
        writes = asked.body["access"] == "Write"
        wanted = ("ReadyToUpload", "ActiveUpload") if writes else ("Unattached", "ActiveSAS")
        if state["provisioningState"] != "Succeeded" or state["diskState"] not in wanted:
            raise Refusal(409, "OperationNotAllowed", f"not allowed while {state['diskState']}")
        state["diskState"] = wanted[1]  # a second SAS is given where the first has expired
        seconds = self.sas_seconds or asked.body["durationInSeconds"]
        permission = "w" if writes else "r"
        url = self.blobs.sas(disk_name(disk["id"]), permission, seconds)
        operation = self.manager.begin(lambda: None, type_="beginGetAccess", location=True)
        self.manager.operations[operation].result = {"accessSAS": url}
        return Answer(status=202, operation=operation)


def account_of(url: str) -> str:
    """The account in a URL of Azurite's."""
    return url.split("/")[3]


def disk_name(id_: str) -> str:
    """The blob that holds a managed disk's pages."""
    return "disk:" + id_.lower().replace("/", "_")


def names(found: list[Body]) -> list[Any]:
    """Their names, sorted."""
    return sorted(it["name"] for it in found)
