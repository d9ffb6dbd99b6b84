"""What can be known before the first byte: the file, the names, the places, who we are there."""

from __future__ import annotations

from typing import Any

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

from goldimg.config.publish.azure import AzurePublish
from goldimg.errors import GoldimgError, Interrupted, PublishFailed
from goldimg.formats import vhd
from goldimg.formats.source import Disk
from goldimg.publish.azure import disk, pages
from goldimg.publish.azure.arm import as_body
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.faults import call, explained
from goldimg.publish.azure.gallery import Gallery
from goldimg.publish.azure.names import names_of, regions_of, version_of
from goldimg.publish.azure.places import Places
from goldimg.publish.job import Job
from goldimg.publish.publisher import Call, Preview

# https://learn.microsoft.com/rest/api/storageservices/put-blob: a page blob
LARGEST_BLOB = 8 << 40
# A BIOS starts from an MBR, whose partitions end at 2 TiB:
# https://learn.microsoft.com/azure/virtual-machines/generation-2
LARGEST_V1 = (2 << 40) + 512
CREATED = "(will be created)"


class Checker:
    """The checks of one image; problems with the places are told all at once."""

    def __init__(
        self, places: Places, clients: Clients, options: AzurePublish, shelf: Gallery | None
    ) -> None:
        self._places, self._clients, self._options, self._shelf = places, clients, options, shelf
        self._problems: list[str] = []
        self._hints: list[str] = []
        self._missing: set[str] = set()  # what --create will make

    def check(self, job: Job) -> Preview:
        """Everything; raises one error that tells all that is wrong."""
        size = self._check_file(job)
        self._try(lambda: self._check_regions(job))
        self._try(lambda: self._check_group(self._places.group))
        if self._options.via == "blob" and self._places.group not in self._missing:
            self._try(self._check_storage)
        elif self._options.via == "blob":
            self._missing |= {"account", "container"}
        if self._shelf is not None:
            shelf = self._shelf
            self._try(lambda: self._check_gallery(shelf))
        if self._problems:
            first, *others = self._problems
            raise PublishFailed(
                first, details=others, hint="; ".join(dict.fromkeys(filter(None, self._hints)))
            )
        return self._preview(job, size)

    def _try(self, check: Any) -> None:
        """Runs a check; what it raises is one of the problems, unless nothing else can be asked."""
        try:
            check()
        except (ClientAuthenticationError, Interrupted):
            raise
        except (GoldimgError, HttpResponseError) as error:
            told = explained(error)
            self._problems.append(str(told))
            self._hints.append(told.hint)

    def _check_file(self, job: Job) -> int:
        """The bytes to send; every rule that needs no network."""
        file, options = job.image.file("vhd"), self._options
        names = names_of(job.image, options)
        if self._shelf is not None and self._shelf.settings.version == "same":
            version_of(job.image)
        vhd.check(file.path)
        if options.via == "disk":
            least, most, what = disk.LEAST, disk.MOST, "an upload to a disk"
        else:
            least, most, what = 0, LARGEST_BLOB, "a page blob"
        if names.generation == "V1":
            most = min(most, LARGEST_V1)
        pages.check_size(file.path, file.size, least=least, most=most, what=what)
        with Disk(file.path) as opened:
            return sum(block.size for block in pages.blocks_of(opened))

    def _check_regions(self, job: Job) -> None:
        get = self._clients.resources.providers.get
        found = as_body(call(job, lambda: get("Microsoft.Compute"), "get the provider"))
        if found.get("registrationState") != "Registered":
            raise PublishFailed(
                "azure: the subscription is not registered for Microsoft.Compute",
                hint="az provider register --namespace Microsoft.Compute",
            )
        known = {
            str(name).lower().replace(" ", "")
            for kind in found.get("resourceTypes") or []
            if str(kind.get("resourceType", "")).lower() in ("disks", "images", "galleries")
            for name in kind.get("locations") or []
        }
        wanted = [text.split(":")[0] for text in self._options.regions]
        if unknown := [name for name in wanted if known and name not in known]:
            raise PublishFailed(
                f"azure: this subscription has no region {', '.join(unknown)}",
                hint="its regions: " + ", ".join(sorted(known)),
            )

    def _check_group(self, name: str) -> None:
        if self._places.find_group(name) is not None:
            return
        if not self._options.create:
            raise PublishFailed(f"azure: no resource group {name}", hint="--create makes it")
        self._missing.add(name)

    def _check_storage(self) -> None:
        places, options = self._places, self._options
        found = places.find_account()
        if found is None:
            self._missing |= {"account", "container"}
            if not options.create:
                raise PublishFailed(
                    f"azure: no storage account {places.account} in {places.account_group}",
                    hint="--create makes it",
                )
            if reason := places.is_name_free():
                raise PublishFailed(
                    f"azure: the storage account {places.account} cannot be made", why=reason
                )
            return
        region = str(found.get("location", "")).lower().replace(" ", "")
        if options.gallery is None and region != places.region:
            self._problems.append(
                f"azure: the storage account {places.account} is in {region}; "
                f"an image in {places.region} is made of a blob there"
            )
        if not places.has_container(places.service(found)):
            self._missing.add("container")
            if not options.create:
                raise PublishFailed(
                    f"azure: no container {options.container} in {places.account}",
                    hint="--create makes it",
                )

    def _check_gallery(self, shelf: Gallery) -> None:
        if shelf.group in self._missing or shelf.look() is None:
            self._missing |= {"gallery", "definition"}
            if not self._options.create:
                raise PublishFailed(
                    f"azure: no gallery {shelf.name} in {shelf.group}", hint="--create makes it"
                )
            return
        definition = shelf.look_definition()
        if definition is None:
            self._missing.add("definition")
        elif wrong := shelf.check_definition(definition):
            raise PublishFailed(
                f"azure: the image definition {shelf.names.definition} does not fit",
                why="; ".join(wrong),
                hint="name another: publish.azure.gallery.definition",
            )

    def _preview(self, job: Job, size: int) -> Preview:
        options, places, shelf = self._options, self._places, self._shelf
        names = names_of(job.image, options)
        shown = {"resource group": self._mark(places.group, places.group)}
        if options.via == "blob":
            shown["storage account"] = self._mark(places.account, "account")
            shown["blob"] = f"{options.container}/{names.blob}"
        else:
            shown["disk"] = names.image
        if shelf is None:
            shown["image"] = f"{names.image} ({names.generation}) in {places.region}"
        else:
            number = version_of(job.image) if shelf.settings.version == "same" else "the next"
            shown["gallery"] = self._mark(shelf.name, "gallery")
            shown["definition"] = self._mark(shelf.names.definition, "definition")
            shown["version"] = number
            shown["regions"] = ", ".join(
                f"{it.name} ({it.replicas} x {it.storage})"
                for it in regions_of(options, shelf.settings)
            )
        notes = ["whether the identity may write is not asked beforehand"]
        if options.via == "blob":
            notes.append(f"blobs are authorized by {self._clients.blob_way}")
        return Preview(
            account=f"subscription {self._clients.subscription}",
            names=shown,
            calls=tuple(self._calls(job, size)),
            notes=tuple(notes),
        )

    def _mark(self, name: str, key: str) -> str:
        return f"{name} {CREATED}" if key in self._missing else name

    def _calls(self, job: Job, size: int) -> list[Call]:
        options, places, shelf = self._options, self._places, self._shelf
        names, missing = names_of(job.image, options), self._missing
        found: list[Call] = []
        if places.group in missing:
            found.append(Call(operation="ResourceGroups/createOrUpdate", detail=places.group))
        if options.via == "blob":
            if "account" in missing:
                found.append(Call(operation="StorageAccounts/create", detail=places.account))
            if "container" in missing:
                found.append(Call(operation="Create Container", detail=options.container))
            found += [
                Call(operation="Put Blob", detail=names.blob),
                Call(operation="Put Page", detail="in ranges of up to 4 MiB", size=size),
                Call(operation="Get Page Ranges"),
            ]
        else:
            found += [
                Call(operation="Disks/createOrUpdate", detail=names.image),
                Call(operation="Disks/grantAccess", detail="Write"),
                Call(operation="Put Page", detail="in ranges of up to 4 MiB", size=size),
                Call(operation="Disks/revokeAccess"),
                Call(operation="Disks/grantAccess", detail="Read"),
                Call(operation="Get Page Ranges"),
            ]
        if shelf is None:
            found.append(Call(operation="Images/createOrUpdate", detail=names.image))
        else:
            if "gallery" in missing:
                found.append(Call(operation="Galleries/createOrUpdate", detail=shelf.name))
            if "definition" in missing:
                detail = shelf.names.definition
                found.append(Call(operation="GalleryImages/createOrUpdate", detail=detail))
            found.append(Call(operation="GalleryImageVersions/createOrUpdate"))
        if options.via == "disk":
            found.append(Call(operation="Disks/delete", detail=names.image))
        return found
