"""What channels are in EC2: a tag, an SSM parameter, and deprecation of images that left theirs.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html
https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from goldimg.config.publish.aws import AwsPublish
from goldimg.errors import PublishFailed
from goldimg.publish.aws.clients import as_tags, from_tags
from goldimg.publish.aws.errors import DENIED, GONE, code_of
from goldimg.publish.aws.sharing import deprecation
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import (
    CURRENT,
    FORMER,
    Change,
    Promoting,
    Promotion,
    Side,
    Use,
)
from goldimg.publish.publisher import Publication

Call = Callable[..., Any]  # service, operation, region, and what is given to the operation
# EC2 takes no time that is past, and rounds to minutes.
SOON, NOW = timedelta(minutes=2), timedelta(minutes=10)
LIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]


class Promoter:
    """Asks for what a promotion has to change, in every region of a publication."""

    def __init__(self, call: Call, options: AwsPublish) -> None:
        self._call, self._options = call, options

    def promoting(self, it: Promotion) -> Promoting:
        """The parameters move first: nobody is led to a deprecated image."""
        changes: list[Change] = []
        for region, id_ in it.to.publication.ids.items():
            changes += self._current(it, region, id_)
        for side in it.former:
            for region, id_ in side.publication.ids.items():
                changes += self._former(it, side, region, id_)
        name = self._parameter_name(it)
        if name is None:
            note = "no SSM parameter names the image: set publish.aws.channel_parameter"
            return Promoting(changes=tuple(changes), notes=(note,))
        resources = tuple(
            Resource(kind="parameter", id=f"{name}={id_}", where=region)
            for region, id_ in it.to.publication.ids.items()
        )
        return Promoting(changes=tuple(changes), resources=resources)

    def _parameter_name(self, it: Promotion) -> str | None:
        pattern = self._options.channel_parameter
        return pattern.format(os=it.os_name, channel=it.channel) if pattern else None

    def _current(self, it: Promotion, region: str, id_: str) -> Iterator[Change]:
        image = self._image(region, id_)
        if image is None:
            raise PublishFailed(
                f"aws: {id_} is not in {region} any more",
                why=f"the record of {it.to.publication.name} names it",
                hint=f"publish it again: goldimg upload aws -O {it.os_name} "
                f"--version {it.to.version}",
            )
        if _is_deprecated(image):
            yield Change(
                what=f"{id_} in {region} is listed again",
                make=partial(self._restore, region, id_),
            )
        if (name := self._parameter_name(it)) and self._parameter(region, name) != id_:
            yield Change(
                what=f"parameter {name} in {region} names {id_}",
                make=partial(self._point, it, region, name, id_),
            )
        yield from self._marked(it, region, image, CURRENT)

    def _former(self, it: Promotion, side: Side, region: str, id_: str) -> Iterator[Change]:
        image = self._image(region, id_)
        if image is None:
            return
        if not side.channels and not _is_deprecated(image):
            yield Change(
                what=f"{id_} in {region}, version {side.version}, is deprecated",
                make=lambda: self._deprecate(region, id_, datetime.now(UTC) + SOON),
            )
        yield from self._marked(it, region, image, FORMER)

    def _marked(
        self, it: Promotion, region: str, image: dict[str, Any], role: str
    ) -> Iterator[Change]:
        if from_tags(image).get(it.mark) != role:
            given = {"Resources": [image["ImageId"]], "Tags": as_tags({it.mark: role})}
            yield Change(
                what=f"{image['ImageId']} in {region} is tagged {it.mark}={role}",
                make=partial(self._call, "ec2", "create_tags", region, **given),
            )

    def _image(self, region: str, id_: str) -> dict[str, Any] | None:
        try:
            found = self._call("ec2", "describe_images", region, ImageIds=[id_])["Images"]
        except ClientError as error:
            if code_of(error) in GONE:
                return None
            raise
        return next(iter(found), None)

    def _restore(self, region: str, id_: str) -> None:
        """Gives the image the date of the settings, or none."""
        at = deprecation(self._options, datetime.now(UTC))
        if at and at > datetime.now(UTC) + NOW:
            self._deprecate(region, id_, at)
        else:
            self._call("ec2", "disable_image_deprecation", region, ImageId=id_)

    def _deprecate(self, region: str, id_: str, at: datetime) -> None:
        self._call("ec2", "enable_image_deprecation", region, ImageId=id_, DeprecateAt=at)

    def _parameter(self, region: str, name: str) -> str | None:
        try:
            found = self._call("ssm", "get_parameter", region, Name=name)
        except ClientError as error:
            if code_of(error) in GONE:
                return None
            raise
        return str(found["Parameter"]["Value"])

    def _point(self, it: Promotion, region: str, name: str, id_: str) -> None:
        self._call(
            "ssm",
            "put_parameter",
            region,
            Name=name,
            Value=id_,
            Type="String",
            DataType="aws:ec2:image",
            Overwrite=True,
            Description=f"{it.os_name} {it.to.version}, {it.channel}",
        )

    # --- who uses it ----------------------------------------------------------------------------

    def use(self, publication: Publication) -> Use:
        """Instances and launch templates of this account; others' cannot be seen."""
        by: list[str] = []
        shared = 0
        for region, id_ in publication.ids.items():
            try:
                by += [f"{it} in {region}" for it in self._users(region, id_)]
                shared += len(self._permissions(region, id_))
            except ClientError as error:
                if code_of(error) in DENIED:
                    return Use(unknown=f"EC2 does not let us ask in {region}: {code_of(error)}")
                if code_of(error) not in GONE:
                    raise
        note = "it is shared, and instances of others cannot be seen" if shared else ""
        return Use(by=tuple(by), note=note)

    def _users(self, region: str, id_: str) -> Iterator[str]:
        image = {"Name": "image-id", "Values": [id_]}
        filters = [image, {"Name": "instance-state-name", "Values": LIVE}]
        for page in self._pages("describe_instances", region, Filters=filters):
            for group in page["Reservations"]:
                yield from (str(it["InstanceId"]) for it in group["Instances"])
        given = {"Versions": ["$Latest", "$Default"], "Filters": [image]}
        for page in self._pages("describe_launch_template_versions", region, **given):
            found = {str(it["LaunchTemplateName"]) for it in page["LaunchTemplateVersions"]}
            yield from (f"launch template {name}" for name in sorted(found))

    def _pages(self, operation: str, region: str, **given: Any) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._call("ec2", operation, region, **given, **token)
            yield page
            if not page.get("NextToken"):
                return
            token = {"NextToken": str(page["NextToken"])}

    def _permissions(self, region: str, id_: str) -> list[Any]:
        given = {"ImageId": id_, "Attribute": "launchPermission"}
        answer = self._call("ec2", "describe_image_attribute", region, **given)
        return list(answer.get("LaunchPermissions", ()))


def _is_deprecated(image: dict[str, Any]) -> bool:
    """Whether its date has come, or comes within minutes."""
    told = image.get("DeprecationTime")
    return bool(told) and datetime.fromisoformat(str(told)) <= datetime.now(UTC) + NOW
