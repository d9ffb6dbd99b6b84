"""Images of EC2 and their copies: found by name and digest, registered, shared, made whole.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopyImage.html
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from goldimg.config.publish.aws import AwsPublish
from goldimg.errors import PublishFailed
from goldimg.publish.aws.clients import COPY, STATE, Work, as_tags, from_tags, interval
from goldimg.publish.aws.errors import GONE, NotYet, code_of
from goldimg.publish.image import Image
from goldimg.publish.job import Rejected
from goldimg.publish.publisher import UNFINISHED


@dataclass(frozen=True, kw_only=True)
class Found:
    """An image in a region, as EC2 describes it."""

    region: str
    described: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.described["ImageId"])

    @property
    def state(self) -> str:
        return str(self.described["State"])

    @property
    def tags(self) -> dict[str, str]:
        return from_tags(self.described)

    @property
    def is_finished(self) -> bool:
        """Whether a run has said that nothing is missing."""
        return self.state == "available" and STATE not in self.tags

    @property
    def snapshots(self) -> list[str]:
        """The snapshots that it is made of."""
        devices = self.described.get("BlockDeviceMappings", ())
        return [str(it["Ebs"]["SnapshotId"]) for it in devices if "SnapshotId" in it.get("Ebs", {})]


def boot_mode(options: AwsPublish, image: Image) -> str:
    """How instances start: as the settings say, or by the firmware that the image was built for.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-boot.html
    """
    if options.boot_mode != "auto":
        return options.boot_mode
    return "uefi" if image.firmware == "efi" else "legacy-bios"


def named(work: Work, region: str) -> Found | None:
    """The account's own image of our name in the region."""
    filters = [{"Name": "name", "Values": [work.job.image.name]}]
    found = work.call("ec2", "describe_images", region=region, Owners=["self"], Filters=filters)
    return next((Found(region=region, described=it) for it in found["Images"]), None)


def is_ours(work: Work, found: Found) -> bool:
    """Whether it was made of this very artifact."""
    return found.tags.get("goldimg-sha256") == work.job.journal.image


def taken(work: Work, found: Found) -> PublishFailed:
    """The error for a name that another image has."""
    digest = found.tags.get("goldimg-sha256", "")
    return PublishFailed(
        f"aws: {work.job.image.name} is the name of another image in {found.region}, {found.id}",
        why=f"its artifact had the SHA-256 {digest[:12]}…" if digest else "goldimg did not make it",
        hint="--force replaces it; or build another version",
    )


def registration(work: Work, snapshot: str) -> dict[str, Any]:
    """The request that makes an image of the snapshot."""
    options = work.options
    root = {
        "SnapshotId": snapshot,
        "VolumeType": options.volume_type,
        "DeleteOnTermination": True,
    }
    request: dict[str, Any] = {
        "Name": work.job.image.name,
        "Description": description(work),
        "Architecture": work.job.image.architecture,
        "VirtualizationType": "hvm",
        "BootMode": boot_mode(options, work.job.image),
        "EnaSupport": True,
        "SriovNetSupport": "simple",
        "ImdsSupport": "v2.0",
        "RootDeviceName": options.root_device,
        "BlockDeviceMappings": [{"DeviceName": options.root_device, "Ebs": root}],
        "TagSpecifications": [
            {"ResourceType": "image", "Tags": as_tags({**work.tags, **UNFINISHED})}
        ],
    }
    if options.tpm:
        request["TpmSupport"] = "v2.0"
    return request


def description(work: Work) -> str:
    """The site's text, or what the image is."""
    image = work.job.image
    return work.options.description or f"{image.distribution} {image.release}, {image.version}"


def register(work: Work, snapshot: str) -> Found:
    """The image of the snapshot, in the place of another of the name where that is forced."""
    job = work.job
    client = work.clients.get("ec2", work.region)
    job.phase("registering")
    before = named(work, work.region)
    if before and not is_ours(work, before):
        replace(work, before)

    def attempt() -> Found:
        # A call whose answer was lost may have made it: names are unique, so the next one looks.
        found = named(work, work.region)
        if found is None:
            client.register_image(**registration(work, snapshot))
            found = named(work, work.region)
        if found is None:
            raise NotYet("the new image is not listed yet")
        if not is_ours(work, found):
            raise taken(work, found)
        return found

    found = job.call(attempt, what="register_image")
    job.created("image", found.id, work.region, is_resumable=True)
    return found


def replace(work: Work, old: Found) -> None:
    """Removes another image of our name, and its snapshots where goldimg made them."""
    if not work.job.force:
        raise taken(work, old)
    work.job.say(f"{old.id} in {old.region} is replaced")
    _ignoring(GONE, work, "deregister_image", old.region, ImageId=old.id)
    for snapshot in old.snapshots if "goldimg-sha256" in old.tags else ():
        # Of no consequence where another image still uses it.
        codes = GONE | {"InvalidSnapshot.InUse"}
        _ignoring(codes, work, "delete_snapshot", old.region, SnapshotId=snapshot)


def _ignoring(
    codes: frozenset[str], work: Work, operation: str, region: str, **given: object
) -> None:
    try:
        work.call("ec2", operation, region=region, **given)
    except ClientError as error:
        if code_of(error) not in codes:
            raise


def copy(work: Work, source: Found, region: str) -> Found:
    """The copy of the image in another region, found or made; it is waited for."""
    job, options = work.job, work.options
    found = named(work, region)
    if found and not is_ours(work, found):
        replace(work, found)
        found = None
    if found is None:
        tags = as_tags({**work.tags, **UNFINISHED, COPY: f"{source.region}/{source.id}"})
        request: dict[str, Any] = {
            "Name": job.image.name,
            "Description": description(work),
            "SourceRegion": source.region,
            "SourceImageId": source.id,
            # The same call made twice gives one copy.
            "ClientToken": hashlib.sha256(f"{source.id} {region}".encode()).hexdigest()[:32],
            "TagSpecifications": [
                {"ResourceType": "image", "Tags": tags},
                {"ResourceType": "snapshot", "Tags": tags},
            ],
        }
        if options.encrypted:
            request["Encrypted"] = True
        if options.kms_key:
            request["KmsKeyId"] = work.key(region)
        made = work.call("ec2", "copy_image", region=region, **request)
        # Its snapshot is not noted: it goes with the image, see removal.py.
        job.created("image", str(made["ImageId"]), region, is_resumable=True)
        job.say(f"copying to {region}: {made['ImageId']}")
    return wait_available(work, region, found)


def wait_available(work: Work, region: str, known: Found | None = None) -> Found:
    """Our image in the region once it is available; Rejected for a state that ends elsewhere.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Image.html
    """
    if known and known.state == "available":
        return known

    def poll() -> Found | None:
        found = named(work, region)
        if found is None or found.state == "pending":
            return None  # lists lag behind
        if found.state == "available":
            return found
        message = found.described.get("StateReason", {}).get("Message", "")
        raise Rejected(
            f"aws: image {found.id} in {region} is in state {found.state}", why=str(message)
        )

    timeout = work.options.timeout
    what = f"the image in {region}"
    return work.job.wait(poll, what=what, timeout=timeout, interval=interval(work))
