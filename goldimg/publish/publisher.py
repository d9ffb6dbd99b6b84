"""What every provider's publisher is: one class, the same few steps, values in and out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from goldimg.errors import GoldimgError, PublishFailed
from goldimg.formats import Heed
from goldimg.publish.job import Job, Session, brief
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import Promoting, Promotion, Use

Options = TypeVar("Options", bound=BaseModel)
UNFINISHED = {"goldimg-state": "unfinished"}  # a tag of what a run makes, until it is whole


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that publishing will make: `operation` in the service's own words, bytes it sends."""

    operation: str
    detail: str = ""
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What `check` found: who we are there, what things will be called, which calls will be made.

    `notes` are for the user: what could not be checked, or will not be verified.
    """

    account: str
    names: Mapping[str, str]
    calls: tuple[Call, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A published image, as manifest.json records it. It holds no secret.

    `resources` are all that `unpublish` removes, in the order of removal. `ids` names the image by
    region or the like; `hashes` are those the service confirmed; `verified` says how what arrived
    was proven, or that it cannot be.
    """

    name: str
    ids: Mapping[str, str]
    resources: tuple[Resource, ...]
    urls: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    verified: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """What a run left unfinished: its run id, and its age in seconds where the service tells."""

    resource: Resource
    run_id: str
    age: float | None


class Publisher(ABC, Generic[Options]):
    """Publishes images to one target. Made anew for each command; it may keep its clients.

    `options` is the provider's part of `publish:` in site.yml, flags laid over it. Credentials come
    from the SDK's own chain only. Nothing here prints; nothing is retried but through `job.call`.
    """

    name: ClassVar[str]
    artifact: ClassVar[str]  # the extension of the file that it publishes
    removers: ClassVar[int] = 1  # temporary things that go at once: 1 where any depends on another
    # Of the artifact, as `job.proven()` gives them: worked out beside the sending with its SHA-256,
    # which is then held to the manifest. Where there are none, `publish` does so itself.
    digests: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Options, session: Session) -> None:
        self.options = options
        self.session = session  # for calls without an image, such as in `delete` and `orphans`

    @property
    @abstractmethod
    def target(self) -> str:
        """Where it publishes to, in words that stay the same: account or project, region, way.

        Known from the options alone, without a call. A journal belongs to it.
        """

    @property
    def place(self) -> str:
        """Where images of the same version would meet: two environments cannot share it."""
        return self.target

    @abstractmethod
    def check(self, job: Job) -> Preview:
        """Checks everything that can be without changing anything there, before the first byte.

        Settings, names by the provider's rules, credentials, permissions, containers, quota, and
        the artifact by its format's rules, as far as they need not all of it. Raises PublishFailed
        or ConfigError that tells all that is wrong, at once where it can.
        """

    def check_format(self, path: Path, heed: Heed) -> None:
        """Reads the artifact against the rest of the rules, in a thread beside `publish`.

        VerificationFailed tells what breaks them. `publish` calls `job.proven()` before anything is
        made of what was sent. `heed` is to be called every so many bytes.
        """
        # most rules are checked before the first byte

    @abstractmethod
    def find(self, job: Job) -> Publication | None:
        """This very image there already, whole; None where it is not, or not in every part.

        PublishFailed where its name is taken by another image, unless `job.force`.
        """

    @abstractmethod
    def publish(self, job: Job) -> Publication:
        """Sends, verifies, imports, waits, tags and shares, going on from the journal.

        Everything that it makes is noted with `job.created` before or as soon as it exists. It may
        raise anything: the caller undoes and explains.
        """

    @abstractmethod
    def delete(self, resource: Resource) -> None:
        """Removes a resource that a run made; one that is gone already is no error."""

    @abstractmethod
    def orphans(self) -> list[Orphan]:
        """What runs left there unfinished, found by their tags, of any OS and version.

        What is whole is never among them: publishers tag what they make as UNFINISHED until the
        image is published, or can tell it otherwise (a pending snapshot, a queued image).
        """

    def promoting(self, promotion: Promotion) -> Promoting:
        """What has to change there for a promotion. Asks only; each change can be made again.

        Called after a promotion that came to its end, it gives no changes.
        """
        return Promoting(notes=("there is nothing to mark: only this site knows the channel",))

    def use(self, publication: Publication) -> Use:
        """Who uses a publication, as far as the service tells."""
        return Use(note="who uses it cannot be told")

    @abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Whether a call that raised this may do better later."""

    def explain(self, error: BaseException) -> GoldimgError:
        """The error for people: what the service said, and what to do about it."""
        if isinstance(error, GoldimgError):
            return error
        return PublishFailed(f"{self.name}: {brief(error)}")
