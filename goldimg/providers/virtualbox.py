"""VirtualBox: an OVA, and a Vagrant box around the same disk.

https://www.virtualbox.org/manual/ch01.html#ovf and
https://developer.hashicorp.com/vagrant/docs/providers/virtualbox/boxes
"""

from __future__ import annotations

from pathlib import Path

from goldimg.formats import Written, box, ova
from goldimg.formats.ovf import GuestOs, Hardware, Machine
from goldimg.project import artifact_name
from goldimg.providers import Conversion, Provider


class VirtualBox(Provider):
    """VirtualBox and Vagrant."""

    name = "virtualbox"
    title = "VirtualBox"
    extensions = ("ova", "box")
    native_builder = "virtualbox-iso"
    firmwares = ("bios",)  # its OVA cannot ask for EFI
    takes_guest_additions = True

    def convert(self, job: Conversion) -> list[Written]:
        machine = Machine(
            name=artifact_name(job.os_name, job.version, self.name),
            flavour="virtualbox",
            # the controller and the card that every VirtualBox has and every kernel drives
            hardware=Hardware(cpus=job.cpus, memory=job.memory_mib, controller="ide", nic="virtio"),
            guest=job.guest or GuestOs(),
        )
        appliance = job.write_ova(self.name, machine)
        boxed = box.write_virtualbox(
            ova.disk_region(appliance.path),
            job.path(self.name, "box"),
            machine=machine,
            virtual_size=appliance.virtual_size or job.disk.size,
            runner=job.runner,
            progress=job.progress,
        )
        return [appliance, boxed]

    def check(self, path: Path) -> None:
        if path.suffix == ".box":
            box.check(path)
        else:
            ova.check(path)
