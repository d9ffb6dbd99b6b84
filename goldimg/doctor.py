"""`goldimg doctor`: which tools are there, which version, and what brings the missing ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from goldimg.config.models import Settings
from goldimg.errors import GoldimgError
from goldimg.host import find_accelerator
from goldimg.iso.fetch import is_fetched, preflight
from goldimg.packages import package_of
from goldimg.run import Runner, has_program

SECONDS = 15.0  # a probe that takes longer counts as failed


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One tool or capability. `detail` is its version, or the command that brings it."""

    name: str
    reason: str
    is_required: bool
    is_there: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A program, why it is needed, and the arguments that make it say its version."""

    name: str
    reason: str
    arguments: tuple[str, ...] = ("--version",)
    is_required: bool = True


PROBES = (
    Probe(name="packer", reason="boot and provision build VMs", arguments=("version",)),
    Probe(name="qemu-system-x86_64", reason="run build VMs"),
    Probe(name="qemu-img", reason="make and flatten disks"),
    Probe(name="ansible-playbook", reason="provision images"),
    Probe(name="ksvalidator", reason="check kickstarts", arguments=("--help",)),
    Probe(name="ssh-keygen", reason="make keys", arguments=()),
    Probe(name="mmdebstrap", reason="assemble Debian's installer ISO"),
    Probe(name="xorriso", reason="assemble Debian's installer ISO", arguments=("-version",)),
    Probe(name="dnsmasq", reason="start machines over the network", is_required=False),
    Probe(name="guestfish", reason="export docker's files without root", is_required=False),
    Probe(name="VBoxManage", reason="build with VirtualBox", is_required=False),
    Probe(name="vmrun", reason="build with VMware", arguments=(), is_required=False),
)


def examine(runner: Runner) -> list[Finding]:
    """Asks every tool for its version; a tool that hangs or fails is told as such."""
    found = [_tool(probe, runner) for probe in PROBES]
    accelerator = find_accelerator()
    return [
        *found,
        Finding(
            name="kvm",
            reason="run build VMs at full speed",
            is_required=False,
            is_there=accelerator.name == "kvm",
            detail=accelerator.reason,
        ),
    ]


def examine_iso(settings: Settings, cache: Path) -> Finding:
    """Whether the ISO of an OS is here or its servers answer."""
    problems = preflight(settings, cache) if is_fetched(settings) else []
    name = settings.iso_file or f"{settings.name} from packages"
    return Finding(
        name=name,
        reason=f"install {settings.name}",
        is_required=True,
        is_there=not problems,
        detail="; ".join(problems) or "can be had",
    )


def _tool(probe: Probe, runner: Runner) -> Finding:
    is_there = has_program(probe.name)
    detail = f"apt-get install {package_of(probe.name)}"
    if is_there:
        detail = _version(probe, runner)
    elif probe.name == package_of(probe.name) and not probe.is_required:
        detail = "not in Debian: see its vendor"
    return Finding(
        name=probe.name,
        reason=probe.reason,
        is_required=probe.is_required,
        is_there=is_there,
        detail=detail,
    )


def _version(probe: Probe, runner: Runner) -> str:
    if not probe.arguments:
        return "installed"
    try:
        result = runner.run(
            [probe.name, *probe.arguments],
            check=False,
            timeout=SECONDS,
            env={"CHECKPOINT_DISABLE": "1"},
        )
    except GoldimgError as error:
        return str(error)
    match = re.search(r"v?(\d+\.\d+[\w.+~-]*)", result.stdout + result.stderr)
    return match.group(1).rstrip(".") if match else "installed"
