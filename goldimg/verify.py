"""Checks finished files: their sums, their manifests, and the rules of their formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from goldimg.artifacts import MANIFEST, SUMS, Finished, read_finished, read_sums, version_sums
from goldimg.errors import UsageError, VerificationFailed
from goldimg.formats.stream import Ticker, sha256_of
from goldimg.inventory.describe import check_description, is_description
from goldimg.project import Site
from goldimg.providers import Provider, all_providers
from goldimg.run import Runner


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A file, or a directory as a whole, and what is wrong with it; None where nothing is."""

    path: Path
    error: VerificationFailed | None = None
    note: str = ""


def verify_site(
    site: Site, os_name: str, version: str, providers: Sequence[Provider], runner: Runner
) -> Iterator[Checked]:
    """Checks the images of a version: each file, each directory, and the version's own sums."""
    for provider in providers:
        yield from verify_directory(site.artifact_dir(version, os_name, provider.name), runner)
    directory = site.artifacts / version
    yield Checked(path=directory / SUMS, error=_version_fault(directory, required=True))


def verify_path(path: Path, runner: Runner) -> Iterator[Checked]:
    """Checks a file, or every finished directory at or below a directory.

    A file is held to the SHA256SUMS beside it, where there is one. UsageError where there is
    nothing that could be checked.
    """
    if path.is_file():
        yield _verify_file(path, runner)
        return
    found = sorted(it.parent for it in path.rglob(MANIFEST)) if path.is_dir() else []
    if not found:
        raise UsageError(
            f"{path} holds nothing to verify" if path.is_dir() else f"{path} does not exist",
            hint="name an artifact, or a directory with finished images below it",
        )
    for directory in found:
        yield from verify_directory(directory, runner)
    for version in sorted({directory.parent.parent for directory in found}):
        if (version / SUMS).exists():
            yield Checked(path=version / SUMS, error=_version_fault(version, required=False))


def verify_directory(directory: Path, runner: Runner) -> Iterator[Checked]:
    """Checks every artifact in `directory`; one fault of the directory as a whole ends it there."""
    try:
        finished = _whole(directory)
    except VerificationFailed as error:
        yield Checked(path=directory, error=error)
        return
    provider = all_providers().get(str(finished.manifest.get("provider")))
    for name, expected in sorted(read_sums(directory / SUMS).items()):
        yield _verify(directory / name, expected, provider, runner)


def _whole(directory: Path) -> Finished:
    """The finished directory; VerificationFailed where its own lists do not fit together."""
    finished = read_finished(directory)
    if finished is None or not (directory / SUMS).exists():
        raise VerificationFailed(
            f"{directory} is not finished",
            why="it has no manifest.json and SHA256SUMS",
            hint=f"build it: goldimg build --only {directory.name}",
        )
    described = {str(file["file"]): str(file["sha256"]) for file in finished.files}
    if read_sums(directory / SUMS) != described:
        raise VerificationFailed(f"{directory}: SHA256SUMS and manifest.json disagree")
    return finished


def _verify_file(path: Path, runner: Runner) -> Checked:
    sums = read_sums(path.parent / SUMS) if (path.parent / SUMS).exists() else {}
    stem = path.name.partition(".")[0] if "_" not in path.name else path.name.rpartition("_")[2]
    finished = read_finished(path.parent)
    named = str(finished.manifest.get("provider")) if finished else stem.partition(".")[0]
    provider = all_providers().get(named)
    expected = sums.get(path.name)
    if provider is None and expected is None:
        raise UsageError(
            f"{path} is not known",
            why="no SHA256SUMS beside it lists it, and its name tells no provider",
            hint="artifacts are called <OS>-<version>_<provider>.<extension>",
        )
    return _verify(path, expected, provider, runner)


def _verify(path: Path, expected: str | None, provider: Provider | None, runner: Runner) -> Checked:
    try:
        if not path.exists():
            raise VerificationFailed(f"{path} is missing")
        if expected is not None:
            found = sha256_of(path, Ticker(0, None, runner)).hex()
            if found != expected:
                why = f"its sha256 is {found}, not {expected}"
                raise VerificationFailed(f"{path} has changed", why=why)
        if is_description(path):
            check_description(path)
        elif provider:
            provider.check(path)
    except VerificationFailed as error:
        return Checked(path=path, error=error)
    note = "" if expected else "no sum is known, only the format was checked"
    return Checked(path=path, note=note if provider else "only the sum was checked")


def _version_fault(directory: Path, *, required: bool) -> VerificationFailed | None:
    """What is wrong with a version's SHA256SUMS, held to the manifests below it."""
    path = directory / SUMS
    hint = "'goldimg catalog' writes it anew"
    if not path.exists():
        return VerificationFailed(f"{path} is missing", hint=hint) if required else None
    if read_sums(path) != version_sums(directory):
        return VerificationFailed(f"{path} disagrees with the manifests below it", hint=hint)
    return None
