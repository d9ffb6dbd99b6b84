"""What can be told before the first byte is sent: all that is wrong, at once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError

from goldimg.errors import PublishFailed
from goldimg.formats import ova
from goldimg.formats.stream import sha256_of
from goldimg.publish.aws import bucket, images, sharing
from goldimg.publish.aws.clients import Work
from goldimg.publish.aws.errors import DENIED, GONE, code_of
from goldimg.publish.aws.planned import planned
from goldimg.publish.proof import changed, mark
from goldimg.publish.publisher import Preview

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RegisterImage.html
NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
LARGEST = (
    64 << 40
)  # bytes of an EBS volume: 64 TiB, https://docs.aws.amazon.com/ebs/latest/userguide/
CHECKED = "checked"  # the journal's key: the mark of the file that was
NOWHERE = {"ami": "ami-00000000000000000", "snap": "snap-00000000000000000"}
# https://docs.aws.amazon.com/general/latest/gr/ec2-service.html#limits_ec2
QUOTAS = {"AMIs": "L-B665C33B", "Public AMIs": "L-0E3CBAB9"}


class Preflight:
    """The checks of one publication; `problems` and `notes` fill as they go."""

    def __init__(self, work: Work, regions: tuple[str, ...]) -> None:
        self.work, self.regions = work, regions
        self.problems: list[str] = []
        self.notes: list[str] = []

    def run(self) -> Preview:
        """The preview; PublishFailed with every problem, or VerificationFailed."""
        self.check_settings()
        self.check_artifact()
        self._raise()
        caller = self.work.call("sts", "get_caller_identity")
        self.check_regions()
        self._raise()
        for region in self.regions:
            self.check_permissions(region)
            self.check_key(region)
            self.check_sharing(region)
            self.check_quota(region)
        if self.work.options.via != "ebs":
            self.check_bucket()
            self.check_role()
        self._raise()
        account = f"{caller['Account']} ({caller['Arn']})"
        return Preview(
            account=account,
            names=self.names(),
            calls=tuple(planned(self.work, self.regions)),
            notes=tuple(self.notes),
        )

    def _raise(self) -> None:
        if len(self.problems) == 1:
            raise PublishFailed(f"aws: {self.problems[0]}", hint="see docs/upload-aws.md")
        if self.problems:
            raise PublishFailed(
                f"aws: {len(self.problems)} things are in the way",
                details=self.problems,
                hint="see docs/upload-aws.md",
            )

    def check_settings(self) -> None:
        """The image's name, its firmware against the boot mode, tags."""
        options, image = self.work.options, self.work.job.image
        if not NAME.fullmatch(image.name):
            self.problems.append(f"{image.name!r} cannot be the name of an image")
        mode = images.boot_mode(options, image)
        if mode == "uefi" and image.firmware == "bios":
            self.problems.append("boot_mode uefi: the image was built for BIOS and has no loader")
        if mode == "legacy-bios" and image.firmware == "efi":
            self.problems.append("boot_mode legacy-bios: the image was built for EFI")
        if options.via == "import-image" and mode != "legacy-bios":
            self.problems.append("ImportImage takes no Linux that starts by UEFI: go via ebs or s3")
        if options.tpm and mode != "uefi":
            self.problems.append(f"tpm needs boot mode uefi, this image has {mode}")
        for key in self.work.tags:
            if key.lower().startswith("aws:"):
                self.problems.append(f"the tag {key} is reserved by AWS")

    def check_artifact(self) -> None:
        """The OVA by its sums and its format; not again where an unfinished run has done it."""
        job = self.work.job
        file = job.image.file("ova")
        if (file.virtual_size or 0) > LARGEST:
            self.problems.append("the disk is larger than a volume can be (64 TiB)")
        if job.journal.get(CHECKED) == mark(file):
            return
        with ThreadPoolExecutor(1, "sha256") as pool:  # both read, one out of the page cache
            hashing = pool.submit(sha256_of, file.path, job.check_cancelled)
            ova.check(file.path, job.check_cancelled)
            found = hashing.result().hex()
        if found != file.sha256:
            raise changed(file.path)

    def check_regions(self) -> None:
        """That each region exists and is switched on for the account."""
        try:
            found = self.work.call(
                "ec2", "describe_regions", RegionNames=list(self.regions), AllRegions=True
            )["Regions"]
        except ClientError as error:
            if code_of(error) != "InvalidParameterValue":
                raise
            self.problems.append(str(error.response["Error"].get("Message", error)))
            return
        for region in found:
            if region.get("OptInStatus") == "not-opted-in":
                self.problems.append(f"region {region['RegionName']} is not switched on")

    def check_permissions(self, region: str) -> None:
        """Dry runs of the calls that have them; what a placeholder makes fail otherwise passes."""
        for operation, given in self._dry_runs(region):
            try:
                self.work.call("ec2", operation, region=region, DryRun=True, **given)
            except ClientError as error:
                if code_of(error) in DENIED:
                    self.problems.append(f"{_camel(operation)} is not allowed in {region}")
        if region == self.work.region and self.work.options.via == "ebs":
            self.notes.append("the EBS direct API has no dry run: its permissions are not checked")

    def _dry_runs(self, region: str) -> list[tuple[str, dict[str, Any]]]:
        work = self.work
        runs: list[tuple[str, dict[str, Any]]] = []
        if region == work.region:
            request = images.registration(work, NOWHERE["snap"])
            runs.append(("register_image", request))
            place = {"S3Bucket": work.options.bucket, "S3Key": bucket.key_of(work, "vmdk")}
            if work.options.via == "s3":
                container = {"Format": "VMDK", "UserBucket": place}
                runs.append(("import_snapshot", {"DiskContainer": container}))
            if work.options.via == "import-image":
                disks = [{"Format": "ova", "UserBucket": place}]
                runs.append(("import_image", {"DiskContainers": disks}))
        else:
            name = work.job.image.name
            source = {"SourceRegion": work.region, "SourceImageId": NOWHERE["ami"], "Name": name}
            runs.append(("copy_image", source))
        return runs

    def check_key(self, region: str) -> None:
        """That the KMS key is there, in every region under the same name."""
        if not self.work.options.kms_key:
            return
        try:
            self.work.key(region)
        except ClientError as error:
            if code_of(error) not in DENIED | {"NotFoundException"}:
                raise
            message = error.response.get("Error", {}).get("Message", "")
            self.problems.append(f"the key {self.work.options.kms_key} in {region}: {message}")

    def check_sharing(self, region: str) -> None:
        """That the account lets images be public, and snapshots be shared unencrypted."""
        options = self.work.options
        if options.public:
            asked: list[tuple[str, str]] = [
                ("get_image_block_public_access_state", "ImageBlockPublicAccessState"),
                ("get_snapshot_block_public_access_state", "State"),
            ]
            for operation, key in asked:
                state = self._asked(operation, region, key)
                if state not in (None, "unblocked"):
                    self.problems.append(
                        f"public: the account blocks it in {region} ({_camel(operation)}: {state})"
                    )
        if (options.public or options.share) and not options.kms_key:
            by_default = self._asked(
                "get_ebs_encryption_by_default", region, "EbsEncryptionByDefault"
            )
            if by_default is True:
                self.problems.append(
                    f"{region} encrypts every snapshot by the default key, which cannot be shared: "
                    "give kms_key and encrypted"
                )

    def _asked(self, operation: str, region: str, key: str) -> object:
        """The answer of a read-only call; None, and a note, where that is not allowed."""
        try:
            found: object = self.work.call("ec2", operation, region=region).get(key)
        except ClientError as error:
            if code_of(error) not in DENIED:
                raise
            self.notes.append(f"{_camel(operation)} is not allowed in {region}: not checked")
            return None
        return found

    def check_quota(self, region: str) -> None:
        """The number of images against the account's quota, where it may be asked."""
        work = self.work
        if images.named(work, region):
            return  # nothing is added
        name = "Public AMIs" if work.options.public else "AMIs"
        given = {"ServiceCode": "ec2", "QuotaCode": QUOTAS[name]}
        try:
            answer = work.call("service-quotas", "get_service_quota", region=region, **given)
        except ClientError:
            self.notes.append(f"servicequotas:GetServiceQuota gave no answer in {region}")
            return
        quota = int(answer["Quota"]["Value"])
        found = work.call("ec2", "describe_images", region=region, Owners=["self"])["Images"]
        count = sum(1 for it in found if it.get("Public") or not work.options.public)
        if count >= quota:
            self.problems.append(f"quota: {region} has {count} of {quota} {name}")

    def check_bucket(self) -> None:
        """That the bucket is there, ours to use, and in the region of the import."""
        name = str(self.work.options.bucket)
        try:
            found = self.work.call("s3", "head_bucket", Bucket=name)
        except ClientError as error:
            if code_of(error) in GONE:
                self.problems.append(f"there is no bucket {name}")
            elif code_of(error) in DENIED | {"301"}:
                self.problems.append(
                    f"the bucket {name} is another account's, or in another region"
                )
            else:
                raise
            return
        region = found.get("BucketRegion", self.work.region)
        if region != self.work.region:
            self.problems.append(
                f"the bucket {name} is in {region}, the import in {self.work.region}"
            )

    def check_role(self) -> None:
        """That the service role of VM Import exists, where we may look."""
        role = self.work.options.role
        try:
            self.work.call("iam", "get_role", RoleName=role)
        except ClientError as error:
            if code_of(error) in GONE | {"NoSuchEntity"}:
                self.problems.append(
                    f"there is no role {role}, by which VM Import reads the bucket"
                )
            elif code_of(error) in DENIED:
                self.notes.append(f"iam:GetRole is not allowed: the role {role} is not checked")
            else:
                raise

    def names(self) -> dict[str, str]:
        """What things will be called."""
        work = self.work
        found = {"image": work.job.image.name}
        if work.options.via != "ebs":
            extension = "vmdk" if work.options.via == "s3" else "ova"
            found["object"] = f"s3://{work.options.bucket}/{bucket.key_of(work, extension)}"
        if name := sharing.parameter_name(work):
            found["parameter"] = name
        return found


def _camel(operation: str) -> str:
    return "".join(word.capitalize() for word in operation.split("_"))
