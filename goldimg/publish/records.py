"""Publications in manifest.json: where an image is, under which ids, and how that was proven."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from goldimg.artifacts import MANIFEST, PUBLICATIONS, read_finished
from goldimg.project import Site, write_text
from goldimg.publish.image import versions
from goldimg.publish.journal import Resource
from goldimg.publish.publisher import Publication


@dataclass(frozen=True, kw_only=True)
class Record:
    """A publication and its circumstances: times in ISO 8601, `image` the artifact's SHA-256."""

    provider: str
    os_name: str
    version: str
    target: str
    image: str
    run_id: str
    started: str
    published: str
    seconds: float
    publication: Publication
    environment: str = ""  # that it was published to; empty: by the settings for all

    def as_json(self) -> dict[str, Any]:
        """As it stands in the manifest, without what the manifest says already."""
        members = asdict(self)
        for known in ("provider", "os_name", "version"):
            del members[known]
        if not self.environment:
            del members["environment"]
        return {**members.pop("publication"), **members}

    @classmethod
    def read(cls, provider: str, os_name: str, version: str, entry: Mapping[str, Any]) -> Record:
        """The record that a manifest holds."""
        resources = tuple(Resource(**it) for it in entry.get("resources", ()))
        return cls(
            provider=provider,
            os_name=os_name,
            version=version,
            target=str(entry["target"]),
            image=str(entry["image"]),
            run_id=str(entry["run_id"]),
            started=str(entry["started"]),
            published=str(entry["published"]),
            seconds=float(entry["seconds"]),
            environment=str(entry.get("environment", "")),
            publication=Publication(
                name=str(entry["name"]),
                ids=dict(entry.get("ids", {})),
                resources=resources,
                urls=tuple(entry.get("urls", ())),
                hashes=dict(entry.get("hashes", {})),
                verified=str(entry.get("verified", "")),
                extra=dict(entry.get("extra", {})),
            ),
        )


def records_in(directory: Path) -> list[dict[str, Any]]:
    """The publications in a directory's manifest, as they stand there."""
    finished = read_finished(directory)
    found = finished.manifest.get(PUBLICATIONS, []) if finished else []
    return [it for it in found if isinstance(it, dict)] if isinstance(found, list) else []


def published(site: Site, os_name: str, provider: str) -> list[Record]:
    """Every publication of an OS for a provider, the oldest version first."""
    return [
        Record.read(provider, os_name, version, entry)
        for version in versions(site, os_name, provider)
        for entry in records_in(site.artifact_dir(version, os_name, provider))
    ]


def keep(directory: Path, record: Record) -> None:
    """Writes the record into the manifest, in place of one of the same target and name.

    What an environment has stays the environment's, whoever publishes it there again.
    """
    others = _others(directory, record)
    before = [it.get("environment", "") for it in records_in(directory) if it not in others]
    if not record.environment and any(before):
        record = replace(record, environment=str(before[0]))
    _write(directory, [*others, record.as_json()])


def drop(directory: Path, record: Record) -> None:
    """Takes the record out of the manifest."""
    _write(directory, _others(directory, record))


def _others(directory: Path, record: Record) -> list[dict[str, Any]]:
    same = (record.target, record.publication.name)
    return [it for it in records_in(directory) if (it.get("target"), it.get("name")) != same]


def _write(directory: Path, entries: list[dict[str, Any]]) -> None:
    finished = read_finished(directory)
    if finished is None:
        return
    whole = {**finished.manifest, PUBLICATIONS: entries}
    if not entries:
        del whole[PUBLICATIONS]
    write_text(directory / MANIFEST, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")


def now() -> str:
    """The time of day for records."""
    return datetime.now(UTC).isoformat(timespec="seconds")
