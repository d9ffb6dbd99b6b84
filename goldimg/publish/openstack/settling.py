"""What comes after the data: an image becomes what the settings want, and its elders make room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from goldimg.catalog.version import sort_key
from goldimg.config.publish.openstack import OpenstackPublish
from goldimg.errors import Interrupted, PublishFailed
from goldimg.publish.job import Job, brief
from goldimg.publish.openstack import properties
from goldimg.publish.openstack.errors import explained
from goldimg.publish.openstack.glance import Glance, Json
from goldimg.publish.promotion import CURRENT, role_of
from goldimg.publish.publisher import UNFINISHED

STATE = next(iter(UNFINISHED))  # the property that images have until they are whole
ROUNDS = 3
AS_CREATED = ("disk_format", "container_format", "goldimg-run")
LAST = ("/protected", f"/{STATE}")


@dataclass(frozen=True, kw_only=True)
class Settling:
    """The last steps of publishing an image that has arrived."""

    glance: Glance
    job: Job
    options: OpenstackPublish

    def is_wanting(self, image: Json) -> bool:
        """Whether something beside its data is not as the settings say."""
        return bool(self._changes(image) or self._missing(image))

    def settled(self, image: Json) -> Json:
        """The image as it shall be, read back: Glance's own tasks may undo a change of ours."""
        id_ = str(image["id"])
        for _ in range(ROUNDS):
            self._settle(image)
            found = self.job.call(lambda: self.glance.image(id_), what="image-get")
            if found is None:
                raise PublishFailed(f"openstack: somebody removed image {id_}")
            if not self.is_wanting(found):
                return found
            image = found
        raise PublishFailed(f"openstack: image {id_} does not keep what is set of it")

    def _settle(self, image: Json) -> None:
        """One round; the mark of the unfinished goes last."""
        id_, changes = str(image["id"]), self._changes(image)
        self._change(id_, [it for it in changes if it["path"] not in LAST])
        for project in self._missing(image):
            self._share(id_, project)
        self._change(id_, [it for it in changes if it["path"] in LAST])

    def _changes(self, image: Json) -> list[Json]:
        """The difference, as JSON patches."""
        image_file = self.job.image.file("qcow2")
        wanted = properties.description(self.job.image, image_file, self.options, self.job.tags)
        wanted |= {
            "visibility": self.options.final_visibility,
            "protected": self.options.protected,
        }
        if _role(image):
            del wanted["visibility"]  # a channel had a say in it since
        changes: list[Json] = []
        for key, value in wanted.items():
            found = sorted(image["tags"]) if key == "tags" else image.get(key)
            if found != value and not (key in AS_CREATED and key in image):
                how = "replace" if key in image else "add"
                changes.append({"op": how, "path": f"/{key}", "value": value})
        if STATE in image:
            changes.append({"op": "remove", "path": f"/{STATE}"})
        return changes

    def _change(self, id_: str, changes: Sequence[Json]) -> None:
        def call() -> None:
            try:
                self.glance.change(id_, changes)
            except Exception:
                # where the answer was lost, a second removal of the same property is refused
                image = self.glance.image(id_)
                if image is None or self._changes(image) or STATE in image:
                    raise

        self.job.call(call, what="image-update")

    def _missing(self, image: Json) -> list[str]:
        """Projects that the image is not shared with yet."""
        if not self.options.share:
            return []
        there = self.job.call(lambda: self.glance.members(str(image["id"])), what="member-list")
        return [project for project in self.options.share if project not in there]

    def _share(self, id_: str, project: str) -> None:
        def call() -> None:
            if project not in self.glance.members(id_):
                self.glance.request("POST", f"/images/{id_}/members", body={"member": project})

        self.job.call(call, what="member-create")
        self.job.say(f"shared with project {project}, whose lists show it once it has accepted")

    def retire(self, old: Json) -> None:
        """Removes an image that the new one replaces; where that fails, it says so."""
        id_ = str(old["id"])
        try:
            self.job.call(lambda: self.glance.delete(id_), what="image-delete")
        except Interrupted:
            raise
        except Exception as error:
            self.job.warn(f"image {id_} of the same name stays: {self._why(error)}")
        else:
            self.job.say(f"image {id_} of the same name is replaced")

    def hide_older(self) -> Sequence[str]:
        """Takes older versions out of lists; they stay usable by id. A failure undoes nothing."""
        hidden: list[str] = []
        try:
            for old in self._older():
                self._hide(str(old["id"]))
                hidden.append(str(old["id"]))
                self.job.say(f"version {old['goldimg-version']} ({old['id']}) is hidden from lists")
        except Interrupted:
            raise
        except Exception as error:
            self.job.warn(f"older versions are not hidden: {self._why(error)}")
        return hidden

    def _older(self) -> list[Json]:
        wanted = {"goldimg-os": self.job.image.os_name}
        found = self.job.call(lambda: self.glance.images(**wanted), what="image-list")
        ours = sort_key(self.job.image.version)
        return [
            it
            for it in found
            if it["status"] == "active"
            and STATE not in it
            and not it["os_hidden"]
            and _role(it) != CURRENT  # a channel points to it
            and sort_key(str(it.get("goldimg-version", ""))) < ours
        ]

    def _hide(self, id_: str) -> None:
        change = {"op": "replace", "path": "/os_hidden", "value": True}
        self.job.call(lambda: self.glance.change(id_, [change]), what="image-update")

    def _why(self, error: BaseException) -> str:
        return brief(explained(error, "the cloud"))


def _role(image: Json) -> str:
    """What the image is to channels, by its properties."""
    return role_of({key: str(value) for key, value in image.items()})
