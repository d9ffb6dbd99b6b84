"""`goldimg doctor`: what the chosen providers need of this host, and what brings the rest."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from goldimg import checks
from goldimg.checks import SECONDS, Finding, number_of
from goldimg.config.models import Settings, SiteFile
from goldimg.errors import GoldimgError
from goldimg.host import find_accelerator, inspect_host
from goldimg.packages import package_of
from goldimg.plan import HYPERVISORS, choose_builder
from goldimg.project import Site
from goldimg.providers import Provider
from goldimg.run import Runner, has_program

__all__ = ["Finding", "Patient", "examine", "examine_iso"]

examine_iso = checks.iso


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A program, why it is needed, and the arguments that make it say its version.

    Without `needed_for` every build needs it; else a builder, a tool or an installer kind does.
    """

    name: str
    reason: str
    arguments: tuple[str, ...] = ("--version",)
    is_required: bool = True
    needed_for: str = ""


PROBES = (
    Probe(name="packer", reason="boot and provision build VMs", arguments=("version",)),
    Probe(name="qemu-system-x86_64", reason="run build VMs", needed_for="qemu"),
    Probe(name="qemu-img", reason="make and flatten disks"),
    Probe(name="ansible-playbook", reason="provision images"),
    Probe(name="ksvalidator", reason="check kickstarts", arguments=("--help",)),
    Probe(name="ssh", reason="reach build VMs", arguments=("-V",)),
    Probe(name="ssh-keygen", reason="make keys", arguments=()),
    Probe(
        name="mmdebstrap",
        reason="assemble Debian's installer ISO",
        needed_for="debian-packages",
    ),
    Probe(
        name="xorriso",
        reason="assemble Debian's installer ISO",
        arguments=("-version",),
        needed_for="debian-packages",
    ),
    Probe(name="dnsmasq", reason="start machines over the network", is_required=False),
    Probe(name="guestfish", reason="export docker's files without root", is_required=False),
    Probe(name="VBoxManage", reason="build with VirtualBox", needed_for="virtualbox-iso"),
    Probe(name="vmrun", reason="build with VMware", arguments=(), needed_for="vmware-iso"),
    Probe(name="vmware", reason="build with VMware", arguments=("-v",), needed_for="vmware-iso"),
    Probe(
        name="vmware-vdiskmanager",
        reason="make VMware's disks",
        arguments=(),
        needed_for="vmware-iso",
    ),
    Probe(name="ovftool", reason="write VMware's OVA, as ova_writer asks", needed_for="ovftool"),
    Probe(name="vagrant", reason="try boxes", is_required=False),
)


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What is asked about: a site, some of its providers, and an OS where one was named."""

    site: Site
    site_file: SiteFile
    providers: tuple[Provider, ...]
    settings: Settings | None = None


def examine(runner: Runner, patient: Patient | None = None) -> list[Finding]:
    """Every finding, in one order; without a patient, the programs and the CPU alone.

    Probes run side by side, each with an end of its own: one that hangs or fails is told as such.
    """
    wanted = _needs(patient)
    probes: list[Callable[[], Finding]] = [
        functools.partial(_tool, probe, wanted, runner) for probe in PROBES
    ]
    probes.append(lambda: checks.kvm(runner))
    if patient:
        probes += _of_site(patient, wanted, runner)
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(lambda probe: probe(), probes))
    versions = {finding.name: number_of(finding.detail) for finding in found if finding.is_there}
    return [*found, *_of_versions(versions, patient, wanted, runner)]


def _needs(patient: Patient | None) -> set[str]:
    """Builders and installer kinds that the patient's builds use."""
    if patient is None:
        return {"qemu", "debian-packages"}
    host = inspect_host()
    needs = set()
    for provider in patient.providers:
        asked = patient.site_file.builder.get(provider.name, "auto")
        is_here = asked in ("auto", "qemu") or asked in host.builders
        needs.add(choose_builder(provider, asked, host).builder if is_here else asked)
    needs |= {name for it in patient.providers for name in it.tools(patient.site_file)}
    settings = patient.settings
    is_assembled = settings is None or not settings.iso_path
    kind = settings.os.installer.kind if settings else "debian-packages"
    return needs | ({kind} if is_assembled else set())


def _of_site(patient: Patient, wanted: set[str], runner: Runner) -> list[Callable[[], Finding]]:
    site, settings = patient.site, patient.settings
    site_file = patient.site_file
    names = sorted({name for it in patient.providers for name in it.tools(site_file)})
    known = {probe.name for probe in PROBES if probe.is_required}
    probes: list[Callable[[], Finding]] = []
    for name in names:
        if name not in known:
            probe = Probe(name=name, reason="write artifacts", arguments=("--version",))
            probes.append(functools.partial(_tool, probe, wanted, runner))
    builders = wanted & HYPERVISORS.keys()
    uses_cpu = builders - {"qemu"} or find_accelerator().name == "kvm"
    if uses_cpu:
        probes.append(lambda: checks.extensions(builders))
    if "vmware-iso" in wanted:
        probes.append(checks.vmware_network)
    if (settings.firmware if settings else patient.site_file.firmware) == "efi":
        probes.append(checks.efi_firmware)
    probes += [
        lambda: checks.space(site, len(patient.providers)),
        lambda: checks.port(patient.site_file.ks_port),
        lambda: checks.keys(site),
    ]
    if settings:
        probes += [
            lambda: checks.iso(settings, site.cache),
            lambda: checks.repository(settings, runner),
        ]
    return probes


def _of_versions(
    versions: dict[str, tuple[int, int]],
    patient: Patient | None,
    wanted: set[str],
    runner: Runner,
) -> list[Finding]:
    found = []
    if "packer" in versions:
        builders = [builder for builder in HYPERVISORS if builder in wanted]
        found.append(checks.packer_plugins(builders, versions["packer"], runner))
    if patient and patient.settings and patient.settings.os.cpu:
        builders = [builder for builder in HYPERVISORS if builder in wanted]
        qemu = versions.get("qemu-system-x86_64", (0, 0))
        found.append(checks.cpu(patient.settings, builders, qemu))
    if patient and patient.settings and "ansible-playbook" in versions:
        found.append(checks.ansible_python(versions["ansible-playbook"], patient.settings))
    return found


def _tool(probe: Probe, wanted: set[str], runner: Runner) -> Finding:
    is_required = probe.is_required and (not probe.needed_for or probe.needed_for in wanted)
    is_there = has_program(probe.name)
    detail = f"apt-get install {package_of(probe.name)}"
    if is_there:
        detail = _version(probe, runner)
    elif probe.needed_for in ("virtualbox-iso", "vmware-iso") or probe.name == "ovftool":
        detail = "not in Debian: see its vendor"
    return Finding(
        name=probe.name,
        reason=probe.reason,
        is_required=is_required,
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
