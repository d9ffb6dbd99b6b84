"""Software bills of materials of an image: CycloneDX 1.6 and SPDX 2.3, both JSON.

https://cyclonedx.org/docs/1.6/json/ and https://spdx.github.io/spdx-spec/v2.3/. The same
inventory, names and artifacts give the same bytes: ids come from a digest of them, the time from
the inventory.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from goldimg import __version__
from goldimg.inventory import Inventory, Package
from goldimg.inventory.purl import purl

NAMESPACE = uuid.UUID("0f6d2c52-5d0a-4f0c-9d0e-6a3b3f8f6c11")  # ours, of no other meaning
MIME = "https://spdx.org/spdxdocs"  # where the standard puts documents that are not published
NONE = "NOASSERTION"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The image that is described: its artifacts are (file name, SHA-256 in hex)."""

    name: str  # <OS>-<version>_<provider>
    version: str
    artifacts: tuple[tuple[str, str], ...]


def cyclonedx(inventory: Inventory, subject: Subject) -> str:
    """The CycloneDX document."""
    components = [_component(package, inventory) for package in _sorted(inventory)]
    whole = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_uuid(inventory, subject, 'cyclonedx')}",
        "version": 1,
        "metadata": {
            "timestamp": _time(inventory),
            "tools": {
                "components": [{"type": "application", "name": "goldimg", "version": __version__}]
            },
            "component": {
                "type": "operating-system",
                "bom-ref": subject.name,
                "name": subject.name,
                "version": subject.version,
                "description": inventory.os.get("PRETTY_NAME", ""),
                "properties": [
                    {"name": f"goldimg:sha256:{name}", "value": digest}
                    for name, digest in subject.artifacts
                ],
            },
        },
        "components": components,
        "dependencies": [
            {"ref": subject.name, "dependsOn": sorted({it["bom-ref"] for it in components})}
        ],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _component(package: Package, inventory: Inventory) -> dict[str, Any]:
    url = purl(package, inventory.manager, inventory.os)
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "purl": url,
    }
    if package.licence:
        # in the packager's words, which need not be SPDX's
        found["licenses"] = [{"license": {"name": package.licence}}]
    if source := _source(package):
        found["properties"] = [{"name": "goldimg:source", "value": source}]
    return found


def spdx(inventory: Inventory, subject: Subject) -> str:
    """The SPDX document: the image, which contains its packages."""
    licences: dict[str, str] = {}
    packages, used = [], set()
    for package in _sorted(inventory):
        entry = _spdx_package(package, inventory, licences)
        while entry["SPDXID"] in used:  # names that differ only in what an id cannot hold
            entry["SPDXID"] += "-"
        used.add(entry["SPDXID"])
        packages.append(entry)
    image: dict[str, Any] = {
        "SPDXID": "SPDXRef-image",
        "name": subject.name,
        "versionInfo": subject.version,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "copyrightText": NONE,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "summary": inventory.os.get("PRETTY_NAME", "") or subject.name,
    }
    if len(subject.artifacts) == 1:
        name, digest = subject.artifacts[0]
        image["packageFileName"] = name
        image["checksums"] = [{"algorithm": "SHA256", "checksumValue": digest}]
    whole: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": f"{MIME}/{subject.name}-{_uuid(inventory, subject, 'spdx')}",
        "creationInfo": {"created": _time(inventory), "creators": [f"Tool: goldimg-{__version__}"]},
        "packages": [image, *packages],
        "relationships": [
            _related("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image"),
            *(_related("SPDXRef-image", "CONTAINS", it["SPDXID"]) for it in packages),
        ],
    }
    if licences:
        whole["hasExtractedLicensingInfos"] = [
            {"licenseId": id_, "extractedText": f"The package says: {said}", "name": said}
            for said, id_ in sorted(licences.items())
        ]
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _spdx_package(
    package: Package, inventory: Inventory, licences: dict[str, str]
) -> dict[str, Any]:
    declared = NONE
    if package.licence:
        declared = licences.setdefault(package.licence, _licence_id(package.licence))
    found = {
        "SPDXID": _id("Package", f"{package.name}-{package.version}-{package.arch}"),
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "copyrightText": NONE,
        "licenseConcluded": NONE,
        "licenseDeclared": declared,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl(package, inventory.manager, inventory.os),
            }
        ],
    }
    if source := _source(package):
        found["sourceInfo"] = f"built from {source}"
    return found


def _licence_id(text: str) -> str:
    """An id of our own: what packagers write is an expression of SPDX by chance only."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"LicenseRef-{_word(text)[:40].strip('-') or 'said'}-{digest}"


def _related(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}


def _id(kind: str, text: str) -> str:
    return f"SPDXRef-{kind}-{_word(text)}"


def _word(text: str) -> str:
    """Letters, digits, dots and hyphens, which ids of SPDX are made of."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)


def _source(package: Package) -> str:
    return f"{package.source} {package.source_version}".strip()


def _sorted(inventory: Inventory) -> list[Package]:
    return sorted(set(inventory.packages), key=lambda it: (it.name, it.arch, it.version))


def _time(inventory: Inventory) -> str:
    return datetime.fromtimestamp(inventory.taken, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _uuid(inventory: Inventory, subject: Subject, kind: str) -> uuid.UUID:
    packages = [package.as_json() for package in _sorted(inventory)]
    shaped = [kind, inventory.taken, dict(inventory.os), packages, subject.name, subject.artifacts]
    return uuid.uuid5(NAMESPACE, json.dumps(shaped, sort_keys=True))
