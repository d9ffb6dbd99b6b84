"""Providers: one module each, which declares what it ships and makes it of a disk.

A new provider is a module here, `ansible/<name>.yml` and `kickstart/builds/virtual/<name>.yml`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from goldimg.errors import UsageError
from goldimg.formats import Written, ova
from goldimg.formats.ovf import GuestOs, Machine
from goldimg.formats.source import Disk
from goldimg.project import artifact_name
from goldimg.run import Runner

REGISTRY: dict[str, type[Provider]] = {}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A finished disk, and where its artifacts go: `target` holds them until all are written.

    `seed` stands for the disk's inputs and gives ids; `guest` names the OS to hypervisors.
    """

    os_name: str
    version: str
    disk: Disk
    target: Path
    cpus: int
    memory_mib: int
    seed: str
    guest: GuestOs | None
    firmware: Literal["bios", "efi"] = "bios"
    runner: Runner
    progress: Callable[[int, int], None]

    def path(self, provider: str, extension: str) -> Path:
        """Where the artifact with this extension is written."""
        return self.target / artifact_name(self.os_name, self.version, provider, extension)

    def write_ova(self, provider: str, machine: Machine) -> Written:
        """Writes the provider's OVA, which describes `machine` around the disk."""
        return ova.write(
            self.disk,
            self.path(provider, "ova"),
            machine=machine,
            seed=self.seed,
            runner=self.runner,
            progress=self.progress,
        )


class Provider(ABC):
    """A place where images run. Class attributes declare, `convert` acts."""

    name: ClassVar[str]
    title: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]
    native_builder: ClassVar[str] = "qemu"
    firmwares: ClassVar[tuple[str, ...]] = ("bios", "efi")  # that its machines can start by
    takes_guest_additions: ClassVar[bool] = False  # those of VirtualBox, where the site wants them
    is_long: ClassVar[bool] = False  # its layer takes longest, so it is started first

    def __init_subclass__(cls) -> None:
        REGISTRY[cls.name] = cls

    @property
    def kickstart(self) -> str:
        """The kickstart build that installs it."""
        return f"virtual/{self.name}"

    def tools(self) -> Sequence[str]:
        """Programs that `convert` runs on this host, beside QEMU's own."""
        return ()

    def artifacts(self, os_name: str, version: str) -> tuple[str, ...]:
        """The file names that it ships."""
        return tuple(
            artifact_name(os_name, version, self.name, extension) for extension in self.extensions
        )

    @abstractmethod
    def convert(self, job: Conversion) -> list[Written]:
        """Writes every artifact into `job.target` and returns what was written."""

    @abstractmethod
    def check(self, path: Path) -> None:
        """Checks one artifact by the rules of its format; VerificationFailed names the rule."""


def all_providers() -> dict[str, Provider]:
    """Every provider by name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {name: REGISTRY[name]() for name in sorted(REGISTRY)}


def select_providers(
    default: Sequence[str], only: Sequence[str], excepted: Sequence[str]
) -> list[Provider]:
    """The providers asked for, in alphabetical order; UsageError names an unknown one."""
    known = all_providers()
    wanted = list(only) or list(default) or list(known)
    for name in [*wanted, *excepted]:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"unknown provider '{name}'" + (f" (did you mean '{close[0]}'?)" if close else ""),
                hint="known providers: " + ", ".join(known),
            )
    chosen = [name for name in known if name in wanted and name not in excepted]
    if not chosen:
        raise UsageError("no provider is left to build", hint="check --only and --except")
    return [known[name] for name in chosen]
