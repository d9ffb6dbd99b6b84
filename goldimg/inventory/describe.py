"""The files that describe an image, beside its artifacts: inventory, CycloneDX, SPDX."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from goldimg.epoch import source_date
from goldimg.errors import VerificationFailed
from goldimg.formats import Written
from goldimg.inventory import EXTENSION, Inventory, dump, load
from goldimg.inventory.archive import as_shipped
from goldimg.inventory.sbom import Subject, cyclonedx, spdx

CYCLONEDX = "cdx.json"
SPDX = "spdx.json"
EXTENSIONS = (EXTENSION, CYCLONEDX, SPDX)


def describe(
    taken: Path,
    target: Path,
    *,
    name: str,
    version: str,
    artifacts: Sequence[Written],
    archive: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[Written]:
    """Writes `<name>.inventory.json.gz`, `.cdx.json` and `.spdx.json` into `target`.

    `taken` is the guest's inventory; an `archive` of the image's files has the last word over it.
    Same inputs, same bytes. VerificationFailed where `taken` is no inventory.
    """
    inventory = load(taken)
    if (said := source_date(environ)) is not None:
        inventory = replace(inventory, taken=said)
    if archive:
        inventory = as_shipped(inventory, archive)
    subject = Subject(
        name=name,
        version=version,
        artifacts=tuple((file.path.name, file.sha256) for file in artifacts),
    )
    contents = {
        EXTENSION: dump(inventory),
        CYCLONEDX: cyclonedx(inventory, subject).encode(errors="replace"),
        SPDX: spdx(inventory, subject).encode(errors="replace"),
    }
    return [_write(target / f"{name}.{kind}", data) for kind, data in contents.items()]


def _write(path: Path, data: bytes) -> Written:
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return Written(path=path, size=len(data), sha256=digest, virtual_size=None)


def is_description(path: Path) -> bool:
    """Whether a file beside artifacts is one of those that describe them."""
    return path.name.endswith(tuple(f".{it}" for it in EXTENSIONS))


def check_description(path: Path) -> None:
    """VerificationFailed where the file is not what its name says."""
    if path.name.endswith(f".{EXTENSION}"):
        load(path)
        return
    wanted: dict[str, Callable[[dict[str, object]], bool]] = {
        CYCLONEDX: lambda it: (it.get("bomFormat"), it.get("specVersion")) == ("CycloneDX", "1.6"),
        SPDX: lambda it: it.get("spdxVersion") == "SPDX-2.3",
    }
    kind = next(kind for kind in wanted if path.name.endswith(f".{kind}"))
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise VerificationFailed(f"{path} is not valid JSON", why=str(error)) from error
    if not isinstance(document, dict) or not wanted[kind](document):
        title = "CycloneDX 1.6" if kind == CYCLONEDX else "SPDX 2.3"
        raise VerificationFailed(f"{path} is no document of {title}")


def inventory_in(directory: Path) -> Inventory | None:
    """The inventory in a finished directory; None where there is none."""
    found = sorted(directory.glob(f"*.{EXTENSION}"))
    return load(found[0]) if found else None
