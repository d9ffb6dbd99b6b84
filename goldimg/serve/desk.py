"""Who is given what: the one place where it is decided, before every route of an install.

A header, an address or a MAC address selects a host; it never gives a secret away by itself. A
kickstart has its secrets only with a valid token, or for an armed machine on a network that the
site names as its own. Machines that are not armed are told to start their disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Literal

from goldimg.errors import GoldimgError
from goldimg.kickstart.answer import boot_words
from goldimg.kickstart.reports import STAGES
from goldimg.netboot import Boot, Entry
from goldimg.serve.catalogue import Catalogue, View
from goldimg.serve.entries import MAC_NAME, by_hand, host_of, macs_of, make_entry
from goldimg.serve.hosts import Host, identify
from goldimg.serve.store import UNDER_WAY, WAITING, Record, Store
from goldimg.serve.tokens import build_token, check_build_token, digest_of, host_token, same


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a request for a kickstart says. Nothing of it is believed before it is checked."""

    build: str = ""
    os: str = ""
    token: str = ""
    macs: tuple[str, ...] = ()
    serial: str = ""
    address: str = ""
    is_head: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`status` is HTTP's; `text` a kickstart, or for anything but 200 one line that says why."""

    status: int
    text: bytes | str

    @property
    def is_kickstart(self) -> bool:
        return self.status == 200


class Desk:
    """Decides for one site. Safe to share between threads; `url` is how machines reach it."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        secret: bytes,
        *,
        url: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.catalogue, self.store, self.url = catalogue, store, url.rstrip("/")
        self._secret, self._clock = secret, clock

    # --- kickstarts --------------------------------------------------------------------------

    def kickstart(self, ask: Ask) -> Answer:
        """The kickstart that was asked for, or why not."""
        view = self.catalogue.view()
        build = ask.build
        if not build:
            name = identify(view.hosts, ask.macs, ask.serial)
            if name is None:
                return _no(400, "no build given: ask for ?build=virtual/aws&os=..., for example")
            build = f"metal/{name}"
        elif "/" not in build:
            build = f"virtual/{build}"  # as the original
        kind, _, name = build.partition("/")
        try:
            if kind == "metal":
                return self._metal(view, name, ask)
            if build not in view.builds:
                return _no(404, "no such build")
            return self._virtual(view, build, ask)
        except GoldimgError as error:
            return _no(500 if error.code == 1 else 409, _first_line(error))

    def _virtual(self, view: View, build: str, ask: Ask) -> Answer:
        if not ask.os:
            return _no(400, "no operating system given: add &os=...")
        if ask.os not in view.oses:
            return _no(404, "no such operating system")
        if not ask.token:
            return self._anonymous(view, build, ask.os)
        now = self._clock()
        if not check_build_token(self._secret, ask.token, build, ask.os, now):
            return _no(403, "the token is wrong or has expired")
        first = now if ask.is_head else self.store.first_use(digest_of(ask.token))
        if now > first + view.site_file.serve.token_window:
            return _no(403, "the token has been used")

        def make() -> str:
            secrets = {"root_hash": view.root_hash(ask.os), "ks_url": self.ks_url(build, ask.os)}
            text = view.render(build, ask.os, view.target(build, ask.os, **secrets))
            view.check(text, build, ask.os)
            return text

        return Answer(status=200, text=view.keep_text((build, ask.os, "secrets"), make))

    def _anonymous(self, view: View, build: str, os_name: str) -> Answer:
        if view.site_file.serve.anonymous == "refuse":
            return _no(403, "a token is needed")
        return Answer(status=200, text=view.plain(build, os_name, self.ks_url(build, os_name)))

    def _metal(self, view: View, name: str, ask: Ask) -> Answer:
        record = self.store.host(name)
        host = host_of(view, name, record)
        if host is None:
            return _no(404, "no such host")
        if host.problems:
            return _no(409, f"the definition of {name} is wrong: see 'goldimg host list'")
        is_open = self.may_fetch(view, record)
        if ask.token and not same(ask.token, self.token(record, "fetch")):
            return _no(403, "the token is wrong or has expired")
        if ask.token and not is_open:
            return _no(403, f"{name} is {record.state}: the token has expired")
        if is_open and (ask.os or record.os) != record.os:
            return _no(409, f"{name} is armed for {record.os}")
        os_name = record.os if is_open else ask.os or host.os or ""
        if not os_name:
            return _no(400, "no operating system given: add &os=...")
        if os_name not in view.oses:
            return _no(404, "no such operating system")
        is_trusted = bool(ask.token) or (
            identify(view.hosts, ask.macs, None) == name and self.is_near(view, ask.address)
        )
        if is_open and is_trusted:
            return self._armed(view, host, record, ask)
        if not is_open and view.site_file.serve.unarmed == "refuse":
            return _no(403, f"{name} is not armed: 'goldimg host install {name}' arms it")
        return self._anonymous(view, host.build, os_name)

    def _armed(self, view: View, host: Host, record: Record, ask: Ask) -> Answer:
        def make() -> str:
            return self.armed_text(view, host, record)

        text = view.keep_text((host.name, repr(record.armed)), make)
        if not ask.is_head and record.state in WAITING:
            self.store.fetched(host.name, ask.address)
        return Answer(status=200, text=text)

    def armed_text(self, view: View, host: Host, record: Record) -> str:
        """The kickstart of an armed host, with what it alone may have."""
        report = f"{self.url}/report/metal/{host.name}/{self.token(record, 'report')}"
        secrets = {
            "root_hash": record.root_hash,
            "report_url": report,
            "ks_url": self.ks_url(f"metal/{host.name}", record.os),
        }
        return view.render(host.build, record.os, view.target(host.build, record.os, **secrets))

    def ks_url(self, build: str, os_name: str, token: str = "") -> str:
        """The URL of a kickstart; without a token it is no secret.

        A machine's token says what it is armed for, so that its URL needs no `&`, which boot
        loaders would take for their own.
        """
        if token and build.startswith("metal/"):
            return f"{self.url}/ks/{build}?token={token}"
        url = f"{self.url}/ks/{build}?os={os_name}"
        return f"{url}&token={token}" if token else url

    def new_token(self, build: str, os_name: str, seconds: int) -> str:
        """A token for the kickstart of a virtual build, with its root password's hash in it."""
        return build_token(self._secret, build, os_name, int(self._clock()) + seconds)

    # --- starting over the network -----------------------------------------------------------

    def may_install(self, view: View, host: Host, record: Record) -> bool:
        """Whether a machine that starts over the network is to be installed now."""
        return not host.problems and record.is_waiting(self._clock()) and record.os in view.oses

    def may_fetch(self, view: View, record: Record) -> bool:
        """Whether the kickstart may be had: armed, or a short while after its first delivery.

        Installers fetch twice and more, once for each network device.
        """
        now = self._clock()
        if record.is_waiting(now):
            return True
        window = view.site_file.serve.token_window
        return record.state in UNDER_WAY and bool(record.fetched) and now < record.fetched + window

    def is_near(self, view: View, address: str) -> bool:
        """Whether the address is in one of the site's provisioning networks."""
        try:
            there = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(there, "ipv4_mapped", None)
        return any(
            (mapped or there) in ip_network(network) for network in view.site_file.serve.networks
        )

    def boot(
        self, macs: Sequence[str], serial: str, address: str, *, is_head: bool = False
    ) -> Boot:
        """What a machine that asks over HTTP is told; one that is to be installed now boots."""
        view = self.catalogue.view()
        if not self.is_near(view, address):
            return Boot(
                action="local", note=f"{address or 'this address'} is not in serve.networks"
            )
        name = identify(view.hosts, macs, serial) or self._stranger(view, macs, is_head)
        if name is None:
            return self.unknown(view)
        record = self.store.host(name)
        host = host_of(view, name, record)
        if host is None or not self.may_install(view, host, record):
            return Boot(action="local", note=f"{name} is {record.state}")
        entry = self._entry(view, host, record, macs[0] if macs else "")
        if entry is None:
            return Boot(action="local", note=f"{name}: {record.os} has no files to boot")
        if not is_head:
            self.store.booting(name, address)
        return Boot(
            action="install", note=f"{name} is installed with {record.os}", entries=(entry,)
        )

    def boots(self) -> dict[str, Boot]:
        """What each machine that is to be installed is told, by MAC address; changes no state."""
        view = self.catalogue.view()
        found = {}
        for name, record in self.store.hosts().items():
            host = host_of(view, name, record)
            if host is None or not self.may_install(view, host, record):
                continue
            for mac in macs_of(host):
                entry = self._entry(view, host, record, mac)
                if entry is not None:
                    note = f"{name} is installed with {record.os}"
                    found[mac] = Boot(action="install", note=note, entries=(entry,))
        return found

    def unknown(self, view: View | None = None) -> Boot:
        """What a machine is told that no host file knows."""
        view = view or self.catalogue.view()
        if view.site_file.serve.netboot.unknown != "menu":
            return Boot(action="local", note="this machine is not known here")
        entries = []
        for os_name in self.store.isos():
            if os_name in view.oses:
                url = f"{self.url}/ks"
                entry = make_entry(
                    view.settings(os_name),
                    view.site_file.serve,
                    self.url,
                    ks_url=url,
                    mac="",
                    title=f"Install {os_name} by hand",
                )
                if entry is not None:
                    entries.append(by_hand(entry, url))
        return Boot(action="menu", note="this machine is not known here", entries=tuple(entries))

    def _stranger(self, view: View, macs: Sequence[str], is_head: bool) -> str | None:
        """Arms a machine that nobody knows, once, where the site says so."""
        netboot = view.site_file.serve.netboot
        if netboot.unknown != "install" or not macs or is_head:
            return None
        name = MAC_NAME + macs[0].replace(":", "")
        if not self.store.host(name).armed:
            os_name = netboot.unknown_os or ""
            self.store.arm(
                name,
                build=netboot.unknown_build or "",
                os_name=os_name,
                root_hash=view.root_hash(os_name),
                expires=self._clock() + view.site_file.serve.arm_expires,
            )
        return name

    def _entry(self, view: View, host: Host, record: Record, mac: str) -> Entry | None:
        if record.os not in self.store.isos():
            return None
        return make_entry(
            view.settings(record.os),
            view.site_file.serve,
            self.url,
            ks_url=self.ks_url(f"metal/{host.name}", record.os, self.token(record, "fetch")),
            mac=mac,
            title=f"Install {record.os} on {host.name}",
        )

    def manual_arguments(self, view: View, host: Host, record: Record) -> str:
        """What to add to the installer's boot entry where a machine starts it from a medium.

        It holds the token, so it is as secret as the kickstart.
        """
        settings = view.settings(record.os)
        url = self.ks_url(f"metal/{host.name}", record.os, self.token(record, "fetch"))
        options = view.options(host.build, record.os)
        return " ".join(boot_words(settings, options, url, host.name))

    # --- reports -----------------------------------------------------------------------------

    def report(self, name: str, token: str, stage: str, message: str) -> bool:
        """Takes a stage that an installer reports; False where the token or stage is unknown.

        It is heard even after the window of fetching: an install that takes long must still end.
        """
        record = self.store.host(name)
        if not record.armed or stage not in STAGES:
            return False
        if not same(token, self.token(record, "report")):
            return False
        self.store.log(name, message.splitlines())
        self.store.stage(name, stage, message)
        return True

    def token(self, record: Record, kind: Literal["fetch", "report"]) -> str:
        """The token of a host's last arming: a secret."""
        return host_token(self._secret, record.name, record.armed, kind)


def _no(status: int, text: str) -> Answer:
    return Answer(status=status, text=text)


def _first_line(error: GoldimgError) -> str:
    return str(error).partition("\n")[0]
