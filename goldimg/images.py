"""The finished images of a site, as their manifests tell of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from goldimg.artifacts import MANIFEST, PUBLICATIONS, Finished, read_finished
from goldimg.catalog.version import sort_key
from goldimg.channels import Channels, read_channels
from goldimg.errors import UsageError, VerificationFailed
from goldimg.inventory.describe import is_description
from goldimg.project import Site
from goldimg.tested import tested


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A finished image. `size` in bytes of its artifacts; `fault`: why nothing else is known.

    `tested` is None where it was not. `channels` and environments mean it, or will in a moment.
    """

    os: str
    version: str
    provider: str
    directory: Path
    built: str = ""
    size: int = 0
    published: tuple[str, ...] = ()
    tested: bool | None = None
    channels: tuple[str, ...] = ()
    fault: str = ""


def find_images(site: Site, os_name: str | None = None) -> list[Finding]:
    """Every finished image by OS, version as people count them, and provider."""
    pattern = f"*/{os_name or '*'}/*/{MANIFEST}"
    found = [_finding(path.parent) for path in site.artifacts.glob(pattern)]
    known = {name: _channels(site, name) for name in {it.os for it in found}}
    found = [replace(it, channels=known[it.os].pointing(it.provider, it.version)) for it in found]
    return sorted(found, key=lambda it: (it.os, sort_key(it.version), it.provider))


def _channels(site: Site, os_name: str) -> Channels:
    """What channels mean; nothing where that cannot be read, which `goldimg channels` tells."""
    try:
        return read_channels(site, os_name)
    except VerificationFailed:
        return Channels(os_name=os_name)


def _finding(directory: Path) -> Finding:
    version, os_name, provider = directory.parts[-3:]
    known: dict[str, Any] = {"os": os_name, "version": version, "provider": provider}
    try:
        finished = read_finished(directory)
    except VerificationFailed as error:
        return Finding(**known, directory=directory, fault=error.why)
    manifest = finished.manifest if finished else {}
    return Finding(
        **known,
        directory=directory,
        built=str(manifest.get("built", "")),
        size=size_of(finished) if finished else 0,
        published=tuple(_published(manifest)),
        tested=tested(manifest),
    )


def size_of(finished: Finished) -> int:
    """Bytes of all artifacts; of the files that describe them none."""
    files = [it for it in finished.files if not is_description(Path(str(it["file"])))]
    return sum(int(str(it["size"])) for it in files)


def _published(manifest: Mapping[str, Any]) -> list[str]:
    """The targets that the image was published to."""
    entries = manifest.get(PUBLICATIONS)
    found = [it for it in entries if isinstance(it, dict)] if isinstance(entries, list) else []
    return sorted({str(it.get("target", "")) for it in found})


def one_version(site: Site, os_name: str, version: str, provider: str | None) -> list[Finding]:
    """The images of a version, or that of a provider; UsageError names what there is instead."""
    every = find_images(site)
    of_version = [it for it in every if (it.os, it.version) == (os_name, version)]
    found = [it for it in of_version if provider in (None, it.provider)]
    if not found:
        wanted = f"{os_name} {version}" + (f" for {provider}" if provider else "")
        there = dict.fromkeys(f"{it.version}/{it.provider}" for it in every if it.os == os_name)
        oses = dict.fromkeys(it.os for it in every)
        why = f"of {os_name} there is {_some(there)}" if there else f"there is {_some(oses)}"
        hint = f"goldimg list shows all; goldimg build -O {os_name} --version {version} makes it"
        raise UsageError(f"{wanted} is not finished", why=why, hint=hint)
    return found


def _some(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:8]) + (" and more" if len(found) > 8 else "") if found else "nothing"
