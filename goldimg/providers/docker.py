"""Docker: the files of the root file system, for `docker import`.

https://docs.docker.com/reference/cli/docker/image/import/
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from goldimg.config.models import SiteFile
from goldimg.formats import Region, Written, box, rootfs
from goldimg.providers import Boxing, Conversion, Provider


class Docker(Provider):
    """Docker and other container engines."""

    name = "docker"
    title = "Docker"
    extensions = ("tar.gz",)
    boxed_as, source = "docker", "tar.gz"
    ships_files = True
    is_long = True  # it removes a kernel, a boot loader and an init system

    def tools(self, site: SiteFile) -> Sequence[str]:
        # Root mounts the disk; everybody else asks libguestfs.
        return ("mount",) if os.geteuid() == 0 else ("guestfish",)

    def convert(self, job: Conversion) -> list[Written]:
        path = job.path(self.name, "tar.gz")
        return [
            rootfs.write(
                job.disk, path, runner=job.runner, progress=job.progress, newest=job.newest
            )
        ]

    def write_boxes(self, job: Boxing) -> list[Written]:
        # a disk would not start: the image has no kernel
        archive = Region.whole(job.artifact(self.name, "tar.gz"))
        target = job.path(self.name, "box")
        return [box.write_docker(archive, target, runner=job.runner, progress=job.progress)]

    def check_image(self, path: Path) -> None:
        rootfs.check(path)
