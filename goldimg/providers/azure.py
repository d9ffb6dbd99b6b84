"""Microsoft Azure: a fixed VHD of a whole number of MiB.

https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic
"""

from __future__ import annotations

from pathlib import Path

from goldimg.formats import Written, vhd
from goldimg.providers import Conversion, Provider


class Azure(Provider):
    """Microsoft Azure."""

    name = "azure"
    title = "Microsoft Azure"
    extensions = ("vhd",)

    def convert(self, job: Conversion) -> list[Written]:
        path = job.path(self.name, "vhd")
        return [vhd.write(job.disk, path, runner=job.runner, progress=job.progress)]

    def check(self, path: Path) -> None:
        vhd.check(path)
