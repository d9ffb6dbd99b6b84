"""What will be built, as a value: installs, layers, groups, builders and reasons. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from goldimg.errors import UsageError
from goldimg.host import Host

SCHEMA = 1  # raise it when the same inputs would give another disk or artifact

# Hypervisors that can hold the CPU's virtualization extensions at the same time share a group.
GROUP_OF = {"qemu": "qemu", "virtualbox-iso": "virtualbox", "vmware-iso": "vmware"}


class Planned(Protocol):
    """What a plan asks of a provider."""

    @property
    def name(self) -> str: ...
    @property
    def native_builder(self) -> str: ...
    def artifacts(self, os_name: str, version: str) -> tuple[str, ...]: ...


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
    """One provider's image: a short build over its install, and the files made of it."""

    provider: str
    choice: Choice
    artifacts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Install:
    """One installation from the ISO, shared by every layer whose kickstart is the same.

    `serves` names all providers that it would do for, built now or not: the base is the same
    whichever of them are selected.
    """

    name: str
    serves: tuple[str, ...]
    kickstart: str
    volumes: tuple[str, ...]
    layers: tuple[Layer, ...]

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(layer.provider for layer in self.layers)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a build of one OS in one version does; sizes in MiB."""

    os_name: str
    version: str
    disk_mib: int
    jobs: int
    installs: tuple[Install, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(layer for install in self.installs for layer in install.layers)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Providers by the hypervisor that builds them; groups never overlap in time."""
        found: dict[str, tuple[str, ...]] = {}
        for layer in self.layers:
            group = GROUP_OF[layer.choice.builder]
            found[group] = (*found.get(group, ()), layer.provider)
        return found


def choose_builder(provider: Planned, wanted: str, host: Host) -> Choice:
    """The builder of one provider. UsageError where the wanted one cannot be had here."""
    if wanted not in ("auto", "qemu"):
        raise UsageError(
            f"{provider.name}: builder '{wanted}' cannot be used yet",
            why="this version of goldimg installs with qemu and writes OVA and box files itself",
            hint=f"set builder.{provider.name} to qemu or auto",
        )
    if wanted == "qemu":
        return Choice(builder="qemu", reason="set in the site file")
    if provider.native_builder == "qemu":
        return Choice(builder="qemu", reason="native builder")
    if provider.native_builder in host.builders:
        reason = f"{provider.native_builder} cannot be used yet; goldimg writes the files itself"
    else:
        reason = f"{provider.native_builder} is not installed; goldimg writes the files itself"
    return Choice(builder="qemu", reason=reason)


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
) -> Plan:
    """Groups `providers` by equal kickstart and builder into installs, larger ones first.

    `kickstarts` may hold more providers than are built.
    """
    shared: dict[tuple[str, str], list[Layer]] = {}
    for provider in providers:
        choice = choose_builder(provider, builders.get(provider.name, "auto"), host)
        layer = Layer(
            provider=provider.name,
            choice=choice,
            artifacts=provider.artifacts(os_name, version),
        )
        key = (choice.builder, kickstarts[provider.name].text)
        shared.setdefault(key, []).append(layer)
    ordered = sorted(shared.values(), key=lambda layers: (-len(layers), layers[0].provider))
    return Plan(
        os_name=os_name,
        version=version,
        disk_mib=disk_mib,
        jobs=jobs,
        installs=tuple(
            Install(
                name="+".join(layer.provider for layer in layers),
                serves=_served(kickstarts, kickstarts[layers[0].provider].text, builders),
                kickstart=kickstarts[layers[0].provider].text,
                volumes=kickstarts[layers[0].provider].volumes,
                layers=tuple(layers),
            )
            for layers in ordered
        ),
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
