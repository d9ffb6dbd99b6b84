"""What differs between two images, as a value. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from goldimg.inventory import File, Inventory, Package


@dataclass(frozen=True, kw_only=True)
class Changed:
    """Something that is in one image, in the other, or different in both; None: not there."""

    name: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """From one image to another. `sizes`: before and after, in bytes, by what was measured."""

    packages: tuple[Changed, ...]
    services: tuple[Changed, ...]
    files: tuple[Changed, ...]
    sizes: Mapping[str, tuple[int, int]]

    def __bool__(self) -> bool:
        return bool(self.packages or self.services or self.files)


def diff(before: Inventory, after: Inventory) -> Difference:
    """What `after` has that `before` has not, and the other way round."""
    return Difference(
        packages=tuple(_changes(_versions(before.packages), _versions(after.packages))),
        services=tuple(_changes(before.services, after.services)),
        files=tuple(_changes(_shown(before.files), _shown(after.files))),
        sizes={
            "packages": (_size(before.packages), _size(after.packages)),
            "files": (_size(before.files.values()), _size(after.files.values())),
        },
    )


def _size(found: Iterable[Package | File]) -> int:
    return sum(it.size for it in found)


def _versions(packages: Iterable[Package]) -> dict[str, str]:
    """Versions by name; several at once, such as kernels, in one line."""
    found = defaultdict(list)
    for package in packages:
        found[package.key].append(package.version)
    return {key: ", ".join(sorted(versions)) for key, versions in found.items()}


def _shown(files: Mapping[str, File]) -> dict[str, str]:
    """What a file is, in words that differ where the file does."""
    found = {}
    for path, file in files.items():
        if file.mode == "link":
            found[path] = f"-> {file.content}"
            continue
        owner = "" if file.owner == "0:0" else f" {file.owner}"
        digest = f" {file.content[:12]}" if file.content else ""
        found[path] = f"{file.mode}{owner} {file.size} bytes{digest}"
    return found


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[Changed]:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Changed(name=name, before=before.get(name), after=after.get(name))
