"""What this host offers a build: cores, memory, hypervisors, and an accelerator that is proven."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from goldimg.packer.spec import Ovmf
from goldimg.run import has_program

SPARE_MIB = 1024  # memory left to the rest of the host
OVERHEAD_MIB = 300  # what a hypervisor's process takes beside its guest's memory

# builder -> the program whose presence says that its hypervisor is installed
HYPERVISOR_PROGRAMS = {
    "qemu": "qemu-system-x86_64",
    "virtualbox-iso": "VBoxManage",
    "vmware-iso": "vmrun",
}
# builder -> names of the processes that are its running VMs
VM_PROCESSES = {
    "virtualbox-iso": ("VBoxHeadless", "VirtualBoxVM", "VBoxSDL"),
    "vmware-iso": ("vmware-vmx", "vmware-vmx-debug", "vmware-vmx-stats"),
}
# Where distributions keep OVMF: Debian's 4 MiB build, the older one; Fedora and EL; Arch; SUSE.
OVMF_FILES = (
    ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
    ("usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("usr/share/edk2/x64/OVMF_CODE.4m.fd", "usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("usr/share/qemu/ovmf-x86_64-code.bin", "usr/share/qemu/ovmf-x86_64-vars.bin"),
)


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """How QEMU runs guests here (`kvm` or `tcg`) and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A running VM that uses the CPU's virtualization extensions, by the builder of its kind."""

    builder: str
    pid: int
    command: str


@dataclass(frozen=True, kw_only=True)
class Host:
    """The host as a plan needs to know it; memory in MiB."""

    cores: int
    memory_mib: int
    accelerator: Accelerator
    builders: frozenset[str]

    def jobs(self, vm_memory_mib: int, vm_cpus: int) -> int:
        """How many VMs fit side by side, by cores and by memory; at least one."""
        by_memory = (self.memory_mib - SPARE_MIB) // (vm_memory_mib + OVERHEAD_MIB)
        return max(1, min(self.cores // max(1, vm_cpus), by_memory))


def inspect_host(root: Path = Path("/")) -> Host:
    """Reads the host's facts; starts nothing. `root` is where proc, sys and dev are."""
    meminfo = (root / "proc/meminfo").read_text(encoding="ascii")
    available = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    return Host(
        cores=len(os.sched_getaffinity(0)),
        memory_mib=int(available.group(1)) // 1024 if available else 2048,
        accelerator=find_accelerator(root),
        builders=frozenset(
            name for name, program in HYPERVISOR_PROGRAMS.items() if has_program(program)
        ),
    )


def find_accelerator(root: Path = Path("/")) -> Accelerator:
    """KVM only where it is proven: a usable device node, the CPU flag and a vendor module.

    The node alone proves nothing: on some hosts /dev/kvm opens and stock guest kernels hang.
    """
    node = root / "dev/kvm"
    if not node.exists():
        return Accelerator(name="tcg", reason="/dev/kvm does not exist")
    if not os.access(node, os.R_OK | os.W_OK):
        return Accelerator(name="tcg", reason="/dev/kvm is not accessible to this user")
    flags = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", flags, re.MULTILINE):
        return Accelerator(name="tcg", reason="/dev/kvm exists but the CPU shows no vmx or svm")
    modules = [name for name in ("kvm_intel", "kvm_amd") if (root / "sys/module" / name).exists()]
    if not modules:
        return Accelerator(name="tcg", reason="/dev/kvm exists but no kvm_intel or kvm_amd module")
    return Accelerator(name="kvm", reason=f"/dev/kvm, the CPU's flag and {modules[0]} are there")


def choose_accelerator(wanted: str, host: Host) -> Accelerator:
    """The site's `accelerator`: `auto` takes what is proven, a name is taken as it is."""
    if wanted == "auto":
        return host.accelerator
    return Accelerator(name=wanted, reason="set in the site file")


def find_ovmf(root: Path = Path("/")) -> Ovmf | None:
    """UEFI firmware for QEMU, where the host has any."""
    for code, variables in OVMF_FILES:
        if (root / code).is_file() and (root / variables).is_file():
            return Ovmf(code=root / code, variables=root / variables)
    return None


def find_holders(root: Path = Path("/")) -> tuple[Holder, ...]:
    """The running VMs of all hypervisors, as /proc shows them; QEMU's only where they use KVM."""
    return tuple(sorted(_holders(root), key=lambda holder: holder.pid))


def _holders(root: Path) -> Iterator[Holder]:
    for entry in (root / "proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it may be gone by now
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            name = Path(words[0]).name
            for builder, names in VM_PROCESSES.items():
                if name in names:
                    yield Holder(builder=builder, pid=int(entry.name), command=name)
            if _uses_kvm(entry, words):
                yield Holder(builder="qemu", pid=int(entry.name), command=name)


def _uses_kvm(entry: Path, words: list[str]) -> bool:
    """Whether the process has a KVM machine open; of another user's, what its command line says."""
    try:
        links = [str(link.readlink()) for link in (entry / "fd").iterdir()]
    except OSError:
        text = " ".join(words)
        return Path(words[0]).name.startswith("qemu") and bool(
            re.search(r"-enable-kvm|accel[= ]kvm|-accel kvm|-cpu host", text)
        )
    return any(link.startswith("anon_inode:kvm-vm") for link in links)
