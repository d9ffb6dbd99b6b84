"""`publish.azure` of site.yml."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from goldimg.config.fields import Fault, Seconds, Text, Url, matching, seconds
from goldimg.config.publish.common import Section, Tags

# Lengths and alphabets: https://learn.microsoft.com/azure/azure-resource-manager/management/
# resource-name-rules
Subscription = Annotated[
    str, matching(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "must be a GUID")
]
Group = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]",
        "may hold 1 to 90 letters, digits and _ ( ) . -, and not end in a dot",
    ),
]
Account = Annotated[str, matching(r"[a-z0-9]{3,24}", "must have 3 to 24 small letters and digits")]
Container = Annotated[
    str,
    matching(
        r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*",
        "must have 3 to 63 small letters, digits and single dashes between them",
    ),
]
GalleryName = Annotated[
    str,
    matching(
        r"(?=.{1,80}$)[A-Za-z0-9]([A-Za-z0-9_.]*[A-Za-z0-9])?",
        "must have 1 to 80 letters, digits, _ and . (no dash), a letter or digit at both ends",
    ),
]
# https://learn.microsoft.com/azure/virtual-machines/shared-image-galleries#image-definitions
Identifier = Annotated[
    str,
    matching(
        r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?",
        "must have 1 to 64 letters, digits and _ . -, and not end in a dot",
    ),
]
DefinitionName = Annotated[
    str,
    matching(
        r"(?=.{1,80}$)[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?",
        "must have 1 to 80 letters, digits and _ . -, a letter or digit at both ends",
    ),
]
REGION = re.compile(
    r"(?P<name>[a-z][a-z0-9]{2,39})(:(?P<replicas>[1-9][0-9]?|100))?"
    r"(:(?P<storage>(Standard|Premium)_LRS|Standard_ZRS))?"
)
Storage = Literal["Standard_LRS", "Standard_ZRS", "Premium_LRS"]


def _listed(value: object) -> object:
    """A list may also be written with commas, as `--regions` has it."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _cloud(value: str) -> str:
    if value in ("public", "usgovernment", "china") or re.fullmatch(
        r"https://[A-Za-z0-9.:-]+(/[A-Za-z0-9._~/-]*)?", value
    ):
        return value.rstrip("/")
    raise ValueError(
        "must be public, usgovernment, china or the https:// URL of a Resource Manager"
    )


Region = Annotated[
    str,
    matching(
        REGION.pattern,
        'must be such as "westeurope", "westeurope:3" or "westeurope:3:Standard_ZRS"',
    ),
]


class AzureGallery(Section):
    """A Compute Gallery: what its image definitions and versions are made with."""

    name: GalleryName
    group: Group | None = None  # its resource group; none: that of the images
    definition: DefinitionName | None = None  # none: made of OS and generation
    publisher: Identifier | None = None  # none: the site's namespace
    offer: Identifier | None = None  # none: the OS
    sku: Identifier | None = None  # none: its release and generation
    description: Text = ""
    eula: Text = ""
    privacy_url: Url | None = None
    release_notes_url: Url | None = None
    security: Literal[
        "Standard",
        "TrustedLaunchSupported",
        "TrustedLaunch",
        "ConfidentialVmSupported",
        "ConfidentialVM",
        "TrustedLaunchAndConfidentialVmSupported",
    ] = "Standard"
    accelerated_networking: bool = True
    nvme: bool = False
    hibernation: bool = False
    # same: major.minor.patch of the image's version; increment: one above the gallery's highest
    version: Literal["same", "increment"] = "same"
    replicas: int = Field(default=1, ge=1, le=100)  # in each region that names no number
    storage: Storage = "Standard_LRS"  # of replicas in each region that names none
    replication: Literal["Full", "Shallow"] = "Full"
    exclude_from_latest: bool = False
    end_of_life: date | None = None
    end_of_life_after: int | None = Field(default=None, ge=1, le=3650)  # days
    block_deletion_before_end_of_life: bool = False

    @model_validator(mode="after")
    def _fits(self) -> AzureGallery:
        if self.end_of_life and self.end_of_life_after:
            raise Fault("end_of_life", "and end_of_life_after exclude each other")
        has_end = self.end_of_life or self.end_of_life_after
        if self.block_deletion_before_end_of_life and not has_end:
            raise Fault("block_deletion_before_end_of_life", "needs an end of life")
        if len(self.description) > 1024:
            raise Fault("description", "must have at most 1024 characters")
        return self


def _tags(tags: dict[str, str]) -> dict[str, str]:
    # https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations
    for name in tags:
        if "/" in name or name.lower().startswith(("microsoft", "azure", "windows", "goldimg-")):
            raise ValueError(
                f"'{name}': Azure allows no '/' in a tag's name, and none that begins with "
                "microsoft, azure or windows; those of goldimg- are ours"
            )
    if len(tags) > 40:
        raise ValueError("must be at most 40: Azure takes 50, goldimg has its own")
    return tags


class AzurePublish(Section):
    """Where and how images are published to azure: an image, or a version in a gallery."""

    cloud: Annotated[str, AfterValidator(_cloud)] = "public"
    subscription: Subscription | None = None  # none: AZURE_SUBSCRIPTION_ID
    group: Group | None = None  # resource group of images, disks and the storage account
    regions: Annotated[tuple[Region, ...], BeforeValidator(_listed)] = ()  # the first: all there
    via: Literal["blob", "disk"] = "blob"
    storage_account: Account | None = None  # for blob
    storage_group: Group | None = None  # its resource group; none: that of the images
    container: Container = "images"
    keep_blob: bool = True  # false: the VHD is removed once a gallery has its copies
    create: bool = False  # resource group, storage account, container and gallery, where missing
    gallery: AzureGallery | None = None  # none: a managed image
    zone_resilient: bool = False  # of a managed image
    generation: Literal["auto", "V1", "V2"] = "auto"  # auto: V2 for UEFI, V1 for BIOS
    verify: Literal["ranges", "content"] = "ranges"  # content: every page is read back
    workers: int = Field(default=8, ge=1, le=64)  # ranges under way at once
    timeout: Seconds = seconds("2h")  # of each operation that Azure works on
    tags: Annotated[Tags, AfterValidator(_tags)] = {}

    @model_validator(mode="after")
    def _fits(self) -> AzurePublish:
        if not self.keep_blob and self.gallery is None and self.via == "blob":
            raise Fault("keep_blob", "is for a gallery, whose versions are copies of the VHD")
        names = [region.split(":")[0] for region in self.regions]
        if len(set(names)) < len(names):
            raise Fault("regions", "names a region twice")
        if self.gallery is None and len(names) > 1:
            raise Fault("regions", "must be one for a managed image; a gallery has several")
        if self.gallery and self.zone_resilient:
            raise Fault("zone_resilient", "is for an image; a gallery has storage: Standard_ZRS")
        security = self.gallery.security if self.gallery else "Standard"
        if security != "Standard" and self.generation == "V1":
            raise Fault("generation", f"must be V2 for security: {security}")
        return self
