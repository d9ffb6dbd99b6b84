"""A provisioning network of its own: namespaces, a bridge, a DHCP server, and bare machines.

Nothing of it can reach, or be reached from, the network of the host that runs the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")
Firmware = Literal["bios", "uefi", "secure"]
SERVER = "10.77.0.1"
OVMF = Path("/usr/share/OVMF")
CLONE_NEWNET = 0x40000000


def ip(*words: str, netns: str | None = None) -> None:
    inside = ("-n", netns) if netns else ()
    subprocess.run(["ip", *inside, *words], check=True, stdin=subprocess.DEVNULL)


def _enter(netns: str) -> None:
    """Moves the calling thread, and what it starts, into a network namespace: setns(2)."""
    with Path(f"/run/netns/{netns}").open("rb") as place:
        if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


@dataclass
class Lab:
    """The network 10.77.0.0/24 with our server's namespace at 10.77.0.1 on `br0`.

    With `site_dhcp`, another namespace at 10.77.0.2 has the site's own DHCP server, which gives
    addresses and knows nothing of booting.
    """

    scratch: Path
    site_dhcp: bool
    netns: str = field(default_factory=lambda: f"gi{os.getpid()}")
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def inside(self, work: Callable[[], T]) -> T:
        """What `work` returns, done in the server's namespace by a thread of its own."""
        results: list[T] = []
        errors: list[BaseException] = []

        def act() -> None:
            try:
                _enter(self.netns)
                results.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def behind(self, work: Callable[[], object]) -> threading.Thread:
        """Starts `work` in the server's namespace and does not wait for it."""

        def act() -> None:
            _enter(self.netns)
            work()

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread

    def start(
        self,
        *words: str | Path,
        netns: str | None = None,
        log: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a program in the server's namespace, or another; it is killed with the lab."""
        with (log or Path(os.devnull)).open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", netns or self.netns, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        self.processes.append(process)
        return process


@contextlib.contextmanager
def lab(scratch: Path, *, site_dhcp: bool, next_server: str | None = None) -> Iterator[Lab]:
    made = Lab(scratch=scratch, site_dhcp=site_dhcp)
    spaces = [made.netns, f"{made.netns}d"]
    try:
        for name in spaces:
            ip("netns", "add", name)
            ip("link", "set", "lo", "up", netns=name)
        ip("link", "add", "br0", "type", "bridge", "forward_delay", "0", netns=made.netns)
        ip("addr", "add", f"{SERVER}/24", "dev", "br0", netns=made.netns)
        ip("link", "set", "br0", "up", netns=made.netns)
        ip("tuntap", "add", "tap0", "mode", "tap", netns=made.netns)
        ip("link", "set", "tap0", "master", "br0", "up", netns=made.netns)
        if site_dhcp:
            _site_dhcp(made, spaces[1], next_server)
        yield made
    finally:
        for process in made.processes:
            stop(process)
        for name in spaces:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def _site_dhcp(made: Lab, netns: str, next_server: str | None) -> None:
    peer = ("peer", "name", "eth0", "netns", netns)
    ip("link", "add", "veth0", "type", "veth", *peer, netns=made.netns)
    ip("link", "set", "veth0", "master", "br0", "up", netns=made.netns)
    ip("addr", "add", "10.77.0.2/24", "dev", "eth0", netns=netns)
    ip("link", "set", "eth0", "up", netns=netns)
    options = ("--port=0", "--no-hosts", "--no-resolv", "--interface=eth0", "--bind-interfaces")
    made.start(
        *("dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--log-facility=-"),
        *(*options, "--except-interface=lo", "--pid-file", "--user=root"),
        *("--dhcp-range=10.77.0.100,10.77.0.200,1h", "--dhcp-authoritative"),
        *([f"--dhcp-boot=,,{next_server}"] if next_server else []),
        f"--dhcp-leasefile={made.scratch}/site.leases",
        netns=netns,
        log=made.scratch / "site-dhcp.log",
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


@dataclass
class Machine:
    """A bare machine on the lab's network: first the network, then its disk, as firmware has it."""

    lab: Lab
    firmware: Firmware
    mac: str
    disk: tuple[str, ...]  # QEMU's words for what `drive0` is
    memory: int = 1024
    card: str = "virtio-net-pci"
    has_rom: bool = False  # the card brings iPXE itself
    http_boot: bool = False  # UEFI over HTTP instead of PXE
    power: subprocess.Popen[bytes] | None = None
    since: float = 0.0

    @property
    def console(self) -> Path:
        return self.lab.scratch / "console.log"

    def switch_on(self) -> None:
        self.console.unlink(missing_ok=True)
        self.since = time.monotonic()
        self.power = self.lab.start(*self._words(), log=self.lab.scratch / "qemu.log")

    def switch_off(self) -> None:
        if self.power:
            stop(self.power)
            self.power = None

    def text(self) -> str:
        """What its console has shown, without the codes that move a terminal's cursor."""
        if not self.console.exists():
            return ""
        raw = self.console.read_bytes().decode("utf-8", "replace")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=].?", "", raw).replace("\r", "")

    def wait_for(self, words: str, seconds: float) -> float:
        """Seconds since power-on at which the console shows `words`; fails after `seconds`."""
        return self.wait(lambda: words in self.text(), repr(words), seconds)

    def wait(self, met: Callable[[], object], what: str, seconds: float) -> float:
        end = time.monotonic() + seconds
        while not met():
            assert self.power, "the machine is off"
            assert self.power.poll() is None, f"QEMU ended: {self.text()[-3000:]}"
            assert time.monotonic() < end, f"no {what} in {seconds} s: {self.text()[-3000:]}"
            time.sleep(0.2)
        return time.monotonic() - self.since

    def _words(self) -> list[str | Path]:
        machine = "q35,graphics=off" + (",smm=on" if self.firmware == "secure" else "")
        rom = "" if self.has_rom else ",romfile="
        if self.firmware == "bios":
            rom = ""  # SeaBIOS has no PXE of its own
        return [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", machine),
            *("-cpu", "max", "-smp", "1", "-m", str(self.memory), "-display", "none"),
            *("-vga", "none", "-monitor", "none", "-serial", f"file:{self.console}"),
            *("-uuid", "a0b1c2d3-0000-4000-8000-" + self.mac.replace(":", "")),
            *("-smbios", "type=1,serial=GI-0001"),
            *self._pflash(),
            *("-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"),
            *("-device", f"{self.card},netdev=n0,mac={self.mac},bootindex=1{rom}"),
            *("-device", "virtio-rng-pci"),
            *self.disk,
            *("-device", "virtio-blk-pci,drive=drive0,bootindex=2"),
        ]

    def _pflash(self) -> list[str]:
        if self.firmware == "bios":
            return []
        code, values = {
            "uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
            "secure": ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
        }[self.firmware]
        own = self.lab.scratch / "nvram.fd"
        if not own.exists():
            shutil.copyfile(OVMF / values, own)
        words = [
            *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF / code}"),
            *("-drive", f"if=pflash,format=raw,unit=1,file={own}"),
        ]
        if self.firmware == "secure":
            words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        # Over IPv6 nobody answers here, and firmware waits long for it.
        names = ["IPv6PXESupport", *(["IPv4PXESupport"] if self.http_boot else [])]
        for name in names:
            words += ["-fw_cfg", f"name=opt/org.tianocore/{name},string=n"]
        return words
