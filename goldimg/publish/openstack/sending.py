"""An artifact into a new image of Glance, by upload or by import, proven by its hash.

Glance takes an image's data in one request, from its first byte to its last: what is cut off is
sent again from the start. https://docs.openstack.org/api-ref/image/v2/#image-data
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from goldimg.errors import Interrupted, PublishFailed
from goldimg.publish.body import Body, hashes_of
from goldimg.publish.image import File
from goldimg.publish.job import Job, Rejected, brief
from goldimg.publish.journal import Resource
from goldimg.publish.openstack.glance import STORED, Glance, Json
from goldimg.publish.proof import changed

ALGORITHMS = (
    "sha512",
)  # Glance's default; https://docs.openstack.org/glance/latest/ (os_hash_algo)
POLL = 1.0  # seconds
STAGED = "staged"  # the journal's key of the image whose data Glance holds whole, not yet imported
RUNNING = ("pending", "processing")  # states of tasks
PENDING = ("uploading", "importing", "saving", "queued")


class Damaged(PublishFailed):
    """What arrived is not what was sent."""


class Mishap(PublishFailed):
    """The cloud stumbled over an import for reasons of its own."""


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Sends `file` as an image of this `description`; `visibility` is what it will have."""

    glance: Glance
    job: Job
    file: File
    description: Mapping[str, object]
    visibility: str
    by_import: bool
    timeout: float
    hashes: dict[str, str] = field(default_factory=dict)  # of the artifact, as far as known
    proofs: dict[str, str] = field(default_factory=dict)  # what was found of an image, by its id

    def send(self) -> Json:
        """A new image, active and verified. It is private until it is published."""
        for attempt in (1, 2):
            try:
                image = self._new()
                self.verify(image)
            except (Damaged, Mishap) as error:
                if left := self.job.journal.find("image"):
                    self.remove(left.id)
                if attempt == 2:
                    raise Rejected(error.what, why=error.why) from error
                self.job.warn(f"{error}; it is removed and sent again")
            else:
                return image
        raise AssertionError("unreachable")

    def _new(self) -> Json:
        way = self._stage if self.by_import else self._upload
        self.job.phase("uploading")
        id_ = self.job.call(way, what="upload")
        return self.take_in(id_) if self.by_import else self._whole(id_)

    def _whole(self, id_: str) -> Json:
        image = self.job.call(lambda: self.glance.image(id_), what="image-get")
        if image is None or image["status"] != "active":
            status = image["status"] if image else "gone"
            raise PublishFailed(f"openstack: image {id_} is {status} after its upload")
        return image

    def _upload(self) -> str:
        """One attempt: an image of its own, gone again where the attempt fails."""
        id_ = self._create()
        try:
            self._put(f"/images/{id_}/file")
        except BaseException as error:
            if isinstance(error, Exception) and self._arrived(id_):
                self.job.say("the connection broke after all had arrived")
                return id_
            self.remove(id_)
            raise
        self._keep(id_)
        return id_

    def _put(self, path: str) -> None:
        body = Body(self.job, self.file, ALGORITHMS)
        try:
            self.glance.request("PUT", path, data=body, read=STORED)
        finally:
            self.hashes.update(body.hashes)

    def _arrived(self, id_: str) -> bool:
        """Whether an upload whose answer was lost is whole nevertheless."""
        with contextlib.suppress(Exception):
            image = self.glance.image(id_)
            if image and image["status"] == "active" and image["size"] == self.file.size:
                self._keep(id_)
                return True
        return False

    def _create(self) -> str:
        id_ = str(uuid.uuid4())
        self.job.created("image", id_)
        # Its last visibility is asked for first: a cloud that forbids it says so before any byte.
        description = {**self.description, "id": id_, "visibility": self.visibility}
        try:
            self.glance.create(description)
            if self.visibility != "private":
                private = {"op": "replace", "path": "/visibility", "value": "private"}
                self.glance.change(id_, [private])
        except BaseException:
            self.remove(id_)
            raise
        return id_

    def _keep(self, id_: str) -> None:
        """From now on a run that fails leaves the image for the next."""
        self.job.created("image", id_, is_resumable=True)

    def _stage(self) -> str:
        id_ = self._create()
        try:
            self._put(f"/images/{id_}/stage")
        except BaseException:
            self.remove(id_)
            raise
        self.job.note(STAGED, id_)
        self._keep(id_)
        return id_

    def take_in(self, id_: str) -> Json:
        """Imports what is staged, and waits until it is active."""
        self.job.phase("importing")
        method = {"method": {"name": "glance-direct"}}

        def start() -> None:
            image = self.glance.image(id_)
            if image and image["status"] == "uploading" and not self._has_task(id_):
                self.glance.request("POST", f"/images/{id_}/import", body=method)

        self.job.call(start, what="import")
        return self.job.wait(
            lambda: self._imported(id_), what="import", timeout=self.timeout, interval=POLL
        )

    def _has_task(self, id_: str) -> bool:
        return bool(self.glance.tasks(id_))

    def _imported(self, id_: str) -> Json | None:
        """The image once it is active; Rejected for every state that no waiting will end."""
        image = self.glance.image(id_)
        tasks = self.glance.tasks(id_)
        if image and image["status"] == "active":
            # The task still writes to the image after it is active, and undoes what others change.
            return None if tasks and tasks[-1].get("status") in RUNNING else image
        failed = [task for task in tasks if task.get("status") == "failure"]
        if failed:
            why = str(failed[-1].get("message") or "it gives no reason")
            if "Internal Error" in why:  # Glance's word for what is not the image's fault
                raise Mishap("openstack: Glance could not import the image", why=why)
            raise Rejected("openstack: Glance could not import the image", why=why)
        if image is None or image["status"] not in PENDING:
            status = image["status"] if image else "gone"
            raise Rejected(f"openstack: the import ended with the image {status}")
        return None

    def verify(self, image: Json) -> str:
        """Compares Glance's size and hash with the artifact's; says in words what that proves.

        Damaged where they differ.
        """
        id_ = str(image["id"])
        if id_ not in self.proofs:
            self.proofs[id_] = self._proof(image)
        return self.proofs[id_]

    def _proof(self, image: Json) -> str:
        if image["disk_format"] != self.description["disk_format"]:
            return f"not verifiable: the cloud converted the image to {image['disk_format']}"
        self.job.phase("verifying")
        if image["size"] != self.file.size:
            raise Damaged(
                f"openstack: image {image['id']} is not what was sent",
                why=f"it has {image['size']} bytes instead of {self.file.size}",
            )
        algorithm, value = image.get("os_hash_algo"), image.get("os_hash_value")
        if not algorithm or not value or algorithm not in hashlib.algorithms_available:
            return "not verifiable: Glance tells no hash that can be computed here"
        if algorithm not in self.hashes:
            self.hashes.update(hashes_of(self.job, self.file.path, "sha256", algorithm))
        if self.hashes["sha256"] != self.file.sha256:
            raise changed(self.file.path)
        if self.hashes[algorithm] != value:
            raise Damaged(
                f"openstack: image {image['id']} is not what was sent",
                why=f"its {algorithm} differs",
            )
        return f"{algorithm} of the stored image equals the artifact's"

    def remove(self, id_: str) -> None:
        """Removes an image of this run that has come to nothing, as far as the service lets it.

        What stays is in the journal, and the run's end tries it again.
        """
        with contextlib.suppress(Exception):
            self.glance.delete(id_)
            self.job.journal.remove(Resource(kind="image", id=id_))

    def sweep(self, kept: str) -> None:
        """Removes what failed attempts could not remove at once."""
        for left in self.job.journal.created:
            if left.id == kept:
                continue
            try:
                self.job.call(lambda: self.glance.delete(left.id), what="image-delete")  # noqa: B023
            except Interrupted:
                raise
            except Exception as error:
                self.job.warn(f"{left} stays ({brief(error)}); 'goldimg gc openstack' removes it")
            else:
                self.job.journal.remove(left)

    def resume(self) -> Json | None:
        """The image that an earlier run left, taken up where it stands; None where none can be."""
        left = self.job.journal.find("image")
        if left is None:
            return None
        image = self.job.call(lambda: self.glance.image(left.id), what="image-get")
        if image is None:
            self.job.journal.remove(left)
            return None
        staged = self.job.journal.get(STAGED) == left.id
        if staged and image["status"] in ("uploading", "importing"):
            self.job.say("going on with the import of what is staged already")
            with contextlib.suppress(Mishap):
                image = self.take_in(left.id)
        if image["status"] == "active":
            try:
                self.verify(image)
            except Damaged as error:
                self.job.warn(f"{error}; it is removed")
            else:
                self.job.say(f"going on with image {left.id}, which arrived before")
                return image
        else:
            self.job.say(
                f"image {left.id} is {image['status']}: Glance takes an image in one request, "
                "so its upload cannot be gone on with; it is removed and sent anew"
            )
        self.job.call(lambda: self.glance.delete(left.id), what="image-delete")
        self.job.journal.remove(left)
        return None
