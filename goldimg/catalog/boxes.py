"""The boxes of finished images, as their manifests tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from goldimg.artifacts import MANIFEST, read_finished, same_size
from goldimg.catalog.version import sort_key
from goldimg.errors import VerificationFailed
from goldimg.formats import box
from goldimg.providers import all_providers


@dataclass(frozen=True, kw_only=True)
class Box:
    """A finished box. `provider` is Vagrant's; `path` is relative to artifacts/, with slashes.

    `catalog` says which of an OS's catalogs lists it: "" for the one of boxes that are for Vagrant,
    else the image's own, by its provider's name.
    """

    os_name: str
    version: str
    provider: str
    catalog: str
    path: str
    size: int
    sha256: str


def find_boxes(artifacts: Path, os_name: str) -> list[Box]:
    """Every box of this OS in a finished directory, whole by its size; oldest version first.

    A directory whose manifest cannot be read, or a file that is no box, is left out: verify tells.
    """
    found = []
    for manifest in artifacts.glob(f"*/{os_name}/*/{MANIFEST}"):
        try:
            found += _boxes_of(artifacts, os_name, manifest.parent)
        except (VerificationFailed, OSError):
            continue
    return sorted(found, key=lambda it: (sort_key(it.version), it.catalog, it.provider))


def _boxes_of(artifacts: Path, os_name: str, directory: Path) -> list[Box]:
    finished = read_finished(directory)
    provider = all_providers().get(directory.name)
    found = []
    for file in finished.files if finished else []:
        path = directory / str(file["file"])
        if path.suffix != ".box" or not path.exists() or not same_size(path, file["size"]):
            continue
        found.append(
            Box(
                os_name=os_name,
                version=directory.parent.parent.name,
                provider=box.provider_of(path),
                catalog="" if provider and provider.is_for_vagrant else directory.name,
                path=path.relative_to(artifacts).as_posix(),
                size=path.stat().st_size,
                sha256=str(file["sha256"]),
            )
        )
    return found


def in_catalog(boxes: Sequence[Box], catalog: str) -> list[Box]:
    """Those of `boxes` that one catalog lists."""
    return [it for it in boxes if it.catalog == catalog]


def file_name(os_name: str, catalog: str) -> str:
    """`<OS>.json`, or `<OS>_<provider>.json` for the debugging boxes of one provider."""
    return f"{os_name}_{catalog}.json" if catalog else f"{os_name}.json"


def box_name(namespace: str, os_name: str, catalog: str) -> str:
    """What Vagrant calls the box: `<namespace>/<OS>`, or `<namespace>/<OS>_<provider>`."""
    return f"{namespace}/{os_name}_{catalog}" if catalog else f"{namespace}/{os_name}"
