"""`goldimg serve`: the web server, dnsmasq and syslog as one, until it is told to stop.

The web server is a process of its own (gunicorn), so that its workers share no thread with what
else runs here. When one part ends by itself the others are stopped, and its error is told.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from goldimg.errors import ConfigError, GoldimgError, Interrupted
from goldimg.netboot import Boot
from goldimg.netboot.daemon import Dnsmasq, Heard, daemon_user, interface_address
from goldimg.netboot.dnsmasq import Place, config
from goldimg.netboot.tftp import Source, TftpRoot
from goldimg.netboot.tree import Tree
from goldimg.project import short_directory
from goldimg.serve.service import REQUEST_LOG, VARIABLES, Service, tls_files
from goldimg.serve.shown import redacted
from goldimg.serve.store import UNDER_WAY, State

TICK = 0.5  # seconds between looks at what has changed
GRACE = 10.0  # seconds for requests under way when the server is stopped
LOUD = {"WARNING", "ERROR", "CRITICAL"}
Say = Callable[[str], None]


def interface_variables(
    interface: str | None, given: Mapping[str, object], networks: Sequence[str]
) -> list[str]:
    """The settings that follow from serving machines on `interface`, where they are not `given`.

    Raises GoldimgError for an interface that is not there or has no address.
    """
    if interface is None:
        return []
    try:
        address = interface_address(interface)
    except OSError:
        names = ", ".join(name for _, name in socket.if_nameindex() if name != "lo")
        raise GoldimgError(
            f"there is no network interface {interface}", hint=f"there are {names or 'none'}"
        ) from None
    if address is None:
        raise GoldimgError(
            f"the network interface {interface} has no IPv4 address",
            hint=f"give it one: ip address add 10.77.0.1/24 dev {interface}",
        )
    found = [f"serve.netboot.interface={interface}"]
    if not given.get("listen"):
        found.append(f"serve.listen={address.ip}")
    if not networks:
        found.append(f"serve.networks={address.network}")
    return found


@dataclass(kw_only=True)
class Server:
    """One run of `goldimg serve`. `say` takes a line for the person who watches it."""

    service: Service
    variables: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    say: Say
    with_netboot: bool = False
    is_verbose: bool = False  # also each request, and what gunicorn says of itself
    _errors: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        """Serves until the runner is cancelled. Raises what ended it otherwise."""
        runner = self.service.runner
        self._check()
        parts: list[Callable[[], None]] = [self._watch, self._web]
        if self.service.serve.syslog_port:
            parts.append(self._syslog(self._syslog_socket()))
        with ExitStack() as stack:
            if self.with_netboot:
                parts.append(self._netboot(stack.enter_context(self._tftp_directory())))
            threads = [threading.Thread(target=self._guard, args=(part,)) for part in parts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]
        runner.check_cancelled()

    def _guard(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Interrupted:
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            self.service.runner.cancel.set()
            self.service.store.close()

    def _check(self) -> None:
        """Whether the web server can start; GoldimgError says what is in its way."""
        site, serve = self.service.site, self.service.serve
        for key, path in zip(("tls_certificate", "tls_key"), tls_files(site, serve), strict=True):
            if path is not None and not os.access(path, os.R_OK):
                problem = f"serve.{key}: {site.shown(path)} cannot be read"
                raise GoldimgError(
                    problem, hint="a relative path is taken from the site's directory"
                )
        where = f"{serve.listen}, port {serve.port}"
        try:
            family = socket.AF_INET6 if ":" in serve.listen else socket.AF_INET
            socket.create_server((serve.listen, serve.port), family=family).close()
        except OSError as error:
            taken = f"'ss -ltnp sport = :{serve.port}' says by whom; --port names another"
            raise GoldimgError(
                f"cannot listen on {where}",
                why=(error.strerror or str(error)).lower(),
                hint=taken
                if error.errno == errno.EADDRINUSE
                else "name an address of this machine",
            ) from None

    # --- the web server ----------------------------------------------------------------------

    def _web(self) -> None:
        words: list[str] = []

        def hear(line: str) -> None:
            level, text = _of_gunicorn(line)
            words.append(text)
            del words[:-8]
            if self.is_verbose or level in LOUD:
                self.say(text)

        log = {REQUEST_LOG: "1"} if self.is_verbose else {}
        done = self.service.runner.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "gunicorn",
                    "--config",
                    "python:goldimg.serve.gunicorn_conf",
                ),
                "goldimg.serve.wsgi:application()",
            ],
            reason="serve a site",
            env={
                **{key: text for key, text in self.environ.items() if key.startswith("GOLDIMG_")},
                **log,
                "GOLDIMG_SITE": str(self.service.site.root),
                VARIABLES: "\n".join(self.variables),
            },
            on_line=hear,
            check=False,
            grace=GRACE,
        )
        raise GoldimgError(
            f"the web server ended with exit code {done.code}",
            details=words,
        )

    # --- what happens, for whoever watches ---------------------------------------------------

    def _watch(self) -> None:
        store, cancel = self.service.store, self.service.runner.cancel
        last = max((it.id for it in store.history(limit=1)), default=0)
        while not cancel.wait(TICK):
            store.expire()
            for happening in store.happened_after(last):
                last = happening.id
                self.say(f"{happening.subject}: {happening.state}, {happening.text}")

    # --- syslog ------------------------------------------------------------------------------

    def _syslog_socket(self) -> socket.socket:
        serve = self.service.serve
        try:
            family = socket.AF_INET6 if ":" in serve.listen else socket.AF_INET
            listening = socket.socket(family, socket.SOCK_DGRAM)
            listening.bind((serve.listen, serve.syslog_port))
        except OSError as error:
            raise GoldimgError(
                f"cannot listen for syslog on {serve.listen}, UDP port {serve.syslog_port}",
                why=(error.strerror or str(error)).lower(),
                hint="serve.syslog_port changes it, 0 leaves it out",
            ) from None
        listening.settimeout(TICK)
        return listening

    def _syslog(self, listening: socket.socket) -> Callable[[], None]:
        def listen() -> None:
            with listening:
                while not self.service.runner.cancel.is_set():
                    self._log(_received(listening))

        return listen

    def _log(self, lines: Mapping[str, list[str]]) -> None:
        if not lines:
            return
        # By the address that the kickstart went to; strangers' lines are not kept.
        talking = {
            record.address: record.name
            for record in self.service.store.hosts().values()
            if record.state in (*UNDER_WAY, State.BOOTING)
        }
        for address, texts in lines.items():
            if address in talking:
                self.service.store.log(talking[address], map(redacted, texts))

    # --- netboot -----------------------------------------------------------------------------

    def _tftp_directory(self) -> AbstractContextManager[Path]:
        # Not in the state directory: dnsmasq's user could not enter a site of root's.
        if not self.with_netboot:
            return nullcontext(Path())
        mark = hashlib.sha256(os.fsencode(self.service.site.root)).hexdigest()[:8]
        return short_directory(f"netboot-{mark}")

    def _netboot(self, directory: Path) -> Callable[[], None]:
        """Checks all that netboot needs, and returns what runs it."""
        directory.chmod(0o711)
        serve = self.service.serve
        interface = serve.netboot.interface
        if interface is None:
            raise GoldimgError(
                "no interface to serve machines on",
                hint="goldimg serve --netboot --interface eth1, or serve.netboot.interface",
            )
        root = directory / "tftp"
        root.mkdir(mode=0o711)
        daemon = Dnsmasq(directory / "dnsmasq.conf", interface, root)
        problems = daemon.preflight() + self._tftp(root).missing()
        if problems:
            raise GoldimgError("netboot cannot start", details=problems)
        place = self._place(interface, directory, root)

        def configure(machines: Mapping[str, Boot]) -> None:
            tftp = self._tftp(root)
            shims = {mac: boot.entries[0].os for mac, boot in machines.items() if boot.entries}
            signed = [name for name, it in tftp.sources.items() if it.shim and it.grub]
            daemon.configure(config(serve.netboot, place, self.service.desk.url, shims, signed))
            tftp.sync(machines, self.service.desk.unknown())

        with suppress(ConfigError):  # one host's: _follow tells of it, the others are served
            configure(self.service.desk.boots())

        def run() -> None:
            follower = threading.Thread(target=self._guard, args=(lambda: self._follow(configure),))
            follower.start()
            try:
                daemon.run(self.service.runner, self._heard)
            finally:
                self.service.runner.cancel.set()
                follower.join()

        return run

    def _follow(self, configure: Callable[[Mapping[str, Boot]], None]) -> None:
        told = ""
        while not self.service.runner.cancel.wait(TICK):
            try:
                configure(self.service.desk.boots())
                told = ""
            except (ConfigError, OSError) as error:
                # What is armed now cannot be written; what was written before goes on.
                if str(error) != told:
                    told = str(error)
                    self.say(f"netboot: {told}")

    def _place(self, interface: str, directory: Path, root: Path) -> Place:
        address = interface_address(interface)
        if address is None:
            raise GoldimgError(f"the network interface {interface} has no IPv4 address")
        return Place(
            interface=interface,
            address=address,
            tftp_root=root,
            lease_file=directory / "leases",
            user=daemon_user()[0],
        )

    def _tftp(self, root: Path) -> TftpRoot:
        return TftpRoot(
            path=root,
            templates=self.service.site.kickstart,
            base_url=self.service.desk.url,
            netboot=self.service.serve.netboot,
            sources=self._sources(),
            owner=daemon_user()[1],
        )

    def _sources(self) -> dict[str, Source]:
        view, found = self.service.catalogue.view(), {}
        for name, iso in self.service.store.isos().items():
            if name not in view.oses or not iso.is_file():
                continue
            files = view.settings(name).netboot_files
            tree = Tree.of(iso, self.service.site.cache / "trees", self.service.runner)
            has_both = files is not None and files.shim in tree.files and files.grub in tree.files
            found[name] = Source(
                tree=tree,
                shim=files.shim if files and has_both else None,
                grub=files.grub if files and has_both else None,
            )
        return found

    def _heard(self, event: Heard) -> None:
        self.say(f"netboot: {event.who} {event.text}" if event.who else f"netboot: {event.text}")


def _of_gunicorn(line: str) -> tuple[str, str]:
    """Level and text of a line of gunicorn's, which has a time and a process id of its own."""
    match = re.fullmatch(r"\[[^\]]*\] \[\d+\] \[(\w+)\] (.*)", line)
    return (match[1], match[2]) if match else ("INFO", line)


def _received(listening: socket.socket) -> dict[str, list[str]]:
    """What arrives within a tick, by sender; a flood is cut off at a thousand lines."""
    lines: dict[str, list[str]] = {}
    end = time.monotonic() + TICK
    for _ in range(1000):
        try:
            data, sender = listening.recvfrom(4096)
        except TimeoutError:
            break
        lines.setdefault(str(sender[0]), []).append(_plain(data.decode("utf-8", "replace")))
        if time.monotonic() > end:
            break
    return lines


def _plain(text: str) -> str:
    """A message without its priority (RFC 3164: `<number>` first) and control characters."""
    if text.startswith("<"):
        text = text.partition(">")[2]
    return "".join(char if char.isprintable() else " " for char in text).strip()
