"""The provenance of an image: an in-toto statement with a SLSA predicate, made of its manifest.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md
https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from goldimg.artifacts import ADDED_LATER, MANIFEST

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
# Names, not places: docs/trust.md says what they stand for.
BUILD_TYPE = "urn:goldimg:build:1"
BUILDER = "urn:goldimg:builder:1"
# Digests of our own: of names and contents of several files; of a manifest without what is added
# to it later. In-toto lets producers name further algorithms.
TREE, LASTING = "goldimgTree1", "goldimgManifest1"

Manifest = Mapping[str, Any]


def lasting_digest(manifest: Manifest) -> str:
    """The digest of what a manifest says from the day of its build on; publications are added."""
    lasting = {key: it for key, it in manifest.items() if key not in ADDED_LATER}
    text = json.dumps(lasting, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def statement(manifest: Manifest, byproducts: Mapping[str, str]) -> dict[str, Any]:
    """The provenance; `byproducts` are SHA-256s of further files beside the artifacts, by name."""
    inputs = manifest.get("inputs") or {}
    lasting = {"name": MANIFEST, "digest": {LASTING: lasting_digest(manifest)},
               "annotations": {"without": list(ADDED_LATER)}}  # fmt: skip
    logs = [{"name": name, "digest": {"sha256": it}} for name, it in sorted(byproducts.items())]
    metadata = {
        "invocationId": f"{manifest.get('layer', '')}-{manifest.get('built', '')}",
        "startedOn": manifest.get("started"),
        "finishedOn": manifest.get("built"),
    }
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": str(it["file"]), "digest": {"sha256": str(it["sha256"])}}
            for it in manifest.get("artifacts") or ()
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "os": manifest.get("os"),
                    "version": manifest.get("version"),
                    "provider": manifest.get("provider"),
                    "settings": manifest.get("parameters") or {},
                },
                "internalParameters": {
                    "base": manifest.get("base"),
                    "layer": manifest.get("layer"),
                    "builder": manifest.get("builder"),
                    "firmware": manifest.get("firmware"),
                    "disk_mib": inputs.get("disk_mib"),
                    "options": manifest.get("options") or {},
                },
                "resolvedDependencies": list(_dependencies(manifest, inputs)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": _versions(manifest)},
                "metadata": {key: it for key, it in metadata.items() if it},
                "byproducts": [lasting, *logs],
            },
        },
    }


def _versions(manifest: Manifest) -> dict[str, str]:
    return {str(name): str(it) for name, it in (manifest.get("tools") or {}).items()}


def _dependencies(manifest: Manifest, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What went into the image: the ISO, the kickstart, playbooks, templates, the repository."""
    if iso := inputs.get("iso"):
        yield {"name": iso["name"], "digest": {"sha256": iso["sha256"]}}
    if sha256 := inputs.get("kickstart_sha256"):
        yield {"name": "kickstart", "digest": {"sha256": sha256}}
    if playbooks := inputs.get("playbooks"):
        yield {"name": "ansible/", "digest": {TREE: playbooks}}
    for name, digest in sorted((inputs.get("templates") or {}).items()):
        yield {"name": name, "digest": {TREE: digest}}
    if repository := manifest.get("repository"):
        found = {
            "name": "site",
            "digest": {"gitCommit": repository["commit"]},
            "annotations": {"dirty": repository["dirty"]},
        }
        if remote := repository.get("remote"):
            found["uri"] = f"git+{remote}@{repository['commit']}"
        yield found


def text_of(made: Mapping[str, Any]) -> str:
    """A statement as its file holds it."""
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"
