"""EC2 images: registered, copied, shared, deprecated, deregistered.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopyImage.html
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta
from typing import Any

from tests.clouds.aws_server.protocol import Refusal
from tests.clouds.aws_server.state import (
    ACCOUNT,
    Image,
    Region,
    Snapshot,
    World,
    new_id,
    now,
    tags_of,
)

Answer = dict[str, Any]
NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
YEAR = timedelta(days=366)
VOLUMES = ("standard", "io1", "io2", "gp2", "gp3")


class Images:
    """The actions on images of one region."""

    def __init__(self, world: World, region: Region) -> None:
        self.world, self.region = world, region

    def _image(self, id_: str) -> Image:
        if not re.fullmatch(r"ami-[0-9a-f]{8,17}", id_):
            raise Refusal("InvalidAMIID.Malformed", f'Invalid id: "{id_}"')
        if id_ not in self.region.images:
            raise Refusal("InvalidAMIID.NotFound", f"The image id '[{id_}]' does not exist")
        return self.region.images[id_]

    def _check_name(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise Refusal("InvalidAMIName.Malformed", f"AMI name {name} is not valid")
        for image in self.region.images.values():
            if image.name == name:
                text = f"AMI name {name} is already in use by AMI {image.id}"
                raise Refusal("InvalidAMIName.Duplicate", text)

    def register_image(self, given: Answer) -> Answer:
        self._check_name(given["Name"])
        snapshot = self._root_snapshot(given)
        check_firmware(given)
        if any(spec["ResourceType"] != "image" for spec in given.get("TagSpecifications", ())):
            raise Refusal("InvalidParameterValue", "only the image can be tagged here")
        image = Image(
            id=new_id("ami"),
            name=given["Name"],
            given=given,
            snapshot=snapshot.id,
            tags=tags_of(given, "image"),
        )
        self.region.images[image.id] = image
        return {"ImageId": image.id}

    def _root_snapshot(self, given: Answer) -> Snapshot:
        devices = {it["DeviceName"]: it for it in given.get("BlockDeviceMappings", ())}
        root = devices.get(given.get("RootDeviceName", ""), {}).get("Ebs")
        if root is None or "SnapshotId" not in root:
            raise Refusal("InvalidBlockDeviceMapping", "the root device has no snapshot")
        snapshot = self.region.snapshots.get(root["SnapshotId"])
        if snapshot is None:
            text = f"Snapshot {root['SnapshotId']} does not exist"
            raise Refusal("InvalidSnapshot.NotFound", text)
        if snapshot.state != "completed":
            raise Refusal("IncorrectState", f"Snapshot {snapshot.id} is not completed")
        if "Encrypted" in root:
            text = "The encryption state of a snapshot's volume cannot be set"
            raise Refusal("InvalidBlockDeviceMapping", text)
        if root.get("VolumeSize", snapshot.size) < snapshot.size:
            raise Refusal("InvalidBlockDeviceMapping", "the volume is smaller than the snapshot")
        if root.get("VolumeType", "gp3") not in VOLUMES:
            raise Refusal("InvalidParameterValue", "the volume type is not known")
        return snapshot

    def describe_images(self, given: Answer) -> Answer:
        from tests.clouds.aws_server.ec2 import selected

        asked = given.get("ImageIds", [])
        for id_ in asked:
            self._image(id_)
        found = []
        for image in self.region.images.values():
            if asked and image.id not in asked:
                continue
            if image.state == "pending":
                image.polls -= 1
                if image.polls < 0:
                    image.state, image.reason = self.world.end_as.get("copy", ("available", ""))
            fields = {"name": image.name, "state": image.state, "image_id": image.id}
            fields["block_device_mapping.snapshot_id"] = image.snapshot
            if selected(image.tags, given.get("Filters", []), **fields):
                found.append(self._image_shown(image))
        return {"Images": found}

    def _image_shown(self, image: Image) -> Answer:
        given = image.given
        kept = ["Architecture", "BootMode", "Description", "EnaSupport", "ImdsSupport"]
        kept += ["RootDeviceName", "SriovNetSupport", "TpmSupport", "VirtualizationType"]
        devices = [
            {**it, "Ebs": {**it["Ebs"], "SnapshotId": image.snapshot}}
            for it in given["BlockDeviceMappings"]
        ]
        snapshot = self.region.snapshots.get(image.snapshot)
        for device in devices:
            device["Ebs"].setdefault("VolumeSize", snapshot.size if snapshot else 1)
            device["Ebs"]["Encrypted"] = bool(snapshot and snapshot.encrypted)
        return {
            "ImageId": image.id,
            "Name": image.name,
            "OwnerId": ACCOUNT,
            "State": image.state,
            "StateReason": {"Message": image.reason} if image.reason else None,
            "Public": {"Group": "all"} in image.permissions,
            "CreationDate": image.created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "DeprecationTime": image.deprecated and f"{image.deprecated:%Y-%m-%dT%H:%M:00.000Z}",
            "RootDeviceType": "ebs",
            "BlockDeviceMappings": devices,
            "Tags": [{"Key": key, "Value": value} for key, value in image.tags.items()],
            **{key: given[key] for key in kept if key in given},
        }

    def deregister_image(self, given: Answer) -> Answer:
        image = self._image(given["ImageId"])
        del self.region.images[image.id]
        return {"Return": True}

    def copy_image(self, given: Answer) -> Answer:
        token = given.get("ClientToken", "")
        if token in self.region.tokens:
            before, id_ = self.region.tokens[token]
            if before != given:
                raise Refusal("IdempotentParameterMismatch", "the token was used otherwise")
            return {"ImageId": id_}
        self._check_name(given["Name"])
        source = self.world.region(given["SourceRegion"])
        original = Images(self.world, source)._image(given["SourceImageId"])
        if original.state != "available":
            raise Refusal("InvalidRequest", f"{original.id} is not available")
        disk = source.snapshots[original.snapshot]
        copy = self.world.new_snapshot(
            self.region,
            disk.size,
            state="completed",
            description=f"Copied for DestinationAmi from {original.id}",
            encrypted=disk.encrypted or given.get("Encrypted", False),
            kms_key=given.get("KmsKeyId", ""),
            tags=tags_of(given, "snapshot"),
            digests=dict(disk.digests),
            is_sealed=True,
        )
        copy.path.unlink()
        os.link(disk.path, copy.path)  # what is completed does not change
        copied = dict(original.tags) if given.get("CopyImageTags") else {}
        image = Image(
            id=new_id("ami"),
            name=given["Name"],
            given=original.given,
            snapshot=copy.id,
            state="pending",
            polls=self.world.polls,
            tags={**copied, **tags_of(given, "image")},
        )
        self.region.images[image.id] = image
        if token:
            self.region.tokens[token] = (given, image.id)
        return {"ImageId": image.id}

    def modify_image_attribute(self, given: Answer) -> None:
        from tests.clouds.aws_server.ec2 import check_account

        image = self._image(given["ImageId"])
        change = given.get("LaunchPermission", {})
        for permission in change.get("Add", []):
            if "UserId" in permission:
                check_account(permission["UserId"])
            if permission.get("Group", "all") != "all":
                raise Refusal("InvalidAMIAttributeItemValue", "the group must be all")
            if "Group" in permission and self.region.block_public:
                text = "Block public access is on for AMIs in this account and region"
                raise Refusal("OperationNotPermitted", text)
            if permission not in image.permissions:
                image.permissions.append(permission)
        for permission in change.get("Remove", []):
            if permission in image.permissions:
                image.permissions.remove(permission)

    def describe_image_attribute(self, given: Answer) -> Answer:
        image = self._image(given["ImageId"])
        return {"ImageId": image.id, "LaunchPermissions": image.permissions}

    def enable_image_deprecation(self, given: Answer) -> Answer:
        image = self._image(given["ImageId"])
        at = datetime.fromisoformat(given["DeprecateAt"])
        years = 2 if {"Group": "all"} in image.permissions else 10
        if not now() < at <= now() + years * YEAR:
            raise Refusal("InvalidParameterValue", f"DeprecateAt must be within {years} years")
        image.deprecated = at
        return {"Return": True}

    def disable_image_deprecation(self, given: Answer) -> Answer:
        self._image(given["ImageId"]).deprecated = None
        return {"Return": True}


def check_firmware(given: Answer) -> None:
    """What an instance can start by: the user guide's "Boot modes" and "NitroTPM"."""
    mode, architecture = given.get("BootMode"), given.get("Architecture", "i386")
    if given.get("TpmSupport") and mode != "uefi":
        text = "TpmSupport v2.0 is only supported with boot mode uefi"
        raise Refusal("InvalidParameterCombination", text)
    if architecture == "arm64" and mode not in (None, "uefi"):
        raise Refusal("InvalidParameterCombination", "arm64 needs boot mode uefi")
    is_hvm = given.get("VirtualizationType") == "hvm"
    if not is_hvm and (given.get("EnaSupport") or given.get("SriovNetSupport")):
        raise Refusal("InvalidParameterCombination", "enhanced networking needs hvm")
    if given.get("SriovNetSupport", "simple") != "simple":
        raise Refusal("InvalidParameterValue", "SriovNetSupport must be simple")
