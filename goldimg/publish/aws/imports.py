"""VM Import: an object of S3 becomes a snapshot, by way of a task that is waited for.

https://docs.aws.amazon.com/vm-import/latest/userguide/vmimport-import-snapshot.html
https://docs.aws.amazon.com/vm-import/latest/userguide/import-vm-image.html
"""

from __future__ import annotations

import secrets
from typing import Any

from botocore.exceptions import ClientError

from goldimg.formats import Region, ova
from goldimg.publish.aws import bucket
from goldimg.publish.aws.blocks import state_of
from goldimg.publish.aws.clients import Work, as_tags, interval
from goldimg.publish.aws.errors import GONE, NotYet, code_of
from goldimg.publish.job import Rejected
from goldimg.publish.publisher import UNFINISHED

GOING_ON = frozenset({"", "active", "pending", "converting", "updating", "validating"})
# `deleted` is how AWS says that an import has failed.
ENDED = "an import that ends as {!r} has failed"
UNKNOWN_TASK = frozenset({"InvalidConversionTaskId", "InvalidConversionTaskId.Malformed"})


def import_snapshot(work: Work) -> str:
    """The snapshot of the OVA's disk, whose VMDK goes through S3 as it is."""
    disk = ova.disk_region(work.job.image.file("ova").path)
    return _imported(work, disk, "vmdk", _snapshot_request, _snapshot_task)


def import_image(work: Work) -> str:
    """The snapshot that ImportImage makes of the OVA, after changing the system in it.

    The image that it also makes has a name of its own; it is removed, and ours is registered from
    the same snapshot, like any other.
    """
    whole = Region.whole(work.job.image.file("ova").path)
    return _imported(work, whole, "ova", _image_request, _image_task)


def _imported(work: Work, region: Region, extension: str, request: Any, task: Any) -> str:
    job, journal = work.job, work.job.journal
    if known := journal.find("snapshot", work.region):
        if state_of(work, known.id) != "gone":
            return known.id
        journal.remove(known)
        journal.set("import request", None)
    running = journal.find("import task", work.region)
    if running is None:
        key = bucket.put(work, region, extension)
        given = journal.get("import request") or request(work, key)
        journal.set("import request", given)  # the same token finds the same task again
        operation = "import_snapshot" if extension == "vmdk" else "import_image"
        made = work.call("ec2", operation, **given)
        running = job.created(
            "import task", str(made["ImportTaskId"]), work.region, is_resumable=True
        )
    job.phase("importing")
    try:
        snapshot: str = job.wait(
            lambda: task(work, running.id),
            what=running.id,
            timeout=work.options.timeout,
            interval=interval(work),
        )
    except Rejected:
        journal.set("import request", None)  # its token would find the failed task again
        raise
    # Tagged before it is noted: an import ignores the tags and description of its request.
    tags = as_tags({**work.tags, **UNFINISHED})
    work.call("ec2", "create_tags", Resources=[snapshot], Tags=tags)
    job.created("snapshot", snapshot, work.region, is_resumable=True)
    journal.remove(running)
    return snapshot


def _base(work: Work, kind: str) -> dict[str, Any]:
    options = work.options
    given: dict[str, Any] = {
        "ClientToken": secrets.token_hex(16),
        "Description": options.description or work.job.image.name,
        "RoleName": options.role,
        "TagSpecifications": [{"ResourceType": kind, "Tags": as_tags({**work.tags, **UNFINISHED})}],
    }
    if options.encrypted:
        given["Encrypted"] = True
    if options.kms_key:
        given["KmsKeyId"] = work.key(work.region)
    return given


def _snapshot_request(work: Work, key: str) -> dict[str, Any]:
    place = {"S3Bucket": work.options.bucket, "S3Key": key}
    container = {"Description": work.job.image.name, "Format": "VMDK", "UserBucket": place}
    return {**_base(work, "import-snapshot-task"), "DiskContainer": container}


def _image_request(work: Work, key: str) -> dict[str, Any]:
    place = {"S3Bucket": work.options.bucket, "S3Key": key}
    return {
        **_base(work, "import-image-task"),
        "Architecture": work.job.image.architecture,
        "Hypervisor": "xen",
        "Platform": "Linux",
        "DiskContainers": [{"Format": "ova", "UserBucket": place}],
    }


def _described(work: Work, kind: str, task: str) -> dict[str, Any]:
    client = work.clients.get("ec2", work.region)
    try:
        answer = getattr(client, f"describe_import_{kind}_tasks")(ImportTaskIds=[task])
    except ClientError as error:
        if code_of(error) in GONE | UNKNOWN_TASK:
            raise NotYet(f"{task} is not known yet") from error
        raise
    found: list[dict[str, Any]] = answer[f"Import{kind.capitalize()}Tasks"]
    if not found:
        raise NotYet(f"{task} is not known yet")
    return found[0]


def _snapshot_task(work: Work, task: str) -> str | None:
    """The snapshot once the task has completed; its id can be empty until then."""
    detail = _described(work, "snapshot", task).get("SnapshotTaskDetail", {})
    if _is_done(work, task, detail) and detail.get("SnapshotId"):
        return str(detail["SnapshotId"])
    return None


def _image_task(work: Work, task: str) -> str | None:
    found = _described(work, "image", task)
    disks = [it["SnapshotId"] for it in found.get("SnapshotDetails", ()) if it.get("SnapshotId")]
    if not _is_done(work, task, found) or not disks:
        return None
    if image := found.get("ImageId"):
        try:
            # Tagged, since a careful policy lets us remove what is ours only.
            work.call("ec2", "create_tags", Resources=[image], Tags=as_tags(work.tags))
            work.call("ec2", "deregister_image", ImageId=image)
        except ClientError as error:
            if code_of(error) not in GONE:
                raise
    return str(disks[0])


def _is_done(work: Work, task: str, found: dict[str, Any]) -> bool:
    """Whether the task has completed; Rejected for a state that does not lead there."""
    status, message = str(found.get("Status", "")), str(found.get("StatusMessage", ""))
    if status == "completed":
        return True
    if status in GOING_ON:
        if percent := str(found.get("Progress", "")):
            work.job.events.emit(
                work.job.provider,
                "progress",
                f"{task}: {percent} %, {message}",
                fraction=min(1.0, int(percent) / 100) if percent.isdecimal() else None,
            )
        return False
    raise Rejected(
        f"aws: {task} ended as {status}",
        why=message or ENDED.format(status),
        hint="https://docs.aws.amazon.com/vm-import/latest/userguide/vmimport-troubleshooting.html",
    )
