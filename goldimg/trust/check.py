"""Checks the seal of a finished image: its signatures, its provenance, what these vouch for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldimg.artifacts import JUNIT, MANIFEST, SUMS, Finished, stem_of
from goldimg.errors import VerificationFailed
from goldimg.formats.stream import sha256_of
from goldimg.trust.seal import (
    check_lasting,
    documents,
    has_signature,
    is_signature,
    is_signed,
    provenance_path,
)
from goldimg.trust.statement import PREDICATE, STATEMENT
from goldimg.trust.verifier import Verifier

UNCOVERED = "no signature covers it"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A file, or a directory as a whole, and what is wrong with it; None where nothing is."""

    path: Path
    error: VerificationFailed | None = None
    note: str = ""


def check_signature(path: Path, verifier: Verifier) -> Iterator[Checked]:
    """Checks the signature of one file; one that has none is a fault where keys are trusted."""
    if not verifier.trusted and not has_signature(path):
        return
    try:
        yield Checked(path=path, note=verifier.check(path))
    except VerificationFailed as error:
        yield Checked(path=path, error=error)


def check_seal(finished: Finished, verifier: Verifier) -> Iterator[Checked]:
    """Checks everything but the artifacts themselves. An image without signatures, where no key
    is trusted, has only its provenance held against its manifest.
    """  # fmt: skip
    made, fault = _read_provenance(finished, verifier)
    edited = None if made is None else _edited(finished, made)
    if fault:
        yield Checked(path=provenance_path(finished), error=fault)
    for path in documents(finished):
        for found in check_signature(path, verifier):
            if path.name == MANIFEST and found.error:
                found = _manifest_fault(path, found, edited, was_checked=made is not None)
                edited = None
            yield found
    if edited:
        yield Checked(path=finished.directory / MANIFEST, error=edited)
    if made is not None:
        yield from _check_byproducts(finished, made)
    if is_signed(finished.directory):
        yield from _uncovered(finished, made)


def _manifest_fault(
    path: Path, found: Checked, edited: VerificationFailed | None, *, was_checked: bool
) -> Checked:
    """What is told of a manifest whose signature does not fit: which part of it was changed."""
    if edited:
        return Checked(path=path, error=edited)
    if was_checked and has_signature(path) and found.error:
        found.error.why = "in what is added after a build, such as publications"
        found.error.hint = "where that is right: goldimg sign, where the site's key is"
    return found


def _read_provenance(
    finished: Finished, verifier: Verifier
) -> tuple[dict[str, Any] | None, VerificationFailed | None]:
    path = provenance_path(finished)
    if not path.exists():
        if verifier.trusted:
            hint = "goldimg sign, where the site's key is"
            return None, VerificationFailed(f"{path} is missing", hint=hint)
        return None, None
    try:
        made = json.loads(path.read_bytes())
        if (made["_type"], made["predicateType"]) != (STATEMENT, PREDICATE):
            raise ValueError("not an in-toto statement of SLSA provenance")
    except (ValueError, TypeError, KeyError) as error:
        return None, VerificationFailed(f"{path} cannot be read", why=str(error))
    return made, None


def _edited(finished: Finished, made: dict[str, Any]) -> VerificationFailed | None:
    """How the provenance and the manifest differ in what both say; None where they do not."""
    try:
        check_lasting(finished, made)
        subjects = {it["name"]: it["digest"]["sha256"] for it in made["subject"]}
    except VerificationFailed as error:
        return error
    except (KeyError, TypeError, AttributeError):
        return VerificationFailed(f"{provenance_path(finished)} is no provenance of an image")
    if subjects != {str(it["file"]): str(it["sha256"]) for it in finished.files}:
        return VerificationFailed(f"{provenance_path(finished)} and {MANIFEST} disagree")
    return None


def _byproducts(made: dict[str, Any]) -> dict[str, str]:
    try:
        found = made["predicate"]["runDetails"]["byproducts"]
        return {it["name"]: it["digest"]["sha256"] for it in found if "sha256" in it["digest"]}
    except (KeyError, TypeError):
        return {}


def _check_byproducts(finished: Finished, made: dict[str, Any]) -> Iterator[Checked]:
    """Logs and lists as they were; one that was not copied along is no fault."""
    for name, expected in sorted(_byproducts(made).items()):
        path = finished.directory / name
        if Path(name).name == name and path.is_file() and sha256_of(path).hex() != expected:
            error = VerificationFailed(
                f"{path} has changed",
                why="it is not the one of this image's build",
                hint="a later build that failed writes its own; the image is the former one's",
            )
            yield Checked(path=path, error=error)


def _uncovered(finished: Finished, made: dict[str, Any] | None) -> Iterator[Checked]:
    known = {str(it["file"]) for it in finished.files} | {path.name for path in documents(finished)}
    known |= set(_byproducts(made)) if made else set()
    known.add(f"{stem_of(finished.manifest)}{JUNIT}")  # says what the signed manifest says
    for path in sorted(finished.directory.iterdir()):
        is_own = path.name in known or (is_signature(path) and path.stem in known)
        if path.is_file() and not is_own and not path.name.startswith("."):
            yield Checked(path=path, note=UNCOVERED)


def check_sums_signature(directory: Path, verifier: Verifier) -> Iterator[Checked]:
    """Checks the signature of the SHA256SUMS in `directory`, where it has one or needs one."""
    if (directory / SUMS).exists():
        yield from check_signature(directory / SUMS, verifier)
