"""A provider's finished directory: artifacts, SHA256SUMS, manifest.json; and whether it is current.

A directory is finished when its manifest is there: it is written last and removed first. Above the
directories of a version, SHA256SUMS lists the files of all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from goldimg.errors import VerificationFailed
from goldimg.formats import Written
from goldimg.project import Site, artifact_name, make_directory, waiting_lock, write_text
from goldimg.tested import TESTS

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
UNFINISHED = ".unfinished"  # there while finished names are being replaced
STAGING = ".staging"
MANIFEST_SCHEMA = 1
PUBLICATIONS = "publications"  # of the manifest; goldimg.publish.records writes them
ADDED_LATER = (PUBLICATIONS, TESTS)  # of the manifest: the rest is never changed
TESTED = "test"  # directory of what a test saw: console, picture, pytest's words
JUNIT = ".junit.xml"  # <stem>.junit.xml: goldimg.testing.results writes it
PROVENANCE = ".provenance.json"  # <stem>.provenance.json: goldimg.trust.seal writes it
SIGNATURES = {"ssh": ".sig", "gpg": ".asc", "cosign": ".bundle"}  # <signed file>.sig

Status = Literal["missing", "current", "stale", "foreign", "unboxed"]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished directory, as its manifest tells it."""

    directory: Path
    manifest: Mapping[str, object]

    @property
    def files(self) -> list[dict[str, object]]:
        found = self.manifest.get("artifacts", [])
        return found if isinstance(found, list) else []

    def has(self, names: Sequence[str]) -> bool:
        """Whether all these files are listed, and there in the size that is listed."""
        sizes = {str(file["file"]): file["size"] for file in self.files}
        paths = {name: self.directory / name for name in names}
        return all(
            name in sizes and path.exists() and same_size(path, sizes[name])
            for name, path in paths.items()
        )


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


def status_of(
    directory: Path,
    layer_key: str,
    names: Sequence[str],
    boxes: Sequence[str] = (),
    options: Mapping[str, object] = MappingProxyType({}),
) -> Status:
    """Whether the artifacts `names` in `directory` are what the inputs of `layer_key` give.

    `options` shape the files, not the disk. `stale`: finished, but of other inputs or options.
    `foreign`: files of these names that goldimg did not finish. `unboxed`: current, but without all
    of `boxes`, which can be made of the artifacts.
    """
    finished = read_finished(directory)
    if finished is None:
        if (directory / UNFINISHED).exists():
            return "missing"
        return "foreign" if any((directory / name).exists() for name in names) else "missing"
    if not finished.has(names):
        return "missing"
    written_with = finished.manifest.get("options", {})
    if finished.manifest.get("layer") != layer_key or written_with != options:
        return "stale"
    return "current" if finished.has(boxes) else "unboxed"


def same_size(path: Path, size: object) -> bool:
    """Whether the file has the size that its manifest says."""
    return path.stat().st_size == size


def sums_text(sums: Mapping[str, str]) -> str:
    """SHA256SUMS in the form that `sha256sum -c` reads, sorted by name."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items()))


def read_sums(path: Path) -> dict[str, str]:
    """Digests by name, as a SHA256SUMS file lists them."""
    sums = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        sums[name.strip()] = digest
    return sums


def finish(
    directory: Path, staging: Path, written: Sequence[Written], manifest: Mapping[str, object]
) -> None:
    """Moves the files written in `staging` to their finished names in `directory`.

    SHA256SUMS and the manifest follow; a crash on the way leaves a directory that says it is
    unfinished, and whose next build starts from the layer again. Files of the image that stood
    here before, and that are not written any more, go.
    """
    make_directory(directory)
    if published := _publications(directory):
        manifest = {**manifest, PUBLICATIONS: published}
    write_text(directory / UNFINISHED, json.dumps(published))
    for name in _listed(directory) - {file.path.name for file in written}:
        (directory / name).unlink(missing_ok=True)
    unseal(directory)
    _forget_tests(directory)
    (directory / MANIFEST).unlink(missing_ok=True)
    (directory / SUMS).unlink(missing_ok=True)
    described = [_described(file) for file in written]
    for file in written:
        file.path.replace(directory / file.path.name)
    _seal(directory, described, manifest)


def add_files(finished: Finished, staging: Path, written: Sequence[Written]) -> None:
    """Adds files written in `staging` to a finished directory; what is there is not touched.

    A crash on the way leaves the directory finished, as it was or with the new files. Signatures
    go: they are of other lists.
    """
    unseal(finished.directory)
    for file in written:
        file.path.replace(finished.directory / file.path.name)
    names = {file.path.name for file in written}
    kept = [entry for entry in finished.files if entry["file"] not in names]
    described = [*kept, *(_described(file) for file in written)]
    rest = {key: it for key, it in finished.manifest.items() if key not in ("schema", "artifacts")}
    _seal(finished.directory, described, rest)
    shutil.rmtree(staging, ignore_errors=True)


def stem_of(manifest: Mapping[str, object]) -> str:
    """`<OS>-<version>_<provider>` of the image that a manifest describes."""
    names = (str(manifest.get(key, "")) for key in ("os", "version", "provider"))
    return artifact_name(*names)


def unsign(path: Path) -> None:
    """Removes the signatures of a file that is about to change."""
    for suffix in SIGNATURES.values():
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def unseal(directory: Path) -> None:
    """Removes the provenance and all signatures of what stands in `directory`."""
    for suffix in SIGNATURES.values():
        for path in directory.glob(f"*{suffix}"):
            if path.with_suffix("").name in (SUMS, MANIFEST) or ".json" in path.suffixes:
                path.unlink(missing_ok=True)
    for path in directory.glob(f"*{PROVENANCE}"):
        path.unlink(missing_ok=True)


def _forget_tests(directory: Path) -> None:
    """Removes what tests of the image that stood here have left."""
    shutil.rmtree(directory / TESTED, ignore_errors=True)
    for path in directory.glob(f"*{JUNIT}"):
        path.unlink(missing_ok=True)


def _publications(directory: Path) -> object:
    """Where artifacts that stood here were published, to be undone there; None where nowhere.

    A run that was killed while it replaced them has left it in its mark.
    """
    try:
        finished = read_finished(directory)
    except VerificationFailed:
        finished = None
    if finished:
        return finished.manifest.get(PUBLICATIONS)
    with contextlib.suppress(OSError, ValueError):
        return json.loads((directory / UNFINISHED).read_text(encoding="utf-8"))
    return None


def _listed(directory: Path) -> set[str]:
    """Names that the manifest in `directory` lists, if there is one that can be read."""
    try:
        finished = read_finished(directory)
    except VerificationFailed:
        return set()
    names = {str(file["file"]) for file in finished.files} if finished else set()
    return {name for name in names if "/" not in name and name not in ("", ".", "..")}


def _described(file: Written) -> dict[str, object]:
    return {
        "file": file.path.name,
        "size": file.size,
        "sha256": file.sha256,
        "virtual_size": file.virtual_size,
    }


def _seal(
    directory: Path, described: Sequence[Mapping[str, object]], manifest: Mapping[str, object]
) -> None:
    """Writes the sums, and last the manifest: from then on the directory is finished."""
    sums = {str(entry["file"]): str(entry["sha256"]) for entry in described}
    write_text(directory / SUMS, sums_text(sums))
    whole = {"schema": MANIFEST_SCHEMA, **manifest, "artifacts": list(described)}
    write_text(directory / MANIFEST, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    tidy(directory)


@contextlib.contextmanager
def index_lock(
    site: Site, path: Path, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Holds the lock of a file that builds share, such as a version's SHA256SUMS or a catalog."""
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    with waiting_lock(site.cache / "locks" / f"{path.name}-{place}.lock", on_wait):
        yield


def version_sums(directory: Path) -> dict[str, str]:
    """Digests of all finished files of a version, by path relative to its `directory`.

    They are those of the manifests, taken while the files were written; nothing is read again.
    """
    sums: dict[str, str] = {}
    for manifest in directory.glob(f"*/*/{MANIFEST}"):
        place = manifest.parent.relative_to(directory)
        try:
            finished = read_finished(manifest.parent)
            found = (
                {str(it["file"]): str(it["sha256"]) for it in finished.files} if finished else {}
            )
        except (VerificationFailed, KeyError, TypeError, AttributeError):
            continue  # damaged, or edited by hand
        sums |= {(place / name).as_posix(): sha256 for name, sha256 in found.items()}
    return sums


def write_version_sums(
    site: Site, version: str, on_wait: Callable[[], None] = lambda: None
) -> None:
    """Brings `artifacts/<version>/SHA256SUMS` up to date with the finished directories below it."""
    directory = site.artifacts / version
    path = directory / SUMS
    with index_lock(site, path, on_wait):
        text = sums_text(version_sums(directory))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            unsign(path)
            write_text(path, text)


def tidy(directory: Path) -> None:
    """Removes what is left in a finished directory whose build was killed in its last moment."""
    (directory / UNFINISHED).unlink(missing_ok=True)
    shutil.rmtree(directory / STAGING, ignore_errors=True)
