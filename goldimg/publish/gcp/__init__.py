"""Google Cloud: the tar.gz into Cloud Storage, an image of it in Compute Engine.

https://cloud.google.com/compute/docs/import/import-existing-image
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import google.auth
from google.api_core import exceptions as api
from google.auth.credentials import Credentials
from google.cloud.storage import Bucket, Client

from goldimg.config.publish.gcp import GcpPublish
from goldimg.errors import GoldimgError, PublishFailed
from goldimg.formats import Heed, gcptar
from goldimg.publish.gcp import buckets
from goldimg.publish.gcp.compute import Images
from goldimg.publish.gcp.names import (
    FEATURES,
    explained,
    is_transient,
    labels,
    resource_name,
)
from goldimg.publish.gcp.promoting import promoting, use
from goldimg.publish.gcp.rest import Image, Json
from goldimg.publish.gcp.storage import KIND, LARGEST, PARTS, TIMEOUT, finish, send
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import CURRENT, Promoting, Promotion, Use, role_of
from goldimg.publish.proof import CRC32C
from goldimg.publish.publisher import UNFINISHED, Call, Orphan, Preview, Publication, Publisher

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
IMAGE = "image"


class GcpPublisher(Publisher[GcpPublish]):
    """Publishes to one project, by way of one bucket."""

    name = "gcp"
    artifact = "tar.gz"
    digests = (CRC32C,)
    removers = 8

    @property
    def target(self) -> str:
        return f"gcp {self.options.project or 'default project'}"

    @cached_property
    def _login(self) -> tuple[Credentials, str]:
        """Credentials by the SDK's own chain, and the project they or the options name."""
        credentials, project = google.auth.default(scopes=SCOPES)
        chosen = self.options.project or project
        if not chosen:
            raise PublishFailed(
                "gcp: no project is named",
                hint="set publish.gcp.project in templates/site.yml, or GOOGLE_CLOUD_PROJECT",
            )
        return credentials, chosen

    @cached_property
    def _storage(self) -> Client:
        credentials, project = self._login
        endpoint = self.options.storage_endpoint
        options = {"api_endpoint": endpoint} if endpoint else None
        return Client(project=project, credentials=credentials, client_options=options)

    @cached_property
    def _images(self) -> Images:
        credentials, project = self._login
        return Images(project, credentials, self.options.compute_endpoint)

    def _bucket(self) -> Bucket:
        if self.options.bucket is None:
            raise PublishFailed(
                "gcp: no bucket is named",
                why="Compute Engine reads images from a bucket",
                hint="set publish.gcp.bucket in templates/site.yml",
            )
        return self._storage.bucket(self.options.bucket)

    # --- what it will be called -----------------------------------------------------------------

    def _name(self, job: Job) -> str:
        return resource_name(f"{job.image.os_name}-{job.image.version}")

    def _key(self, job: Job) -> str:
        return f"{self.options.prefix}{self._name(job)}-{job.journal.image[:12]}.tar.gz"

    def _family(self, job: Job) -> str:
        return self.options.family or resource_name(job.image.os_name)

    def _features(self, job: Job) -> tuple[str, ...]:
        """https://cloud.google.com/compute/docs/images/create-custom#guest-os-features"""
        if self.options.features is not None:
            return self.options.features
        firmware = ("UEFI_COMPATIBLE",) if job.image.firmware == "efi" else ()
        return ("VIRTIO_SCSI_MULTIQUEUE", *firmware)

    # --- the steps ------------------------------------------------------------------------------

    def check(self, job: Job) -> Preview:
        file = job.image.file(self.artifact)
        unknown = set(self._features(job)) - FEATURES
        if unknown:
            raise PublishFailed(
                f"gcp: {sorted(unknown)[0]} is no guest OS feature",
                hint="see publish.gcp.features; the names are in capitals",
            )
        if file.size > LARGEST:
            raise PublishFailed(f"gcp: {file.path.name} is larger than {LARGEST >> 30} GiB")
        gcptar.check_front(file.path)
        bucket = self._bucket()
        notes: list[str] = []
        exists = buckets.check(job, bucket, notes, may_create=self.options.create)
        self._images.list(job, f"name={self._name(job)}")  # the project, the API and the login
        calls = [] if exists else [Call(operation="buckets.insert", detail=str(bucket.name))]
        calls += [
            Call(operation="objects.insert", detail=f"gs://{bucket.name}/{self._key(job)}",
                 size=file.size),
            Call(operation="objects.compose"),
            Call(operation="images.insert",
                 detail=f"{self._name(job)}, family {self._family(job)}"),
        ]  # fmt: skip
        if self._members:
            calls.append(Call(operation="images.setIamPolicy", detail=", ".join(self._members)))
        if self.options.previous != "keep":
            calls.append(
                Call(operation="images.deprecate", detail=f"{self.options.previous}: the family's")
            )
        if not self.options.keep_object:
            calls.append(Call(operation="objects.delete", detail=self._key(job)))
        credentials, project = self._login
        account = str(getattr(credentials, "service_account_email", "") or "default credentials")
        return Preview(
            account=f"{account}, project {project}",
            names={"image": self._name(job), "family": self._family(job)},
            calls=tuple(calls),
            notes=tuple(notes),
        )

    def check_format(self, path: Path, heed: Heed) -> None:
        gcptar.check(path, heed)

    def find(self, job: Job) -> Publication | None:
        name = self._name(job)
        image = self._images.get(job, name)
        if image is None:
            return None
        if image.labels.get("goldimg-sha256") != labels(job.tags)["goldimg-sha256"]:
            if job.force:
                return None
            raise PublishFailed(
                f"gcp: {name} exists and is another image",
                why=f"it was made {image.made}",
                hint="build another version, or replace it with --force",
            )
        if image.status != "READY" or "goldimg-state" in image.labels:
            return None  # an earlier run began it
        if not self._images.is_shared(job, name, self._members):
            return None
        return self._publication(job, image, None)

    @property
    def _members(self) -> tuple[str, ...]:
        return (*self.options.share, *(["allAuthenticatedUsers"] if self.options.public else []))

    def publish(self, job: Job) -> Publication:
        image, generation = self._image(job)
        job.phase("sharing")
        if self._members:
            self._images.share(job, image.name, self._members)
        self._deprecate_previous(job, image)
        if "goldimg-state" in image.labels:
            rest = {key: it for key, it in image.labels.items() if key not in UNFINISHED}
            self._images.relabel(job, image, rest)
        if self.options.keep_object and generation:
            finish(job, self._bucket(), self._key(job))
        return self._publication(job, image, generation)

    def _image(self, job: Job) -> tuple[Image, str | None]:
        """The image, ready; and the generation of the object, where this run sent it."""
        name, timeout = self._name(job), float(self.options.timeout)
        mine = labels(job.tags)["goldimg-sha256"]
        image = self._images.get(job, name)
        if image is not None and image.labels.get("goldimg-sha256") == mine:
            job.proven()
            job.phase("importing")
            if settled := self._images.settle(job, name, timeout=timeout):
                return settled, None
            self._images.delete(job, name)
            image = None
        buckets.make(job, self._bucket(), self.options.location)
        job.phase("uploading")
        bucket, key = self._bucket(), self._key(job)
        generation = send(
            job,
            bucket,
            key,
            job.image.file(self.artifact).path,
            self.options.prefix,
            is_temporary=not self.options.keep_object,
        )
        job.phase("importing")
        if image is not None:  # only with --force: names cannot be shared
            job.say(f"replacing the image {name} made {image.made}")
            self._images.delete(job, name)
        job.created(IMAGE, name, self._login[1], is_resumable=True)
        self._images.insert(job, self._resource(job, f"gs://{bucket.name}/{key}"), timeout=timeout)
        ready = self._images.settle(job, name, timeout=timeout)
        if ready is None:
            raise PublishFailed(f"gcp: image {name} has failed", hint="its messages: the console")
        return ready, generation

    def _resource(self, job: Job, source: str) -> Json:
        """https://cloud.google.com/compute/docs/reference/rest/v1/images"""
        place = self.options.storage_location
        return {
            "name": self._name(job),
            "description": f"{job.image.os_name} {job.image.version}, sha256 {job.journal.image}",
            "family": self._family(job),
            "architecture": job.image.architecture.upper(),
            "rawDisk": {"source": source},
            "labels": {**labels(self.options.tags), **labels(job.tags), **UNFINISHED},
            "guestOsFeatures": [{"type": feature} for feature in self._features(job)],
            "licenses": list(self.options.licenses),
            "storageLocations": [place] if place else [],
        }

    def _deprecate_previous(self, job: Job, image: Image) -> None:
        if self.options.previous == "keep":
            return
        state = self.options.previous.upper()
        for other in self._images.list(job, f"family={image.family}"):
            if other.name == image.name or other.deprecation in (state, "OBSOLETE", "DELETED"):
                continue
            if role_of(other.labels) == CURRENT:
                job.say(f"{other.name} stays as it is: a channel points to it")
                continue
            job.say(f"{other.name} is {self.options.previous} from now on")
            self._images.deprecate(job, other.name, state, image.link)

    def _publication(self, job: Job, image: Image, generation: str | None) -> Publication:
        project = self._login[1]
        resources = [Resource(kind=IMAGE, id=image.name, where=project)]
        if self.options.keep_object:
            resources.append(Resource(kind=KIND, id=self._key(job), where=str(self.options.bucket)))
        verified = "CRC32C of the object in the bucket; Compute Engine tells no digest of an image"
        return Publication(
            name=image.name,
            ids={project: image.id},
            resources=tuple(resources),
            urls=(image.link,),
            verified=verified,
            extra={
                "family": image.family,
                "disk_size_gb": image.size,
                **({"generation": generation} if generation else {}),
            },
        )

    # --- the other way round --------------------------------------------------------------------

    def delete(self, resource: Resource) -> None:
        if resource.kind == IMAGE:
            self._images.delete(self.session, resource.id)
            return
        bucket = self._storage.bucket(resource.where)

        def remove() -> None:
            try:
                bucket.delete_blob(resource.id, timeout=TIMEOUT, retry=None)
            except api.NotFound:
                return

        self.session.call(remove, what="objects.delete")

    def promoting(self, promotion: Promotion) -> Promoting:
        return promoting(self._images, self.session, promotion)

    def use(self, publication: Publication) -> Use:
        return use(self._images, self.session, publication)

    def orphans(self) -> list[Orphan]:
        found = []
        now = time.time()
        state = f"labels.goldimg-state={UNFINISHED['goldimg-state']}"
        for image in self._images.list(self.session, state):
            made = datetime.fromisoformat(image.made).timestamp()
            resource = Resource(kind=IMAGE, id=image.name, where=self._login[1])
            run = image.labels.get("goldimg-run", "")
            found.append(Orphan(resource=resource, run_id=run, age=now - made))
        if self.options.bucket is None:
            return found
        for blob in self._objects(self.session):
            metadata = blob.metadata or {}
            if metadata.get("goldimg-state") != UNFINISHED["goldimg-state"]:
                continue
            resource = Resource(kind=KIND, id=blob.name, where=str(self.options.bucket))
            age = (datetime.now(UTC) - blob.time_created).total_seconds()
            run = metadata.get("goldimg-run", "")
            found.append(Orphan(resource=resource, run_id=run, age=age))
        return found

    def _objects(self, session: Session) -> list[Any]:
        def ask() -> list[Any]:
            prefix = self.options.prefix
            return list(
                self._storage.list_blobs(
                    self.options.bucket, prefix=prefix, timeout=TIMEOUT, retry=None
                )
            )

        return session.call(ask, what="objects.list")

    def close(self) -> None:
        """Ends the connections of the clients that were made."""
        for client in ("_storage", "_images"):
            if client in self.__dict__:
                getattr(self, client).close()

    def is_transient(self, error: BaseException) -> bool:
        return is_transient(error)

    def explain(self, error: BaseException) -> GoldimgError:
        return explained(error)


PUBLISHER = GcpPublisher
__all__ = ["PARTS", "PUBLISHER", "GcpPublisher"]
