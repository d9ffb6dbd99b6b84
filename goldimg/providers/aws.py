"""Amazon Web Services: an OVA for VM Import, as VirtualBox exports it.

https://docs.aws.amazon.com/vm-import/latest/userguide/prerequisites.html

Its debugging box is for VirtualBox, around the same disk.
"""

from __future__ import annotations

from pathlib import Path

from goldimg.boxing import box_around, virtualbox_machine
from goldimg.formats import Written, box, ova
from goldimg.providers import Boxing, Conversion, Provider
from goldimg.testing.bench import Bench
from goldimg.testing.ec2 import SMBIOS


class Aws(Provider):
    """Amazon EC2."""

    name = "aws"
    title = "Amazon Web Services"
    extensions = ("ova",)
    native_builder = "virtualbox-iso"
    firmwares = ("bios",)  # VirtualBox's kind of OVA cannot ask for EFI
    # Nitro: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-nitro-instances.html
    bench = Bench(bus="nvme", seed="ec2", smbios=SMBIOS, lacks="no ENA card")
    boxed_as, source = "aws", "ova"

    def convert(self, job: Conversion) -> list[Written]:
        return [job.write_ova(self.name, virtualbox_machine(job, self.name))]

    def write_boxes(self, job: Boxing) -> list[Written]:
        return [box_around(job.artifact(self.name, "ova"), job, self.name, access=box.ROOT)]

    def check_image(self, path: Path) -> None:
        ova.check(path)
