"""What the service remembers: snapshots, images and import tasks of each region."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ACCOUNT = "123456789012"
REGIONS = ("us-east-1", "eu-west-1", "eu-central-1", "ap-south-1")
OFF_BY_DEFAULT = ("me-south-1",)
BLOCK = 524288


def now() -> datetime:
    return datetime.now(UTC)


def new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(9)[:17]}"


@dataclass(kw_only=True)
class Snapshot:
    """A snapshot; its disk is a sparse file, `digests` those of the blocks written to it."""

    id: str
    size: int  # GiB
    path: Path
    state: str = "pending"
    message: str = ""
    polls: int = 0  # until a completed one is said to be so
    description: str = ""
    encrypted: bool = False
    kms_key: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    started: datetime = field(default_factory=now)
    digests: dict[int, bytes] = field(default_factory=dict)
    is_sealed: bool = False  # complete_snapshot was called
    users: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(kw_only=True)
class Image:
    """A registered image; `given` is the request that registered it."""

    id: str
    name: str
    given: dict[str, Any]
    snapshot: str
    state: str = "available"
    polls: int = 0
    reason: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    created: datetime = field(default_factory=now)
    permissions: list[dict[str, str]] = field(default_factory=list)
    deprecated: datetime | None = None


@dataclass(kw_only=True)
class Task:
    """An import of a disk image; `steps` are the states that it still goes through, one a poll."""

    id: str
    kind: str  # import-snap or import-ami
    given: dict[str, Any]
    steps: list[tuple[str, str]]
    snapshot: str = ""
    image: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Region:
    """All that one region holds."""

    name: str
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)  # image ids by name
    tokens: dict[str, tuple[object, str]] = field(default_factory=dict)
    block_public: bool = False
    encrypts: bool = False  # every new snapshot, by the account's default
    quotas: dict[str, float] = field(default_factory=dict)  # by code


@dataclass(kw_only=True)
class World:
    """Every region, and what tests set."""

    directory: Path
    polls: int = 1  # that things take to be complete
    end_as: dict[str, tuple[str, str]] = field(default_factory=dict)  # kind: (state, message)
    regions: dict[str, Region] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def region(self, name: str) -> Region:
        with self.lock:
            return self.regions.setdefault(name, Region(name=name))

    def new_snapshot(self, region: Region, size: int, **given: Any) -> Snapshot:
        """A snapshot whose disk is all zeros."""
        id_ = new_id("snap")
        path = self.directory / f"{id_}.raw"
        with path.open("wb") as file:
            file.truncate(size << 30)
        made = Snapshot(id=id_, size=size, path=path, **given)
        region.snapshots[id_] = made
        return made

    def seal(self, snapshot: Snapshot) -> None:
        """From now on the snapshot completes, or ends as the test has told."""
        snapshot.is_sealed, snapshot.polls = True, self.polls
        if "snapshot" in self.end_as:
            snapshot.state, snapshot.message = self.end_as["snapshot"]
        elif not self.polls:
            snapshot.state = "completed"


def tags_of(given: dict[str, Any], kind: str) -> dict[str, str]:
    """The tags that a request gives to resources of this kind."""
    return {
        tag["Key"]: tag.get("Value", "")
        for spec in given.get("TagSpecifications", ())
        if spec["ResourceType"] == kind
        for tag in spec["Tags"]
    }
