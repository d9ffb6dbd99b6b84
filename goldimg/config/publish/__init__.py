"""`publish:` of site.yml: where each provider's images go. It never holds credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, model_validator

from goldimg.config.fields import Fault, matching
from goldimg.config.loader import merged
from goldimg.config.publish.aws import AwsPublish
from goldimg.config.publish.azure import AzurePublish
from goldimg.config.publish.common import Section
from goldimg.config.publish.docker import DockerPublish
from goldimg.config.publish.gcp import GcpPublish
from goldimg.config.publish.openstack import OpenstackPublish
from goldimg.config.publish.shelf import VirtualboxPublish, VmwarePublish


def _listed(value: object) -> object:
    """A list may also be written with commas, as `--var` needs."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


# It becomes part of tags, labels and properties; `latest` is moved by uploads.
ChannelName = Annotated[
    str,
    matching(
        r"(?!latest$)[a-z][a-z0-9-]{0,29}",
        "must have at most 30 small letters, digits and dashes, and not be 'latest'",
    ),
]


class Sections(Section):
    """What holds for all, and a section for each provider, under its name."""

    require_tested: bool = False  # only images that have passed `goldimg test`
    aws: AwsPublish = AwsPublish()
    azure: AzurePublish = AzurePublish()
    docker: DockerPublish = DockerPublish()
    gcp: GcpPublish = GcpPublish()
    openstack: OpenstackPublish = OpenstackPublish()
    virtualbox: VirtualboxPublish = VirtualboxPublish()
    vmware: VmwarePublish = VmwarePublish()


class Environment(Sections):
    """A stage that versions go through: its sections lie over those of `publish:`."""

    approval: bool = False  # a person has to agree before anything goes there


class Publish(Sections):
    """Where images go; through which channels and environments, in their order."""

    channels: Annotated[tuple[ChannelName, ...], BeforeValidator(_listed)] = ("beta", "stable")
    environments: dict[ChannelName, Environment] = {}

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: object) -> object:
        """Lays what an environment says over what is said for all of them."""
        if not isinstance(data, Mapping) or not isinstance(data.get("environments"), Mapping):
            return data
        common = {name: data[name] for name in Sections.model_fields if name in data}
        whole = {
            name: merged([common, given or {}]) if given is None or isinstance(given, Mapping)
            else given
            for name, given in data["environments"].items()
        }  # fmt: skip
        return {**data, "environments": whole}

    @model_validator(mode="after")
    def _has_distinct_names(self) -> Publish:
        for name in self.environments:
            if name in self.channels:
                raise Fault(f"environments.{name}", "is the name of a channel, too")
        return self
