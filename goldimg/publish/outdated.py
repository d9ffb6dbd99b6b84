"""`goldimg prune --remote`: publications that are old, in no channel, and used by nobody."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from goldimg.artifacts import MANIFEST
from goldimg.catalog.version import sort_key
from goldimg.channels import Channels, read_channels
from goldimg.errors import GoldimgError, Interrupted
from goldimg.project import Site
from goldimg.publish.gate import MakePublisher
from goldimg.publish.job import brief
from goldimg.publish.publisher import Publisher
from goldimg.publish.records import Record, published
from goldimg.publish.sweep import Removal, unpublish


@dataclass(frozen=True, kw_only=True)
class Outdated:
    """A publication that may go; `note`: what could not be found out."""

    record: Record
    publisher: Publisher[Any]
    why: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What may go, and why the rest that is old stays."""

    old: tuple[Outdated, ...]
    notes: tuple[str, ...]


def known_places(site: Site) -> list[tuple[str, str]]:
    """(OS, provider) of all finished images, each once."""
    found = {path.parts[-3:-1] for path in site.artifacts.glob(f"*/*/*/{MANIFEST}")}
    return sorted((os_name, provider) for os_name, provider in found)


def find_outdated(
    site: Site,
    *,
    keep: int,
    oses: Collection[str],
    providers: Collection[str],
    publisher: MakePublisher,
) -> Search:
    """Publications older than the newest `keep` versions of each target. Nothing is changed.

    What a channel or environment points to stays everywhere: promotions go back to it, too. What
    is in use stays, and so does that of which it cannot be asked.
    """
    old: list[Outdated] = []
    notes: list[str] = []
    for os_name, provider in known_places(site):
        if (oses and os_name not in oses) or (providers and provider not in providers):
            continue
        channels = read_channels(site, os_name)
        for group in _groups(published(site, os_name, provider)):
            for record in _beyond(group, keep):
                found = _judged(record, channels, publisher, keep)
                if isinstance(found, Outdated):
                    old.append(found)
                else:
                    notes.append(f"{_shown(record)} stays: {found}")
    return Search(old=tuple(old), notes=tuple(notes))


def _groups(records: Collection[Record]) -> Iterator[list[Record]]:
    """Publications by target and environment."""
    keys = dict.fromkeys((it.environment, it.target) for it in records)
    for key in keys:
        yield [it for it in records if (it.environment, it.target) == key]


def _beyond(group: list[Record], keep: int) -> list[Record]:
    """Those of versions that are not among the newest, the oldest first."""
    versions = sorted({it.version for it in group}, key=sort_key, reverse=True)
    old = set(versions[keep:])
    return sorted((it for it in group if it.version in old), key=lambda it: sort_key(it.version))


def _shown(record: Record) -> str:
    return f"{record.provider}: {record.publication.name} at {record.target}"


def _judged(record: Record, channels: Channels, make: MakePublisher, keep: int) -> Outdated | str:
    """The publication, or why it stays."""
    if names := channels.pointing(record.provider, record.version):
        return f"{', '.join(names)} points to {record.version}"
    try:
        publisher = make(record.provider, record.environment)
        target = publisher.target
    except GoldimgError as error:
        return str(error)
    if target != record.target:
        return f"the settings are now for {target}"
    try:
        use = publisher.use(record.publication)
    except Interrupted:
        raise
    except Exception as error:
        return f"whether it is in use could not be asked: {brief(publisher.explain(error))}"
    if use.by:
        more = f" and {len(use.by) - 3} more" if len(use.by) > 3 else ""
        return f"it is used by {', '.join(use.by[:3])}{more}"
    if use.unknown:
        return use.unknown
    return Outdated(
        record=record,
        publisher=publisher,
        why=f"{keep} newer {'version is' if keep == 1 else 'versions are'} published there",
        note=use.note,
    )


def remove_outdated(
    site: Site, old: Collection[Outdated], tell: Callable[[Outdated, Removal], None]
) -> bool:
    """Unpublishes them; whether everything could be removed. Only within `channels.held`."""
    is_whole = True
    for item in old:
        for removal in unpublish(site, item.publisher, item.record):
            tell(item, removal)
            is_whole &= not removal.error
    return is_whole
