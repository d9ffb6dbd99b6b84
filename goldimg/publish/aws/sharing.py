"""What an image gets once all its copies are there: users, a date, a parameter that names it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/sharing-amis.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from botocore.exceptions import ClientError

from goldimg.config.publish.aws import AwsPublish
from goldimg.publish.aws.clients import STATE, Work
from goldimg.publish.aws.errors import GONE, code_of
from goldimg.publish.aws.images import Found, description

ALL = {"Group": "all"}


def permissions(options: AwsPublish) -> list[dict[str, str]]:
    """Who may start instances of the image."""
    found: list[dict[str, str]] = [ALL] if options.public else []
    for principal in options.share:
        if principal.isdecimal():
            found.append({"UserId": principal})
        elif ":organization/" in principal:
            found.append({"OrganizationArn": principal})
        else:
            found.append({"OrganizationalUnitArn": principal})
    return found


def missing_permissions(work: Work, found: Found) -> list[dict[str, str]]:
    """Those that the image does not give yet."""
    wanted = permissions(work.options)
    if not wanted:
        return []
    given = {"ImageId": found.id, "Attribute": "launchPermission"}
    answer = work.call("ec2", "describe_image_attribute", region=found.region, **given)
    return [it for it in wanted if it not in answer.get("LaunchPermissions", ())]


def share(work: Work, found: Found) -> None:
    """Lets others use the image, and copy it: its snapshots are shared with accounts and all.

    Nothing is ever taken from those who may use it already. A snapshot cannot be shared with an
    organization.
    """
    options = work.options
    missing = missing_permissions(work, found)
    if missing:
        given = {"ImageId": found.id, "LaunchPermission": {"Add": missing}}
        work.call("ec2", "modify_image_attribute", region=found.region, **given)
    accounts = [it for it in options.share if it.isdecimal()]
    added = [{"UserId": it} for it in accounts] + ([ALL] if options.public else [])
    for snapshot in found.snapshots if added else ():
        work.call(
            "ec2",
            "modify_snapshot_attribute",
            region=found.region,
            SnapshotId=snapshot,
            Attribute="createVolumePermission",
            CreateVolumePermission={"Add": added},
        )


def deprecation(options: AwsPublish, now: datetime) -> datetime | None:
    """When images are to be deprecated; None: never."""
    if options.deprecate_at:
        return datetime.combine(options.deprecate_at, time(), UTC)
    return now + timedelta(days=options.deprecate_after) if options.deprecate_after else None


def deprecate(work: Work, found: Found) -> None:
    """Sets the date from which the image is no longer listed, where the settings have one."""
    if is_dated(work, found):
        return
    at = deprecation(work.options, datetime.now(UTC))
    given = {"ImageId": found.id, "DeprecateAt": at}
    work.call("ec2", "enable_image_deprecation", region=found.region, **given)


def is_dated(work: Work, found: Found) -> bool:
    """Whether the image has the date that the settings want; a relative one is set but once."""
    known = str(found.described.get("DeprecationTime") or "")
    if at := work.options.deprecate_at:
        return known.startswith(at.isoformat())
    return bool(known) or work.options.deprecate_after is None


def finish(work: Work, found: Found) -> None:
    """Takes the mark of the unfinished from the image and its snapshots."""
    if STATE not in found.tags:
        return
    resources = [*found.snapshots, found.id]  # the image last: it says that all is done
    given = {"Resources": resources, "Tags": [{"Key": STATE}]}
    work.call("ec2", "delete_tags", region=found.region, **given)


def parameter_name(work: Work) -> str | None:
    """The name of the SSM parameter that holds the image's id, where the settings want one."""
    image, pattern = work.job.image, work.options.ssm_parameter
    return pattern.format(os=image.os_name, version=image.version) if pattern else None


def parameter(work: Work, region: str) -> str | None:
    """The image id that the parameter holds in the region; None where there is none."""
    try:
        found = work.call("ssm", "get_parameter", region=region, Name=parameter_name(work))
    except ClientError as error:
        if code_of(error) in GONE:
            return None
        raise
    return str(found["Parameter"]["Value"])


def point(work: Work, found: Found) -> None:
    """Lets the SSM parameter of the region name the image.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html
    """
    name = parameter_name(work)
    if name is None or parameter(work, found.region) == found.id:
        return
    work.call(
        "ssm",
        "put_parameter",
        region=found.region,
        Name=name,
        Value=found.id,
        Type="String",
        DataType="aws:ec2:image",
        Overwrite=True,
        Description=description(work),
    )
    work.job.created("parameter", f"{name}={found.id}", found.region, is_resumable=True)
