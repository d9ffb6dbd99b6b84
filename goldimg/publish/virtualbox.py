"""VirtualBox and Vagrant: boxes, and the catalog that lists them."""

from __future__ import annotations

from goldimg.config.publish.shelf import VirtualboxPublish
from goldimg.publish.image import File
from goldimg.publish.job import Job
from goldimg.publish.shelf import ShelfPublisher


class VirtualboxPublisher(ShelfPublisher):
    """Publishes every box of the image, and its OVA where the site wants it."""

    name = "virtualbox"
    artifact = "box"
    has_catalog = True
    options: VirtualboxPublish

    def _files(self, job: Job) -> list[File]:
        kinds = (".box", ".ova") if self.options.ova else (".box",)
        found = [file for file in job.image.files if file.path.suffix in kinds]
        return found or [job.image.file(self.artifact)]


PUBLISHER = VirtualboxPublisher
