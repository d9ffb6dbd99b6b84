"""dnsmasq, run by us: what stands in its way before it starts, and its life from then on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Literal

from goldimg.errors import GoldimgError, Interrupted
from goldimg.netboot.dnsmasq import Config, no_os
from goldimg.netboot.scripts import dashed
from goldimg.netboot.tftp import Owner
from goldimg.project import make_directory, write_text
from goldimg.run import Runner, find_program

PORTS = {67: "DHCP", 69: "TFTP", 4011: "PXE"}  # UDP
USERS = ("dnsmasq", "nobody")
RESTARTS = 5  # within CALM seconds, then it is given up
CALM = 300.0
HOPELESS = (1, 2, 3)  # dnsmasq(8), EXIT CODES: configuration, network, files
PAUSE = 1.0  # seconds before the first start again; each further one waits twice as long
# Linux, linux/sockios.h: interface address and netmask.
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B

Kind = Literal["asked", "sent", "absent", "trouble", "state"]


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One thing that dnsmasq did, for people: `who` is a MAC or IP address, or empty."""

    kind: Kind
    text: str
    who: str = ""


_MAC = r"(?P<mac>[0-9a-f]{2}(?::[0-9a-f]{2}){5})"
# What loaders look for before they take what is there.
_PROBES = re.compile(
    r"^pxelinux\.cfg/|/(revocations_\w+|shim_certificate_\d+)\.efi$|/x86_64-efi/|/grub\.cfg-"
)
_LINES: tuple[tuple[re.Pattern[str], Kind, str], ...] = (
    (re.compile(rf"DHCPACK\(\S+\) (?P<ip>\S+) {_MAC}"), "asked", "has the address {ip}"),
    (re.compile(rf"PXE\(\S+\) (?:\S+ )?{_MAC} (?P<what>\S+)"), "asked", "is told to load {what}"),
    (re.compile(r"sent (?P<file>.+) to (?P<ip>[0-9.]+)$"), "sent", "loaded {file}"),
    (
        re.compile(r"file (?P<file>.+) not found(?: for (?P<ip>[0-9.]+))?$"),
        "absent",
        "asked for {file}, which is not there",
    ),
    (re.compile(r"cannot access (?P<file>.+): (?P<why>.+)$"), "trouble", "{file}: {why}"),
    (re.compile(r"DHCP packet received on \S+ which has no address"), "trouble", "{0}"),
    (re.compile(r"no address available|not using configured address"), "trouble", "{0}"),
    (re.compile(r"dnsmasq: (?P<why>failed .+|.*[Pp]ermission denied.*)"), "trouble", "{why}"),
)


def heard(line: str, tftp_root: Path) -> Heard | None:
    """What a line of dnsmasq's log says to a person; None for the noise."""
    for pattern, kind, text in _LINES:
        if match := pattern.search(line):
            found = match.groupdict()
            if found.get("what") == "proxy":
                text = "asked what to load"
            if found.get("file"):
                found["file"] = found["file"].removeprefix(f"{tftp_root}/")
                if kind == "absent" and _PROBES.search(found["file"]):
                    return None
            who = found.get("mac") or found.get("ip") or ""
            return Heard(kind=kind, text=text.format(match.group(0), **found), who=who)
    return None


def interface_address(interface: str) -> IPv4Interface | None:
    """The first IPv4 address of a network interface, with its network; None where it has none.

    OSError where there is no such interface.
    """
    socket.if_nametoindex(interface)
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            found = [
                socket.inet_ntoa(fcntl.ioctl(probe.fileno(), number, request)[20:24])
                for number in (_SIOCGIFADDR, _SIOCGIFNETMASK)
            ]
        except OSError:
            return None
    return IPv4Interface("/".join(found))


def daemon_user() -> tuple[str | None, Owner]:
    """Whose rights dnsmasq takes on when root starts it; otherwise it keeps those it has."""
    if os.geteuid() == 0:
        for name in USERS:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return name, Owner(uid=entry.pw_uid, gid=entry.pw_gid)
    return None, Owner()


class Dnsmasq:
    """One dnsmasq, from `config_file`, which is written by this object only."""

    def __init__(self, config_file: Path, interface: str, tftp_root: Path) -> None:
        self._config_file, self._interface, self._root = config_file, interface, tftp_root
        self._changed = threading.Event()
        self._text = ""
        self._hosts: dict[str, str] = {}

    def configure(self, config: Config) -> None:
        """Takes a new configuration, if it differs.

        A running dnsmasq is started anew with it; where only the machines changed, it reads these
        anew, and no transfer is cut off.
        """
        self._tell(config)
        if config.text != self._text:
            write_text(self._config_file, config.text)
            self._text = config.text
            self._changed.set()

    def _tell(self, config: Config) -> None:
        if not self._text:
            shutil.rmtree(config.hosts_dir, ignore_errors=True)
            make_directory(config.hosts_dir).chmod(0o755)
        # dnsmasq does not forget a machine whose file goes away, hence another line in its place.
        wanted = {mac: no_os(mac) for mac in self._hosts} | dict(config.hosts)
        for mac, line in wanted.items():
            if self._hosts.get(mac) != line:
                write_text(config.hosts_dir / dashed(mac), f"{line}\n")
        self._hosts = wanted

    def preflight(self) -> list[str]:
        """What would keep it from working, a line each; nothing is started. MissingTool first."""
        find_program("dnsmasq", reason="start machines over the network")
        lines = []
        try:
            if interface_address(self._interface) is None:
                lines.append(
                    f"the network interface {self._interface} has no IPv4 address;"
                    f" give it one: ip addr add 10.77.0.1/24 dev {self._interface}"
                )
        except OSError:
            names = ", ".join(name for _, name in socket.if_nameindex() if name != "lo")
            lines.append(f"there is no network interface {self._interface}; there are: {names}")
        for port, (program, pid) in sorted(taken_ports().items()):
            lines.append(
                f"UDP port {port} ({PORTS[port]}) is taken by {program} (process {pid});"
                " stop it, or let it serve and leave out --netboot"
            )
        if not _may_bind():
            lines.append(
                "dnsmasq needs root, or the capabilities CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and"
                " CAP_NET_RAW, to answer DHCP; start goldimg as root or by its systemd unit"
            )
        lines += self._unreachable()
        return lines

    def run(self, runner: Runner, on_event: Callable[[Heard], None]) -> None:
        """Runs dnsmasq until `runner` is cancelled; it is started again when it ends by itself.

        After RESTARTS crashes within CALM seconds, or one that trying again cannot help, it raises
        GoldimgError with its last words.
        `on_event` is called from threads of the runner.
        """
        crashes: list[float] = []
        words: list[str] = []

        def hear(line: str) -> None:
            words.append(line)
            del words[:-8]
            if event := heard(line, self._root):
                on_event(event)

        while not runner.cancel.is_set():
            self._changed.clear()
            words.clear()
            try:
                done = runner.run(
                    ["dnsmasq", f"--conf-file={self._config_file}"],
                    reason="start machines over the network",
                    on_line=hear,
                    check=False,
                    abort=lambda: _Again() if self._changed.is_set() else None,
                    grace=0.0,  # INT means nothing to dnsmasq
                )
            except _Again:
                on_event(Heard(kind="state", text="dnsmasq starts anew, its configuration changed"))
                continue
            except Interrupted:
                return
            pause = self._pause(done.code, crashes, words)
            text = f"dnsmasq ended (exit code {done.code}), it is started again in {pause:.0f} s"
            on_event(Heard(kind="trouble", text=text))
            runner.cancel.wait(pause)

    def _pause(self, code: int, crashes: list[float], words: list[str]) -> float:
        """Seconds to wait after a crash, which is added to `crashes`; GoldimgError: no more."""
        now = time.monotonic()
        crashes[:] = [*(at for at in crashes if now - at < CALM), now]
        if len(crashes) > RESTARTS or code in HOPELESS:
            raise GoldimgError(
                f"dnsmasq ended with exit code {code}",
                details=list(words),
                hint=f"try it yourself: dnsmasq --test --conf-file={self._config_file}",
            )
        return float(PAUSE * 2 ** (len(crashes) - 1))

    def _unreachable(self) -> Iterator[str]:
        """A directory that the daemon's user cannot enter on its way to the TFTP files."""
        name, owner = daemon_user()
        if name is None:
            return
        for parent in reversed(self._root.parents):
            with contextlib.suppress(OSError):
                status = parent.stat()
                open_to = 0o100 if status.st_uid == owner.uid else 0o001
                if not status.st_mode & open_to:
                    yield (
                        f"dnsmasq runs as {name}, who cannot enter {parent};"
                        " set serve.state_dir to a directory that others may enter, or chmod it"
                    )
                    return


class _Again(Exception):
    """The configuration changed."""


def taken_ports(proc: Path = Path("/proc")) -> dict[int, tuple[str, int]]:
    """Which of dnsmasq's ports are taken, by which program and process (0: not to be seen)."""
    inodes: dict[str, int] = {}
    for name in ("udp", "udp6"):
        with contextlib.suppress(OSError):
            # thread-self, not self: network namespaces are a thread's
            lines = (proc / "thread-self/net" / name).read_text(encoding="ascii").splitlines()[1:]
            for fields in (line.split() for line in lines):
                port = int(fields[1].rpartition(":")[2], 16)
                if port in PORTS:
                    inodes[f"socket:[{fields[9]}]"] = port
    taken = dict.fromkeys(inodes.values(), ("another program", 0))
    processes = [it for it in proc.iterdir() if it.name.isdigit()] if inodes else []
    for process in processes:
        for link in _links(process / "fd"):
            if link in inodes:
                with contextlib.suppress(OSError):
                    program = (process / "comm").read_text(encoding="utf-8").strip()
                    taken[inodes[link]] = (program, int(process.name))
    return taken


def _links(directory: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in directory.iterdir():
            with contextlib.suppress(OSError):
                yield str(entry.readlink())


def _may_bind() -> bool:
    """Whether a child of ours may open DHCP's port: root, or ambient capabilities."""
    if os.geteuid() == 0:
        return True
    with contextlib.suppress(OSError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        ambient = int(status.split("CapAmb:")[1].split()[0], 16)
        wanted = (1 << 10) | (1 << 12) | (1 << 13)  # capability.h: BIND_SERVICE, ADMIN, RAW
        return ambient & wanted == wanted
    return False
