"""Seals finished images: writes their provenance, and signs what lists and describes them.

Signed are SHA256SUMS, the provenance, package lists, and the manifest. The provenance holds the
digest of what a manifest says for good; publications, added later, only need a new signature.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from goldimg.artifacts import (
    MANIFEST,
    PROVENANCE,
    SIGNATURES,
    SUMS,
    Finished,
    index_lock,
    read_finished,
    stem_of,
    unsign,
)
from goldimg.errors import VerificationFailed
from goldimg.formats.stream import sha256_of
from goldimg.project import Site, write_text
from goldimg.trust.signer import Signer
from goldimg.trust.statement import LASTING, lasting_digest, statement, text_of
from goldimg.trust.verifier import Trusted, Verifier, verifying

LOGS = ("build.log", "console.log", "packer.json")
LISTS = ("*.cdx.json", "*.spdx.json")  # https://cyclonedx.org, https://spdx.dev


def provenance_path(finished: Finished) -> Path:
    """Where the provenance of an image is, or would be."""
    return finished.directory / f"{stem_of(finished.manifest)}{PROVENANCE}"


def documents(finished: Finished) -> list[Path]:
    """The files of an image that are signed, those that exist."""
    directory = finished.directory
    named = [directory / SUMS, provenance_path(finished), directory / MANIFEST]
    lists = [path for pattern in LISTS for path in sorted(directory.glob(pattern))]
    return [path for path in (*named, *lists) if path.exists()]


def is_signature(path: Path) -> bool:
    """Whether a file is the signature of one that stands beside it, by its name."""
    return path.suffix in SIGNATURES.values()


def is_signed(directory: Path) -> bool:
    """Whether anything of an image, or of a version, is signed."""
    return any(is_signature(path) for path in directory.iterdir() if path.is_file())


def byproducts(finished: Finished) -> dict[str, str]:
    """SHA-256s of the logs and package lists beside the artifacts."""
    listed = {str(file["file"]) for file in finished.files}
    paths = [finished.directory / name for name in LOGS]
    paths += [path for pattern in LISTS for path in finished.directory.glob(pattern)]
    return {
        path.name: sha256_of(path).hex()
        for path in paths
        if path.is_file() and path.name not in listed
    }


def seal(directory: Path, signer: Signer | None, *, force: bool = False) -> list[Path]:
    """Gives a finished image its provenance and its signatures; returns what was written.

    What has a valid signature stays as it is. VerificationFailed where something was changed since
    it was signed, or another key signed it: `force` signs all anew. Without a signer only the
    provenance is written.
    """
    finished = read_finished(directory)
    if finished is None:
        raise VerificationFailed(f"{directory} is not finished")
    path = provenance_path(finished)
    if signer is None:
        return [] if path.exists() else [_write_provenance(finished)]
    own = Trusted.of(signer.public_key(), "the site's key")
    with verifying([own], signer.runner) as verifier:
        written = []
        if path.exists() and has_signature(path) and not force:
            verifier.check(path)
            check_lasting(finished, json.loads(path.read_text(encoding="utf-8")))
        else:
            written.append(_write_provenance(finished))
        for document in documents(finished):
            if force:
                unsign(document)  # by whatever it was
            if not _is_valid(verifier, document, may_change=document.name == MANIFEST):
                written.append(signer.write(document))
        return written


def is_sealed(finished: Finished, signer: Signer | None) -> bool:
    """Whether all that `seal` would write is there; a build may have been killed before it was."""
    is_whole = signer is None or all(map(has_signature, documents(finished)))
    return is_whole and provenance_path(finished).exists()


def has_signature(path: Path) -> bool:
    """Whether there is a signature of this very file, of whatever kind."""
    return any(path.with_name(f"{path.name}{it}").exists() for it in SIGNATURES.values())


def _is_valid(verifier: Verifier, path: Path, *, may_change: bool) -> bool:
    """Whether the file is signed and unchanged; only of a manifest another signature is due."""
    if not has_signature(path):
        return False
    try:
        verifier.check(path)
    except VerificationFailed:
        if may_change:
            return False
        raise
    return True


def _write_provenance(finished: Finished) -> Path:
    path = provenance_path(finished)
    write_text(path, text_of(statement(finished.manifest, byproducts(finished))))
    return path


def check_lasting(finished: Finished, made: Mapping[str, Any]) -> None:
    """Raises VerificationFailed where a manifest is not the one that its provenance is of."""
    predicate = made.get("predicate", {})
    found = predicate.get("runDetails", {}).get("byproducts", [])
    noted = {it.get("name"): it.get("digest", {}) for it in found}
    if noted.get(MANIFEST, {}).get(LASTING) != lasting_digest(finished.manifest):
        raise VerificationFailed(
            f"{finished.directory / MANIFEST} was edited",
            why="it is not the manifest that the provenance was made of",
            hint="put the one that was built back, or build the image again",
        )


def seal_version(
    site: Site,
    version: str,
    signer: Signer | None,
    *,
    on_wait: Callable[[], None] = lambda: None,
    force: bool = False,
) -> list[Path]:
    """Signs the SHA256SUMS of a version where it has changed; returns what was written."""
    path = site.artifacts / version / SUMS
    return seal_sums(site, path, signer, on_wait=on_wait, force=force)


def seal_sums(
    site: Site,
    path: Path,
    signer: Signer | None,
    *,
    on_wait: Callable[[], None] = lambda: None,
    force: bool = False,
) -> list[Path]:
    """The same, of the list at `path`; under its lock, since builds side by side write it."""
    with index_lock(site, path, on_wait):
        if signer is None or not path.exists():
            return []
        own = Trusted.of(signer.public_key(), "the site's key")
        with verifying([own], signer.runner) as verifier:
            if not force and _is_valid(verifier, path, may_change=False):
                return []
        return [signer.write(path)]
