"""What channels are in Compute Engine: a label, and deprecation of images that left theirs.

A family gives its newest image that is not deprecated:
https://cloud.google.com/compute/docs/images/image-families-best-practices
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from google.api_core import exceptions as api

from goldimg.errors import PublishFailed
from goldimg.publish.gcp.compute import Images
from goldimg.publish.gcp.names import message
from goldimg.publish.gcp.rest import Image
from goldimg.publish.job import Session
from goldimg.publish.promotion import (
    CURRENT,
    FORMER,
    Change,
    Promoting,
    Promotion,
    Use,
    role_of,
)
from goldimg.publish.publisher import Publication

OFF = ("DEPRECATED", "OBSOLETE", "DELETED")
PERMANENT = (api.Forbidden, api.Unauthorized)


def promoting(images: Images, session: Session, it: Promotion) -> Promoting:
    """The promoted image is made usable before others are deprecated in its favour."""
    image = images.get(session, it.to.publication.name)
    if image is None:
        raise PublishFailed(
            f"gcp: there is no image {it.to.publication.name} any more",
            hint=f"publish it again: goldimg upload gcp -O {it.os_name} --version {it.to.version}",
        )
    changes = [*_current(images, session, it, image)]
    formers = [images.get(session, side.publication.name) for side in it.former]
    for side, former in zip(it.former, formers, strict=True):
        if former is None:
            continue
        if not side.channels and former.deprecation not in OFF:
            changes.append(
                Change(
                    what=f"{former.name} is deprecated in favour of {image.name}",
                    make=partial(images.deprecate, session, former.name, "DEPRECATED", image.link),
                )
            )
        changes += _labelled(images, session, it, former, FORMER)
    gone = {former.name for former in formers if former}
    return Promoting(changes=tuple(changes), notes=_notes(images, session, image, gone))


def _current(images: Images, session: Session, it: Promotion, image: Image) -> Iterator[Change]:
    if image.deprecation in OFF:
        yield Change(
            what=f"{image.name} is active again",
            make=partial(images.deprecate, session, image.name, "ACTIVE", ""),
        )
    yield from _labelled(images, session, it, image, CURRENT)


def _labelled(
    images: Images, session: Session, it: Promotion, image: Image, role: str
) -> Iterator[Change]:
    if image.labels.get(it.mark) == role:
        return

    def make() -> None:
        found = images.get(session, image.name)  # its fingerprint may have changed
        if found is not None:
            images.relabel(session, found, {**found.labels, it.mark: role})

    yield Change(what=f"{image.name} is labelled {it.mark}={role}", make=make)


def _notes(images: Images, session: Session, image: Image, gone: set[str]) -> tuple[str, ...]:
    """Which image the family will give, where that is not the promoted one."""
    if not image.family:
        return ()
    there = [
        found
        for found in images.list(session, f"family={image.family}")
        if found.name == image.name or (found.deprecation not in OFF and found.name not in gone)
    ]
    newest = there[-1] if there else image
    if newest.name == image.name:
        return ()
    why = "another channel has it" if role_of(newest.labels) == CURRENT else "it is in no channel"
    return (f"family {image.family} gives {newest.name}, which is newer; {why}",)


def use(images: Images, session: Session, publication: Publication) -> Use:
    """Disks of this project that were made of the image."""
    try:
        found = images.disks_of(session, publication.name)
    except PERMANENT as error:
        return Use(unknown=f"disks could not be asked for: {message(error)}")
    return Use(
        by=tuple(f"disk {name}" for name in found),
        note="instance templates and disks of other projects are not looked at",
    )
