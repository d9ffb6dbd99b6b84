"""VMware: an OVA whose properties cloud-init reads.

https://docs.cloud-init.io/en/latest/reference/datasources/ovf.html; which hardware version brings
secure boot (13) and a TPM (14): VMware, "Hardware Features Available with Virtual Machine
Compatibility Settings", https://knowledge.broadcom.com/external/article/312100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from goldimg.config.models import Settings, SiteFile
from goldimg.errors import UsageError
from goldimg.formats import Written, ova, ovftool
from goldimg.formats.ovf import CLOUD_INIT, GuestOs, Hardware, Machine
from goldimg.project import artifact_name
from goldimg.providers import Conversion, Job, Provider
from goldimg.testing.bench import Bench

FIRST_WITH = {"secure_boot": 13, "tpm": 14}


class VMware(Provider):
    """VMware vSphere, Workstation and Fusion."""

    name = "vmware"
    title = "VMware"
    extensions = ("ova",)
    native_builder = "vmware-iso"
    # as its OVA says; the properties come on a CD, which is one of the ways that vSphere has
    bench = Bench(bus="pvscsi", card="vmxnet3", seed="ovf", lacks="no guestinfo")

    def tools(self, site: SiteFile) -> Sequence[str]:
        return ("ovftool",) if site.ova_writer == "ovftool" else ()

    def options(self, site: SiteFile) -> Mapping[str, object]:
        keys = {"hardware_version", "secure_boot", "tpm", "ova_writer"}
        return site.model_dump(
            include=keys | ({"vmware_sha"} if site.ova_writer == "ovftool" else set())
        )

    def refuse(self, settings: Settings) -> None:
        site = settings.site
        for key, version in FIRST_WITH.items():
            if not getattr(site, key):
                continue
            if settings.firmware != "efi":
                raise UsageError(f"{key} needs EFI", hint="set firmware: efi")
            if site.hardware_version < version:
                raise UsageError(
                    f"{key} needs VMware hardware version {version} or later",
                    why=f"hardware_version is {site.hardware_version}",
                    hint=f"set hardware_version: {version}",
                )

    def convert(self, job: Conversion) -> list[Written]:
        machine = self._machine(job)
        if job.site.ova_writer == "goldimg":
            return [job.write_ova(self.name, machine)]
        return [
            ovftool.write(
                job.disk,
                job.path(self.name, "ova"),
                machine=machine,
                algorithm=job.site.vmware_sha,
                seed=job.seed,
                runner=job.runner,
                progress=job.progress,
            )
        ]

    def _machine(self, job: Job) -> Machine:
        site = job.site
        return Machine(
            name=artifact_name(job.os_name, job.version, self.name),
            flavour="vmware",
            hardware=Hardware(
                cpus=job.cpus,
                memory=job.memory_mib,
                controller="pvscsi",
                nic="vmxnet3",
                firmware=job.firmware,
                version=site.hardware_version,
                secure_boot=site.secure_boot,
                tpm=site.tpm,
                hot_add=True,
            ),
            guest=job.guest or GuestOs(),
            properties=CLOUD_INIT,
        )

    def check_image(self, path: Path) -> None:
        ova.check(path)
