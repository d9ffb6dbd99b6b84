"""Google Compute Engine: `disk.raw` in a gzipped oldgnu tar.

https://cloud.google.com/compute/docs/import/import-existing-image
"""

from __future__ import annotations

from pathlib import Path

from goldimg.boxing import libvirt_box
from goldimg.formats import Written, box, gcptar
from goldimg.providers import Boxing, Conversion, Provider
from goldimg.testing.bench import Bench


class Gcp(Provider):
    """Google Cloud."""

    name = "gcp"
    title = "Google Cloud"
    extensions = ("tar.gz",)
    # https://cloud.google.com/compute/docs/images/building-custom-os#hardware
    bench = Bench(bus="virtio-scsi", lacks="NoCloud data instead of Google's metadata server")
    boxed_as, source = "gcp", "tar.gz"

    def convert(self, job: Conversion) -> list[Written]:
        path = job.path(self.name, "tar.gz")
        return [gcptar.write(job.disk, path, runner=job.runner, progress=job.progress)]

    def write_boxes(self, job: Boxing) -> list[Written]:
        return [libvirt_box(job, self.name, access=box.ROOT)]

    def check_image(self, path: Path) -> None:
        gcptar.check(path)
