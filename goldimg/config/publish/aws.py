"""`publish.aws` of site.yml."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from goldimg.config.fields import Fault, Seconds, Text, matching, seconds, template
from goldimg.config.publish.common import Section, Tags


def _listed(value: object) -> object:
    """A list may also be written with commas, as `--var` needs."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


# https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html
Region = Annotated[
    str,
    matching(r"[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}", 'must be a region such as "eu-west-1"'),
]
# An account, an organization or an organizational unit:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/share-amis-with-organizations-and-OUs.html
Principal = Annotated[
    str,
    matching(
        r"[0-9]{12}|arn:aws[a-z-]*:organizations::[0-9]{12}:(organization|ou)/[A-Za-z0-9/-]+",
        "must be an account's 12 digits in quotes, or the ARN of an organization or a unit of one",
    ),
]
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
Bucket = Annotated[
    str, matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "must be the name of a bucket")
]
Prefix = Annotated[
    str, matching(r"([A-Za-z0-9!_.*'()-]+/)*", 'must be empty or end in "/", such as "goldimg/"')
]
Role = Annotated[str, matching(r"[A-Za-z0-9_+=,.@-]{1,64}", "must be the name of a role")]
KmsKey = Annotated[str, matching(r"[A-Za-z0-9:/_-]{1,2048}", "must be the id or ARN of a KMS key")]
Device = Annotated[str, matching(r"/dev/(xvda|sda1?|nvme0n1)", 'must be such as "/dev/xvda"')]
# https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html
Parameter = Annotated[
    str,
    matching(r"/[A-Za-z0-9_.{}/-]{1,1000}", 'must be a name such as "/goldimg/{os}/latest"'),
    template("os", "version"),
]
ChannelParameter = Annotated[
    str,
    matching(r"/[A-Za-z0-9_.{}/-]{1,1000}", 'must be a name such as "/goldimg/{os}/{channel}"'),
    template("os", "channel", required="channel"),
]
Profile = Annotated[str, matching(r"[A-Za-z0-9_.@+-]{1,128}", "must be the name of a profile")]


class AwsPublish(Section):
    """Where and how images are published to aws."""

    profile: Profile | None = None  # of the AWS configuration files; none: the SDK's own chain
    regions: Annotated[tuple[Region, ...], BeforeValidator(_listed)] = ()
    via: Literal["ebs", "s3", "import-image"] = "ebs"
    bucket: Bucket | None = None  # for s3 and import-image, in the first region
    prefix: Prefix = "goldimg/"
    role: Role = "vmimport"
    boot_mode: Literal["auto", "legacy-bios", "uefi", "uefi-preferred"] = "auto"
    tpm: bool = False
    volume_type: Literal["gp2", "gp3", "io1", "io2", "standard"] = "gp3"
    root_device: Device = "/dev/xvda"
    encrypted: bool = False
    kms_key: KmsKey | None = None  # in every region of this name; none: the account's default
    share: Annotated[tuple[Principal, ...], BeforeValidator(_listed)] = ()
    public: bool = False
    deprecate_after: int | None = Field(default=None, ge=1, le=3650)  # days
    deprecate_at: date | None = None
    ssm_parameter: Parameter | None = None
    channel_parameter: ChannelParameter | None = None  # names the image that a channel points to
    verify: Literal["sample", "all"] = "sample"  # blocks that are read back
    workers: int = Field(default=24, ge=1, le=64)  # blocks under way at once
    timeout: Seconds = seconds("2h")  # of each import, copy and snapshot
    poll: float = Field(default=10.0, ge=0.05, le=300)  # seconds between two looks at them
    description: Text = ""
    tags: Tags = {}

    @model_validator(mode="after")
    def _fits(self) -> AwsPublish:
        if self.via != "ebs" and not self.bucket:
            raise Fault("bucket", f"is needed: via {self.via} sends the disk through S3")
        if self.tpm and self.boot_mode not in ("auto", "uefi"):
            raise Fault("tpm", "needs boot_mode uefi; AWS refuses it with any other")
        if self.kms_key and not self.encrypted:
            raise Fault("kms_key", "needs encrypted: true")
        if self.encrypted and self.public:
            raise Fault("public", "is not possible: AWS shares no encrypted snapshot with all")
        if self.encrypted and self.share and not self.kms_key:
            raise Fault("kms_key", "is needed: the default key's snapshots cannot be shared")
        if self.deprecate_after and self.deprecate_at:
            raise Fault("deprecate_at", "and deprecate_after exclude each other")
        if len(self.description) > 255:
            raise Fault("description", "must have at most 255 characters")
        if len(self.tags) > 40:
            raise Fault("tags", "must be at most 40: AWS takes 50, goldimg has its own")
        return self
