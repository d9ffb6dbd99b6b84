"""Vagrant boxes: a gzipped tar of a disk, what describes it, and a Vagrantfile.

Sources: Vagrant, "Box File Format", "Creating a Base Box" for VirtualBox, "Docker: Configuration";
vagrant-libvirt, "Box Format" (version 1).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from goldimg.errors import GoldimgError, VerificationFailed
from goldimg.formats import Progress, Region, Written, direct, ovf, ovf_check, tarball
from goldimg.formats.gz import GzipReader, GzipWriter
from goldimg.formats.ovf import DiskFile, Machine
from goldimg.formats.stream import BLOCK, Ticker, draft
from goldimg.run import Runner

GIB = 1 << 30
VMDK_NAME, OVF_NAME, QCOW2_NAME = "box-disk001.vmdk", "box.ovf", "box.img"
DOCKERFILE, ARCHIVE_NAME = "Dockerfile", "rootfs.tar.gz"
MEMBERS = {
    "virtualbox": (OVF_NAME, VMDK_NAME),
    "libvirt": (QCOW2_NAME,),
    "docker": (DOCKERFILE, ARCHIVE_NAME),
}
LARGEST_TEXT = 1 << 20
_WORD = re.compile(r"[A-Za-z0-9._-]+")
_MAC = re.compile(r"[0-9A-F]{12}")


@dataclass(frozen=True, kw_only=True)
class Access:
    """How Vagrant enters the machine: as `user`, with the key that the user's Vagrantfile names.

    Where the guest `has_rsync`, Vagrant may put its folder there.
    """

    user: str
    has_rsync: bool = True


VAGRANT = Access(user="vagrant")
ROOT = Access(user="root", has_rsync=False)  # an image that is made for another place


def write_virtualbox(
    vmdk: Region,
    target: Path,
    *,
    machine: Machine,
    virtual_size: int,
    base_mac: str = "080027B00B00",
    access: Access = VAGRANT,
    epoch: int = 0,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Written:
    """Writes a box for VirtualBox around a streamOptimized VMDK: a file, or the member of an OVA.

    `machine` must be of the virtualbox flavour; `virtual_size` is the disk's, in bytes. `base_mac`
    (12 hex digits) is what Vagrant gives to the first network card.
    """
    if machine.flavour != "virtualbox":
        raise GoldimgError(f"a box for VirtualBox cannot be made of {machine.flavour} hardware")
    if not _MAC.fullmatch(base_mac):
        raise GoldimgError(f"'{base_mac}' is not a MAC address of 12 hex digits in upper case")
    lines = [f'  config.vm.base_mac = "{base_mac}"']
    if machine.hardware.firmware == "efi":
        lines += [
            '  config.vm.provider "virtualbox" do |vb|',
            '    vb.customize ["modifyvm", :id, "--firmware", "efi"]',
            "  end",
        ]
    disk = DiskFile(name=VMDK_NAME, size=vmdk.size, capacity=virtual_size)
    texts = {
        "metadata.json": _json({"provider": "virtualbox"}),
        "Vagrantfile": _vagrantfile(access, lines),
        OVF_NAME: ovf.render(machine, disk),
    }
    return _write(target, texts, VMDK_NAME, vmdk, virtual_size, epoch, runner, progress)


def write_libvirt(
    qcow2: Region,
    target: Path,
    *,
    virtual_size: int,
    access: Access = VAGRANT,
    epoch: int = 0,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Written:
    """Writes a box for libvirt around a qcow2 of `virtual_size` bytes."""
    metadata = {
        "provider": "libvirt",
        "format": "qcow2",
        "virtual_size": -(-virtual_size // GIB),  # GiB, which must not be below the disk's
    }
    texts = {
        "metadata.json": _json(metadata),
        "Vagrantfile": _vagrantfile(access, []),
    }
    return _write(target, texts, QCOW2_NAME, qcow2, virtual_size, epoch, runner, progress)


def write_docker(
    archive: Region,
    target: Path,
    *,
    epoch: int = 0,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Written:
    """Writes a box for Vagrant's docker provider: the root file system, and how to run it.

    `vagrant up` builds an image of it and starts a container that sleeps: there is no SSH server in
    it, `docker exec` enters it.
    """
    lines = [
        '  config.vm.synced_folder ".", "/vagrant", disabled: true',
        '  config.vm.provider "docker" do |docker|',
        "    docker.build_dir = File.dirname(File.expand_path(__FILE__))",
        '    docker.cmd = ["sleep", "infinity"]',
        "  end",
    ]
    texts = {
        "metadata.json": _json({"provider": "docker"}),
        "Vagrantfile": _configured(lines),
        DOCKERFILE: f"FROM scratch\nADD {ARCHIVE_NAME} /\n",
    }
    return _write(target, texts, ARCHIVE_NAME, archive, None, epoch, runner, progress)


def _json(data: Mapping[str, object]) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def _vagrantfile(access: Access, lines: list[str]) -> str:
    if not _WORD.fullmatch(access.user):
        raise GoldimgError(f"'{access.user}' is not a user name")
    entry = [f'  config.ssh.username = "{access.user}"']
    if not access.has_rsync:
        entry.append('  config.vm.synced_folder ".", "/vagrant", disabled: true')
    return _configured([*entry, *lines])


def _configured(lines: list[str]) -> str:
    return "\n".join(['Vagrant.configure("2") do |config|', *lines, "end", ""])


def _write(
    target: Path,
    texts: Mapping[str, str],
    disk_name: str,
    disk: Region,
    virtual_size: int | None,
    epoch: int,
    runner: Runner | None,
    progress: Progress | None,
) -> Written:
    ticker = Ticker(disk.size, progress, runner)
    with draft(target) as made:
        with GzipWriter(made.output) as stream:
            for name, text in texts.items():
                data = text.encode()
                stream.write(
                    tarball.gnu_header(name, len(data), epoch=epoch)
                    + data
                    + tarball.padding(len(data))
                )
            stream.write(tarball.gnu_header(disk_name, disk.size, epoch=epoch))
            with closing(direct.File(disk.path, os.O_RDONLY)) as file:
                for piece in direct.read_ahead(file, disk.offset, disk.size):
                    stream.write_stored(piece)  # deflated already
                    ticker.advance(len(piece))
            stream.write(tarball.padding(disk.size) + tarball.END)
            stream.write(tarball.padding(stream.position, tarball.RECORD))
        return made.done(virtual_size)


def provider_of(path: Path) -> str:
    """Which of Vagrant's providers the box is for; VerificationFailed where it does not say.

    Only the beginning of the file is read: metadata.json is the first member.
    """
    with GzipReader(path) as stream:
        texts: dict[str, str] = {}
        _check_member(stream, stream.exactly(tarball.BLOCK), texts, {})
        try:
            return str(json.loads(texts["metadata.json"])["provider"])
        except (KeyError, TypeError, ValueError) as error:
            raise stream.fail("the first member is no metadata.json with a provider") from error


def check(path: Path) -> None:
    """Reads the whole box; VerificationFailed names the first offset that breaks a rule.

    One gzip member, plain files, each once; metadata.json names the provider, whose files are all
    there; the envelope of a VirtualBox box describes its disk.
    """
    with GzipReader(path) as stream:
        texts: dict[str, str] = {}
        sizes: dict[str, int] = {}
        while any(block := stream.exactly(tarball.BLOCK)):
            _check_member(stream, block, texts, sizes)
        while rest := stream.read(BLOCK):
            if any(rest):
                raise stream.fail("bytes after the end of the archive")
        stream.finish()
        _check_content(stream, texts, sizes)


def _check_member(
    stream: GzipReader, block: bytes, texts: dict[str, str], sizes: dict[str, int]
) -> None:
    try:
        entry = tarball.parse(block)
    except VerificationFailed as error:
        raise stream.fail(str(error)) from error
    if entry.type != b"0" or "/" in entry.name or entry.name in sizes:
        raise stream.fail(f"'{entry.name}' is not a plain file, or is there twice")
    sizes[entry.name] = entry.size
    if entry.name in (VMDK_NAME, QCOW2_NAME, ARCHIVE_NAME):
        for start in range(0, entry.size, BLOCK):
            stream.exactly(min(BLOCK, entry.size - start))
    elif entry.size <= LARGEST_TEXT:
        texts[entry.name] = stream.exactly(entry.size).decode("utf-8", "replace")
    else:
        raise stream.fail(f"'{entry.name}' has no place in a box")
    if any(stream.exactly(-entry.size % tarball.BLOCK)):
        raise stream.fail("a member is not filled up with zeros")


def _check_content(stream: GzipReader, texts: dict[str, str], sizes: dict[str, int]) -> None:
    try:
        metadata = json.loads(texts["metadata.json"])
        needed = {"metadata.json", "Vagrantfile", *MEMBERS[metadata["provider"]]}
    except (KeyError, TypeError, ValueError) as error:
        raise stream.fail("metadata.json is missing or names no known provider") from error
    if set(sizes) != needed:
        raise stream.fail("the box must hold exactly " + ", ".join(sorted(needed)))
    if OVF_NAME in texts:
        described = ovf_check.parse(texts[OVF_NAME], lambda why: stream.fail(f"{OVF_NAME}: {why}"))
        if (described.name, described.size) != (VMDK_NAME, sizes[VMDK_NAME]):
            raise stream.fail(f"{OVF_NAME} does not describe {VMDK_NAME}")
    elif QCOW2_NAME not in sizes:
        return
    elif metadata.get("format") != "qcow2" or not isinstance(metadata.get("virtual_size"), int):
        raise stream.fail("metadata.json lacks format or virtual_size")
