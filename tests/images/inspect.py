"""Boots finished images as their hypervisors do, and asks them from inside what they are like."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.vm import booted

HERE = Path(__file__).resolve().parent
GROWN = "10G"  # the disk that an instance is given; images have 8 GiB
GROWN_BYTES = 10 << 30
# The bus on which each provider shows a disk, and so the driver that the initramfs must have.
BUSES = {
    "aws": "nvme",
    "azure": "ide",
    "gcp": "virtio-scsi",
    "openstack": "virtio",
    "virtualbox": "ide",
    "vmware": "pvscsi",
}
AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class Image:
    """What a booted image said, by the names in facts.sh, and what its serial console showed."""

    provider: str
    facts: Mapping[str, str]
    console: str
    refused: str  # what sshd said to somebody without a key
    users: Mapping[str, str]  # who else may log in: what `id` and `sudo` say

    def lines(self, name: str) -> list[str]:
        return self.facts[name].splitlines()

    def words(self, name: str) -> list[str]:
        return self.facts[name].split()


def parsed(said: str) -> dict[str, str]:
    """facts.sh's answers by name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in said.splitlines():
        if line.startswith("@"):
            name = line[1:]
            found[name] = []
        elif name:
            found[name].append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def disk_of(provider: str, artifact: Path, scratch: Path) -> tuple[Path, str]:
    """The disk that an artifact ships, as QEMU can boot it, and its format."""
    scratch.mkdir(parents=True, exist_ok=True)
    if provider == "gcp":
        subprocess.run(["tar", "-xSzf", artifact, "-C", scratch], check=True)
        return scratch / "disk.raw", "raw"
    if artifact.suffix == ".vhd":
        return artifact, "raw"  # a fixed VHD is the raw disk and a footer after it
    if artifact.suffix != ".ova":
        return artifact, "qcow2"
    subprocess.run(["tar", "-xf", artifact, "-C", scratch], check=True)
    (vmdk,) = scratch.glob("*.vmdk")
    # a compressed VMDK cannot be read at random quickly: QEMU boots a plain copy
    disk = scratch / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", vmdk, disk], check=True)
    vmdk.unlink()
    return disk, "qcow2"


def make_seed(scratch: Path, provider: str) -> tuple[Path, Path]:
    """A NoCloud seed with a user, a key and a host name; and the key:
    https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html"""
    files = scratch / "seed"
    files.mkdir(parents=True)
    key = scratch / "tester"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    user = {
        "name": "tester",
        "groups": "sudo",
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [key.with_suffix(".pub").read_text().strip()],
    }
    data = {"hostname": f"seeded-{provider}", "users": ["default", user]}
    (files / "user-data").write_text("#cloud-config\n" + json.dumps(data) + "\n")
    (files / "meta-data").write_text(f"instance-id: i-{provider}\n")
    iso = scratch / "seed.iso"
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock"]
    subprocess.run([*command, "-output", iso, files], check=True, capture_output=True)
    return iso, key


def inspect(provider: str, artifact: Path, keys: Path, scratch: Path) -> Image:
    """Boots the image, with a seed and a bigger disk than it was made with, and asks it."""
    disk, disk_format = disk_of(provider, artifact, scratch / "disk")
    seed, own_key = make_seed(scratch, provider)
    with booted(
        disk,
        disk_format,
        keys / "packer",
        scratch,
        bus=BUSES[provider],
        size=GROWN,
        seed=seed,
    ) as vm:
        answer = vm.ssh("sh -s", stdin=(HERE / "facts.sh").read_text(), seconds=900)
        assert answer.returncode in (0, 1, 2), answer.stderr
        only = ("PubkeyAuthentication=no", "PreferredAuthentications=password")
        options = tuple(word for option in only for word in ("-o", option))
        refused = vm.ssh("true", options=options)
        assert refused.returncode != 0
        users = {}
        for user, key in (("tester", own_key), ("vagrant", keys / "vagrant")):
            logged_in = vm.ssh("sudo -n id -un; id -un", user=user, key=key)
            users[user] = " ".join(logged_in.stdout.split())
        console = vm.console.read_text(errors="replace")
    return Image(
        provider=provider,
        facts=parsed(answer.stdout),
        console=console,
        refused=refused.stderr,
        users=users,
    )


def inspect_all(artifacts: Mapping[str, Path], keys: Path, scratch: Path) -> dict[str, Image]:
    """Every bootable image, two at a time."""

    def one(provider: str) -> Image:
        return inspect(provider, artifacts[provider], keys, scratch / provider)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(BUSES, pool.map(one, BUSES), strict=True))


def in_container(artifact: Path, scratch: Path, commands: Iterable[str]) -> dict[str, str]:
    """What each shell command says in the container's root file system, by the command."""
    root = scratch / "rootfs"
    root.mkdir(parents=True)
    subprocess.run(["tar", "--numeric-owner", "-xpf", artifact, "-C", root], check=True)
    said = {}
    for command in commands:
        done = subprocess.run(
            ["unshare", "--mount", "chroot", root, "/bin/sh", "-c", command],
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        said[command] = (done.stdout + done.stderr).strip()
    return said
