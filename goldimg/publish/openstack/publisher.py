"""The publisher for Glance.

An image is private and tagged as unfinished until its hash is verified; only then is it shown,
shared and protected, and only then are images that it replaces removed or hidden.
https://docs.openstack.org/api-ref/image/v2/
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from goldimg.config.publish.openstack import OpenstackPublish
from goldimg.errors import GoldimgError, PublishFailed
from goldimg.formats import Heed, qcow2, round_up
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource
from goldimg.publish.openstack import properties
from goldimg.publish.openstack.errors import explained
from goldimg.publish.openstack.glance import Glance, Json, is_transient
from goldimg.publish.openstack.promoting import Promoter
from goldimg.publish.openstack.sending import Damaged, Sender
from goldimg.publish.openstack.settling import STATE, Settling
from goldimg.publish.promotion import Promoting, Promotion, Use
from goldimg.publish.publisher import (
    UNFINISHED,
    Call,
    Orphan,
    Preview,
    Publication,
    Publisher,
)

MIB = 1 << 20


class OpenstackPublisher(Publisher[OpenstackPublish]):
    """Images in Glance."""

    name = "openstack"
    extra = "openstack"
    artifact = "qcow2"

    def __init__(self, options: OpenstackPublish, session: Session) -> None:
        super().__init__(options, session)
        self._glance = Glance(options)
        self._proof = ""

    @property
    def target(self) -> str:
        cloud = self.options.cloud or os.environ.get("OS_CLOUD")
        place = f"cloud {cloud}" if cloud else "the cloud of OS_AUTH_URL"
        return f"{place}, region {self.options.region}" if self.options.region else place

    def is_transient(self, error: BaseException) -> bool:
        return is_transient(error)

    def explain(self, error: BaseException) -> GoldimgError:
        return explained(error, self.target)

    # -- before the first byte

    def check(self, job: Job) -> Preview:
        file = job.image.file(self.artifact)
        name = properties.image_name(job.image, self.options)
        problems = properties.settings_problems(job.image, self.options)
        if len(name) > 255:
            problems.append(f"the name has {len(name)} characters; Glance takes 255")
        if problems:
            raise PublishFailed(
                "openstack: these settings cannot be published",
                hint="see publish.openstack in templates/site.yml",
                details=problems,
            )
        qcow2.check_front(file.path)
        account = job.call(self._glance.account, what="authentication")
        notes = [*self._check_methods(job), *self._check_quota(job, file.size)]
        notes.append("an upload that is cut off starts from its first byte: Glance has no resume")
        return Preview(
            account=account,
            names={"image": name, "at": job.call(lambda: self._glance.url(""), what="endpoint")},
            calls=tuple(self._calls(file.size, name)),
            notes=tuple(notes),
        )

    def check_format(self, path: Path, heed: Heed) -> None:
        qcow2.check(path, heed)

    def _check_methods(self, job: Job) -> Sequence[str]:
        if self.options.via != "import":
            job.call(lambda: self._glance.get("/images?limit=1"), what="image-list")
            return ()
        methods = job.call(self._glance.import_methods, what="info-import")
        if "glance-direct" not in methods:
            raise PublishFailed(
                f"openstack: {self.target} has no glance-direct import",
                why="it offers " + (", ".join(methods) or "no import at all"),
                hint="set publish.openstack.via: upload",
            )
        return ("a cloud that converts what it imports gives no hash to compare with",)

    def _check_quota(self, job: Job, size: int) -> Sequence[str]:
        usage = job.call(self._glance.usage, what="info-usage")
        wanted = {"image_size_total": round_up(size, MIB) // MIB, "image_count_total": 1}
        if self.options.via == "import":
            wanted["image_stage_total"] = wanted["image_size_total"]
        for key, more in wanted.items():
            found = usage.get(key)
            if found and 0 <= found["limit"] < found["usage"] + more:
                unit = " MiB" if "count" not in key else ""
                raise PublishFailed(
                    f"openstack: the quota {key} does not allow it",
                    why=f"{found['usage']} of {found['limit']}{unit} are used, "
                    f"{more}{unit} are needed",
                    hint="remove images: goldimg unpublish openstack, goldimg gc openstack",
                )
        return () if usage else ("the cloud tells no quota beforehand",)

    def _calls(self, size: int, name: str) -> list[Call]:
        way = "stage" if self.options.via == "import" else "file"
        calls = [
            Call(operation="POST /v2/images", detail=f"{name}, qcow2, private"),
            Call(operation=f"PUT /v2/images/<id>/{way}", size=size),
        ]
        if self.options.via == "import":
            calls.append(Call(operation="POST /v2/images/<id>/import", detail="glance-direct"))
        shown = self.options.final_visibility
        if self.options.protected:
            shown += ", protected"
        calls.append(Call(operation="PATCH /v2/images/<id>", detail=f"finished, {shown}"))
        calls += [
            Call(operation="POST /v2/images/<id>/members", detail=it) for it in self.options.share
        ]
        if self.options.hide_older:
            calls.append(Call(operation="PATCH /v2/images/<older>", detail="os_hidden"))
        return calls

    # -- there already?

    def find(self, job: Job) -> Publication | None:
        mine, others = self._named(job)
        if others and not job.force:
            raise self._taken(others[0], job)
        for image in others:
            if image.get("protected") and image.get("goldimg-os") is None:
                raise PublishFailed(
                    f"openstack: image {image['id']} is protected, and not goldimg's to replace",
                    hint=f"openstack image set --unprotect {image['id']}",
                )
        if not mine or others or self._settling(job).is_wanting(mine[-1]):
            return None
        try:
            self._proof = self._sender(job).verify(mine[-1])
        except Damaged as error:
            if not job.force:
                raise PublishFailed(
                    error.what, why=error.why, hint="replace it: the same command with --force"
                ) from error
            return None
        return self._publication(mine[-1], job, ())

    def _named(self, job: Job) -> tuple[list[Json], list[Json]]:
        """Whole images of our name: those of this artifact, and all others."""
        name = properties.image_name(job.image, self.options)
        found = job.call(lambda: self._glance.images(name=name), what="image-list")
        whole = [it for it in found if it["status"] == "active" and STATE not in it]
        mine = [it for it in whole if it.get("goldimg-sha256") == job.journal.image]
        return mine, [it for it in whole if it not in mine]

    def _taken(self, image: Json, job: Job) -> PublishFailed:
        made = image.get("goldimg-version")
        what = f"another build of version {made}" if made else "no image of goldimg's"
        return PublishFailed(
            f"openstack: the name {image['name']} is taken by image {image['id']}",
            why=f"it is {what}",
            hint=f"replace it: goldimg upload openstack -O {job.image.os_name} "
            f"--version {job.image.version} --force",
        )

    # -- publishing

    def publish(self, job: Job) -> Publication:
        mine, others = self._named(job)
        sender = self._sender(job)
        image = sender.resume() or _whole_one(mine, sender) or sender.send()
        self._proof = sender.verify(image)
        job.proven()  # of what an earlier run sent, too
        job.phase("finishing")
        settling = self._settling(job)
        final = settling.settled(image)
        for old in (*others, *mine):
            if old["id"] != image["id"]:
                settling.retire(old)
        sender.sweep(str(final["id"]))
        hidden = settling.hide_older() if self.options.hide_older else ()
        return self._publication(final, job, hidden)

    def _sender(self, job: Job) -> Sender:
        file = job.image.file(self.artifact)
        tags = {**job.tags, **UNFINISHED}
        return Sender(
            glance=self._glance,
            job=job,
            file=file,
            description=properties.description(job.image, file, self.options, tags),
            visibility=self.options.final_visibility,
            by_import=self.options.via == "import",
            timeout=self.options.timeout,
        )

    def _settling(self, job: Job) -> Settling:
        return Settling(glance=self._glance, job=job, options=self.options)

    def _publication(self, image: Json, job: Job, hidden: Sequence[str]) -> Publication:
        id_ = str(image["id"])
        hashes = {}
        if image.get("os_hash_algo") and not self._proof.startswith("not"):
            hashes = {str(image["os_hash_algo"]): str(image["os_hash_value"])}
        return Publication(
            name=str(image["name"]),
            ids={self.target: id_},
            resources=(Resource(kind="image", id=id_),),
            urls=(job.call(lambda: self._glance.url(f"/images/{id_}"), what="endpoint"),),
            hashes=hashes,
            verified=self._proof,
            extra={
                "visibility": image["visibility"],
                "protected": image["protected"],
                "members": sorted(self.options.share),
                "hidden": list(hidden),
            },
        )

    # -- removing

    def delete(self, resource: Resource) -> None:
        self.session.call(lambda: self._glance.delete(resource.id), what="image-delete")

    def promoting(self, promotion: Promotion) -> Promoting:
        return Promoter(self.session, self._glance, self.options).promoting(promotion)

    def use(self, publication: Publication) -> Use:
        return Promoter(self.session, self._glance, self.options).use(publication)

    def orphans(self) -> list[Orphan]:
        found = self.session.call(lambda: self._glance.images(**UNFINISHED), what="image-list")
        now = datetime.now(UTC)
        return [
            Orphan(
                resource=Resource(kind="image", id=str(it["id"])),
                run_id=str(it.get("goldimg-run", "")),
                age=(now - datetime.fromisoformat(str(it["updated_at"]))).total_seconds(),
            )
            for it in found
        ]


def _whole_one(mine: Sequence[Json], sender: Sender) -> Json | None:
    """An image of this artifact that only lacks something beside its data."""
    for image in mine:
        try:
            sender.verify(image)
        except Damaged:
            continue
        return image
    return None
