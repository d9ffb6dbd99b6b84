"""Google Compute Engine: `disk.raw` in a gzipped oldgnu tar.

https://cloud.google.com/compute/docs/import/import-existing-image
"""

from __future__ import annotations

from pathlib import Path

from goldimg.formats import Written, gcptar
from goldimg.providers import Conversion, Provider


class Gcp(Provider):
    """Google Cloud."""

    name = "gcp"
    title = "Google Cloud"
    extensions = ("tar.gz",)

    def convert(self, job: Conversion) -> list[Written]:
        path = job.path(self.name, "tar.gz")
        return [gcptar.write(job.disk, path, runner=job.runner, progress=job.progress)]

    def check(self, path: Path) -> None:
        gcptar.check(path)
