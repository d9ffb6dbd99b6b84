"""VirtualBox: an OVA, and a Vagrant box around the same disk; with --boxes one for libvirt too.

https://www.virtualbox.org/manual/ch01.html#ovf and
https://developer.hashicorp.com/vagrant/docs/providers/virtualbox/boxes
"""

from __future__ import annotations

from pathlib import Path

from goldimg.boxing import box_around, libvirt_box, virtualbox_machine
from goldimg.formats import Written, box, ova
from goldimg.providers import Boxing, Conversion, Provider
from goldimg.testing.bench import Bench


class VirtualBox(Provider):
    """VirtualBox and Vagrant."""

    name = "virtualbox"
    title = "VirtualBox"
    extensions = ("ova", "box")
    native_builder = "virtualbox-iso"
    firmwares = ("bios",)  # its OVA cannot ask for EFI
    takes_guest_additions = True
    is_for_vagrant = True
    bench = Bench(bus="ide", seed="")  # as its OVA says; nobody gives such machines any data
    boxed_as, source = "libvirt", "ova"

    def convert(self, job: Conversion) -> list[Written]:
        machine = virtualbox_machine(job, self.name)
        appliance = job.write_ova(self.name, machine)
        return [appliance, box_around(appliance.path, job, self.name, access=box.VAGRANT)]

    def write_boxes(self, job: Boxing) -> list[Written]:
        return [libvirt_box(job, self.boxed_as, access=box.VAGRANT)]

    def check_image(self, path: Path) -> None:
        ova.check(path)
