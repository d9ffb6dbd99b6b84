"""The disk in an artifact, as QEMU can read it where it is: nothing is converted or written to.

Only what is packed in a tar.gz is unpacked first, sparse. QEMU's options of block drivers:
https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html (BlockdevOptions).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldimg.errors import VerificationFailed
from goldimg.formats import Region, gcptar, ova
from goldimg.project import make_directory
from goldimg.run import Runner

GIB = 1 << 30
MORE = 2  # GiB by which the machine's disk is larger than the image's
UNPACKING = 900.0  # seconds
IN_BOX = ("*.vmdk", "*.img")  # the disk of a box for VirtualBox, of one for libvirt


@dataclass(frozen=True, kw_only=True)
class Form:
    """How an artifact is read: QEMU's driver and options, and what people call it."""

    driver: str
    options: Mapping[str, Any]
    title: str

    @property
    def file_name(self) -> str:
        """The disk as the name of a backing file."""
        return "json:" + json.dumps({"driver": self.driver, **self.options})


def form_of(path: Path, scratch: Path, runner: Runner) -> Form:
    """The disk in the artifact at `path`; `scratch` takes what has to be unpacked.

    VerificationFailed where it holds none.
    """
    if path.suffix == ".vhd":
        # the size is the footer's "current size", as Azure takes it, not the geometry's
        options = {"force_size_calc": "current_size", "file": _file(path)}
        return Form(driver="vpc", options=options, title="VHD")
    if path.suffix == ".qcow2":
        return Form(driver="qcow2", options={"file": _file(path)}, title="qcow2")
    if path.suffix == ".ova":
        return _vmdk(ova.disk_region(path), "VMDK in the OVA")
    make_directory(scratch)
    if path.suffix == ".box":
        runner.run(["tar", "-C", scratch, "-xzf", path], timeout=UNPACKING)
        return _boxed(path, scratch)
    if path.name.endswith(".tar.gz"):
        runner.run(["tar", "-C", scratch, "-xSzf", path, gcptar.MEMBER], timeout=UNPACKING)
        options = {"file": _file(scratch / gcptar.MEMBER)}
        return Form(driver="raw", options=options, title=f"{gcptar.MEMBER} in the archive")
    raise VerificationFailed(f"{path} holds no disk that goldimg can start")


def _boxed(path: Path, scratch: Path) -> Form:
    found = [disk for pattern in IN_BOX for disk in scratch.glob(pattern)]
    if len(found) != 1:
        raise VerificationFailed(f"{path} holds no disk that goldimg can start")
    if found[0].suffix == ".vmdk":
        return _vmdk(Region.whole(found[0]), "VMDK in the box")
    return Form(driver="qcow2", options={"file": _file(found[0])}, title="qcow2 in the box")


def _vmdk(region: Region, title: str) -> Form:
    part = {"driver": "raw", "offset": region.offset, "size": region.size}
    return Form(driver="vmdk", options={"file": {**part, "file": _file(region.path)}}, title=title)


def _file(path: Path) -> dict[str, Any]:
    return {"driver": "file", "filename": str(path)}


def grown(virtual_size: int) -> int:
    """The bytes of the disk that a machine under test is given, a whole number of GiB."""
    return (-(-virtual_size // GIB) + MORE) * GIB


def make_overlay(form: Form, target: Path, size: int, runner: Runner) -> None:
    """Makes a qcow2 of `size` bytes over the artifact, which takes all that is written."""
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form.driver, "-b", form.file_name]
    runner.run([*words, target, str(size)], reason="lay a disk over the artifact", timeout=60)
