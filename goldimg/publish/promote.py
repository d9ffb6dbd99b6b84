"""Promotes: asks each publisher what has to change, changes it, and writes down what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from goldimg.artifacts import index_lock
from goldimg.catalog.boxes import file_name
from goldimg.catalog.local import read_catalog
from goldimg.catalog.marks import marked
from goldimg.catalog.merge import text_of
from goldimg.catalog.version import compare
from goldimg.channels import Channels, write_channels
from goldimg.errors import GoldimgError
from goldimg.project import Site, locked, write_text
from goldimg.providers import all_providers
from goldimg.publish.promotion import Promoting, Promotion, Side
from goldimg.publish.publisher import Publication, Publisher
from goldimg.publish.records import Record, keep, published
from goldimg.trust.signer import Signer

Tell = Callable[[str, str], None]  # provider and words: something has been done


@dataclass(frozen=True, kw_only=True)
class Step:
    """One provider's part. `record` is None where the version is not published there.

    `roles`: the channels of each version concerned, as they will be.
    """

    provider: str
    target: str
    version: str
    former: tuple[str, ...]
    roles: Mapping[str, tuple[str, ...]]
    record: Record | None
    promoting: Promoting
    is_moving: bool  # the channel does not point to the version yet

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, here and there."""
        return not (self.is_moving or self.promoting.changes or self.missing)

    @property
    def missing(self) -> tuple[Any, ...]:
        """Resources that the record does not have yet."""
        known = self.record.publication.resources if self.record else self.promoting.resources
        return tuple(it for it in self.promoting.resources if it not in known)


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What is promoted to where. `environment` is the channel's name, or empty for a channel.

    `environments`: all names of environments, whose publications are their own.
    """

    os_name: str
    version: str
    channel: str
    environment: str
    environments: frozenset[str]

    def is_kin(self, channel: str) -> bool:
        """Whether the channel's publications are in the same place as ours."""
        return channel == self.environment if self.environment else channel not in self.environments


def step_for(site: Site, aim: Aim, channels: Channels, publisher: Publisher[Any]) -> Step:
    """What is left to do for one provider. Asks the provider, changes nothing.

    What the provider raises is explained.
    """
    provider = publisher.session.provider
    pointer = channels.pointer(aim.channel, provider)
    pointed = (pointer.version, pointer.moving_to) if pointer else ()
    former = tuple(dict.fromkeys(it for it in pointed if it not in ("", aim.version)))
    roles = {it: _channels_of(aim, channels, provider, it) for it in (*former, aim.version)}
    found = _records(site, aim, publisher)
    notes = []
    promoting, record = Promoting(), found.get(aim.version)
    if record is None:
        notes.append("it is not published there: only this site knows the channel")
    else:
        notes += [
            f"{it} stays as it is: it is not published by these settings, as far as this site knows"
            for it in former
            if it not in found
        ]
        promotion = Promotion(
            os_name=aim.os_name,
            channel=aim.channel,
            to=_side(record, roles),
            former=tuple(_side(found[it], roles) for it in former if it in found),
        )
        try:
            promoting = publisher.promoting(promotion)
        except GoldimgError:
            raise
        except Exception as error:
            raise publisher.explain(error) from error
    return Step(
        provider=provider,
        target=publisher.target,
        version=aim.version,
        former=former,
        roles=roles,
        record=record,
        promoting=replace(promoting, notes=(*notes, *promoting.notes)),
        is_moving=pointed != (aim.version, ""),
    )


def _records(site: Site, aim: Aim, publisher: Publisher[Any]) -> dict[str, Record]:
    """The publications that these settings are for, by version."""
    return {
        it.version: it
        for it in published(site, aim.os_name, publisher.session.provider)
        if it.environment == aim.environment and it.target == publisher.target
    }


def _channels_of(aim: Aim, channels: Channels, provider: str, version: str) -> tuple[str, ...]:
    """The channels that will point to a version."""
    there = {it for it in channels.pointing(provider, version) if aim.is_kin(it)}
    ours = {aim.channel}
    return tuple(sorted(there | ours if version == aim.version else there - ours))


def _side(record: Record, roles: Mapping[str, tuple[str, ...]]) -> Side:
    channels = roles[record.version]
    return Side(version=record.version, publication=record.publication, channels=channels)


def carry_out(
    site: Site, aim: Aim, channels: Channels, step: Step, signer: Signer | None, tell: Tell
) -> Channels:
    """Makes the changes of a step, in order; the channels as they are then.

    Before the first change it is written down that the channel moves, after the last that it has:
    what fails half-way is known, protected, and gone on with by the same promotion. It raises what
    the provider raises. Only within `channels.held`.
    """
    if step.is_moving:
        channels = channels.begun(aim.channel, step.provider, aim.version)
        write_channels(site, channels, signer)
    for change in step.promoting.changes:
        change.make()
        tell(step.provider, change.what)
    if step.record and step.missing:
        _keep_resources(site, step.record, step)
    if step.is_moving:
        channels = channels.ended(aim.channel, step.provider, aim.version)
        write_channels(site, channels, signer)
        tell(step.provider, f"{aim.channel} is {aim.os_name} {aim.version}")
    if not aim.environment and all_providers()[step.provider].is_for_vagrant:
        _mark_catalog(site, aim, step)
    return channels


def _keep_resources(site: Site, record: Record, step: Step) -> None:
    """Notes what a channel added to the publication, for `unpublish` to remove first."""
    directory = site.artifact_dir(record.version, record.os_name, record.provider)
    lock = directory / f".publish-{record.provider}.lock"
    with locked(lock, what=site.shown(directory), doing="published"):
        known = record.publication
        resources = (*step.missing, *known.resources)
        publication: Publication = replace(known, resources=resources)
        keep(directory, replace(record, publication=publication))


def _mark_catalog(site: Site, aim: Aim, step: Step) -> None:
    """Lets the site's own Vagrant catalog tell the channels."""
    path = site.artifacts / file_name(aim.os_name, "")
    with index_lock(site, path):
        found = read_catalog(path)
        if found is None:
            return
        higher = {it for it in step.former if compare(it, aim.version) > 0}
        new = marked(found, step.roles, higher)
        if new != found:
            write_text(path, text_of(new))
