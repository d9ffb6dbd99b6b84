"""What is on trial, where, and what was found: values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from goldimg.artifacts import TESTED
from goldimg.errors import GoldimgError, Interrupted
from goldimg.events import Bus
from goldimg.packer.spec import Ovmf
from goldimg.project import Site
from goldimg.providers import Provider
from goldimg.run import Runner
from goldimg.testing.suite import Check

CONSOLE, PICTURE, LOG = "console.log", "failure.png", "pytest.log"  # in the image's test/

Hold = Callable[[str, list[str]], None]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An artifact and what is known of it; `directory` gets what a failure shows."""

    provider: Provider
    os_name: str
    version: str
    path: Path
    virtual_size: int
    firmware: str
    directory: Path
    command: tuple[str, ...]  # of a container

    @property
    def files(self) -> Path:
        """Where console, picture and pytest's words are kept."""
        place = self.directory / TESTED
        return place / self.path.stem if self.path.suffix == ".box" else place

    @property
    def is_container(self) -> bool:
        """Whether it ships files rather than a disk."""
        return self.provider.ships_files

    @property
    def hostname(self) -> str:
        """The name that the machine is given."""
        return f"trial-{self.provider.name}"


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """Where and how trials run. `seconds` that a start may take, `check_seconds` that a check."""

    site: Site
    runner: Runner
    events: Bus
    accelerator: str
    seconds: float
    check_seconds: float
    ovmf: Ovmf | None = None
    hold: Hold | None = None  # called with a machine that failed, before it is switched off


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a trial found; `error` tells people, where something failed."""

    checks: tuple[Check, ...]
    how: Mapping[str, str]
    error: GoldimgError | None = None


def phase(lab: Laboratory, subject: Subject, text: str) -> None:
    """Tells what is being done."""
    with contextlib.suppress(Interrupted):
        lab.events.emit(subject.provider.name, "phase", text, phase=text)
