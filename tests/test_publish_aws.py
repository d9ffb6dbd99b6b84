"""Images in EC2: sent, verified, registered, copied, shared; and what happens when a call fails.

S3, IAM, STS and SSM are moto's; EC2 and EBS direct are tests/clouds/aws_server, which says what it
does not prove.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.exceptions import ClientError

from goldimg.channels import read_channels
from goldimg.config import load_settings
from goldimg.config.publish.aws import AwsPublish
from goldimg.errors import ConfigError
from goldimg.formats import ova
from goldimg.layout import data_root
from goldimg.publish.aws import bucket, clients
from goldimg.publish.aws.publisher import Aws
from goldimg.publish.job import Session
from goldimg.publish.records import published
from goldimg.publish.sweep import leftovers, remove_leftovers, unpublish
from goldimg.publish.upload import Outcome
from tests.clouds.aws import REGION, Cloud, running
from tests.promoting import left_to_do, means, promote
from tests.publishing import GOLDIMG, OS, Shop, Told, finish_image, make_shop, publish, session
from tests.support import needs

OTHER, THIRD = "us-east-1", "ap-south-1"
FRIEND = "210987654321"
BUCKET = "goldimg-tests"
NAME = "Debian-12-1.0.0_aws"
BLOCK = 524288
T = TypeVar("T")

FULL: dict[str, Any] = {
    "regions": (REGION, OTHER),
    "share": (FRIEND,),
    "deprecate_after": 30,
    "ssm_parameter": "/goldimg/{os}/latest",
}
S3: dict[str, Any] = {"via": "s3", "bucket": BUCKET}
OVA: dict[str, Any] = {"via": "import-image", "bucket": BUCKET}
WAYS = pytest.mark.parametrize("options", [FULL, S3, OVA], ids=["ebs", "s3", "import-image"])
STEPS = [
    *[(FULL, step) for step in (
        "ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot",
        "ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock", "ec2:RegisterImage", "ec2:CopyImage",
        "ec2:ModifyImageAttribute", "ec2:ModifySnapshotAttribute", "ec2:EnableImageDeprecation",
        "ssm:PutParameter", "ec2:DeleteTags")],
    *[(S3, step) for step in (
        "s3:CreateMultipartUpload", "s3:UploadPart", "s3:CompleteMultipartUpload",
        "ec2:ImportSnapshot", "ec2:DescribeImportSnapshotTasks", "ec2:CreateTags")],
    *[(OVA, step) for step in (
        "ec2:ImportImage", "ec2:DescribeImportImageTasks", "ec2:DeregisterImage")],
]  # fmt: skip
AT_EACH_STEP = pytest.mark.parametrize(
    ("options", "step"), STEPS, ids=[f"{o.get('via', 'ebs')}-{s.split(':')[1]}" for o, s in STEPS]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    needs("qemu-img")
    with running(tmp_path_factory.mktemp("aws")) as cloud:
        yield cloud


class SharedSession:
    """A session of the SDK whose clients are made once: each takes a fifth of a second."""

    region_name = REGION

    def __init__(self) -> None:
        self._session = boto3.Session(region_name=REGION)
        self._made: dict[tuple[str, str, float], Any] = {}

    def client(self, service: str, *, region_name: str, config: Any) -> Any:
        key = (service, region_name, config.read_timeout)
        if key not in self._made:
            made = self._session.client(service, region_name=region_name, config=config)
            self._made[key] = made
        return self._made[key]


@pytest.fixture(scope="module")
def shared_session(server: Cloud) -> SharedSession:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        made = SharedSession()
        for service in ("ec2", "ebs", "s3", "ssm", "sts", "iam", "service-quotas"):
            for region in (REGION, OTHER, THIRD):
                config = clients.Clients(None, 8).config
                made.client(service, region_name=region, config=config)
    return made


@pytest.fixture
def cloud(server: Cloud, shared_session: SharedSession, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An empty account with a bucket and the role of VM Import."""
    server.reset()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    where = {"LocationConstraint": REGION}
    server.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    server.client("iam").create_role(RoleName="vmimport", AssumeRolePolicyDocument="{}")
    monkeypatch.setattr(boto3, "Session", lambda **_: shared_session)
    server.calls(forget=True)
    return server


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("pattern") / "site", "aws")


@pytest.fixture
def shop(pattern: Shop, tmp_path: Path) -> Shop:
    """A site of the test's own with a finished image."""
    shutil.copytree(pattern.root, tmp_path / "site", symlinks=True)
    return Shop(root=tmp_path / "site", provider=pattern.provider, version=pattern.version)


@dataclass(frozen=True)
class Ended:
    """One upload: how it ended, and what was said."""

    outcome: Outcome
    told: Told
    publisher: Aws

    @property
    def status(self) -> str:
        return self.outcome.status

    @property
    def error(self) -> str:
        """Everything that the error tells people."""
        found = self.outcome.error
        parts = [str(found), *getattr(found, "details", ()), str(getattr(found, "hint", ""))]
        return "\n".join(parts)


def aws(shop: Shop, *, force: bool = False, dry_run: bool = False, **options: Any) -> Ended:
    local, told = session("aws")
    publisher = Aws(AwsPublish(**{"poll": 0.05, "workers": 4, **options}), local)
    outcome = publish(shop, publisher, force=force, dry_run=dry_run)
    return Ended(outcome, told, publisher)


def inventory(cloud: Cloud) -> set[str]:
    """Everything that an account pays for, in the words of a journal."""
    found: set[str] = set()
    for region in (REGION, OTHER, THIRD):
        found |= {f"image {it['ImageId']} in {region}" for it in cloud.images(region)}
        found |= {f"snapshot {it['SnapshotId']} in {region}" for it in cloud.snapshots(region)}
        parameters = cloud.client("ssm", region).describe_parameters()["Parameters"]
        found |= {f"parameter {it['Name']} in {region}" for it in parameters}
    s3 = cloud.client("s3")
    for it in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        found.add(f"object {BUCKET}/{it['Key']} in {REGION}")
    for it in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        found.add(f"upload {BUCKET}/{it['Key']}#{it['UploadId']} in {REGION}")
    return found


def known(cloud: Cloud, ended: Ended) -> set[str]:
    """What the user was told of: what is kept and left, with the snapshots of such images."""
    told = {str(it).split("=")[0] for it in (*ended.outcome.kept, *ended.outcome.left)}
    told = {it + (f" in {it.rpartition(' ')[2]}" * (" in " not in it)) for it in told}
    resources = (*ended.outcome.kept, *ended.outcome.left)
    regions = {it.id: it.where for it in resources if it.kind == "image"}
    for id_, region in regions.items():
        for image in cloud.images(region):
            if image["ImageId"] == id_:
                told.add(f"snapshot {root(image)['SnapshotId']} in {region}")
    for it in resources:
        if it.kind == "parameter":
            told.add(f"parameter {it.id.partition('=')[0]} in {it.where}")
        if it.kind == "snapshot request":  # found by the token that it is tagged with
            told |= {
                f"snapshot {found['SnapshotId']} in {REGION}"
                for found in cloud.snapshots()
                if {"Key": "goldimg-token", "Value": it.id} in found["Tags"]
            }
        if it.kind == "import task":
            told |= made_by_tasks(cloud)
    return told


def made_by_tasks(cloud: Cloud) -> set[str]:
    """What import tasks have made, which the removal of a task removes."""
    ec2, found = cloud.client("ec2"), set()
    for task in ec2.describe_import_snapshot_tasks()["ImportSnapshotTasks"]:
        found.add(f"snapshot {task['SnapshotTaskDetail'].get('SnapshotId')} in {REGION}")
    for task in ec2.describe_import_image_tasks()["ImportImageTasks"]:
        found.add(f"image {task.get('ImageId')} in {REGION}")
        found |= {f"snapshot {it['SnapshotId']} in {REGION}" for it in task["SnapshotDetails"]}
    return found


def root(image: dict[str, Any]) -> dict[str, Any]:
    (device,) = image["BlockDeviceMappings"]
    found: dict[str, Any] = device["Ebs"]
    return found


def tags(resource: dict[str, Any]) -> dict[str, str]:
    return {it["Key"]: it["Value"] for it in resource.get("Tags", ())}


def raw_of(shop: Shop) -> bytes:
    """The disk in the artifact, unpacked by another program."""
    region = ova.disk_region(shop.image().file("ova").path)
    vmdk, raw = shop.root / "disk.vmdk", shop.root / "disk.raw"
    with region.path.open("rb") as stream:
        stream.seek(region.offset)
        vmdk.write_bytes(stream.read(region.size))
    subprocess.run(["qemu-img", "convert", "-O", "raw", vmdk, raw], check=True)
    return raw.read_bytes()


def blocks_in(data: bytes) -> int:
    """Blocks that hold a byte other than zero."""
    zero = bytes(BLOCK)
    return sum(
        data[at : at + BLOCK].ljust(BLOCK, b"\0") != zero for at in range(0, len(data), BLOCK)
    )


def assert_whole(cloud: Cloud, shop: Shop, **options: Any) -> None:
    """One image in each region with the artifact's disk, and nothing else anywhere."""
    regions = options.get("regions", (REGION,))
    disk = raw_of(shop)
    expected: set[str] = set()
    for region in regions:
        (image,) = cloud.images(region)
        (snapshot,) = cloud.snapshots(region)
        assert image["Name"] == NAME
        assert image["State"] == "available"
        assert root(image)["SnapshotId"] == snapshot["SnapshotId"]
        for resource in (image, snapshot):
            assert "goldimg-state" not in tags(resource)
            assert tags(resource)["goldimg-sha256"] == shop.image().file("ova").sha256
        with cloud.disk(snapshot["SnapshotId"]).open("rb") as stream:
            assert stream.read(len(disk)) == disk
            assert not any(stream.read(1 << 20))
        expected |= {f"image {image['ImageId']} in {region}"}
        expected |= {f"snapshot {snapshot['SnapshotId']} in {region}"}
        if "ssm_parameter" in options:
            value = cloud.client("ssm", region).get_parameter(Name=f"/goldimg/{OS}/latest")
            assert value["Parameter"]["Value"] == image["ImageId"]
            expected |= {f"parameter /goldimg/{OS}/latest in {region}"}
    assert inventory(cloud) == expected
    assert not shop.journals
    (record,) = shop.publications
    assert set(record["ids"]) == set(regions)


@WAYS
def test_an_image_is_published_once(cloud: Cloud, shop: Shop, options: dict[str, Any]) -> None:
    ended = aws(shop, **options)
    assert ended.status == "published", ended.error
    assert_whole(cloud, shop, **options)
    (image,) = cloud.images()
    assert image["Architecture"] == "x86_64"
    assert image["VirtualizationType"] == "hvm"
    assert image["BootMode"] == "legacy-bios"
    assert image["EnaSupport"] is True
    assert image["SriovNetSupport"] == "simple"
    assert image["ImdsSupport"] == "v2.0"
    assert root(image)["VolumeType"] == "gp3"
    assert tags(image)["goldimg-os"] == OS
    (record,) = shop.publications
    assert record["ids"][REGION] == image["ImageId"]
    assert record["verified"]

    cloud.calls(forget=True)
    assert aws(shop, **options).status == "already there"
    changing = ("Start", "Put", "Create", "Register", "Copy", "Modify", "Import", "Upload",
                "Delete", "Enable")  # fmt: skip
    made = [it for it, _, _ in cloud.calls() if it.split(":")[1].startswith(changing)]
    assert [it for it in made if "dry run" not in it] == []


def test_only_blocks_that_are_not_zero_are_sent(cloud: Cloud, shop: Shop) -> None:
    aws(shop)
    wanted = blocks_in(raw_of(shop))
    sent = [size for name, _, size in cloud.calls() if name == "ebs:PutSnapshotBlock"]
    assert sent == [BLOCK] * wanted
    assert 0 < wanted < 32
    (record,) = shop.publications
    assert f"{wanted} of them read back" in record["verified"]


def test_every_block_is_read_back_where_that_is_wanted(cloud: Cloud, shop: Shop) -> None:
    finish_image(shop, mib=64, seed=3)
    wanted = blocks_in(raw_of(shop))
    aws(shop, verify="all")
    assert cloud.count("ebs:GetSnapshotBlock") == wanted > 32


def test_copies_are_shared_dated_and_named(cloud: Cloud, shop: Shop) -> None:
    ended = aws(shop, **FULL)
    assert ended.status == "published", ended.error
    for region in (REGION, OTHER):
        ec2 = cloud.client("ec2", region)
        (image,) = cloud.images(region)
        given = {"ImageId": image["ImageId"], "Attribute": "launchPermission"}
        users = ec2.describe_image_attribute(**given)["LaunchPermissions"]
        assert users == [{"UserId": FRIEND}]
        given = {"SnapshotId": root(image)["SnapshotId"], "Attribute": "createVolumePermission"}
        users = ec2.describe_snapshot_attribute(**given)["CreateVolumePermissions"]
        assert users == [{"UserId": FRIEND}]
        assert image["DeprecationTime"]


def test_a_region_and_a_share_are_added_without_sending_again(cloud: Cloud, shop: Shop) -> None:
    aws(shop)
    (before,) = cloud.images()
    cloud.calls(forget=True)
    ended = aws(shop, regions=(REGION, OTHER, THIRD), share=(FRIEND,))
    assert ended.status == "published", ended.error
    assert [it["ImageId"] for it in cloud.images()] == [before["ImageId"]]
    assert len(cloud.images(OTHER)) == len(cloud.images(THIRD)) == 1
    assert cloud.count("ebs:PutSnapshotBlock") == cloud.count("ec2:RegisterImage") == 0
    assert cloud.count("ec2:CopyImage") == 2
    assert cloud.count("ec2:ModifyImageAttribute") == 3
    assert len(shop.publications) == 1


def test_an_image_can_be_for_everybody_and_for_an_organization(cloud: Cloud, shop: Shop) -> None:
    unit = "arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-abcd-12345678"
    ended = aws(shop, public=True, share=(unit, FRIEND))
    assert ended.status == "published", ended.error
    (image,) = cloud.images()
    assert image["Public"] is True
    given = {"ImageId": image["ImageId"], "Attribute": "launchPermission"}
    found = cloud.client("ec2").describe_image_attribute(**given)["LaunchPermissions"]
    assert {"OrganizationalUnitArn": unit} in found
    given = {"SnapshotId": root(image)["SnapshotId"], "Attribute": "createVolumePermission"}
    found = cloud.client("ec2").describe_snapshot_attribute(**given)["CreateVolumePermissions"]
    assert found == [{"UserId": FRIEND}, {"Group": "all"}]


def test_an_encrypted_image(cloud: Cloud, shop: Shop) -> None:
    options: dict[str, Any] = {
        "encrypted": True,
        "kms_key": "alias/images",
        "regions": (REGION, OTHER),
    }
    assert "the key alias/images in eu-west-1" in aws(shop, **options).error
    keys = {}
    for region in (REGION, OTHER):
        kms = cloud.client("kms", region)
        made = kms.create_key()["KeyMetadata"]
        kms.create_alias(AliasName="alias/images", TargetKeyId=made["KeyId"])
        keys[region] = made["Arn"]
    ended = aws(shop, share=(FRIEND,), **options)
    assert ended.status == "published", ended.error
    for region, key in keys.items():
        (snapshot,) = cloud.snapshots(region)
        assert snapshot["Encrypted"] is True
        assert snapshot["KmsKeyId"] == key


def test_efi_images_start_by_uefi_and_may_have_a_tpm(cloud: Cloud, shop: Shop) -> None:
    manifest = shop.manifest
    (shop.directory / "manifest.json").write_text(json.dumps({**manifest, "firmware": "efi"}))
    ended = aws(shop, tpm=True)
    assert ended.status == "published", ended.error
    (image,) = cloud.images()
    assert (image["BootMode"], image["TpmSupport"]) == ("uefi", "v2.0")


class Stop:
    """Asks to stop as soon as a call of this name has returned, as Ctrl-C would."""

    def __init__(self, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.was_reached = False
        original = Session.call

        def call(self_: Session, function: Callable[[], T], *, what: str) -> T:
            result = original(self_, function, what=what)
            if what == step or (step == "block" and what.startswith("block ")):
                self.was_reached = True
                self_.runner.cancel.set()
            return result

        monkeypatch.setattr(Session, "call", call)


def called(step: str) -> str:
    """A step's name as a call of the SDK."""
    name = step.partition(":")[2]
    if name in ("PutSnapshotBlock", "UploadPart", "GetSnapshotBlock"):
        return "block"
    return "".join(f"_{it.lower()}" if it.isupper() else it for it in name).lstrip("_")


@AT_EACH_STEP
def test_interrupted_at_any_step_it_goes_on(
    cloud: Cloud, shop: Shop, options: dict[str, Any], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if step.startswith("ec2:DescribeImport"):
        step = "ec2:Import" + ("Snapshot" if "Snapshot" in step else "Image")
    with monkeypatch.context() as patch:
        stop = Stop(called(step), patch)
        first = aws(shop, **options)
    assert stop.was_reached
    if first.status != "published":  # after the last call nothing is left to stop
        assert first.status == "interrupted", first.error
        assert inventory(cloud) <= known(cloud, first)
    second = aws(shop, **options)
    assert second.status in ("published", "already there"), second.error
    assert_whole(cloud, shop, **options)
    if options is FULL and step != "ebs:GetSnapshotBlock":
        assert cloud.count("ebs:PutSnapshotBlock") == blocks_in(raw_of(shop))  # none twice


def test_parts_of_another_size_are_none_of_this_upload(
    cloud: Cloud, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another release of goldimg may have sent them; the upload they belong to is gone on with."""
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "PART", 7 << 20)
        Stop("block", patch)
        assert aws(shop, workers=1, **S3).status == "interrupted"
    ended = aws(shop, **S3)
    assert ended.status == "published", ended.error
    assert cloud.count("s3:CreateMultipartUpload") == 1
    assert cloud.count("s3:UploadPart") == 3
    assert_whole(cloud, shop, **S3)


@AT_EACH_STEP
def test_failed_at_any_step_it_tells_what_is_left_and_goes_on(
    cloud: Cloud, shop: Shop, options: dict[str, Any], step: str
) -> None:
    code = "AccessDenied" if step.startswith("s3") else "UnauthorizedOperation"
    cloud.fail(step, code=code, message="not for you", status=403, times=99)
    first = aws(shop, **options)
    assert first.status == "failed"
    assert "not for you" in first.error
    assert "upload-aws.md" in first.error
    cloud.fail("")
    assert inventory(cloud) <= known(cloud, first)
    second = aws(shop, **options)
    assert second.status == "published", second.error
    assert_whole(cloud, shop, **options)


@AT_EACH_STEP
def test_an_answer_that_is_lost_does_not_make_a_thing_twice(
    cloud: Cloud, shop: Shop, options: dict[str, Any], step: str
) -> None:
    cloud.fail(step, "lose")
    ended = aws(shop, **options)
    assert ended.status == "published", ended.error
    assert "attempt 2" in ended.told.text
    assert_whole(cloud, shop, **options)


@WAYS
def test_errors_that_pass_are_retried_at_every_step(
    cloud: Cloud, shop: Shop, options: dict[str, Any]
) -> None:
    steps = [step for given, step in STEPS if given is options]
    cloud.set(
        faults=[
            {"on": step, **fault}
            for step in steps
            for fault in (
                {"kind": "error", "code": "InternalError", "status": 500},
                {"kind": "error", "code": "RequestLimitExceeded", "status": 503},
                {"kind": "cut"},
            )
        ]
    )
    ended = aws(shop, **options)
    assert ended.status == "published", ended.error
    assert ended.told.text.count("RequestLimitExceeded") >= len(steps)
    assert_whole(cloud, shop, **options)


def test_a_service_that_stays_away_ends_the_run(cloud: Cloud, shop: Shop) -> None:
    cloud.fail("ebs:PutSnapshotBlock", code="RequestThrottledException", after=5, times=999)
    first = aws(shop)
    assert first.status == "failed"
    assert "RequestThrottledException" in first.error
    assert [it.kind for it in first.outcome.kept] == ["snapshot"]
    cloud.fail("")
    assert aws(shop).status == "published"
    assert_whole(cloud, shop)


def test_a_slow_answer_is_asked_for_again(
    cloud: Cloud, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "READ", 2.0)
    cloud.fail("ebs:PutSnapshotBlock", "slow", seconds=6)
    ended = aws(shop)
    assert ended.status == "published", ended.error
    assert "Read timeout" in ended.told.text
    assert_whole(cloud, shop)


@pytest.mark.parametrize(
    ("options", "step"), [({}, "ebs:PutSnapshotBlock"), (S3, "s3:UploadPart")], ids=["ebs", "s3"]
)
def test_what_is_damaged_on_the_way_is_sent_again(
    cloud: Cloud, shop: Shop, options: dict[str, Any], step: str
) -> None:
    cloud.fail(step, "corrupt", times=2)
    ended = aws(shop, **options)
    assert ended.status == "published", ended.error
    assert_whole(cloud, shop, **options)


def test_a_new_snapshot_that_is_not_known_everywhere_yet(cloud: Cloud, shop: Shop) -> None:
    cloud.fail("ebs:PutSnapshotBlock", code="ResourceNotFoundException", status=404, times=9)
    ended = aws(shop)
    assert ended.status == "published", ended.error
    assert_whole(cloud, shop)


def test_a_snapshot_that_holds_something_else_is_found_out(cloud: Cloud, shop: Shop) -> None:
    cloud.fail("ebs:PutSnapshotBlock", "spoil", after=4)
    ended = aws(shop)
    assert ended.status == "failed"
    assert "is not what was sent" in ended.error
    assert inventory(cloud) == set()
    assert not shop.journals


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({}, {"snapshot": ["error", "the key is disabled"]}),
        (S3, {"import-snap": ["deleted", "ClientError: Disk validation failed"]}),
        (S3, {"import-snap": ["cancelled", "stopped by somebody"]}),
        (S3, {"import-snap": ["deleting", "ServerError: an internal error"]}),
        (OVA, {"import-ami": ["deleted", "ClientError: No valid partitions"]}),
        ({"regions": (REGION, OTHER)}, {"copy": ["failed", "no room in this region"]}),
        ({"regions": (REGION, OTHER)}, {"copy": ["invalid", "lost its snapshot"]}),
    ],
)
def test_what_ends_badly_is_told_and_undone(
    cloud: Cloud, shop: Shop, options: dict[str, Any], ends: dict[str, list[str]]
) -> None:
    cloud.set(end_as=ends)
    ended = aws(shop, **options)
    ((_, message),) = ends.values()
    assert ended.status == "failed"
    assert message in ended.error
    assert inventory(cloud) == set()
    assert not shop.journals
    cloud.set(end_as={})
    assert aws(shop, **options).status == "published"
    assert_whole(cloud, shop, **options)


def test_the_name_is_another_images(cloud: Cloud, shop: Shop) -> None:
    aws(shop, **FULL)
    before = inventory(cloud)
    finish_image(shop, seed=2)
    ended = aws(shop, **FULL)
    assert ended.status == "failed"
    assert "--force" in ended.error
    assert inventory(cloud) == before
    forced = aws(shop, force=True, **FULL)
    assert forced.status == "published", forced.error
    assert not before & {it for it in inventory(cloud) if not it.startswith("parameter")}
    assert_whole(cloud, shop, **FULL)


def test_an_image_that_goldimg_did_not_make_keeps_its_snapshot(cloud: Cloud, shop: Shop) -> None:
    foreign = cloud.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    cloud.client("ebs").complete_snapshot(SnapshotId=foreign, ChangedBlocksCount=0)
    cloud.snapshots()
    cloud.snapshots()
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": foreign}}
    cloud.client("ec2").register_image(
        Name=NAME, RootDeviceName="/dev/sda1", BlockDeviceMappings=[disk]
    )
    assert "goldimg did not make it" in aws(shop).error
    assert aws(shop, force=True).status == "published"
    assert f"snapshot {foreign} in {REGION}" in inventory(cloud)
    assert len(cloud.images()) == 1


def test_a_rebuilt_image_first_removes_what_the_old_ones_upload_left(
    cloud: Cloud, shop: Shop
) -> None:
    cloud.fail("ec2:DeleteTags", code="UnauthorizedOperation", status=403, times=99)
    assert aws(shop, **FULL).status == "failed"
    cloud.fail("")
    finish_image(shop, seed=2)
    ended = aws(shop, **FULL)
    assert ended.status == "published", ended.error
    assert "unfinished upload of another image" in ended.told.text
    assert_whole(cloud, shop, **FULL)


def test_an_object_that_cannot_be_removed_is_left_to_gc(cloud: Cloud, shop: Shop) -> None:
    cloud.set(denied=["s3:DeleteObject"])
    ended = aws(shop, **S3)
    assert ended.status == "published"
    assert "could not be removed" in ended.told.text
    cloud.set(denied=[])
    found = leftovers(shop.site, ended.publisher, [shop.directory], older=3600)
    assert [it.resource.kind for it in found] == ["object"]
    assert not [it.error for it in remove_leftovers(ended.publisher, found) if it.error]
    assert_whole(cloud, shop)


@pytest.mark.parametrize(
    ("options", "step"),
    [
        (FULL, "ebs:PutSnapshotBlock"),
        (FULL, "ec2:DeleteTags"),
        (S3, "s3:UploadPart"),
        (S3, "ec2:ImportSnapshot"),
    ],
)
def test_gc_finds_what_no_journal_knows(
    cloud: Cloud, shop: Shop, options: dict[str, Any], step: str
) -> None:
    cloud.fail(step, code="AccessDenied", status=403, times=99)
    ended = aws(shop, **options)
    assert ended.status == "failed"
    for journal in shop.journals:
        journal.unlink()
    parameters = {it for it in inventory(cloud) if it.startswith("parameter")}
    young = leftovers(shop.site, ended.publisher, [shop.directory], older=3600)
    assert {it.resource.kind for it in young} <= {"upload"}  # moto gives uploads a date of 2010
    found = leftovers(shop.site, ended.publisher, [shop.directory], older=-1)
    assert found
    ended_ = remove_leftovers(ended.publisher, found)
    assert not [it.error for it in ended_ if it.error]
    assert inventory(cloud) == parameters


def test_gc_leaves_what_is_finished(cloud: Cloud, shop: Shop) -> None:
    ended = aws(shop, **FULL)
    assert leftovers(shop.site, ended.publisher, [shop.directory], older=-1) == []


def test_a_completed_snapshot_of_a_lost_journal_is_used(cloud: Cloud, shop: Shop) -> None:
    cloud.fail("ec2:RegisterImage", code="UnauthorizedOperation", status=403)
    assert aws(shop).status == "failed"
    for journal in shop.journals:
        journal.unlink()
    ended = aws(shop)
    assert ended.status == "published", ended.error
    assert "of an unfinished run is used" in ended.told.text
    assert cloud.count("ebs:StartSnapshot") == 1
    assert_whole(cloud, shop)


def test_unpublishing_removes_it_everywhere(cloud: Cloud, shop: Shop) -> None:
    ended = aws(shop, **FULL)
    newer = "ami-0fedcba9876543210"
    given = {"Name": f"/goldimg/{OS}/latest", "Value": newer, "Type": "String", "Overwrite": True}
    cloud.client("ssm", OTHER).put_parameter(**given)
    (record,) = published(shop.site, OS, "aws")
    assert not [it.error for it in unpublish(shop.site, ended.publisher, record) if it.error]
    # the other region's parameter names another image by now
    assert inventory(cloud) == {f"parameter /goldimg/{OS}/latest in {OTHER}"}
    assert not shop.publications


def test_a_dry_run_tells_and_changes_nothing(cloud: Cloud, shop: Shop) -> None:
    ended = aws(shop, dry_run=True, **FULL)
    assert ended.status == "checked", ended.error
    preview = ended.outcome.preview
    assert preview is not None
    assert preview.account.startswith("123456789012")
    assert preview.names == {"image": NAME, "parameter": f"/goldimg/{OS}/latest"}
    sizes = {call.operation: call.size for call in preview.calls}
    assert sizes["PutSnapshotBlock"] == blocks_in(raw_of(shop)) * BLOCK
    assert "CopyImage" in sizes
    assert inventory(cloud) == set()
    assert not shop.journals


def test_everything_that_is_in_the_way_is_told_at_once(cloud: Cloud, shop: Shop) -> None:
    cloud.set(
        denied=["ec2:RegisterImage", "ec2:CopyImage"],
        regions={REGION: {"block_public": True}, OTHER: {"quotas": {"L-0E3CBAB9": 0}}},
    )
    options: dict[str, Any] = {
        "via": "s3",
        "bucket": "nobody-has-this",
        "role": "nobody",
        "public": True,
    }
    ended = aws(shop, regions=(REGION, OTHER), **options)
    assert ended.status == "failed"
    for told in (
        "RegisterImage is not allowed in eu-west-1",
        "CopyImage is not allowed in us-east-1",
        "the account blocks it in eu-west-1",
        "quota: us-east-1 has 0 of 0 Public AMIs",
        "no bucket nobody-has-this",
        "no role nobody",
    ):
        assert told in ended.error
    assert inventory(cloud) == set()
    cloud.set(denied=[])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tpm": True}, "tpm needs boot mode uefi, this image has legacy-bios"),
        ({"boot_mode": "uefi"}, "the image was built for BIOS"),
        ({**OVA, "boot_mode": "uefi-preferred"}, "no Linux that starts by UEFI"),
        ({"regions": ("eu-west-9",)}, "Invalid region provided: eu-west-9"),
        ({"regions": (REGION, "me-south-1")}, "region me-south-1 is not switched on"),
    ],
)
def test_what_cannot_work_is_refused_before_a_byte(
    cloud: Cloud, shop: Shop, options: dict[str, Any], told: str
) -> None:
    ended = aws(shop, **options)
    assert ended.status == "failed"
    assert told in ended.error
    assert inventory(cloud) == set()


def test_quotas_that_the_service_tells_of(cloud: Cloud, shop: Shop) -> None:
    cloud.set(regions={REGION: {"quotas": {"L-B665C33B": 0}}})
    assert "quota: eu-west-1 has 0 of 0 AMIs" in aws(shop).error
    cloud.set(regions={REGION: {"quotas": {}}})
    cloud.fail("ebs:StartSnapshot", code="ServiceQuotaExceededException", status=402, times=99)
    ended = aws(shop)
    assert ended.status == "failed"
    assert "ask for a higher quota" in ended.error
    assert cloud.count("ebs:StartSnapshot") == 1  # no retry helps


def test_a_damaged_artifact_is_not_sent(cloud: Cloud, shop: Shop) -> None:
    path = shop.image().file("ova").path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for ended in (aws(shop, dry_run=True), aws(shop)):
        assert ended.status == "failed"
        assert f"{path}: offset " in ended.error
        assert "SHA256 is not the manifest's" in ended.error
        assert "build it again with --force" in ended.error
    assert cloud.calls() == []


def test_another_sound_artifact_than_the_manifests_is_not_sent(
    cloud: Cloud, shop: Shop, tmp_path: Path
) -> None:
    """Every rule of the format is kept; only the SHA-256 tells."""
    shop.exchange(make_shop(tmp_path / "other", "aws", seed=5), "ova")
    ended = aws(shop)
    assert ended.status == "failed"
    assert "its SHA-256 is another than manifest.json says" in ended.error
    assert cloud.calls() == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "check the credentials"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no credentials"),
    ],
)
def test_wrong_credentials(
    server: Cloud,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str | None],
    told: str,
) -> None:
    server.reset()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for key, value in {**server.environment, **change}.items():
        if value is not None:
            monkeypatch.setenv(key, value)
    ended = aws(shop)
    assert ended.status == "failed"
    assert told in ended.error
    assert "not-a-secret" not in ended.error


def test_a_site_says_where_and_the_command_line_publishes(cloud: Cloud, tmp_path: Path) -> None:
    shop = make_shop(
        tmp_path / "site",
        "aws",
        site_yml=f"publish:\n  aws:\n    regions: [{REGION}]\n    poll: 0.1\n"
        "    tags: {team: images}\n",
    )
    env = cloud.environment
    shown = shop.goldimg("upload", "aws", "-O", OS, "--dry-run", env=env)
    assert shown.returncode == 0, shown.stderr
    assert "PutSnapshotBlock: " in shown.stdout
    done = shop.goldimg("upload", "aws", "-O", OS, "--share", FRIEND, env=env)
    assert done.returncode == 0, done.stderr
    (image,) = cloud.images()
    assert image["ImageId"] in done.stdout
    assert tags(image)["team"] == "images"
    assert_whole(cloud, shop)
    again = shop.goldimg("upload", "aws", "-O", OS, "--share", FRIEND, env=env)
    assert "already there" in again.stdout
    listed = shop.goldimg("published", "-O", OS)
    assert image["ImageId"] in listed.stdout
    gone = shop.goldimg("unpublish", "aws", "-O", OS, "--version", "1.0.0", "--yes", env=env)
    assert gone.returncode == 0, gone.stderr
    assert inventory(cloud) == set()
    refused = shop.goldimg("upload", "aws", "-O", OS, env={**env, "AWS_ACCESS_KEY_ID": "AKIANO"})
    assert refused.returncode == 4
    assert "aws sts get-caller-identity" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on_where_it_was(
    cloud: Cloud, shop: Shop, number: signal.Signals
) -> None:
    words = ["upload", "aws", "-O", OS, "--var", "publish.aws.workers=2", "--var"]
    words += [f"publish.aws.regions={REGION}", "--var", "publish.aws.poll=0.1"]
    cloud.fail("ebs:PutSnapshotBlock", "slow", seconds=0.4, times=999)
    env = {**os.environ, **cloud.environment}
    with (shop.root / "log").open("wb") as log:
        process = subprocess.Popen([GOLDIMG, *words], cwd=shop.root, env=env, stderr=log)
        end = time.monotonic() + 60
        while cloud.count("ebs:PutSnapshotBlock") < 5 and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == (130 if number is signal.SIGINT else -number)
    before = cloud.count("ebs:PutSnapshotBlock")
    cloud.fail("")
    done = shop.goldimg(*words, env=cloud.environment)
    assert done.returncode == 0, done.stderr
    with contextlib.suppress(FileNotFoundError):
        (shop.root / "log").unlink()
    wanted = blocks_in(raw_of(shop))
    assert 5 <= before < wanted
    in_flight = 2 if number is signal.SIGKILL else 0
    assert cloud.count("ebs:PutSnapshotBlock") <= wanted + in_flight
    assert_whole(cloud, shop)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{via: s3}", "publish.aws.bucket: is needed"),
        ("{regions: [Ireland]}", 'must be a region such as "eu-west-1"'),
        ("{share: [12345]}", "12 digits"),
        ("{public: true, encrypted: true}", "shares no encrypted snapshot"),
        ("{encrypted: true, share: ['210987654321']}", "kms_key: is needed"),
        ("{tpm: true, boot_mode: uefi-preferred}", "needs boot_mode uefi"),
        ("{ssm_parameter: '/x/{distro}'}", "placeholder other than {os}, {version}"),
        ("{secret_key: x}", "unknown key"),
    ],
)
def test_settings_are_checked(tmp_path: Path, text: str, told: str) -> None:
    shop = make_shop(tmp_path / "site", "aws", site_yml=f"publish: {{aws: {text}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(shop.site, OS, environ={})
    assert told in str(caught.value)
    assert "site.yml:1" in str(caught.value)


DOCUMENT = (data_root() / "docs/upload-aws.md").read_text()
ALSO = {  # the permission of a call that is named otherwise
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
}


def test_the_policy_in_the_documents_is_enough(cloud: Cloud, shop: Shop) -> None:
    for options in ({**FULL, "public": True}, S3, OVA):
        cloud.calls(forget=True)
        ended = aws(shop, **options)
        assert ended.status == "published", ended.error
        (record,) = published(shop.site, OS, "aws")
        leftovers(shop.site, ended.publisher, [shop.directory], older=-1)
        called = {name.removesuffix(" (dry run)") for name, _, _ in cloud.calls()}
        unpublish(shop.site, ended.publisher, record)
        called |= {name.removesuffix(" (dry run)") for name, _, _ in cloud.calls()}
        policy = json.loads(DOCUMENT.split("```json\n")[1].split("```")[0])
        allowed = {action for it in policy["Statement"] for action in it["Action"]}
        wanted = {ALSO.get(name, name) for name in called} - {"sts:GetCallerIdentity"}
        assert wanted - allowed == set()


def test_every_setting_is_documented_with_its_default() -> None:
    for key, field in AwsPublish.model_fields.items():
        row = re.search(rf"^\| `{key}` \| ([^|]+) \|", DOCUMENT, re.MULTILINE)
        assert row, key
        if isinstance(field.default, str) and field.default:
            assert row[1] == field.default


# --- channels -----------------------------------------------------------------------------------

CHANNELS: dict[str, Any] = {
    "regions": (REGION, OTHER),
    "channel_parameter": "/goldimg/{os}/{channel}",
    "deprecate_after": 30,
}


@dataclass(frozen=True)
class Pair:
    """Two versions of an image, published to two regions."""

    old: Shop
    new: Shop
    cloud: Cloud

    def publisher(self) -> Aws:
        return Aws(AwsPublish(**{"poll": 0.05, **CHANNELS}), session("aws")[0])

    def parameters(self, channel: str = "stable") -> dict[str, str]:
        """What the channel's parameter names, by region."""
        found = {}
        for region in (REGION, OTHER):
            ssm = self.cloud.client("ssm", region)
            name = f"/goldimg/{OS}/{channel}"
            found[region] = str(ssm.get_parameter(Name=name)["Parameter"]["Value"])
        return found

    def image(self, shop: Shop, region: str = REGION) -> dict[str, Any]:
        (found,) = (it for it in self.cloud.images(region)
                    if it["ImageId"] == shop.publications[0]["ids"][region])  # fmt: skip
        return found

    def days(self, shop: Shop, region: str = REGION) -> int:
        """Days until the image is deprecated."""
        at = datetime.fromisoformat(self.image(shop, region)["DeprecationTime"])
        return (at - datetime.now(UTC)).days


@pytest.fixture
def pair(cloud: Cloud, shop: Shop) -> Pair:
    newer = make_shop(shop.root, "aws", version="1.1.0", seed=2)
    for each in (shop, newer):
        assert aws(each, **CHANNELS).status == "published"
    return Pair(old=shop, new=newer, cloud=cloud)


def test_a_channel_is_a_parameter_and_who_leaves_it_is_deprecated(pair: Pair) -> None:
    promote(pair.old, pair.publisher())
    assert pair.parameters() == pair.old.publications[0]["ids"]
    assert pair.days(pair.old) == 29
    promote(pair.new, pair.publisher())
    assert pair.parameters() == pair.new.publications[0]["ids"]
    assert [pair.days(pair.old, it) for it in (REGION, OTHER)] == [0, 0]
    assert pair.days(pair.new) == 29
    roles = [tags(pair.image(it))["goldimg-channel-stable"] for it in (pair.old, pair.new)]
    assert roles == ["former", "current"]
    pair.cloud.calls(forget=True)
    assert left_to_do(pair.new, pair.publisher()).is_done
    assert promote(pair.new, pair.publisher()) == []
    names = {name for name, _, _ in pair.cloud.calls()}
    assert names == {"ec2:DescribeImages", "ssm:GetParameter"}
    promote(pair.old, pair.publisher())  # back again
    assert pair.parameters() == pair.old.publications[0]["ids"]
    assert (pair.days(pair.old), pair.days(pair.new)) == (29, 0)
    # its parameters go with it, those of others stay
    ended = unpublish(pair.new.site, pair.publisher(), published(pair.new.site, OS, "aws")[1])
    assert not [it.error for it in ended if it.error]
    assert pair.parameters() == pair.old.publications[0]["ids"]
    unpublish(pair.old.site, pair.publisher(), published(pair.old.site, OS, "aws")[0])
    assert inventory(pair.cloud) == set()


def test_an_image_that_another_channel_has_is_not_deprecated(pair: Pair) -> None:
    promote(pair.old, pair.publisher(), "stable")
    promote(pair.old, pair.publisher(), "beta")
    promote(pair.new, pair.publisher(), "beta")
    assert pair.days(pair.old) == 29
    assert pair.parameters("beta") == pair.new.publications[0]["ids"]
    promote(pair.new, pair.publisher(), "stable")
    assert pair.days(pair.old) == 0


@pytest.mark.parametrize("step", ["ssm:PutParameter", "ec2:EnableImageDeprecation"])
def test_a_promotion_that_failed_half_way_is_gone_on_with_or_back(pair: Pair, step: str) -> None:
    promote(pair.old, pair.publisher())
    pair.cloud.fail(step, code="AccessDeniedException", after=1)
    with pytest.raises(ClientError):
        promote(pair.new, pair.publisher())
    pointer = read_channels(pair.new.site, OS).pointer("stable", "aws")
    assert pointer is not None
    assert (pointer.version, pointer.moving_to) == ("1.0.0", "1.1.0")
    for version in ("1.0.0", "1.1.0"):  # neither may be pruned
        assert read_channels(pair.new.site, OS).pointing("aws", version) == ("stable",)
    if step.startswith("ssm"):
        promote(pair.new, pair.publisher())
        right = pair.new
    else:
        promote(pair.old, pair.publisher())
        right = pair.old
        assert tags(pair.image(pair.new))["goldimg-channel-stable"] == "former"
    assert pair.parameters() == right.publications[0]["ids"]
    assert means(right) == right.version
    assert left_to_do(right, pair.publisher()).is_done


def test_an_image_that_machines_use_is_told(pair: Pair) -> None:
    publisher = pair.publisher()
    (record, _) = published(pair.old.site, OS, "aws")
    assert publisher.use(record.publication).by == ()
    ec2 = pair.cloud.client("ec2", OTHER)
    id_ = record.publication.ids[OTHER]
    made = [ec2.run_instances(ImageId=id_, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
            for _ in range(2)]  # fmt: skip
    assert publisher.use(record.publication).by == tuple(f"{it} in {OTHER}" for it in made)
    ec2.terminate_instances(InstanceIds=made)
    assert publisher.use(record.publication).by == ()
    data = {"ImageId": id_}
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
    assert publisher.use(record.publication).by == (f"launch template web in {OTHER}",)
    pair.cloud.set(denied=["ec2:DescribeInstances"])
    assert "does not let us ask" in publisher.use(record.publication).unknown
