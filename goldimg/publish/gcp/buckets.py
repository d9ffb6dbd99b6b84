"""The bucket that an archive passes through on its way to Compute Engine."""

from __future__ import annotations

from google.api_core import exceptions as api
from google.cloud.storage import Bucket

from goldimg.errors import PublishFailed
from goldimg.publish.gcp.names import message
from goldimg.publish.gcp.storage import TIMEOUT
from goldimg.publish.job import Job

NEEDED = ("storage.objects.create", "storage.objects.delete", "storage.objects.get",
          "storage.objects.list")  # fmt: skip


def check(job: Job, bucket: Bucket, notes: list[str], *, may_create: bool) -> bool:
    """Whether the bucket is there; PublishFailed where it cannot be used, or not made either.

    `notes` gets what could not be asked.
    """
    try:
        job.call(lambda: bucket.reload(timeout=TIMEOUT, retry=None), what="buckets.get")
    except api.NotFound:
        if may_create:
            return False
        raise PublishFailed(
            f"gcp: there is no bucket {bucket.name}, or it may not be seen",
            hint="make it, or say --create",
        ) from None
    # https://cloud.google.com/storage/docs/bucket-lock
    if bucket.retention_period or bucket.default_event_based_hold:
        raise PublishFailed(
            f"gcp: bucket {bucket.name} does not let objects be removed",
            why="its retention policy, or its default hold, would keep the parts of the upload",
            hint="name a bucket without them in publish.gcp.bucket; the image does not need it",
        )
    try:
        have = job.call(
            lambda: bucket.test_iam_permissions(list(NEEDED), timeout=TIMEOUT, retry=None),
            what="buckets.testIamPermissions",
        )
    except api.GoogleAPICallError as error:
        notes.append(f"permissions on {bucket.name} could not be asked: {message(error)}")
        return True
    if missing := sorted(set(NEEDED) - set(have)):
        raise PublishFailed(
            f"gcp: permissions on bucket {bucket.name} are missing: {', '.join(missing)}",
            hint="the roles: docs/upload-gcp.md",
        )
    return True


def make(job: Job, bucket: Bucket, location: str | None) -> None:
    """Makes the bucket in `location`, if it is not there."""
    if job.call(lambda: bucket.exists(timeout=TIMEOUT, retry=None), what="buckets.get"):
        return
    if location:
        bucket.location = location
    # Nothing in it is ever public, whatever is set on an object.
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    job.say(f"creating bucket {bucket.name}")
    job.call(lambda: bucket.create(timeout=TIMEOUT, retry=None), what="buckets.insert")
