"""Bare machines, from power-on to an installed system and back to their disks, over a real network.

QEMU without KVM on a bridge in a network namespace, the site's server in it, beside or instead of
a DHCP server: `tests/pxe.py`. Root is needed for the namespaces, and nothing else is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from goldimg.layout import lay_out
from tests.pxe import SERVER, Firmware, Lab, Machine, lab
from tests.support import needs

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parent.parent
GOLDIMG = Path(sys.executable).parent / "goldimg"
MAC = "52:54:00:aa:00:01"
ADDRESS = "10.77.0.50"
MARK = "written by the snippet"
INSTALL_SECONDS, BOOT_SECONDS, CHAIN_SECONDS = 420, 240, 120
SITE = """
root_pass: Xq7-pxe-test-Pw9
serve:
  listen: {server}
  networks: [10.77.0.0/24]
  workers: 1
  netboot:
    mode: {mode}
    loader: {loader}
    secure_boot: {secure}
    dhcp_range: 10.77.0.100-10.77.0.200
"""
HOST = f"""
device: {MAC}
ipaddr: {ADDRESS}
netmask: 255.255.255.0
disk: vda
lvm: true
post: [mark]
"""


@dataclass
class Story:
    """One site, its server on the provisioning network, and the machine node01 on it."""

    root: Path
    lab: Lab
    machine: Machine

    def goldimg(self, *arguments: str) -> str:
        """What the command prints; it has to end well."""
        done = subprocess.run(
            [GOLDIMG, *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def state(self) -> str:
        hosts: Any = json.loads(self.goldimg("host", "list", "--json"))
        return str(next(it["state"] for it in hosts if it["name"] == "node01"))

    def wait_for_state(self, wanted: str, seconds: float) -> float:
        """Seconds since power-on; an install that fails is told at once."""

        def reached() -> bool:
            state = self.state()
            assert state != "failed" or wanted == "failed", self.goldimg("host", "show", "node01")
            return state == wanted or (wanted == "kickstart fetched" and state == "installing")

        return self.machine.wait(reached, f"state {wanted}", seconds)

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        options = (
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"),
            *("-o", "BatchMode=yes", "-i", self.root / "keys/packer"),
        )
        return subprocess.run(
            ["ip", "netns", "exec", self.lab.netns, "ssh", *options, f"root@{ADDRESS}", command],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    def said(self, command: str) -> str:
        done = self.ssh(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def wait_for_ssh(self, seconds: float) -> float:
        return self.machine.wait(lambda: self.ssh("true").returncode == 0, "SSH", seconds)

    def log(self) -> str:
        return (self.lab.scratch / "serve.log").read_text(errors="replace")


@contextlib.contextmanager
def story(
    scratch: Path,
    firmware: Firmware,
    *,
    mode: str = "dhcp",
    loader: str = "ipxe",
    http_boot: bool = False,
) -> Iterator[Story]:
    if os.geteuid() != 0 and os.environ.get("CI") != "true":
        pytest.skip("needs root for network namespaces")
    needs("ip", "dnsmasq", "qemu-system-x86_64", "qemu-img", "xorriso", "mmdebstrap", "ssh")
    root = site(scratch / "site", mode, loader, firmware == "secure")
    disk = scratch / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8G"], check=True)
    # GRUB asks whom its DHCP server names, never a proxy: goldimg.netboot.dnsmasq tells more.
    next_server = SERVER if mode == "proxy" and firmware == "secure" else None
    with lab(scratch, site_dhcp=mode == "proxy", next_server=next_server) as network:
        machine = Machine(
            lab=network,
            firmware=firmware,
            mac=MAC,
            disk=("-drive", f"file={disk},if=none,id=drive0,cache=unsafe,discard=unmap"),
            http_boot=http_boot,
        )
        made = Story(root=root, lab=network, machine=machine)
        made.goldimg("host", "add", "node01", "--mac", MAC, "--os", "Debian-12")
        own = root / "kickstart/builds/metal/node01.yml"
        own.write_text(own.read_text(encoding="utf-8") + HOST, encoding="utf-8")
        server = network.start(
            *(GOLDIMG, "serve", "--netboot", "--interface", "br0"),
            cwd=root,
            log=scratch / "serve.log",
        )
        wait_until_served(network, lambda: server.poll() is None, made.log)
        try:
            yield made
            assert "dnsmasq ended" not in made.log()
        finally:
            machine.switch_off()


def wait_until_served(network: Lab, is_running: Callable[[], bool], log: Callable[[], str]) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((SERVER, 8080)) == 0

    end = time.monotonic() + 60
    while not network.inside(answers):
        assert is_running(), log()
        assert time.monotonic() < end, log()
        time.sleep(0.2)


def site(root: Path, mode: str, loader: str, secure: bool) -> Path:
    lay_out(root)
    iso = Path(os.environ.get("GOLDIMG_CACHE", ROOT / ".cache")).resolve() / "iso"
    iso.mkdir(parents=True, exist_ok=True)
    (root / ".cache").mkdir()
    (root / ".cache/iso").symlink_to(iso)  # an installer is assembled once
    text = SITE.format(server=SERVER, mode=mode, loader=loader, secure=str(secure).lower())
    (root / "templates/site.yml").write_text(text, encoding="utf-8")
    (root / "kickstart/snippets").mkdir(exist_ok=True)
    mark = f"echo '{MARK}' >/etc/goldimg-mark\n"
    (root / "kickstart/snippets/mark.sh").write_text(mark, encoding="utf-8")
    return root


def told(what: str, seconds: float) -> None:
    """Figures for `docs/`; shown with -rA."""
    print(f"{what}: {seconds:.0f} s")


@pytest.mark.parametrize(
    ("firmware", "mode"),
    [("bios", "proxy"), ("uefi", "dhcp"), ("secure", "dhcp")],
)
def test_from_power_on_to_installed_and_back_to_the_disk(
    firmware: Firmware, mode: str, tmp_path: Path
) -> None:
    with story(tmp_path, firmware, mode=mode) as it:
        it.goldimg("host", "install", "node01")
        assert it.state() == "armed"
        it.machine.switch_on()
        told("installer's first line", it.machine.wait_for("goldimg installer", CHAIN_SECONDS))
        told("installed", it.wait_for_state("installed", INSTALL_SECONDS))
        # It restarts by itself, asks the network first, and is sent to its disk.
        told("SSH", it.wait_for_ssh(BOOT_SECONDS))
        assert it.said("cat /etc/goldimg-mark") == MARK
        assert it.said("hostname").startswith("node01")
        assert f"{ADDRESS}/24" in it.said("ip -4 -o address")
        assert "node01_rootvg" in it.said("vgs --noheadings -o vg_name")
        assert it.said("findmnt -no SOURCE /").startswith("/dev/mapper/")
        assert it.said("test -d /sys/firmware/efi && echo uefi || echo bios") == (
            "bios" if firmware == "bios" else "uefi"
        )
        born = it.said("stat -c %W /etc/goldimg-mark")
        it.ssh("sync")
        it.machine.switch_off()

        it.machine.switch_on()
        told("SSH after the second power-on", it.wait_for_ssh(BOOT_SECONDS))
        assert "goldimg: starting from the disk" in it.machine.text()
        assert "goldimg installer" not in it.machine.text()
        assert it.said("stat -c %W /etc/goldimg-mark") == born
        assert it.state() == "installed"


@pytest.mark.parametrize(
    ("firmware", "mode", "loader", "http_boot"),
    [
        pytest.param("uefi", "proxy", "ipxe", False, id="uefi-proxy-ipxe"),
        pytest.param("uefi", "dhcp", "ipxe", True, id="uefi-http"),
        pytest.param("uefi", "dhcp", "grub", False, id="uefi-grub"),
        pytest.param("secure", "proxy", "ipxe", False, id="secure-proxy"),
        pytest.param("bios", "proxy", "grub", False, id="bios-proxy-pxelinux"),
    ],
)
def test_other_ways_to_the_installer(
    firmware: Firmware, mode: str, loader: str, http_boot: bool, tmp_path: Path
) -> None:
    with story(tmp_path, firmware, mode=mode, loader=loader, http_boot=http_boot) as it:
        it.goldimg("host", "install", "node01")
        it.machine.switch_on()
        told("installer's first line", it.machine.wait_for("goldimg installer", CHAIN_SECONDS))
        told("kickstart fetched", it.wait_for_state("kickstart fetched", 60))


def test_a_machine_that_nobody_armed_gets_no_installer(tmp_path: Path) -> None:
    with story(tmp_path, "bios") as it:
        it.goldimg("host", "install", "node01")
        it.goldimg("host", "cancel", "node01")
        it.machine.switch_on()
        it.machine.wait_for("goldimg: starting from the disk", CHAIN_SECONDS)
        time.sleep(5)  # an empty disk: the firmware finds nothing to start
        assert "goldimg installer" not in it.machine.text()
        assert it.state() == "known"
