"""What things are called in Azure: the same for the same image, by each kind's rules.

https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from goldimg.config.publish.azure import REGION, AzureGallery, AzurePublish
from goldimg.errors import ConfigError
from goldimg.publish.image import Image

MOST = 2**31 - 1  # of each number of an image version
LONGEST = 80  # of images, disks, definitions


@dataclass(frozen=True, kw_only=True)
class Region:
    """A region and how many replicas of what storage a gallery keeps there."""

    name: str
    replicas: int
    storage: str


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names of one image; `definition` and what follows are a gallery's, else empty."""

    blob: str
    image: str  # of the managed image, and of the disk
    generation: str
    definition: str = ""
    publisher: str = ""
    offer: str = ""
    sku: str = ""


def names_of(image: Image, options: AzurePublish) -> Names:
    """The image's names; ConfigError where Azure would refuse one."""
    generation = options.generation
    if generation == "auto":
        generation = "V2" if image.firmware == "efi" else "V1"
    if len(image.name) > LONGEST:
        raise ConfigError(
            f"azure: the image's name '{image.name}' has {len(image.name)} characters",
            hint=f"Azure takes {LONGEST}: give the OS or the version a shorter name",
        )
    found = Names(blob=f"{image.name}.vhd", image=image.name, generation=generation)
    gallery = options.gallery
    if gallery is None:
        return found
    if gallery.security != "Standard" and generation != "V2":
        raise ConfigError(
            f"azure: security {gallery.security} needs an image that starts by UEFI",
            hint="build it with 'firmware: efi', or set publish.azure.gallery.security: Standard",
        )
    suffix = f"gen{generation[1]}"
    return Names(
        blob=found.blob,
        image=found.image,
        generation=generation,
        definition=gallery.definition or f"{image.os_name}-{suffix}",
        publisher=gallery.publisher or plain(image.namespace),
        offer=gallery.offer or plain(image.distribution),
        sku=gallery.sku or plain(f"{image.release}-{suffix}"),
    )


def plain(text: str) -> str:
    """`text` in the alphabet of a definition's identifier."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:64].rstrip(".-") or "goldimg"


def version_of(image: Image) -> str:
    """The image's version as major.minor.patch; ConfigError where it has no such form.

    https://learn.microsoft.com/azure/virtual-machines/shared-image-galleries#image-versions
    """
    numbers = image.version.split(".")
    if len(numbers) > 3 or not all(it.isdecimal() and int(it) <= MOST for it in numbers):
        raise ConfigError(
            f"azure: '{image.version}' is no version of a gallery, which is major.minor.patch",
            hint="publish.azure.gallery.version: increment counts by itself",
        )
    return ".".join(str(int(it)) for it in [*numbers, "0", "0"][:3])


def next_version(taken: list[str]) -> str:
    """One above the highest of `taken`; 1.0.0 where there is none."""
    known = [tuple(map(int, it.split("."))) for it in taken if re.fullmatch(r"\d+\.\d+\.\d+", it)]
    if not known:
        return "1.0.0"
    major, minor, patch = max(known)
    if patch < MOST:
        return f"{major}.{minor}.{patch + 1}"
    return f"{major}.{minor + 1}.0"


def regions_of(options: AzurePublish, gallery: AzureGallery) -> list[Region]:
    """The regions that a version is replicated to, the first one's own first."""
    found = []
    for text in options.regions:
        parts = REGION.fullmatch(text)
        assert parts is not None  # noqa: S101 - the model has checked it
        found.append(
            Region(
                name=parts["name"],
                replicas=int(parts["replicas"] or gallery.replicas),
                storage=parts["storage"] or gallery.storage,
            )
        )
    return found
