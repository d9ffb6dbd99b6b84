"""What this host offers a build: cores, memory, hypervisors, and an accelerator that is proven."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from goldimg.run import has_program

SPARE_MIB = 1024  # memory left to the rest of the host
OVERHEAD_MIB = 300  # what a QEMU process takes beside its guest's memory

# builder -> the program whose presence says that its hypervisor is installed
HYPERVISOR_PROGRAMS = {
    "qemu": "qemu-system-x86_64",
    "virtualbox-iso": "VBoxManage",
    "vmware-iso": "vmrun",
}


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """How QEMU runs guests here (`kvm` or `tcg`) and why."""

    name: str
    reason: str


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
