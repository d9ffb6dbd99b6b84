"""EC2: snapshots, their sharing, tags, regions, and which action is answered where.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Welcome.html
"""

from __future__ import annotations

import re
from typing import Any

from tests.clouds.aws_server.images import Images
from tests.clouds.aws_server.imports import Imports
from tests.clouds.aws_server.instances import Instances
from tests.clouds.aws_server.protocol import Refusal
from tests.clouds.aws_server.state import ACCOUNT, OFF_BY_DEFAULT, REGIONS, Image, Snapshot, Task

Answer = dict[str, Any]
DRY_RUN = "Request would have succeeded, but DryRun flag is set."


def selected(tags: dict[str, str], filters: list[dict[str, Any]], **fields: str) -> bool:
    """Whether a resource passes the filters: `tag:<key>`, `tag-key` and those of `fields`."""
    for given in filters:
        name, values = given["Name"], given.get("Values", [])
        if name.startswith("tag:"):
            found = tags.get(name[4:], "")
        elif name == "tag-key":
            found = next((key for key in tags if key in values), "")
        elif name.replace("-", "_") in fields:
            found = fields[name.replace("-", "_")]
        else:
            raise Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")
        if found not in values:
            return False
    return True


class Ec2(Images, Imports, Instances):
    """Answers requests to one region: a method for each action, in the words of the API."""

    def answer(self, action: str, given: Answer) -> Answer:
        """The output of an action; a dry run ends where the action would begin."""
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", action).lower()
        method = getattr(self, name, None)
        if method is None:
            raise Refusal("InvalidAction", f"The action {action} is not valid for this service.")
        if given.pop("DryRun", False):
            raise Refusal("DryRunOperation", DRY_RUN, 412)
        with self.world.lock:
            result: Answer = method(given) or {}
        return result

    def describe_regions(self, given: Answer) -> Answer:
        asked = given.get("RegionNames", list(REGIONS))
        for name in asked:
            if name not in REGIONS + OFF_BY_DEFAULT:
                raise Refusal("InvalidParameterValue", f"Invalid region provided: {name}")
        return {
            "Regions": [
                {
                    "RegionName": name,
                    "Endpoint": f"ec2.{name}.amazonaws.com",
                    "OptInStatus": "not-opted-in"
                    if name in OFF_BY_DEFAULT
                    else "opt-in-not-required",
                }
                for name in asked
            ]
        }

    def _resource(self, id_: str) -> Image | Snapshot | Task:
        region = self.region
        for store in (region.images, region.snapshots, region.tasks):
            if id_ in store:
                found: Image | Snapshot | Task = store[id_]
                return found
        kind = {"ami": "InvalidAMIID", "snap": "InvalidSnapshot"}.get(
            id_.split("-")[0], "InvalidID"
        )
        raise Refusal(f"{kind}.NotFound", f"The ID '{id_}' does not exist")

    def create_tags(self, given: Answer) -> None:
        for id_ in given["Resources"]:
            tags = self._resource(id_).tags
            for tag in given["Tags"]:
                if tag["Key"].startswith("aws:") or len(tag["Key"]) > 127:
                    raise Refusal("InvalidParameterValue", f"Tag key {tag['Key']} is reserved")
                tags[tag["Key"]] = tag.get("Value", "")
            if len(tags) > 50:
                raise Refusal("TagLimitExceeded", "a resource has at most 50 tags")

    def delete_tags(self, given: Answer) -> None:
        for id_ in given["Resources"]:
            tags = self._resource(id_).tags
            for tag in given.get("Tags", ()):
                if tag.get("Value") in (None, tags.get(tag["Key"])):
                    tags.pop(tag["Key"], None)

    def describe_snapshots(self, given: Answer) -> Answer:
        asked = given.get("SnapshotIds", [])
        for id_ in asked:
            if id_ not in self.region.snapshots:
                text = f"The snapshot '{id_}' does not exist."
                raise Refusal("InvalidSnapshot.NotFound", text)
        found = []
        for snapshot in self.region.snapshots.values():
            if asked and snapshot.id not in asked:
                continue
            if snapshot.is_sealed and snapshot.state == "pending":
                snapshot.polls -= 1
                snapshot.state = "completed" if snapshot.polls < 0 else "pending"
            if selected(snapshot.tags, given.get("Filters", []), status=snapshot.state):
                found.append(self._shown(snapshot))
        return {"Snapshots": found}

    @staticmethod
    def _shown(snapshot: Snapshot) -> Answer:
        return {
            "SnapshotId": snapshot.id,
            "State": snapshot.state,
            "StateMessage": snapshot.message or None,
            "StartTime": snapshot.started,
            "Progress": "100%" if snapshot.state == "completed" else "50%",
            "OwnerId": ACCOUNT,
            "Description": snapshot.description,
            "VolumeSize": snapshot.size,
            "Encrypted": snapshot.encrypted,
            "KmsKeyId": snapshot.kms_key or None,
            "Tags": [{"Key": key, "Value": value} for key, value in snapshot.tags.items()],
        }

    def delete_snapshot(self, given: Answer) -> None:
        id_ = given["SnapshotId"]
        snapshot = self._resource(id_)
        assert isinstance(snapshot, Snapshot)
        for image in self.region.images.values():
            if image.snapshot == id_:
                text = f"The snapshot {id_} is currently in use by {image.id}"
                raise Refusal("InvalidSnapshot.InUse", text)
        del self.region.snapshots[id_]
        snapshot.path.unlink(missing_ok=True)

    def modify_snapshot_attribute(self, given: Answer) -> None:
        snapshot = self._resource(given["SnapshotId"])
        assert isinstance(snapshot, Snapshot)
        changes = given.get("CreateVolumePermission", {})
        if given.get("OperationType") == "add":
            added = [{"UserId": it} for it in given.get("UserIds", [])]
            changes = {"Add": [*added, *({"Group": it} for it in given.get("GroupNames", []))]}
        for permission in changes.get("Add", []):
            if user := permission.get("UserId"):
                check_account(user)
                snapshot.users.add(user)
            if group := permission.get("Group"):
                if snapshot.encrypted:
                    raise Refusal("OperationNotPermitted", "Encrypted snapshots cannot be public")
                snapshot.groups.add(group)

    def describe_snapshot_attribute(self, given: Answer) -> Answer:
        snapshot = self._resource(given["SnapshotId"])
        assert isinstance(snapshot, Snapshot)
        users = [{"UserId": it} for it in sorted(snapshot.users)]
        groups = [{"Group": it} for it in sorted(snapshot.groups)]
        return {"SnapshotId": snapshot.id, "CreateVolumePermissions": users + groups}

    def get_image_block_public_access_state(self, _: Answer) -> Answer:
        blocked = self.region.block_public
        return {"ImageBlockPublicAccessState": "block-new-sharing" if blocked else "unblocked"}

    def get_ebs_encryption_by_default(self, _: Answer) -> Answer:
        return {"EbsEncryptionByDefault": self.region.encrypts}

    def get_snapshot_block_public_access_state(self, _: Answer) -> Answer:
        return {"State": "block-all-sharing" if self.region.block_public else "unblocked"}


def check_account(user: str) -> None:
    if not re.fullmatch(r"\d{12}", user):
        raise Refusal("InvalidAMIAttributeItemValue", f"Invalid attribute item value {user}")
