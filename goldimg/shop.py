"""What the steps of one build share, and what they hand on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from goldimg.config.models import Settings
from goldimg.errors import BuildFailed
from goldimg.events import Bus
from goldimg.inventory import EXTENSION
from goldimg.keys import KeyPair
from goldimg.kickstart.progress import InstallListener, KickstartNeverFetched
from goldimg.kickstart.server import KickstartServer
from goldimg.orphans import release
from goldimg.packer.policy import Policy, WillRetry, never
from goldimg.packer.story import Story
from goldimg.packer.template import Machine
from goldimg.plan import digest_files
from goldimg.project import Site
from goldimg.run import Runner
from goldimg.workers import Workers

GUEST_GATEWAY = "10.0.2.2"  # the host, as a guest on QEMU's and VirtualBox's NAT reaches it
# Seconds from power-on until the ISO's boot menu takes keys, by builder, accelerator and firmware.
MENU_SECONDS = {
    ("qemu", "kvm", "bios"): 3,
    ("qemu", "tcg", "bios"): 5,
    ("qemu", "kvm", "efi"): 8,
    ("qemu", "tcg", "efi"): 25,
}
NATIVE_MENU_SECONDS = 10
FETCH_SHARE = 0.2  # of ssh_timeout: the kickstart is fetched by then, or never


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What the steps of one build share. `servers` has a kickstart server for each builder."""

    site: Site
    settings: Settings
    version: str
    runner: Runner
    events: Bus
    machine: Machine
    packer_key: KeyPair
    vagrant_key: KeyPair
    iso: Path
    iso_sha256: str
    servers: Mapping[str, KickstartServer]
    listeners: dict[str, InstallListener]
    qemu_version: str
    policy: Policy = field(default_factory=Policy)
    workers: Workers  # that convert

    @property
    def is_warm(self) -> bool:
        """Whether bases keep their running guest: under emulation, where booting is dear."""
        return self.machine.accelerator == "tcg" and self.settings.site.warm_layers

    @property
    def mark(self) -> str:
        """What tells this site from a copy of it on the same host, whose digests are the same."""
        return digest_files([(str(self.site.cache), b"")])[:6]

    @property
    def bases(self) -> Path:
        return self.site.cache / "bases"

    @property
    def layers(self) -> Path:
        return self.site.layers

    def boot_command(self) -> str:
        """What is typed at the boot menu; the kickstart's URL is a variable of Packer's."""
        return self.settings.boot_command("{{ user `ks_url` }}", self.settings.firmware)

    def menu_seconds(self, builder: str) -> int:
        """How long the boot menu may take to appear."""
        key = (builder, self.machine.accelerator, self.machine.firmware)
        return MENU_SECONDS.get(key, NATIVE_MENU_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A disk that a step made or found, and how long each phase of making it took, where known.

    `state`: the guest that was running from it, to go on from. `inventory`: what is in it.
    `since`: when the base below it was installed, in seconds since 1970; None for a base itself.
    """

    disk: Path
    seconds: Mapping[str, float]
    state: Path | None = None
    inventory: Path | None = None
    since: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A kickstart that is being served: its URL, which is a secret, and what ends the install."""

    url: str
    abort: Callable[[], BaseException | None]


@contextmanager
def answered(
    shop: Shop, name: str, text: Callable[[str], str], *, builder: str, story: Story, log: Path
) -> Iterator[Answer]:
    """Serves the kickstart of the build `name` to guests of `builder`, and hears of the install.

    `text` gives the kickstart with the URL that stages are reported to. A build that fails in the
    block because nobody fetched the kickstart says so.
    """
    patience = shop.settings.site.ssh_timeout * FETCH_SHARE
    listener = InstallListener(name, story, log, patience=patience)
    shop.listeners[name] = listener
    server = shop.servers[builder]
    path = server.add(name, text)
    url = server.url(path)
    shop.runner.redact.add(path)
    try:
        yield Answer(url=url, abort=listener.abort)
    except BuildFailed as error:
        if not listener.fetched and "no SSH" in error.what:
            origin = "/".join(url.split("/")[:3])
            error.why = f"the kickstart was never fetched: the guest cannot reach {origin}"
        raise
    finally:
        server.remove(name)


def patiently(
    shop: Shop, name: str, builder: str, install: Callable[[str, WillRetry], Path]
) -> Path:
    """Calls `install` with a boot_wait; once more with a longer one where the menu missed keys.

    It is also given what says which errors are not the end of it.
    """
    wait = shop.menu_seconds(builder)
    try:
        return install(f"{wait}s", lambda error: isinstance(error, KickstartNeverFetched))
    except KickstartNeverFetched as error:
        shop.events.emit(name, "warning", f"{error.what}: starting it once more")
        return install(f"{4 * wait}s", never)


def new_story(shop: Shop, name: str, *, is_install: bool = False) -> Story:
    """A story whose phases and details everybody hears of."""
    return Story(
        on_phase=lambda phase: shop.events.emit(name, "phase", phase, phase=phase),
        on_detail=lambda text: shop.events.emit(name, "stage", text),
        on_mark=lambda text: shop.events.emit(name, "mark", text),
        on_files=lambda files: shop.events.emit(
            name, "files", "", log=files["log"], console=files["console"], picture=files["picture"]
        ),
        on_task=lambda task, seconds: shop.events.emit(
            name, "task", task, seconds=round(seconds, 1)
        ),
        # it may quote a screen, with the kickstart's URL on it
        on_warning=lambda text: shop.events.emit(name, "warning", shop.runner.redact(text)),
        is_install=is_install,
    )


def inventory_of(disk: Path) -> Path:
    """Where the inventory of a provisioned disk is, or would be."""
    return disk.with_suffix(f".{EXTENSION}")


def keep_inventory(work: Path, disk: Path) -> None:
    """Puts the inventory that a run has left beside the `disk` that is to be; before the disk."""
    found, final = work / EXTENSION, inventory_of(disk)
    final.unlink(missing_ok=True)
    if found.exists():
        found.rename(final)


def found_disk(
    disk: Path, seconds: Mapping[str, float] = MappingProxyType({}), *, base: Path | None = None
) -> Made:
    """A provisioned disk as it stands in the cache; `base` is the disk that it is over."""
    inventory = inventory_of(disk)
    return Made(
        disk=disk,
        seconds=seconds,
        inventory=inventory if inventory.exists() else None,
        since=installed_at(base) if base else None,
    )


def installed_at(base: Path) -> int:
    """When a base's disk was installed, in seconds since 1970; it never changes afterwards."""
    return int(base.stat().st_mtime)


def drop_disk(disk: Path) -> None:
    """Removes a provisioned disk from the cache, and what tells of it."""
    disk.unlink(missing_ok=True)
    inventory_of(disk).unlink(missing_ok=True)


def forget(work: Path) -> None:
    """Removes what held a secret, and scratch that tells nobody anything."""
    release(work)
    (work / "ansible-vars.json").unlink(missing_ok=True)
    shutil.rmtree(work / "cache", ignore_errors=True)


def keep_logs(work: Path, directory: Path) -> None:
    """Copies what tells of a run to where its build's log is."""
    for name in ("console.log", "packer.json"):
        if (work / name).exists():
            shutil.copyfile(work / name, directory / name)
