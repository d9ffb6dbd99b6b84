"""Vagrant boxes out of a provider's artifacts, and the disk that is inside an artifact."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.formats import Region, Written, box, gcptar, ova, qcow2, vhd
from goldimg.formats.ovf import GuestOs, Hardware, Machine
from goldimg.formats.source import Disk
from goldimg.project import artifact_name, make_directory
from goldimg.providers import Boxing, Job
from goldimg.run import Runner


def virtualbox_machine(job: Job, provider: str) -> Machine:
    """The machine that the provider's OVA and its box describe to VirtualBox.

    It has the controller and the card that every VirtualBox has and every kernel drives.
    """
    return Machine(
        name=artifact_name(job.os_name, job.version, provider),
        flavour="virtualbox",
        hardware=Hardware(cpus=job.cpus, memory=job.memory_mib, controller="ide", nic="virtio"),
        guest=job.guest or GuestOs(),
    )


def box_around(appliance: Path, job: Job, provider: str, *, access: box.Access) -> Written:
    """A box for VirtualBox around the disk of an OVA, which is copied as it is."""
    return box.write_virtualbox(
        ova.disk_region(appliance),
        job.path(provider, "box"),
        machine=virtualbox_machine(job, provider),
        virtual_size=ova.capacity_of(appliance),
        access=access,
        runner=job.runner,
        progress=job.progress,
    )


def libvirt_box(
    job: Boxing, name: str, *, access: box.Access, qcow2_file: Path | None = None
) -> Written:
    """A box for libvirt around `qcow2_file`, or around one that is made for it of the disk."""
    target = job.path(name, "box")
    if qcow2_file:
        return _around_qcow2(job, qcow2_file, target, access)
    scratch = target.with_name(f".{target.name}.qcow2")
    try:
        with job.open_disk() as disk:
            qcow2.write(disk, scratch, runner=job.runner, progress=job.progress)
        return _around_qcow2(job, scratch, target, access)
    finally:
        scratch.unlink(missing_ok=True)


def _around_qcow2(job: Boxing, image: Path, target: Path, access: box.Access) -> Written:
    with image.open("rb") as stream:  # the size is in the header: docs/interop/qcow2.txt
        size = int.from_bytes(stream.read(32)[24:])
    return box.write_libvirt(
        Region.whole(image),
        target,
        virtual_size=size,
        access=access,
        runner=job.runner,
        progress=job.progress,
    )


@contextlib.contextmanager
def disk_in(artifact: Path, scratch: Path, runner: Runner) -> Iterator[Disk]:
    """The disk inside a finished OVA, VHD or archive for GCP, as a sparse raw file.

    It is unpacked into `scratch`, and removed when the block ends.
    """
    make_directory(scratch)
    with tempfile.TemporaryDirectory(prefix=f".{artifact.name}.", dir=scratch) as work:
        raw = Path(work) / gcptar.MEMBER
        if artifact.suffix == ".ova":
            _unpack(runner, {"driver": "vmdk", "file": _part(ova.disk_region(artifact))}, raw)
        elif artifact.suffix == ".vhd":
            size = artifact.stat().st_size - vhd.FOOTER.size
            _unpack(runner, _part(Region(path=artifact, offset=0, size=size)), raw)
        elif artifact.name.endswith(".tar.gz"):
            runner.run(["tar", "-C", work, "-xzf", artifact, gcptar.MEMBER])  # keeps holes
        else:
            raise GoldimgError(f"{artifact} holds no disk that goldimg can unpack")
        with Disk(raw) as disk:
            yield disk


def _part(region: Region) -> dict[str, object]:
    """A part of a file, as QEMU's raw driver reads it: qemu-img(1), `--image-opts`."""
    file = {"driver": "file", "filename": str(region.path)}
    return {"driver": "raw", "offset": region.offset, "size": region.size, "file": file}


def _unpack(runner: Runner, source: dict[str, object], raw: Path) -> None:
    convert = ["qemu-img", "convert", "-O", "raw", "-W", "-m", "8"]
    runner.run([*convert, "json:" + json.dumps(source), raw], reason="convert disk images")
