"""Starts machines over the network: dnsmasq and its files follow what is armed, twice a second."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from goldimg.errors import ConfigError, GoldimgError
from goldimg.netboot.daemon import Dnsmasq, Heard, daemon_user, interface_address
from goldimg.netboot.dnsmasq import Place, config
from goldimg.netboot.tftp import Source, TftpRoot
from goldimg.project import short_directory
from goldimg.serve.service import Service
from goldimg.serve.trees import Trees

TICK = 0.5  # seconds between looks at what is armed
Say = Callable[[str], None]
Guard = Callable[[Callable[[], None]], None]


@contextmanager
def netboot_directory(service: Service) -> Iterator[Path]:
    """Where dnsmasq's files are while it runs; its user may enter, and list nothing.

    Not in the state directory: dnsmasq's user could not enter a site of root's.
    """
    mark = hashlib.sha256(os.fsencode(service.site.root)).hexdigest()[:8]
    with short_directory(f"netboot-{mark}") as directory:
        directory.chmod(0o711)
        yield directory


@dataclass(kw_only=True)
class Netbooting:
    """dnsmasq for one service, in `directory`. GoldimgError with all that stands in its way."""

    service: Service
    directory: Path
    say: Say

    def __post_init__(self) -> None:
        interface = self.service.serve.netboot.interface
        if interface is None:
            raise GoldimgError(
                "no interface to serve machines on",
                hint="goldimg serve --netboot --interface eth1, or serve.netboot.interface",
            )
        self._trees = Trees(self.service)
        self._root = self.directory / "tftp"
        self._root.mkdir(mode=0o711)
        self._daemon = Dnsmasq(self.directory / "dnsmasq.conf", interface, self._root)
        if problems := self._daemon.preflight() + self._tftp().missing():
            raise GoldimgError("netboot cannot start", details=problems)
        self._place = self._find_place(interface)
        for note in self._notes():
            self.say(f"netboot: {note}")
        with suppress(ConfigError):  # one host's: _follow tells of it, the others are served
            self._configure()

    def run(self, guard: Guard) -> None:
        """Runs until the runner is cancelled; `guard` runs what follows the armed hosts."""
        follower = threading.Thread(target=guard, args=(self._follow,))
        follower.start()
        try:
            self._daemon.run(self.service.runner, self._heard)
        finally:
            self.service.runner.cancel.set()
            follower.join()

    def _notes(self) -> Iterator[str]:
        netboot = self.service.serve.netboot
        if netboot.mode == "proxy" and (netboot.secure_boot or netboot.loader == "grub"):
            # GRUB takes its server from the DHCP server's answer, and ignores a proxy's.
            yield (
                f"GRUB needs the site's DHCP server to name {self._place.address.ip} as its "
                "next-server; without that it stops at its prompt"
            )

    def _configure(self) -> None:
        machines = self.service.desk.boots()
        tftp = self._tftp()
        shims = {mac: boot.entries[0].os for mac, boot in machines.items() if boot.entries}
        signed = [name for name, it in tftp.sources.items() if it.shim and it.grub]
        settings, url = self.service.serve.netboot, self.service.desk.url
        self._daemon.configure(config(settings, self._place, url, shims, signed))
        tftp.sync(machines, self.service.desk.unknown())

    def _follow(self) -> None:
        told = ""
        while not self.service.runner.cancel.wait(TICK):
            try:
                self._configure()
                told = ""
            except (ConfigError, OSError) as error:
                # What is armed now cannot be written; what was written before goes on.
                if str(error) != told:
                    told = str(error)
                    self.say(f"netboot: {told}")

    def _find_place(self, interface: str) -> Place:
        address = interface_address(interface)
        if address is None:
            raise GoldimgError(f"the network interface {interface} has no IPv4 address")
        return Place(
            interface=interface,
            address=address,
            tftp_root=self._root,
            lease_file=self.directory / "leases",
            user=daemon_user()[0],
        )

    def _tftp(self) -> TftpRoot:
        return TftpRoot(
            path=self._root,
            templates=self.service.site.kickstart,
            base_url=self.service.desk.url,
            netboot=self.service.serve.netboot,
            sources=self._sources(),
            owner=daemon_user()[1],
        )

    def _sources(self) -> dict[str, Source]:
        view, found = self.service.catalogue.view(), {}
        for name, iso in self.service.store.isos().items():
            tree = self._trees.find(name) if iso.is_file() else None
            if tree is None:
                continue
            files = view.settings(name).netboot_files
            has_both = files is not None and files.shim in tree.files and files.grub in tree.files
            found[name] = Source(
                tree=tree,
                shim=files.shim if files and has_both else None,
                grub=files.grub if files and has_both else None,
            )
        return found

    def _heard(self, event: Heard) -> None:
        self.say(f"netboot: {event.who} {event.text}" if event.who else f"netboot: {event.text}")
