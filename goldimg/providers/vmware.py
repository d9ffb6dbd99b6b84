"""VMware: an OVA whose properties cloud-init reads.

https://docs.cloud-init.io/en/latest/reference/datasources/ovf.html
"""

from __future__ import annotations

from pathlib import Path

from goldimg.formats import Written, ova
from goldimg.formats.ovf import CLOUD_INIT, GuestOs, Hardware, Machine
from goldimg.project import artifact_name
from goldimg.providers import Conversion, Provider


class VMware(Provider):
    """VMware vSphere, Workstation and Fusion."""

    name = "vmware"
    title = "VMware"
    extensions = ("ova",)
    native_builder = "vmware-iso"

    def convert(self, job: Conversion) -> list[Written]:
        machine = Machine(
            name=artifact_name(job.os_name, job.version, self.name),
            flavour="vmware",
            hardware=Hardware(
                cpus=job.cpus,
                memory=job.memory_mib,
                controller="pvscsi",
                nic="vmxnet3",
                firmware=job.firmware,
                version=11,
                hot_add=True,
            ),
            guest=job.guest or GuestOs(),
            properties=CLOUD_INIT,
        )
        return [job.write_ova(self.name, machine)]

    def check(self, path: Path) -> None:
        ova.check(path)
