"""Channels: which version of an OS is meant by `stable` or `prod`, for each provider, since when.

`artifacts/channels/<OS>.json` holds what channels and environments point to, and how they came to
it. It is written whole or not at all, and signed where the site signs.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from goldimg.artifacts import unsign
from goldimg.errors import VerificationFailed
from goldimg.project import Site, locked, write_text
from goldimg.publish.records import now
from goldimg.trust.seal import has_signature
from goldimg.trust.signer import Signer
from goldimg.trust.verifier import Trusted, verifying

DIRECTORY, SCHEMA = "channels", 1


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """What a channel points to for one provider; `version` is empty before the first promotion.

    `moving_to`: a promotion that was begun and has not ended. Both versions are in use then.
    """

    version: str
    since: str
    by: str
    moving_to: str = ""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One promotion that has ended; `former` is empty for the first."""

    channel: str
    provider: str
    version: str
    former: str
    at: str
    by: str


@dataclass(frozen=True, kw_only=True)
class Channels:
    """The channels of one OS. `pointers` by channel, then by provider; `history` oldest first."""

    os_name: str
    pointers: Mapping[str, Mapping[str, Pointer]] = field(default_factory=dict)
    history: tuple[Move, ...] = ()

    def pointer(self, channel: str, provider: str) -> Pointer | None:
        """What the channel points to; None where it was never promoted to."""
        return self.pointers.get(channel, {}).get(provider)

    def pointing(self, provider: str, version: str) -> tuple[str, ...]:
        """The channels that point to an image, those on their way to or from it too."""
        return tuple(
            sorted(
                channel
                for channel, pointers in self.pointers.items()
                for name, it in pointers.items()
                if name == provider and version in (it.version, it.moving_to)
            )
        )

    def begun(self, channel: str, provider: str, version: str) -> Channels:
        """These, with a promotion under way."""
        before = self.pointer(channel, provider) or Pointer(version="", since="", by="")
        return self._with(channel, provider, replace(before, moving_to=version))

    def ended(self, channel: str, provider: str, version: str) -> Channels:
        """These, with the promotion done and in the history."""
        before = self.pointer(channel, provider)
        pointer = Pointer(version=version, since=now(), by=person())
        move = Move(
            channel=channel,
            provider=provider,
            version=version,
            former=before.version if before else "",
            at=pointer.since,
            by=pointer.by,
        )
        return replace(self._with(channel, provider, pointer), history=(*self.history, move))

    def _with(self, channel: str, provider: str, pointer: Pointer) -> Channels:
        inner = {**self.pointers.get(channel, {}), provider: pointer}
        return replace(self, pointers={**self.pointers, channel: inner})

    def as_json(self) -> dict[str, Any]:
        """As the file has it."""
        shown = {
            channel: {
                name: {key: value for key, value in asdict(it).items() if value}
                for name, it in sorted(pointers.items())
            }
            for channel, pointers in sorted(self.pointers.items())
        }
        history = [asdict(it) for it in self.history]
        return {"schema": SCHEMA, "os": self.os_name, "channels": shown, "history": history}


def person() -> str:
    """Who is promoting, for the history."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an id without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def channels_path(site: Site, os_name: str) -> Path:
    """Where the channels of an OS stand."""
    return site.artifacts / DIRECTORY / f"{os_name}.json"


def read_channels(site: Site, os_name: str) -> Channels:
    """The channels as they stand; VerificationFailed where the file is not what goldimg writes."""
    path = channels_path(site, os_name)
    if not path.exists():
        return Channels(os_name=os_name)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        pointers = {
            str(channel): {
                str(name): Pointer(**{"version": "", "since": "", "by": "", **it})
                for name, it in inner.items()
            }
            for channel, inner in found["channels"].items()
        }
        history = tuple(Move(**it) for it in found["history"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationFailed(
            f"{site.shown(path)} does not tell channels",
            why=str(error),
            hint="put the one that goldimg wrote back",
        ) from error
    return Channels(os_name=os_name, pointers=pointers, history=history)


def check_channels(site: Site, os_name: str, signer: Signer | None) -> None:
    """VerificationFailed where the channels were changed since the site's key signed them."""
    path = channels_path(site, os_name)
    if signer is None or not path.exists() or not has_signature(path):
        return
    own = Trusted.of(signer.public_key(), "the site's key")
    with verifying([own], signer.runner) as verifier:
        verifier.check(path)


def write_channels(site: Site, channels: Channels, signer: Signer | None) -> None:
    """Writes and signs them; to be called within `held` only."""
    path = channels_path(site, channels.os_name)
    unsign(path)
    write_text(path, json.dumps(channels.as_json(), indent=2, ensure_ascii=False) + "\n")
    if signer is not None:
        signer.write(path)


@contextlib.contextmanager
def held(site: Site, os_name: str) -> Iterator[None]:
    """Keeps others from promoting or removing publications of this OS meanwhile."""
    lock = site.cache / "locks" / f"channels-{os_name}.lock"
    with locked(lock, what=os_name, doing="promoted"):
        yield
