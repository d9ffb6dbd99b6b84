"""What channels are in Glance: a property, visibility, and hiding of images that left theirs.

https://docs.openstack.org/api-ref/image/v2/#update-image
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from goldimg.config.publish.openstack import OpenstackPublish
from goldimg.errors import PublishFailed
from goldimg.publish.job import Session, brief
from goldimg.publish.openstack.glance import Glance, Json, is_transient
from goldimg.publish.promotion import CURRENT, FORMER, Change, Promoting, Promotion, Side, Use
from goldimg.publish.publisher import Publication


class Promoter:
    """Asks for what a promotion has to change of images."""

    def __init__(self, session: Session, glance: Glance, options: OpenstackPublish) -> None:
        self._session, self._glance, self._options = session, glance, options

    def promoting(self, it: Promotion) -> Promoting:
        """The promoted image is shown before others are hidden."""
        image = self._image(it.to)
        if image is None:
            raise PublishFailed(
                f"openstack: image {it.to.publication.name} is not there any more",
                hint=f"publish it again: goldimg upload openstack -O {it.os_name} "
                f"--version {it.to.version}",
            )
        changes = [*self._changed(it, image, CURRENT, is_hidden=False)]
        for side in it.former:
            former = self._image(side)
            if former is not None:
                is_hidden = None if side.channels else True
                changes += self._changed(it, former, FORMER, is_hidden=is_hidden)
        return Promoting(changes=tuple(changes))

    def _image(self, side: Side) -> Json | None:
        ids = [it.id for it in side.publication.resources if it.kind == "image"]
        if not ids:
            return None
        return self._session.call(lambda: self._glance.image(ids[0]), what="image-get")

    def _changed(
        self, it: Promotion, image: Json, role: str, *, is_hidden: bool | None
    ) -> Iterator[Change]:
        """One patch for all that is to change of an image."""
        wanted: Json = {it.mark: role}
        if is_hidden is not None:
            wanted["os_hidden"] = is_hidden
        if role == CURRENT and self._options.promoted:
            wanted["visibility"] = self._options.promoted
        changes = [
            {"op": "replace" if key in image else "add", "path": f"/{key}", "value": value}
            for key, value in wanted.items()
            if image.get(key) != value
        ]
        if not changes:
            return
        words = ", ".join(f"{str(each['path'])[1:]}={each['value']}" for each in changes)
        make = partial(self._change, str(image["id"]), changes)
        yield Change(what=f"{image['name']} ({image['id']}): {words}", make=make)

    def _change(self, id_: str, changes: list[Json]) -> None:
        self._session.call(lambda: self._glance.change(id_, changes), what="image-update")

    def use(self, publication: Publication) -> Use:
        """Servers of the project, where the cloud has Nova."""
        note = "servers of other projects are not seen"
        for resource in publication.resources:
            try:
                found = self._session.call(
                    lambda id_=resource.id: self._glance.servers(id_),  # type: ignore[misc]
                    what="server-list",
                )
            except Exception as error:
                if is_transient(error):
                    raise
                return Use(unknown=f"servers could not be asked for: {brief(error)}")
            if found is None:
                return Use(note="the cloud has no Nova that could tell servers")
            if found:
                return Use(by=tuple(f"server {name}" for name in found), note=note)
        return Use(note=note)
