"""What will be built, as a value: installs, layers, groups, builders and reasons. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from goldimg.errors import MissingTool, UsageError
from goldimg.host import HYPERVISOR_PROGRAMS, Host

SCHEMA = 1  # raise it when the same inputs would give another disk or artifact

# Hypervisors by the builder that drives them, in the order in which their groups run.
HYPERVISORS = {"qemu": "qemu", "virtualbox-iso": "virtualbox", "vmware-iso": "vmware"}


class Planned(Protocol):
    """What a plan asks of a provider."""

    @property
    def name(self) -> str: ...
    @property
    def native_builder(self) -> str: ...
    @property
    def firmwares(self) -> tuple[str, ...]: ...
    def artifacts(self, os_name: str, version: str) -> tuple[str, ...]: ...
    def boxes(self, os_name: str, version: str) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A build's kickstart without tokens, and the volumes it makes, each a line for people."""

    text: str
    volumes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A builder and why it was taken."""

    builder: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One provider's image: a short build over its install, and the files made of it.

    `boxes` are for debugging, and are made of the artifacts where those are there already.
    """

    provider: str
    choice: Choice
    artifacts: tuple[str, ...]
    boxes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Group:
    """Builds that may run side by side. Groups never overlap in time; `reason` says why."""

    name: str
    builders: tuple[str, ...]
    providers: tuple[str, ...]
    reason: str

    def is_called(self, text: str, number: int) -> bool:
        """Whether a user who writes `text` means this group, the `number`th from 1 on."""
        return text in (str(number), self.name, *self.builders, *self.name.split("+"))


@dataclass(frozen=True, kw_only=True)
class Install:
    """One installation from the ISO, shared by every layer whose kickstart is the same.

    `serves` names all providers that it would do for, built now or not: the base is the same
    whichever of them are selected. An install by a hypervisor's own builder has one layer, and
    both are one run of Packer.
    """

    name: str
    builder: str
    serves: tuple[str, ...]
    kickstart: str
    volumes: tuple[str, ...]
    layers: tuple[Layer, ...]

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(layer.provider for layer in self.layers)

    @property
    def is_native(self) -> bool:
        """Whether a hypervisor other than QEMU installs and provisions it in one run."""
        return self.builder != "qemu"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a build of one OS in one version does; sizes in MiB."""

    os_name: str
    version: str
    disk_mib: int
    jobs: int
    firmware: str
    installs: tuple[Install, ...]
    groups: tuple[Group, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(layer for install in self.installs for layer in install.layers)


def choose_builder(provider: Planned, wanted: str, host: Host) -> Choice:
    """The builder of one provider: the one asked for, or with `auto` its own where that is here.

    Raises MissingTool where the one asked for is not installed.
    """
    native = provider.native_builder
    if wanted != "auto":
        if wanted != "qemu" and wanted not in host.builders:
            program = HYPERVISOR_PROGRAMS[wanted]
            raise MissingTool(
                f"{provider.name}: {program} is not installed, which {wanted} needs",
                hint=f"install {HYPERVISORS[wanted]}, or set builder.{provider.name} to qemu",
            )
        return Choice(builder=wanted, reason=f"builder.{provider.name} says so")
    if native == "qemu":
        return Choice(builder="qemu", reason="native builder")
    program = HYPERVISOR_PROGRAMS[native]
    if native in host.builders:
        return Choice(builder=native, reason=f"native builder, {program} is installed")
    reason = f"{native} needs {program}, which is not installed; goldimg writes the files itself"
    return Choice(builder="qemu", reason=reason)


def make_groups(choices: Mapping[str, Choice], accelerator: str) -> tuple[Group, ...]:
    """Groups of builds by what holds the CPU's virtualization extensions.

    KVM, VirtualBox and VMware exclude one another; QEMU that emulates excludes nobody, so it
    joins the first group of the others.
    """
    found: dict[str, list[str]] = {}
    for builder in HYPERVISORS:
        names = [name for name, choice in choices.items() if choice.builder == builder]
        if names:
            found[builder] = sorted(names)
    others = [builder for builder in found if builder != "qemu"]
    if "qemu" in found and others and accelerator != "kvm":
        merged = ("qemu", others[0])
        together = [merged, *((builder,) for builder in others[1:])]
    else:
        together = [(builder,) for builder in found]
    return tuple(
        Group(
            name="+".join(HYPERVISORS[builder] for builder in builders),
            builders=builders,
            providers=tuple(name for builder in builders for name in found[builder]),
            reason=_group_reason(builders, len(together), accelerator),
        )
        for builders in together
    )


def _group_reason(builders: tuple[str, ...], count: int, accelerator: str) -> str:
    if len(builders) > 1:
        return "QEMU emulates here (tcg) and leaves the CPU's extensions to the other"
    if count == 1:
        return "nothing else is built"
    user = f"QEMU with {accelerator}" if builders == ("qemu",) else HYPERVISORS[builders[0]]
    return f"{user} needs the CPU's virtualization extensions for itself"


def pick_group(choices: Mapping[str, Choice], accelerator: str, wanted: str) -> tuple[str, ...]:
    """The providers of one group, by its number from 1 on or its name; UsageError shows all."""
    groups = make_groups(choices, accelerator)
    for number, group in enumerate(groups, 1):
        if group.is_called(wanted, number):
            return group.providers
    known = "; ".join(
        f"{number} {group.name} ({', '.join(group.providers)})"
        for number, group in enumerate(groups, 1)
    )
    raise UsageError(f"there is no group '{wanted}'", hint=f"groups: {known}")


def check_firmware(providers: Iterable[Planned], firmware: str) -> None:
    """Raises UsageError with every provider that cannot start images of this firmware."""
    wrong = [provider.name for provider in providers if firmware not in provider.firmwares]
    if wrong:
        raise UsageError(
            f"{', '.join(wrong)}: no image for {firmware.upper()} firmware can be made",
            why="the format cannot ask for it",
            hint=f"leave them out with --except {','.join(wrong)}, or set firmware to bios",
        )


def make_plan(
    *,
    os_name: str,
    version: str,
    disk_mib: int,
    jobs: int,
    providers: Sequence[Planned],
    builders: Mapping[str, str],
    kickstarts: Mapping[str, Rendered],
    host: Host,
    accelerator: str = "tcg",
    firmware: str = "bios",
    boxes: bool = False,
) -> Plan:
    """Gathers `providers` of equal kickstart into installs, larger ones first.

    What another hypervisor than QEMU builds is an install of its own. `kickstarts` may hold more
    providers than are built. Raises UsageError and MissingTool for what cannot be built here.
    """
    check_firmware(providers, firmware)
    shared: dict[tuple[str, str], list[Layer]] = {}
    choices = {
        provider.name: choose_builder(provider, builders.get(provider.name, "auto"), host)
        for provider in providers
    }
    for provider in providers:
        choice = choices[provider.name]
        layer = Layer(
            provider=provider.name,
            choice=choice,
            artifacts=provider.artifacts(os_name, version),
            boxes=provider.boxes(os_name, version) if boxes else (),
        )
        is_own = choice.builder != "qemu"
        key = (choice.builder, provider.name if is_own else kickstarts[provider.name].text)
        shared.setdefault(key, []).append(layer)
    ordered = sorted(shared.values(), key=lambda layers: (-len(layers), layers[0].provider))
    return Plan(
        os_name=os_name,
        version=version,
        disk_mib=disk_mib,
        jobs=jobs,
        firmware=firmware,
        installs=tuple(_install(layers, kickstarts, builders) for layers in ordered),
        groups=make_groups(choices, accelerator),
    )


def _install(
    layers: list[Layer], kickstarts: Mapping[str, Rendered], builders: Mapping[str, str]
) -> Install:
    first = layers[0]
    kickstart = kickstarts[first.provider]
    is_own = first.choice.builder != "qemu"
    return Install(
        name="+".join(layer.provider for layer in layers),
        builder=first.choice.builder,
        serves=(first.provider,) if is_own else _served(kickstarts, kickstart.text, builders),
        kickstart=kickstart.text,
        volumes=kickstart.volumes,
        layers=tuple(layers),
    )


def _served(
    kickstarts: Mapping[str, Rendered], text: str, builders: Mapping[str, str]
) -> tuple[str, ...]:
    return tuple(
        sorted(
            name
            for name, rendered in kickstarts.items()
            if rendered.text == text and builders.get(name, "auto") in ("auto", "qemu")
        )
    )


def digest(parts: Mapping[str, object]) -> str:
    """64 hex digits that stand for `parts`; equal for equal values, whatever their order."""
    text = json.dumps({**parts, "schema": SCHEMA}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_files(files: Iterable[tuple[str, bytes]]) -> str:
    """64 hex digits that stand for named contents."""
    total = hashlib.sha256()
    for name, content in sorted(files):
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
