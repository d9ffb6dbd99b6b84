"""Undoes publications, and finds what interrupted runs left: the other way round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldimg.errors import GoldimgError
from goldimg.project import Site
from goldimg.publish.job import brief
from goldimg.publish.journal import Journal, Resource, journal_path
from goldimg.publish.publisher import Orphan, Publisher
from goldimg.publish.records import Record, drop


@dataclass(frozen=True, kw_only=True)
class Removal:
    """How the removal of one resource ended."""

    resource: Resource
    error: str = ""


def unpublish(site: Site, publisher: Publisher[Any], record: Record) -> list[Removal]:
    """Removes everything of a publication, then its record; what fails is kept in the record."""
    ended = remove_all(publisher, record.publication.resources)
    if not [it for it in ended if it.error]:
        drop(site.artifact_dir(record.version, record.os_name, record.provider), record)
    return ended


def remove_all(publisher: Publisher[Any], resources: Sequence[Resource]) -> list[Removal]:
    """Removes resources one by one, in order; a failure stops none of the others."""
    ended = []
    for resource in resources:
        publisher.session.check_cancelled()
        try:
            publisher.delete(resource)
        except GoldimgError as error:
            ended.append(Removal(resource=resource, error=str(error)))
        except Exception as error:
            ended.append(Removal(resource=resource, error=brief(publisher.explain(error))))
        else:
            ended.append(Removal(resource=resource))
    return ended


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """What an unfinished run left: known from `journal`, or found there as an orphan."""

    resource: Resource
    source: str  # for people: the journal's path, or the run id and age
    journal: Path | None = None


def leftovers(
    site: Site, publisher: Publisher[Any], directories: Sequence[Path], *, older: float
) -> list[Leftover]:
    """What unfinished runs of this site left, and orphans that are `older` than these seconds.

    An orphan whose age the service does not tell counts as old: without a journal nobody goes on
    with it.
    """
    found = [
        Leftover(resource=resource, source=site.shown(path), journal=path)
        for path, journal in _journals(publisher, directories)
        for resource in reversed(journal.created)  # an image before what it is made of
    ]
    known = {(it.resource.kind, it.resource.id) for it in found}
    for orphan in publisher.orphans():
        if (orphan.resource.kind, orphan.resource.id) in known:
            continue
        if orphan.age is None or orphan.age >= older:
            found.append(Leftover(resource=orphan.resource, source=_origin(orphan)))
    return found


def remove_leftovers(publisher: Publisher[Any], found: Sequence[Leftover]) -> list[Removal]:
    """Removes them, and journals of which nothing is left."""
    ended = remove_all(publisher, [it.resource for it in found])
    for path in {it.journal for it in found if it.journal}:
        journal = Journal(path, "")
        for removal in ended:
            if not removal.error:
                journal.remove(removal.resource)
        if not journal.created:
            journal.finish()
        journal.close()
    return ended


def _journals(
    publisher: Publisher[Any], directories: Sequence[Path]
) -> Iterator[tuple[Path, Journal]]:
    for directory in directories:
        path = journal_path(directory, publisher.target)
        if path.exists():
            yield path, Journal(path, "")


def _origin(orphan: Orphan) -> str:
    age = f", {orphan.age / 3600:.0f} h old" if orphan.age is not None else ""
    return f"run {orphan.run_id or 'unknown'}{age}"
