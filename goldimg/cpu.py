"""Does a build VM's CPU have what an operating system's programs take for granted?

A guest whose CPU lacks it dies late and oddly: EL10's first program ends with "Fatal glibc error:
CPU does not support x86-64-v3", which nobody sees on a screen without a head.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from goldimg.config.os_file import CpuLevel
from goldimg.errors import BuildFailed

# The x86-64 psABI, section 3.1.1, in the words of /proc/cpuinfo; each level has the lower ones'.
_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"})
FLAGS: dict[CpuLevel, frozenset[str]] = {
    "x86-64": frozenset(),
    "x86-64-v2": _V2,
    "x86-64-v3": _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
}
# From here on QEMU emulates them all: https://wiki.qemu.org/ChangeLog/7.2#TCG_2
EMULATES_V3 = (7, 2)


def lacks(
    level: CpuLevel | None,
    builders: Collection[str],
    accelerator: str,
    qemu_version: str,
    root: Path = Path("/"),
) -> str:
    """Why guests of `builders` cannot have a CPU of `level`; empty where they can.

    QEMU that emulates gives what its version knows (`-cpu max`), every other hypervisor the host's.
    """
    if level is None:
        return ""
    is_emulated = accelerator != "kvm"
    if is_emulated and "qemu" in builders and level == "x86-64-v3":
        match = re.match(r"(\d+)\.(\d+)", qemu_version)
        if match and (int(match[1]), int(match[2])) < EMULATES_V3:
            return f"QEMU {qemu_version} does not emulate {level}; 7.2 and later do"
    if set(builders) - {"qemu"} or ("qemu" in builders and not is_emulated):
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
        missing = sorted(FLAGS[level] - set(found[1].split())) if found else []
        if missing:
            return f"this machine's CPU is not {level}: it has no {', '.join(missing)}"
    return ""


def check_cpu(
    os_name: str,
    level: CpuLevel | None,
    builders: Collection[str],
    accelerator: str,
    qemu_version: str,
) -> None:
    """Raises BuildFailed where the OS would not run in the build's VMs."""
    if why := lacks(level, builders, accelerator, qemu_version):
        raise BuildFailed(
            f"{os_name} cannot run in a build VM here",
            why=why,
            hint="accelerator: tcg with QEMU 7.2 or later emulates such a CPU, slowly; "
            "builder: qemu for providers whose own hypervisor has none",
        )
