"""The publisher of AWS: the steps of one publication, in order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from goldimg.config.publish.aws import AwsPublish
from goldimg.errors import GoldimgError, UsageError
from goldimg.formats import ova
from goldimg.formats.vmdk_read import VmdkDisk
from goldimg.publish.aws import blocks, errors, images, imports, preflight, sharing
from goldimg.publish.aws.clients import Clients, Work
from goldimg.publish.aws.images import Found
from goldimg.publish.aws.promoting import Promoter
from goldimg.publish.aws.removal import Remover
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import Promoting, Promotion, Use
from goldimg.publish.proof import mark
from goldimg.publish.publisher import Orphan, Preview, Publication, Publisher

T = TypeVar("T")
T2 = TypeVar("T2")


class Aws(Publisher[AwsPublish]):
    """An image of EC2, in one region or several.

    The first region is where the disk goes and the image is registered; the others get copies,
    side by side. Nothing is shared before all of them are available.
    """

    name = "aws"
    artifact = "ova"

    def __init__(self, options: AwsPublish, session: Session) -> None:
        super().__init__(options, session)
        self.clients = Clients(options.profile, options.workers)
        self.remover = Remover(session, self.clients)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions to publish to, each once; UsageError where neither settings nor SDK say."""
        chain = (self.clients.region,) if self.clients.region else ()
        found = tuple(dict.fromkeys(self.options.regions or chain))
        if not found:
            raise UsageError(
                "aws: no region",
                hint="set publish.aws.regions in templates/site.yml, AWS_DEFAULT_REGION, or "
                "--regions",
            )
        return found

    @property
    def target(self) -> str:
        profile = f", profile {self.options.profile}" if self.options.profile else ""
        return f"EC2 {self.regions[0]}{profile}"

    def _work(self, job: Job) -> Work:
        return Work(job=job, options=self.options, clients=self.clients, region=self.regions[0])

    def check(self, job: Job) -> Preview:
        return preflight.Preflight(self._work(job), self.regions).run()

    def find(self, job: Job) -> Publication | None:
        work = self._work(job)
        found = []
        for region in self.regions:
            image = images.named(work, region)
            if image and not images.is_ours(work, image) and not job.force:
                raise images.taken(work, image)
            found.append(image)
        whole = [it for it in found if it and self._is_whole(work, it)]
        if len(whole) < len(self.regions):
            return None
        return self._publication(work, whole, "found there by its name, tags and digest")

    def _is_whole(self, work: Work, image: Found) -> bool:
        return (
            images.is_ours(work, image)
            and image.is_finished
            and not sharing.missing_permissions(work, image)
            and sharing.is_dated(work, image)
            # one that names another image is a newer version's
            and (
                not self.options.ssm_parameter or sharing.parameter(work, image.region) is not None
            )
        )

    def publish(self, job: Job) -> Publication:
        work = self._work(job)
        job.note(preflight.CHECKED, mark(job.image.file("ova")))
        first = images.named(work, work.region)
        if first and images.is_ours(work, first) and first.state == "available":
            job.say(f"{first.id} in {first.region} is there already")
            verified = "found there by its name, tags and digest"
        else:
            snapshot, verified = self._snapshot(work)
            first = images.register(work, snapshot)
        first = images.wait_available(work, work.region, first)
        found = [first, *self._copies(work, first)]
        job.phase("sharing")
        self._each(found, lambda it: sharing.share(work, it))
        self._each(found, lambda it: sharing.deprecate(work, it))
        self._each(found, lambda it: sharing.point(work, it))
        self._each(found, lambda it: sharing.finish(work, it))
        return self._publication(work, found, verified)

    def _snapshot(self, work: Work) -> tuple[str, str]:
        """A completed snapshot of the disk, and how it was proven."""
        journal = work.job.journal
        known = journal.find("snapshot", work.region)
        if known is None and (stray := blocks.find_snapshot(work)):
            work.job.say(f"snapshot {stray} of an unfinished run is used")
            known = work.job.created("snapshot", stray, work.region, is_resumable=True)
            journal.set("sealed", stray)
            journal.set("block size", blocks.BLOCK)
        via = self.options.via
        with VmdkDisk(ova.disk_region(work.job.image.file("ova").path)) as disk:
            if via == "ebs":
                snapshot = blocks.write_snapshot(work, disk)
            else:
                make = imports.import_snapshot if via == "s3" else imports.import_image
                snapshot = make(work)
                blocks.wait_completed(work, snapshot)
            if journal.get("verified") == snapshot:
                return snapshot, str(journal.get("proof"))
            if via == "import-image":
                proof = "the object's SHA-256; what ImportImage made of it cannot be"
            else:
                proof = blocks.verify(work, snapshot, disk, is_exact=via == "ebs")
                if via == "ebs":
                    proof = f"every block's SHA-256 and that of all checked by EBS; {proof}"
        work.job.note("proof", proof)
        work.job.note("verified", snapshot)
        return snapshot, proof

    def _copies(self, work: Work, first: Found) -> list[Found]:
        others = self.regions[1:]
        if others:
            work.job.phase("copying")
        return self._each(others, lambda region: images.copy(work, first, region))

    @staticmethod
    def _each(items: list[T] | tuple[T, ...], act: Callable[[T], T2]) -> list[T2]:
        """`act` on each, side by side; all are waited for before the first error is raised."""
        with ThreadPoolExecutor(max(1, len(items)), "regions") as pool:
            futures = [pool.submit(act, item) for item in items]
        return [future.result() for future in futures]

    def _publication(self, work: Work, found: list[Found], verified: str) -> Publication:
        name = sharing.parameter_name(work)
        resources = [
            Resource(kind="parameter", id=f"{name}={it.id}", where=it.region)
            for it in found
            if name
        ]
        resources += [Resource(kind="image", id=it.id, where=it.region) for it in found]
        snapshots = {it.region: it.snapshots for it in found}
        resources += [
            Resource(kind="snapshot", id=id_, where=region)
            for region, ids in snapshots.items()
            for id_ in ids
        ]
        return Publication(
            name=work.job.image.name,
            ids={it.region: it.id for it in found},
            resources=tuple(resources),
            hashes={"sha256": work.job.journal.image},
            verified=verified,
            extra={
                "snapshots": snapshots,
                "boot_mode": images.boot_mode(self.options, work.job.image),
                "shared": [next(iter(it.values())) for it in sharing.permissions(self.options)],
            },
        )

    def delete(self, resource: Resource) -> None:
        self.remover.delete(resource)

    def promoting(self, promotion: Promotion) -> Promoting:
        return Promoter(self.remover.call, self.options).promoting(promotion)

    def use(self, publication: Publication) -> Use:
        return Promoter(self.remover.call, self.options).use(publication)

    def orphans(self) -> list[Orphan]:
        return self.remover.orphans(self.options, list(self.regions))

    def is_transient(self, error: BaseException) -> bool:
        return errors.is_transient(error)

    def explain(self, error: BaseException) -> GoldimgError:
        return errors.explained(error)


PUBLISHER = Aws
