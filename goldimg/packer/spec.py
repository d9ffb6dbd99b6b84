"""What a run of Packer is asked for, as values that know no builder's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# A host that is slow to boot answers late; Packer tries every 7 s, so this is no limit of its own.
HANDSHAKES = 400


@dataclass(frozen=True, kw_only=True)
class Ovmf:
    """UEFI firmware for QEMU: its code, and the variables that each guest gets a copy of."""

    code: Path
    variables: Path


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The build VM. Memory and disk in MiB. EFI under QEMU needs `ovmf`."""

    accelerator: str
    cpus: int
    memory_mib: int
    disk_mib: int
    headless: bool
    firmware: str = "bios"
    ovmf: Ovmf | None = None

    def as_inputs(self) -> dict[str, object]:
        """What of the VM shapes the disk that it leaves."""
        inputs: dict[str, object] = {"bus": "virtio", "disk_mib": self.disk_mib}
        return inputs if self.firmware == "bios" else {**inputs, "firmware": self.firmware}


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
class Native:
    """What only a hypervisor's own builder is told.

    `vm_name` is unique on the host. `guest_os` is the hypervisor's id of the guest, `version` the
    hypervisor's own (0, 0 where nobody knows). The two `vmx_data` are laid over ours.
    """

    vm_name: str
    guest_os: str
    version: tuple[int, int] = (0, 0)
    guest_additions: str = "disable"
    hardware_version: int = 11
    vmx_data: Mapping[str, str] = field(default_factory=dict)
    vmx_data_post: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One VM run: from an installer ISO (`boot_command`) or over a base disk (without).

    With `freeze` the run ends by saving the running guest instead of shutting it down; with `thaw`
    it begins with such a guest instead of booting one. Both are QEMU's, as are `efi_variables`, the
    guest's own copy, and `monitor`, the QMP socket by which its screen is seen. With `native`
    another hypervisor's builder runs from the ISO.
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
    efi_variables: Path | None = None
    monitor: Path | None = None
    builder: str = "qemu"
    native: Native | None = None


def common(spec: Spec) -> dict[str, object]:
    """What every builder is told in the same words."""
    # Without a command Packer ends the VM, which is frozen by then. Forced: file systems are
    # unmounted, but no service writes anything any more, or makes the build wait for its end.
    shutdown = "" if spec.freeze else "systemctl poweroff --force"
    return {
        "name": spec.name,
        "type": spec.builder,
        "iso_url": str(spec.source),
        "output_directory": str(spec.output),
        "headless": spec.machine.headless,
        "communicator": "ssh",
        "ssh_username": "root",
        "ssh_private_key_file": str(spec.private_key),
        "ssh_timeout": f"{spec.ssh_seconds}s",
        "ssh_handshake_attempts": HANDSHAKES,
        "shutdown_command": shutdown,
        "shutdown_timeout": "5m",
        "boot_wait": spec.boot_wait,
    }


def from_iso(spec: Spec) -> dict[str, object]:
    """What makes a run an installation."""
    return {"iso_checksum": f"sha256:{spec.source_sha256}", "boot_command": [spec.boot_command]}
