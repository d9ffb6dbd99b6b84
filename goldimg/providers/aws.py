"""Amazon Web Services: an OVA for VM Import, as VirtualBox exports it.

https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html
"""

from __future__ import annotations

from pathlib import Path

from goldimg.formats import Written, ova
from goldimg.formats.ovf import GuestOs, Hardware, Machine
from goldimg.project import artifact_name
from goldimg.providers import Conversion, Provider


class Aws(Provider):
    """Amazon EC2."""

    name = "aws"
    title = "Amazon Web Services"
    extensions = ("ova",)
    native_builder = "virtualbox-iso"
    firmwares = ("bios",)  # VirtualBox's kind of OVA cannot ask for EFI

    def convert(self, job: Conversion) -> list[Written]:
        machine = Machine(
            name=artifact_name(job.os_name, job.version, self.name),
            flavour="virtualbox",
            hardware=Hardware(cpus=job.cpus, memory=job.memory_mib, controller="ide", nic="virtio"),
            guest=job.guest or GuestOs(),
        )
        return [job.write_ova(self.name, machine)]

    def check(self, path: Path) -> None:
        ova.check(path)
