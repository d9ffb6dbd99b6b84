"""OpenStack: a compressed qcow2 for Glance.

https://docs.openstack.org/image-guide/image-formats.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from goldimg.boxing import libvirt_box
from goldimg.config.models import SiteFile
from goldimg.formats import Written, box, qcow2
from goldimg.providers import Boxing, Conversion, Provider
from goldimg.testing.bench import Bench


class OpenStack(Provider):
    """OpenStack clouds."""

    name = "openstack"
    title = "OpenStack"
    extensions = ("qcow2",)
    # what Nova's KVM driver says: https://docs.openstack.org/nova/latest/admin/libvirt-misc.html
    bench = Bench(
        bus="virtio",
        seed="config-drive",
        smbios="manufacturer=OpenStack Foundation,product=OpenStack Nova",
    )
    boxed_as, source = "openstack", "qcow2"

    def options(self, site: SiteFile) -> Mapping[str, object]:
        return {"qcow2_compression": site.qcow2_compression}

    def convert(self, job: Conversion) -> list[Written]:
        path = job.path(self.name, "qcow2")
        return [
            qcow2.write(
                job.disk,
                path,
                compression=job.site.qcow2_compression,
                runner=job.runner,
                progress=job.progress,
            )
        ]

    def write_boxes(self, job: Boxing) -> list[Written]:
        image = job.artifact(self.name, "qcow2")
        return [libvirt_box(job, self.name, access=box.ROOT, qcow2_file=image)]

    def check_image(self, path: Path) -> None:
        qcow2.check(path)
