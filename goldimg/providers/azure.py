"""Microsoft Azure: a fixed VHD of a whole number of MiB.

https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic
"""

from __future__ import annotations

from pathlib import Path

from goldimg.boxing import libvirt_box
from goldimg.formats import Written, box, vhd
from goldimg.providers import Boxing, Conversion, Provider
from goldimg.testing.bench import Bench


class Azure(Provider):
    """Microsoft Azure."""

    name = "azure"
    title = "Microsoft Azure"
    extensions = ("vhd",)
    # of the first generation: https://learn.microsoft.com/azure/virtual-machines/generation-2
    bench = Bench(bus="ide", lacks="no Hyper-V; NoCloud data instead of Azure's wire server")
    boxed_as, source = "azure", "vhd"

    def convert(self, job: Conversion) -> list[Written]:
        path = job.path(self.name, "vhd")
        return [vhd.write(job.disk, path, runner=job.runner, progress=job.progress)]

    def write_boxes(self, job: Boxing) -> list[Written]:
        return [libvirt_box(job, self.name, access=box.ROOT)]

    def check_image(self, path: Path) -> None:
        vhd.check(path)
