"""`publish:` of site.yml: where each provider's images go. It never holds credentials."""

from __future__ import annotations

from goldimg.config.publish.aws import AwsPublish
from goldimg.config.publish.azure import AzurePublish
from goldimg.config.publish.common import Section
from goldimg.config.publish.docker import DockerPublish
from goldimg.config.publish.gcp import GcpPublish
from goldimg.config.publish.openstack import OpenstackPublish
from goldimg.config.publish.shelf import VirtualboxPublish, VmwarePublish


class Publish(Section):
    """What holds for all, and a section for each provider, under its name."""

    require_tested: bool = False  # only images that have passed `goldimg test`
    aws: AwsPublish = AwsPublish()
    azure: AzurePublish = AzurePublish()
    docker: DockerPublish = DockerPublish()
    gcp: GcpPublish = GcpPublish()
    openstack: OpenstackPublish = OpenstackPublish()
    virtualbox: VirtualboxPublish = VirtualboxPublish()
    vmware: VmwarePublish = VmwarePublish()
