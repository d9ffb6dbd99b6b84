"""Compute Galleries: https://learn.microsoft.com/azure/virtual-machines/shared-image-galleries"""

from __future__ import annotations

import re

from tests.clouds.arm.bodies import check_body
from tests.clouds.arm.compute import COMPUTE, Blobs, Compute, check_vhd, now
from tests.clouds.arm.groups import check_region, new_resource, plain
from tests.clouds.arm.service import Answer, Asked, Body, Manager, Refusal

GALLERY = "Microsoft.Compute/galleries"
DEFINITION = "Microsoft.Compute/galleries/images"
VERSION = "Microsoft.Compute/galleries/images/versions"
MOST = 2**31 - 1
FROZEN = ("osType", "osState", "hyperVGeneration", "identifier", "architecture")


class Galleries:
    """Routes of galleries, definitions and versions."""

    def __init__(self, manager: Manager, compute: Compute, blobs: Blobs) -> None:
        self.manager, self.compute, self.blobs = manager, compute, blobs
        self.most_replicas = 100
        gallery = COMPUTE + r"/galleries/(?P<gallery>[^/]+)"
        definition = gallery + r"/images/(?P<definition>[^/]+)"
        manager.routes += [
            (gallery, self.gallery),
            (gallery + "/images", self.list_),
            (definition, self.definition),
            (definition + "/versions", self.list_),
            (definition + r"/versions/(?P<version>[^/]+)", self.version),
        ]

    def list_(self, asked: Asked) -> Answer:
        self.manager.get(asked.path.rpartition("/")[0])
        deep = asked.path.count("/") + 1
        found = [it for it in self.manager.under(asked.path) if it["id"].count("/") == deep]
        return Answer(status=200, body={"value": found})

    def _get_or_delete(self, asked: Asked, type_: str) -> Answer:
        key = asked.path.lower()
        if asked.method == "GET":
            return Answer(status=200, body=self.manager.get(asked.path))
        if key not in self.manager.resources:
            return Answer(status=204)
        if self.manager.under(asked.path):
            raise Refusal(409, "CannotDeleteResource", "It has nested resources.")

        def gone() -> None:
            self.manager.resources.pop(key, None)

        return Answer(
            status=202, operation=self.manager.begin(gone, type_=f"delete {type_}", location=True)
        )

    def _put(self, asked: Asked, type_: str, where: str) -> Answer:
        key = asked.path.lower()
        is_new = key not in self.manager.resources
        resource = new_resource(asked, type_, where)
        state = resource["properties"]
        state["provisioningState"] = "Creating" if is_new else "Updating"
        if type_ == VERSION:
            state["publishingProfile"]["publishedDate"] = now()
        self.manager.resources[key] = resource

        def done() -> None:
            state["provisioningState"] = "Succeeded"

        def failed() -> None:
            state["provisioningState"] = "Failed"

        operation = self.manager.begin(done, type_=type_, fails=failed)
        return Answer(status=201 if is_new else 200, body=resource, operation=operation)

    def gallery(self, asked: Asked) -> Answer:
        if asked.method != "PUT":
            return self._get_or_delete(asked, GALLERY)
        self.manager.get(asked.path.split("/providers/")[0])
        check_body(asked.body, "Gallery")
        name = asked.parts["gallery"]
        if not re.fullmatch(r"[A-Za-z0-9]([\w.]{0,78}[A-Za-z0-9])?", name):
            raise Refusal(400, "InvalidParameter", f"The gallery name '{name}' is invalid.")
        return self._put(asked, GALLERY, check_region(asked.body.get("location")))

    def definition(self, asked: Asked) -> Answer:
        if asked.method != "PUT":
            return self._get_or_delete(asked, DEFINITION)
        gallery = self.manager.get(asked.path.rpartition("/images/")[0])
        check_body(asked.body, "GalleryImage")
        if not re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,78}[A-Za-z0-9])?", asked.parts["definition"]):
            raise Refusal(400, "InvalidParameter", "The definition's name is invalid.")
        properties: Body = asked.body["properties"]
        self._check_identifier(asked, properties["identifier"], gallery["id"])
        security = [
            it["value"] for it in properties.get("features", []) if it["name"] == "SecurityType"
        ]
        if security and properties.get("hyperVGeneration") != "V2":
            raise Refusal(400, "InvalidParameter", "SecurityType needs hyperVGeneration V2")
        old = self.manager.resources.get(asked.path.lower())
        for key in FROZEN:
            if old and old["properties"].get(key) != properties.get(key):
                raise Refusal(409, "PropertyChangeNotAllowed", f"galleryImage.properties.{key}")
        return self._put(asked, DEFINITION, check_region(asked.body.get("location")))

    def _check_identifier(self, asked: Asked, identifier: Body, gallery: str) -> None:
        words = [identifier.get(key, "") for key in ("publisher", "offer", "sku")]
        for word, longest in zip(words, (128, 64, 64), strict=True):
            if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]", word) or len(word) > longest:
                raise Refusal(400, "InvalidParameter", f"galleryImage.identifier: '{word}'")
        for other in self.manager.under(gallery, DEFINITION):
            its = other["properties"]["identifier"]
            if other["id"].lower() != asked.path.lower() and its == identifier:
                raise Refusal(409, "Conflict", "publisher, offer and sku are used by another one.")

    def version(self, asked: Asked) -> Answer:
        if asked.method != "PUT":
            return self._version(asked)
        definition = self.manager.get(asked.path.rpartition("/versions/")[0])
        check_body(asked.body, "GalleryImageVersion")
        name = asked.parts["version"]
        numbers = [int(it) for it in name.split(".")] if re.fullmatch(r"[\d.]+", name) else []
        if len(numbers) != 3 or max(numbers) > MOST or ".".join(map(str, numbers)) != name:
            raise Refusal(400, "InvalidParameter", f"'{name}' is not Major.Minor.Patch.")
        where = check_region(asked.body.get("location"))
        if where != definition["location"]:
            raise Refusal(400, "InvalidParameter", "The definition is in another location.")
        self._check_profile(asked.body["properties"]["publishingProfile"], where)
        old = self.manager.resources.get(asked.path.lower())
        source = asked.body["properties"]["storageProfile"]["osDiskImage"]["source"]
        if old:
            its = old["properties"]["storageProfile"]["osDiskImage"]["source"]
            if its != source:
                raise Refusal(409, "PropertyChangeNotAllowed", "storageProfile cannot be changed")
        else:
            self._check_source(source)
        return self._put(asked, VERSION, where)

    def _version(self, asked: Asked) -> Answer:
        key = asked.path.lower()
        found = self.manager.resources.get(key)
        if asked.method == "DELETE" and found:
            if found["properties"]["provisioningState"] in ("Creating", "Updating"):
                raise Refusal(
                    409, "OperationNotAllowed", "The version is being created; wait for its end."
                )
            safety = found["properties"].get("safetyProfile") or {}
            if safety.get("blockDeletionBeforeEndOfLife"):
                raise Refusal(409, "OperationNotAllowed", "Deletion is blocked before end of life.")
        return self._get_or_delete(asked, VERSION)

    def _check_source(self, source: Body) -> None:
        if "uri" in source:
            self.manager.get(source["storageAccountId"])
            check_vhd(self.blobs, source["uri"])
        else:
            self.compute.check_disk(source["id"])

    def _check_profile(self, profile: Body, where: str) -> None:
        regions = profile.get("targetRegions") or []
        names = [check_region(it["name"]) for it in regions]
        if where not in names:
            raise Refusal(400, "InvalidParameter", "targetRegions lacks the version's location.")
        if len(set(names)) != len(names):
            raise Refusal(400, "InvalidParameter", "targetRegions holds a region twice.")
        count = sum(it.get("regionalReplicaCount", 1) for it in regions)
        if count > self.most_replicas:
            raise Refusal(
                409,
                "OperationNotAllowed",
                f"Operation would exceed the replica quota. Limit: {self.most_replicas}",
            )
        for region in regions:
            region["name"] = plain(region["name"])
