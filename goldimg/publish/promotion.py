"""What publishers are told of a promotion, and what they say would have to change for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from goldimg.publish.journal import Resource

if TYPE_CHECKING:
    from goldimg.publish.publisher import Publication

MARK = "goldimg-channel-"  # of tags, labels and properties: the channel's name follows
CURRENT, FORMER = "current", "former"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A publication, and the channels that point to it once the promotion is over."""

    version: str
    publication: Publication
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """`channel` is to point to `to`, and no longer to the `former` ones."""

    os_name: str
    channel: str
    to: Side
    former: tuple[Side, ...] = ()

    @property
    def mark(self) -> str:
        """The tag that says which role a publication has in the channel."""
        return f"{MARK}{self.channel}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is not as the channel wants it: in words, and how it is changed."""

    what: str
    make: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Promoting:
    """What is left to do; nothing, where a publication is what the channel wants already.

    `resources` belong to the publication from then on. `notes` say what the provider cannot do.
    """

    changes: tuple[Change, ...] = ()
    resources: tuple[Resource, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Use:
    """Who uses a publication: `by` whom, or why that is `unknown`; either lets it stay.

    `note`: what nobody can see from here.
    """

    by: tuple[str, ...] = ()
    unknown: str = ""
    note: str = ""


def role_of(tags: Mapping[str, str]) -> str:
    """`current` where any channel points to what has these tags, `former` where one did."""
    roles = [value for key, value in tags.items() if key.startswith(MARK)]
    return CURRENT if CURRENT in roles else FORMER if roles else ""
