"""A provider's finished directory: artifacts, SHA256SUMS, manifest.json; and whether it is current.

A directory is finished when its manifest is there: it is written last and removed first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from goldimg.errors import VerificationFailed
from goldimg.formats import Written
from goldimg.project import make_directory, write_text

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
UNFINISHED = ".unfinished"  # there while finished names are being replaced
STAGING = ".staging"
MANIFEST_SCHEMA = 1

Status = Literal["missing", "current", "stale", "foreign"]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished directory, as its manifest tells it."""

    directory: Path
    manifest: Mapping[str, object]

    @property
    def files(self) -> list[dict[str, object]]:
        found = self.manifest.get("artifacts", [])
        return found if isinstance(found, list) else []


def read_finished(directory: Path) -> Finished | None:
    """The finished directory, or None where nothing was finished there."""
    path = directory / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VerificationFailed(
            f"{path} is not valid JSON", why=str(error), hint="build again with --force"
        ) from error
    return Finished(directory=directory, manifest=manifest)


def status_of(directory: Path, layer_key: str, names: Sequence[str]) -> Status:
    """Whether the artifacts `names` in `directory` are what the inputs of `layer_key` give.

    `stale`: finished, but of other inputs. `foreign`: files of these names that goldimg did not
    finish.
    """
    finished = read_finished(directory)
    if finished is None:
        if (directory / UNFINISHED).exists():
            return "missing"
        return "foreign" if any((directory / name).exists() for name in names) else "missing"
    sizes = {str(file["file"]): file["size"] for file in finished.files}
    are_there = all(
        name in sizes and (directory / name).exists() and same_size(directory / name, sizes[name])
        for name in names
    )
    if not are_there:
        return "missing"
    return "current" if finished.manifest.get("layer") == layer_key else "stale"


def same_size(path: Path, size: object) -> bool:
    """Whether the file has the size that its manifest says."""
    return path.stat().st_size == size


def sums_text(written: Sequence[Written]) -> str:
    """SHA256SUMS in the form that `sha256sum -c` reads, sorted by name."""
    lines = sorted((file.path.name, file.sha256) for file in written)
    return "".join(f"{sha256}  {name}\n" for name, sha256 in lines)


def finish(
    directory: Path, staging: Path, written: Sequence[Written], manifest: Mapping[str, object]
) -> None:
    """Moves the files written in `staging` to their finished names in `directory`.

    SHA256SUMS and the manifest follow; a crash on the way leaves a directory that says it is
    unfinished, and whose next build starts from the layer again.
    """
    make_directory(directory)
    (directory / UNFINISHED).touch()
    (directory / MANIFEST).unlink(missing_ok=True)
    (directory / SUMS).unlink(missing_ok=True)
    for file in written:
        file.path.replace(directory / file.path.name)
    write_text(directory / SUMS, sums_text(written))
    described = [
        {
            "file": file.path.name,
            "size": file.size,
            "sha256": file.sha256,
            "virtual_size": file.virtual_size,
        }
        for file in written
    ]
    whole = {"schema": MANIFEST_SCHEMA, **manifest, "artifacts": described}
    write_text(directory / MANIFEST, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    tidy(directory)


def tidy(directory: Path) -> None:
    """Removes what is left in a finished directory whose build was killed in its last moment."""
    (directory / UNFINISHED).unlink(missing_ok=True)
    shutil.rmtree(directory / STAGING, ignore_errors=True)
