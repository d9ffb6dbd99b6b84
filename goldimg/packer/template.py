"""Packer templates as values: what a build asks of Packer, as JSON that 1.6 and newer take.

Options: https://developer.hashicorp.com/packer/integrations/hashicorp/qemu and …/ansible.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

Template = dict[str, object]

DISK = "disk.qcow2"
# A host that is slow to boot answers late; Packer tries every 7 s, so this is no limit of its own.
HANDSHAKES = 400


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The build VM. Memory and disk in MiB."""

    accelerator: str
    cpus: int
    memory_mib: int
    disk_mib: int
    headless: bool

    def as_inputs(self) -> dict[str, object]:
        """What of the VM shapes the disk that it leaves."""
        return {"bus": "virtio", "disk_mib": self.disk_mib}


@dataclass(frozen=True, kw_only=True)
class Ansible:
    """The playbook run: a file of extra variables, and the environment of ansible-playbook."""

    playbook: Path
    variables: Path
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """Where a run saves its guest at the end, and the socket by which QEMU is told to."""

    state: Path
    socket: Path


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One VM run: from an installer ISO (`boot_command`) or over a base disk (without).

    With `freeze` the run ends by saving the running guest instead of shutting it down; with `thaw`
    it begins with such a guest instead of booting one.
    """

    name: str
    source: Path
    source_sha256: str
    output: Path
    console: Path
    machine: Machine
    private_key: Path
    ssh_seconds: int
    ansible: Ansible
    boot_command: str = ""
    boot_wait: str = "2s"
    freeze: Freeze | None = None
    thaw: Path | None = None


def make_template(spec: Spec) -> Template:
    """The template of one run. It holds no secret: the kickstart's URL is a user variable."""
    return {
        "variables": {"ks_url": ""},
        "sensitive-variables": ["ks_url"],
        "builders": [_builder(spec)],
        "provisioners": [
            _provisioner(spec.ansible),
            *([_freezer(spec.freeze)] if spec.freeze else []),
        ],
    }


def _builder(spec: Spec) -> dict[str, object]:
    builder: dict[str, object] = {
        "name": spec.name,
        "type": "qemu",
        "iso_url": str(spec.source),
        "output_directory": str(spec.output),
        "vm_name": DISK,
        "format": "qcow2",
        "disk_size": f"{spec.machine.disk_mib}M",
        "disk_interface": "virtio",
        "disk_cache": "unsafe",
        "disk_discard": "unmap",
        "disk_detect_zeroes": "unmap",
        "net_device": "virtio-net",
        "headless": spec.machine.headless,
        "skip_compaction": True,
        "communicator": "ssh",
        "ssh_username": "root",
        "ssh_private_key_file": str(spec.private_key),
        "ssh_timeout": f"{spec.ssh_seconds}s",
        "ssh_handshake_attempts": HANDSHAKES,
        # Without a command Packer ends the VM, which is frozen by then. Forced: file systems are
        # unmounted, but no service writes anything any more, or makes the build wait for its end.
        "shutdown_command": "" if spec.freeze else "systemctl poweroff --force",
        "shutdown_timeout": "5m",
        "boot_wait": spec.boot_wait,
        "boot_key_interval": "10ms",
        **_acceleration(spec),
    }
    if spec.boot_command:
        return {
            **builder,
            "iso_checksum": f"sha256:{spec.source_sha256}",
            "boot_command": [spec.boot_command],
        }
    return {
        **builder,
        "iso_checksum": "none",  # a base is ours, and read-only once it stands
        "disk_image": True,
        "use_backing_file": True,
        # qemu-img refuses a backing file whose format nobody says
        "qemu_img_args": {"create": ["-F", "qcow2"]},
    }


def _acceleration(spec: Spec) -> dict[str, object]:
    machine = spec.machine
    arguments = [
        ["-m", f"{machine.memory_mib}M"],
        ["-smp", str(machine.cpus)],
        ["-serial", f"file:{spec.console}"],
        ["-device", "virtio-rng-pci"],
    ]
    # a -device of ours replaces Packer's own list, so the network card is named here again
    arguments += [["-device", "virtio-net,netdev=user.0"]]
    if spec.freeze:
        arguments.append(["-qmp", f"unix:{spec.freeze.socket},server=on,wait=off"])
    if spec.thaw:
        arguments.append(["-incoming", f"exec:zstd -dqc {shlex.quote(str(spec.thaw))}"])
    if machine.accelerator == "kvm":
        return {"accelerator": "kvm", "qemuargs": [*arguments, ["-cpu", "host"]]}
    return {
        "accelerator": "none",
        "qemuargs": [*arguments, ["-accel", "tcg,thread=multi"], ["-cpu", "max"]],
    }


def _provisioner(ansible: Ansible) -> dict[str, object]:
    return {
        "type": "ansible",
        "playbook_file": str(ansible.playbook),
        # Packer's own SSH proxy offers only ssh-rsa, which OpenSSH 9 refuses
        "use_proxy": False,
        "user": "root",
        "extra_arguments": ["--extra-vars", f"@{ansible.variables}"],
        "ansible_env_vars": [f"{name}={value}" for name, value in ansible.environment],
    }


def _freezer(freeze: Freeze) -> dict[str, object]:
    words = [sys.executable, "-m", "goldimg.packer.freeze", str(freeze.socket), str(freeze.state)]
    return {"type": "shell-local", "inline": [shlex.join(words)]}
