"""Providers: one module each, which declares what it ships and makes it of a disk.

A new provider is a module here, `ansible/<name>.yml` and `kickstart/builds/virtual/<name>.yml`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypedDict

from goldimg.config.models import Settings, SiteFile
from goldimg.errors import UsageError
from goldimg.formats import Written, box, ova
from goldimg.formats.ovf import GuestOs, Machine
from goldimg.formats.source import Disk
from goldimg.project import artifact_name
from goldimg.run import Runner
from goldimg.testing.bench import Bench

REGISTRY: dict[str, type[Provider]] = {}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What artifacts are made of, and where they go: `target` holds them until all are written.

    `guest` names the OS to hypervisors; of `site` it is read how formats are written.
    """

    os_name: str
    version: str
    target: Path
    cpus: int
    memory_mib: int
    guest: GuestOs | None
    firmware: Literal["bios", "efi"] = "bios"
    site: SiteFile = field(default_factory=SiteFile)
    runner: Runner
    progress: Callable[[int, int], None]

    def path(self, provider: str, extension: str) -> Path:
        """Where the artifact with this extension is written."""
        return self.target / artifact_name(self.os_name, self.version, provider, extension)


class JobFields(TypedDict):
    """The fields of a Job that say what is built, for those who make several of them."""

    os_name: str
    version: str
    target: Path
    cpus: int
    memory_mib: int
    guest: GuestOs | None
    firmware: Literal["bios", "efi"]
    site: SiteFile


@dataclass(frozen=True, kw_only=True)
class Conversion(Job):
    """A finished disk that becomes artifacts. `seed` stands for its inputs and gives ids.

    No file of it is told to have changed after `newest`, in seconds since 1970, where the format
    tells times.
    """

    disk: Disk
    seed: str
    newest: int | None = None

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


@dataclass(frozen=True, kw_only=True)
class Boxing(Job):
    """Artifacts in `directory`, of which boxes are made; `open_disk` gives the disk in them."""

    directory: Path
    open_disk: Callable[[], AbstractContextManager[Disk]]

    def artifact(self, provider: str, extension: str) -> Path:
        """The artifact that is there already."""
        return self.directory / artifact_name(self.os_name, self.version, provider, extension)


class Provider(ABC):
    """A place where images run. Class attributes declare, `convert` and `write_boxes` act."""

    name: ClassVar[str]
    title: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]
    native_builder: ClassVar[str] = "qemu"
    firmwares: ClassVar[tuple[str, ...]] = ("bios", "efi")  # that its machines can start by
    takes_guest_additions: ClassVar[bool] = False  # those of VirtualBox, where the site wants them
    is_long: ClassVar[bool] = False  # its layer takes longest, so it is started first
    ships_files: ClassVar[bool] = False  # its first artifact is a tar archive of the files
    is_for_vagrant: ClassVar[bool] = False  # its boxes are for everyday use, not for debugging
    bench: ClassVar[Bench] = Bench()  # the machine that `goldimg test` starts its images in
    boxed_as: ClassVar[str] = ""  # which name the box made by --boxes has; "": there is none
    source: ClassVar[str] = ""  # the extension of the artifact that such a box is made of

    def __init_subclass__(cls) -> None:
        REGISTRY[cls.name] = cls

    @property
    def kickstart(self) -> str:
        """The kickstart build that installs it."""
        return f"virtual/{self.name}"

    def tools(self, site: SiteFile) -> Sequence[str]:
        """Programs that `convert` runs on this host, beside QEMU's own."""
        return ()

    def options(self, site: SiteFile) -> Mapping[str, object]:
        """The settings that shape its files and not its disk: other ones make them stale."""
        return {}

    def refuse(self, settings: Settings) -> None:  # noqa: B027 - most refuse nothing
        """Raises UsageError where no image for this provider can be made with these settings."""

    def artifacts(self, os_name: str, version: str) -> tuple[str, ...]:
        """The file names that it ships."""
        return tuple(
            artifact_name(os_name, version, self.name, extension) for extension in self.extensions
        )

    def boxes(self, os_name: str, version: str) -> tuple[str, ...]:
        """The file names that `--boxes` adds."""
        if not self.boxed_as:
            return ()
        return (artifact_name(os_name, version, self.boxed_as, "box"),)

    @abstractmethod
    def convert(self, job: Conversion) -> list[Written]:
        """Writes every artifact into `job.target` and returns what was written."""

    def write_boxes(self, job: Boxing) -> list[Written]:
        """Writes what `boxes` names into `job.target`, out of the artifacts."""
        return []

    def check(self, path: Path) -> None:
        """Checks one artifact by the rules of its format; VerificationFailed names the rule."""
        if path.suffix == ".box":
            box.check(path)
        else:
            self.check_image(path)

    @abstractmethod
    def check_image(self, path: Path) -> None:
        """The same for an artifact that is not a box."""


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
