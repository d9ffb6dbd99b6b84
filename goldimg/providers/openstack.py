"""OpenStack: a compressed qcow2 for Glance.

https://docs.openstack.org/image-guide/image-formats.html
"""

from __future__ import annotations

from pathlib import Path

from goldimg.formats import Written, qcow2
from goldimg.providers import Conversion, Provider


class OpenStack(Provider):
    """OpenStack clouds."""

    name = "openstack"
    title = "OpenStack"
    extensions = ("qcow2",)

    def convert(self, job: Conversion) -> list[Written]:
        path = job.path(self.name, "qcow2")
        return [qcow2.write(job.disk, path, runner=job.runner, progress=job.progress)]

    def check(self, path: Path) -> None:
        qcow2.check(path)
