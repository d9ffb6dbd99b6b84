"""Checks a finished directory: its sums, its manifest, and the formats of its files."""

from __future__ import annotations

from pathlib import Path

from goldimg.artifacts import SUMS, read_finished
from goldimg.errors import VerificationFailed
from goldimg.formats.stream import Ticker, sha256_of
from goldimg.providers import Provider
from goldimg.run import Runner


def verify_directory(directory: Path, provider: Provider, runner: Runner) -> list[str]:
    """The names of the artifacts in `directory`, each found to be what its hash and format say.

    Raises VerificationFailed for the first that is not.
    """
    finished = read_finished(directory)
    if finished is None or not (directory / SUMS).exists():
        raise VerificationFailed(
            f"{directory} is not finished",
            why="it has no manifest.json and SHA256SUMS",
            hint=f"build it: goldimg build --only {provider.name}",
        )
    listed = read_sums(directory / SUMS)
    described = {str(file["file"]): str(file["sha256"]) for file in finished.files}
    if listed != described:
        raise VerificationFailed(f"{directory}: SHA256SUMS and manifest.json disagree")
    for name, expected in listed.items():
        path = directory / name
        if not path.exists():
            raise VerificationFailed(f"{path} is missing")
        found = sha256_of(path, Ticker(0, None, runner)).hex()
        if found != expected:
            raise VerificationFailed(
                f"{path} has changed", why=f"its sha256 is {found}, not {expected}"
            )
        provider.check(path)
    return list(listed)


def read_sums(path: Path) -> dict[str, str]:
    """Names and digests of a SHA256SUMS file."""
    sums = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        sums[name.strip()] = digest
    return sums
