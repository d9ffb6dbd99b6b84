"""Checks finished files: signatures, sums, manifests, and the rules of their formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from goldimg.artifacts import MANIFEST, SUMS, Finished, read_finished, read_sums, version_sums
from goldimg.channels import DIRECTORY, channels_path
from goldimg.errors import UsageError, VerificationFailed
from goldimg.formats.stream import sha256_of
from goldimg.inventory.describe import check_description, is_description
from goldimg.project import Site
from goldimg.providers import Provider, all_providers
from goldimg.run import Runner
from goldimg.trust.check import Checked, check_seal, check_signature, check_sums_signature
from goldimg.trust.seal import has_signature, is_signature
from goldimg.trust.verifier import Verifier

__all__ = ["SUMS", "Checked", "verify_directory", "verify_path", "verify_site", "version_fault"]


def verify_site(
    site: Site, os_name: str, version: str, providers: Sequence[Provider], verifier: Verifier
) -> Iterator[Checked]:
    """Checks the images of a version: each file, each directory, and the version's own sums."""
    for provider in providers:
        yield from verify_directory(site.artifact_dir(version, os_name, provider.name), verifier)
    directory = site.artifacts / version
    yield from check_sums_signature(directory, verifier)
    yield Checked(path=directory / SUMS, error=version_fault(directory, required=True))
    path = channels_path(site, os_name)
    if path.exists():
        yield from check_signature(path, verifier)


def verify_path(path: Path, verifier: Verifier) -> Iterator[Checked]:
    """Checks a file, or every finished directory at or below a directory.

    A file is held to the SHA256SUMS beside it, where there is one, and this to its signature.
    UsageError where there is nothing that could be checked.
    """
    if path.is_file():
        yield from _verify_file(path, verifier)
        return
    found = sorted(it.parent for it in path.rglob(MANIFEST)) if path.is_dir() else []
    if not found:
        raise UsageError(
            f"{path} holds nothing to verify" if path.is_dir() else f"{path} does not exist",
            hint="name an artifact, or a directory with finished images below it",
        )
    for directory in found:
        yield from verify_directory(directory, verifier)
    for version in sorted({directory.parent.parent for directory in found}):
        if (version / SUMS).exists():
            yield from check_sums_signature(version, verifier)
            yield Checked(path=version / SUMS, error=version_fault(version, required=False))
    for artifacts in sorted({it.parents[2] for it in found if len(it.parents) > 2}):
        if artifacts.is_relative_to(path):  # beside the versions, and not above what was named
            for channels in sorted(artifacts.glob(f"{DIRECTORY}/*.json")):
                yield from check_signature(channels, verifier)


def verify_directory(directory: Path, verifier: Verifier) -> Iterator[Checked]:
    """Checks the seal of the image in `directory`, then every artifact.

    A fault of the directory as a whole ends it there.
    """
    try:
        finished = _whole(directory)
    except VerificationFailed as error:
        yield from check_sums_signature(directory, verifier)
        if (directory / MANIFEST).exists():
            yield from check_signature(directory / MANIFEST, verifier)
        yield Checked(path=directory, error=error)
        return
    yield from check_seal(finished, verifier)
    provider = all_providers().get(str(finished.manifest.get("provider")))
    for name, expected in sorted(read_sums(directory / SUMS).items()):
        yield _verify(directory / name, expected, provider, verifier.runner)


def _whole(directory: Path) -> Finished:
    """The finished directory; VerificationFailed where its own lists do not fit together."""
    finished = read_finished(directory)
    if finished is None or not (directory / SUMS).exists():
        raise VerificationFailed(
            f"{directory} is not finished",
            why="it has no manifest.json and SHA256SUMS",
            hint=f"build it: goldimg build --only {directory.name}",
        )
    try:
        described = {str(file["file"]): str(file["sha256"]) for file in finished.files}
        is_same = read_sums(directory / SUMS) == described
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError):
        is_same = False
    if not is_same:
        raise VerificationFailed(f"{directory}: SHA256SUMS and manifest.json disagree")
    return finished


def _verify_file(path: Path, verifier: Verifier) -> Iterator[Checked]:
    if has_signature(path) and not is_signature(path):
        yield from check_signature(path, verifier)
        return
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
    if expected:
        yield from check_sums_signature(path.parent, verifier)
    elif verifier.trusted:
        hint = "keep SHA256SUMS and its signature beside an artifact that you copy"
        error = VerificationFailed(f"{path} is not signed, nor listed in what is", hint=hint)
        yield Checked(path=path, error=error)
        return
    yield _verify(path, expected, provider, verifier.runner)


def _verify(path: Path, expected: str | None, provider: Provider | None, runner: Runner) -> Checked:
    if not path.exists():
        return Checked(path=path, error=VerificationFailed(f"{path} is missing"))
    try:
        _check_file(path, expected, provider, runner)
    except VerificationFailed as error:
        return Checked(path=path, error=error)
    note = "" if expected else "no sum is known, only the format was checked"
    return Checked(path=path, note=note if provider else "only the sum was checked")


def _check_file(
    path: Path, expected: str | None, provider: Provider | None, runner: Runner
) -> None:
    """Hashes the file and checks its format side by side, so that it is read from disk once.

    A sum that is wrong is told rather than what is wrong with the format: that follows from it.
    """
    with ThreadPoolExecutor(1, "sha256") as pool:
        hashing = pool.submit(sha256_of, path, runner.check_cancelled) if expected else None
        fault: Exception | None = None
        try:
            if is_description(path):
                check_description(path)
            elif provider:
                provider.check(path)
        except Exception as error:
            fault = error
        found = hashing.result().hex() if hashing else expected
    if found != expected:
        why = f"its sha256 is {found}, not {expected}"
        raise VerificationFailed(f"{path} has changed", why=why)
    if fault:
        raise fault


def version_fault(directory: Path, *, required: bool) -> VerificationFailed | None:
    """What is wrong with a version's SHA256SUMS, held to the manifests below it."""
    path = directory / SUMS
    hint = "'goldimg catalog' writes it anew"
    if not path.exists():
        return VerificationFailed(f"{path} is missing", hint=hint) if required else None
    if read_sums(path) != version_sums(directory):
        return VerificationFailed(f"{path} disagrees with the manifests below it", hint=hint)
    return None
