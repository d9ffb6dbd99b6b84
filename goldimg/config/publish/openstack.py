"""`publish.openstack` of site.yml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from goldimg.config.fields import Fault, Seconds, Text, Word, Words, seconds, template
from goldimg.config.publish.common import Section, Tags

NAME_PLACES = ("name", "os", "version", "namespace")


class OpenstackPublish(Section):
    """Which cloud, and how the image is described there. Credentials are those of clouds.yaml."""

    cloud: Word | None = None  # an entry of clouds.yaml; else OS_CLOUD, or the OS_* variables
    region: Word | None = None  # else the cloud's own
    # What the image is called; {name} is <OS>-<version>_openstack.
    name: Annotated[Text, template(*NAME_PLACES)] = Field(
        default="{name}", min_length=1, max_length=200
    )
    via: Literal["upload", "import"] = "upload"  # import: Glance's glance-direct, in two steps
    visibility: Literal["private", "shared", "community", "public"] = "private"
    public: bool = False  # the same as visibility: public
    share: Words = ()  # ids of projects that may use it
    protected: bool = False  # nobody can delete it by mistake
    # What a channel's image becomes; none: it stays as it is.
    promoted: Literal["private", "shared", "community", "public"] | None = None
    hide_older: bool = False  # lists show the newest version only
    disk_bus: Literal["virtio", "scsi", "sata", "ide"] = "virtio"
    machine: Literal["pc", "q35"] | None = None  # else the cloud's own choice
    secure_boot: Literal["required", "optional", "disabled"] | None = None
    min_disk: int = Field(default=0, ge=0, le=65536)  # GiB; never less than the image's disk
    min_ram: int = Field(default=512, ge=0, le=1 << 24)  # MiB
    properties: Tags = {}  # beside ours, and over them
    tags: Words = ("packer",)
    timeout: Seconds = seconds("1h")  # for Glance to take an import in

    @model_validator(mode="after")
    def _fits(self) -> OpenstackPublish:
        if self.public and self.visibility not in ("private", "public"):
            raise Fault("public", f"contradicts visibility: {self.visibility}")
        if self.share and self.final_visibility != "shared":
            raise Fault("share", f"has no effect where visibility is {self.final_visibility}")
        return self

    @property
    def final_visibility(self) -> str:
        """Who sees the image once it is verified."""
        if self.public:
            return "public"
        return "shared" if self.share and self.visibility == "private" else self.visibility
