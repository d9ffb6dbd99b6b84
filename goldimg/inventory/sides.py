"""What `goldimg diff A B` compares: pairs of finished images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from goldimg.artifacts import MANIFEST, read_finished
from goldimg.errors import UsageError
from goldimg.images import find_images, size_of
from goldimg.inventory import Inventory
from goldimg.inventory.describe import inventory_in
from goldimg.inventory.diff import Difference, diff
from goldimg.project import Site
from goldimg.providers import all_providers


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two directories of finished images, and what differs between these."""

    before: Path
    after: Path
    difference: Difference


def compare(
    site: Site | None, one: str, other: str, *, os_name: str, version: str, only: Sequence[str]
) -> list[Pair]:
    """Every pair that the words `one` and `other` name.

    A word is a version, a provider (of `version`), VERSION/PROVIDER, or a directory. Two versions
    are compared for every provider that both have. UsageError where a word names nothing.
    """
    before = _side(site, one, os_name, version)
    after = _side(site, other, os_name, version)
    if len(before) > 1 or len(after) > 1:
        names = [name for name in before if name in after and (not only or name in only)]
        if not names:
            raise UsageError(
                f"{one} and {other} have no provider in common" + " of --only" * bool(only),
                why=f"there is {', '.join(before)} and {', '.join(after)}",
                hint="name two images: VERSION/PROVIDER VERSION/PROVIDER",
            )
        return [_pair(before[name], after[name]) for name in names]
    (a,), (b,) = before.values(), after.values()
    return [_pair(a, b)]


def _side(site: Site | None, word: str, os_name: str, version: str) -> dict[str, Path]:
    """Directories by provider."""
    path = Path(word)
    if (path / MANIFEST).exists():
        return {path.resolve().name: path}
    if site is None:
        raise UsageError(f"{word} holds no finished image", hint=f"a directory with {MANIFEST}")
    number, _, provider = word.partition("/")
    if word in all_providers():
        number, provider = version, word
    found = {
        it.provider: it.directory
        for it in find_images(site, os_name)
        if it.version == number and provider in ("", it.provider)
    }
    if not found:
        raise UsageError(
            f"'{word}' names no finished image of {os_name}",
            why="it is no version, provider, VERSION/PROVIDER or directory with a finished image",
            hint="goldimg list shows all; -O names another OS",
        )
    return found


def _pair(before: Path, after: Path) -> Pair:
    difference = diff(_inventory(before), _inventory(after))
    artifacts = _size(before), _size(after)
    return Pair(
        before=before,
        after=after,
        difference=replace(difference, sizes={**difference.sizes, "artifacts": artifacts}),
    )


def _size(directory: Path) -> int:
    finished = read_finished(directory)
    return size_of(finished) if finished else 0


def _inventory(directory: Path) -> Inventory:
    found = inventory_in(directory)
    if found is None:
        raise UsageError(
            f"{directory} has no inventory",
            why="it was built by a goldimg that took none",
            hint="build it again: goldimg build --update, or --force",
        )
    return found
