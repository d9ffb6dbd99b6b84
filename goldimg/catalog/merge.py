"""A catalog with the boxes that there are, and with everything in it that others wrote. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from goldimg.catalog.boxes import Box
from goldimg.catalog.version import is_version, sort_key

MARK = (
    "made_by",
    "goldimg",
)  # what entries of ours carry; Vagrant reads over keys it does not know
ARCHITECTURE = "amd64"  # Vagrant 2.4 and newer ask for it, older ones ignore it
OFF = ("revoked", "unreleased")  # a `status` that takes a version out of use

Entry = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A catalog, and what a person should know of how it came about."""

    catalog: Entry
    notes: tuple[str, ...]


def url_of(box: Box, base_url: str) -> str:
    """Where the box is, `base_url` being that of artifacts/: https://… or file:///…"""
    return f"{base_url.rstrip('/')}/{quote(box.path)}"


def merge(
    existing: Mapping[str, Any] | None,
    boxes: Sequence[Box],
    *,
    name: str,
    description: str,
    base_url: str,
) -> Merged:
    """`existing`, or a new catalog, with exactly `boxes` as goldimg's entries.

    Entries of ours (they carry `made_by`) whose box is not among `boxes` are dropped, and with the
    last one its version. What others wrote stays: keys we do not know, other versions and
    providers, and an entry of theirs for a box of ours, unless it names the very same box. Newest
    usable version first. Merging twice changes nothing more. `existing` is not touched.
    """
    catalog: Entry = {"name": name, "description": description, **copy.deepcopy(existing or {})}
    catalog["name"] = name
    found = catalog.pop("versions", None)
    versions = found if isinstance(found, list) else []
    notes: list[str] = []
    wanted = {(it.version, it.provider): it for it in boxes}
    versions = [it for it in versions if not _is_spent(it, wanted)]
    for box in boxes:
        _put(_version_of(versions, box.version), box, base_url, notes)
    catalog["versions"] = ordered(versions)
    return Merged(catalog=catalog, notes=tuple(notes))


def _is_spent(version: object, wanted: Mapping[tuple[str, str], Box]) -> bool:
    """Drops what is ours and gone from a version; whether nothing is left of it by that."""
    providers = providers_of(version)
    number = str(version["version"]) if isinstance(version, dict) and "version" in version else ""
    kept = [it for it in providers if not is_ours(it) or (number, it.get("name")) in wanted]
    if len(kept) == len(providers) or not isinstance(version, dict):
        return False
    others = [it for it in version["providers"] if not isinstance(it, dict)]
    version["providers"] = [*kept, *others]
    return not version["providers"] and not any(key == number for key, _ in wanted)


def providers_of(version: object) -> list[Entry]:
    """The providers of a version's entry, as far as they are entries at all."""
    found = version.get("providers") if isinstance(version, dict) else None
    return [it for it in found if isinstance(it, dict)] if isinstance(found, list) else []


def is_ours(provider: Mapping[str, Any]) -> bool:
    """Whether goldimg wrote this entry."""
    return provider.get(MARK[0]) == MARK[1]


def _version_of(versions: list[Any], number: str) -> Entry:
    """The entry of a version: the one that is there, or a new one."""
    for entry in versions:
        if isinstance(entry, dict) and str(entry.get("version")) == number:
            return entry
    entry = {"version": number, "status": "active", "providers": []}
    versions.append(entry)
    return entry


def _put(version: Entry, box: Box, base_url: str, notes: list[str]) -> None:
    """Makes `version` list the box, unless somebody else's entry stands in its place."""
    version.setdefault("status", "active")
    if not isinstance(version.get("providers"), list):
        version["providers"] = []
    url = url_of(box, base_url)
    place = _same_place(version, box)
    if place is None:
        place = {"name": box.provider}
        version["providers"].append(place)
    elif not is_ours(place) and not _is_same(place, box, url):
        notes.append(
            f"{box.version} for {box.provider}: kept the entry that somebody else wrote; "
            f"{box.path} is not listed"
        )
        return
    place |= {"url": url, "checksum_type": "sha256", "checksum": box.sha256}
    place.setdefault("architecture", ARCHITECTURE)
    place.setdefault("default_architecture", True)
    place |= dict([MARK])


def _same_place(version: Entry, box: Box) -> Entry | None:
    """The entry that Vagrant would take for this box's provider and architecture."""
    for entry in providers_of(version):
        architecture = entry.get("architecture", ARCHITECTURE)
        if entry.get("name") == box.provider and architecture in (ARCHITECTURE, "unknown", None):
            return entry
    return None


def _is_same(entry: Entry, box: Box, url: str) -> bool:
    is_box = str(entry.get("checksum", "")).lower() == box.sha256
    return is_box or entry.get("url") == url


def ordered(versions: Sequence[Any]) -> list[Any]:
    """Usable versions, newest first; then those that are off or empty; then what is no version."""

    def rank(entry: Any) -> tuple[int, Any]:
        number = str(entry.get("version", "")) if isinstance(entry, dict) else ""
        if not number or not is_version(number):
            return (0, sort_key("0"))
        return (2 if is_usable(entry) else 1, sort_key(number))

    # a reversed sort keeps equals in their order
    return sorted(versions, key=rank, reverse=True)


def is_usable(version: Mapping[str, Any]) -> bool:
    """Whether Vagrant should be given this version: it has a box, and nobody took it out of use."""
    return bool(providers_of(version)) and version.get("status") not in OFF


def text_of(catalog: Mapping[str, Any]) -> str:
    """The catalog as its file holds it."""
    return json.dumps(catalog, indent=2, ensure_ascii=False) + "\n"
