"""What channels are in Azure: a tag, and for gallery versions `excludeFromLatest`.

https://learn.microsoft.com/azure/virtual-machines/shared-image-galleries#image-versions
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from azure.core.exceptions import HttpResponseError

from goldimg.errors import PublishFailed
from goldimg.publish.azure import gallery, image
from goldimg.publish.azure.arm import Body, Id, as_body, properties, tags_of
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.faults import call, find
from goldimg.publish.azure.operations import complete
from goldimg.publish.job import Session
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import CURRENT, FORMER, Change, Promoting, Promotion, Use
from goldimg.publish.publisher import Publication

DENIED = (401, 403)


class Promoter:
    """Asks for what a promotion has to change, of images and of gallery versions."""

    def __init__(self, session: Session, clients: Clients, timeout: float) -> None:
        self._session, self._clients, self._timeout = session, clients, timeout

    def promoting(self, it: Promotion) -> Promoting:
        """The promoted version is given as latest before others are not any more."""
        resource, there = self._found(it.to.publication)
        if resource is None or there is None:
            raise PublishFailed(
                f"azure: {it.to.publication.name} is not there any more",
                hint=f"publish it again: goldimg upload azure -O {it.os_name} "
                f"--version {it.to.version}",
            )
        changes = [*self._changed(it, resource, there, CURRENT, is_excluded=False)]
        left = set()
        for side in it.former:
            former, its = self._found(side.publication)
            if former is None or its is None:
                continue
            is_excluded = None if side.channels else True
            changes += self._changed(it, former, its, FORMER, is_excluded=is_excluded)
            left |= set() if side.channels else {former.id.lower()}
        if resource.kind == image.KIND:
            note = "a managed image has no 'latest': its tag says what it is"
            return Promoting(changes=tuple(changes), notes=(note,))
        return Promoting(changes=tuple(changes), notes=self._notes(resource.id, left))

    def _found(self, publication: Publication) -> tuple[Resource | None, Body | None]:
        """The image or version of a publication, and what is there of it."""
        kinds = (gallery.VERSION, image.KIND)
        resource = next((it for it in publication.resources if it.kind in kinds), None)
        if resource is None:
            return None, None
        look = image.look if resource.kind == image.KIND else gallery.look
        return resource, look(self._session, self._clients, resource.id)

    def _changed(
        self, it: Promotion, resource: Resource, there: Body, role: str, *, is_excluded: bool | None
    ) -> Iterator[Change]:
        tags = {**tags_of(there), it.mark: role}
        is_tagged = tags_of(there).get(it.mark) == role
        name = "/".join(Id.of(resource.id).names)
        if resource.kind == image.KIND:
            if not is_tagged:
                make = partial(self._tag_image, resource.id, tags)
                yield Change(what=f"{name} is tagged {it.mark}={role}", make=make)
            return
        was_excluded = _is_excluded(there)
        wanted = was_excluded if is_excluded is None else is_excluded
        if is_tagged and wanted == was_excluded:
            return
        words = f"{name} is tagged {it.mark}={role}"
        if wanted != was_excluded:
            words += ", and no longer given as latest" if wanted else ", and may be given as latest"
        yield Change(what=words, make=partial(self._write, there, tags, wanted))

    def _tag_image(self, id_: str, tags: dict[str, str]) -> None:
        where = Id.of(id_)
        complete(
            self._session,
            lambda polling: self._clients.compute.images.begin_update(
                where.group, where.names[0], {"tags": tags}, polling=polling
            ),
            what="tag the image",
            timeout=self._timeout,
        )

    def _write(self, there: Body, tags: dict[str, str], is_excluded: bool) -> None:
        """Writes a version as it is, but for its tags and whether it counts as latest."""
        where, inner = Id.of(str(there["id"])), properties(there)
        profile = {**(inner.get("publishingProfile") or {}), "excludeFromLatest": is_excluded}
        profile.pop("publishedDate", None)  # Azure's own
        source = ((inner.get("storageProfile") or {}).get("osDiskImage") or {}).get("source") or {}
        written: dict[str, Any] = {
            "publishingProfile": profile,
            "storageProfile": {"osDiskImage": {"source": source}},
        }
        if safety := inner.get("safetyProfile"):
            keep = "blockDeletionBeforeEndOfLife"
            written["safetyProfile"] = {keep: bool(safety.get(keep))}
        body = {"location": there["location"], "tags": tags, "properties": written}
        versions = self._clients.compute.gallery_image_versions
        complete(
            self._session,
            lambda polling: versions.begin_create_or_update(
                where.group, *where.names, body, polling=polling
            ),
            what="change the image version",
            timeout=self._timeout,
        )

    def _notes(self, id_: str, left: set[str]) -> tuple[str, ...]:
        """Which version will be given as latest, where that is not the promoted one."""
        latest = self._latest(id_, left, id_.lower())
        if latest is None or latest.lower() == id_.lower():
            return ()
        number = latest.rpartition("/")[2]
        return (
            f"the gallery gives {number} as latest, which is higher: publish with "
            "gallery.exclude_from_latest: true what no channel has yet",
        )

    def _latest(self, id_: str, without: set[str], also: str = "") -> str | None:
        """The id of the version that the definition of `id_` gives as latest."""
        where = Id.of(id_)
        listing = self._clients.compute.gallery_image_versions.list_by_gallery_image
        found = find(
            self._session,
            lambda: list(listing(where.group, *where.names[:2])),
            "list the image versions",
        )
        versions = [as_body(it) for it in found or []]
        counted = [
            str(it["id"])
            for it in versions
            if str(it["id"]).lower() not in without
            and (not _is_excluded(it) or str(it["id"]).lower() == also)
        ]
        return max(counted, key=_number, default=None)

    # Who uses it

    def use(self, publication: Publication) -> Use:
        """Machines and scale sets of the subscription, by the image that they were made of."""
        resource, there = self._found(publication)
        if resource is None or there is None:
            return Use()
        wanted = {resource.id.lower()}
        try:
            if resource.kind == gallery.VERSION and self._is_latest(resource.id):
                return Use(by=("who asks the gallery for its latest version",))
            return Use(
                by=tuple(name for name, used in self._references() if used in wanted),
                note="machines of other subscriptions are not seen",
            )
        except HttpResponseError as error:
            if error.status_code in DENIED:
                return Use(unknown="machines could not be asked for: Microsoft.Compute/*/read")
            raise

    def _is_latest(self, id_: str) -> bool:
        latest = self._latest(id_, set())
        return latest is not None and latest.lower() == id_.lower()

    def _references(self) -> Iterator[tuple[str, str]]:
        """(who, the id of its image in small letters) of all machines and scale sets."""
        compute = self._clients.compute
        machines = call(
            self._session, lambda: list(compute.virtual_machines.list_all()), "list the machines"
        )
        sets = call(
            self._session,
            lambda: list(compute.virtual_machine_scale_sets.list_all()),
            "list the scale sets",
        )
        for kind, found in (("machine", machines), ("scale set", sets)):
            for it in map(as_body, found):
                profile = properties(it)
                profile = profile.get("virtualMachineProfile") or profile
                reference = (profile.get("storageProfile") or {}).get("imageReference") or {}
                yield f"{kind} {it['name']}", str(reference.get("id", "")).lower()


def _is_excluded(found: Body) -> bool:
    return bool((properties(found).get("publishingProfile") or {}).get("excludeFromLatest"))


def _number(id_: str) -> tuple[int, ...]:
    return tuple(int(it) for it in id_.rpartition("/")[2].split(".") if it.isdecimal())
