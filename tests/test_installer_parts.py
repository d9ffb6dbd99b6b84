"""The installer's shell parts, run by busybox with busybox's tools alone, as in its initrd."""

from __future__ import annotations

import http.server
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.iso.debian.assemble import DATA
from tests.support import needs
from tests.test_debian_iso import ROOT, parse

INSTALLER = DATA / "installer"
# What init and say.sh do on consoles, done on stdout.
STUBS = 'say() { echo "$*"; }; fail() { echo "FAIL: $*"; exit 9; }; step() { shift; "$@"; }\n'


class Installer:
    """A scratch directory with a fake /sys, a kernel command line and an empty target."""

    def __init__(self, place: Path) -> None:
        needs("busybox")
        self.place = place
        self.sys, self.target, self.ks = place / "sys", place / "target", place / "ks"
        self.bin = place / "bin"
        for directory in (self.sys / "block", self.sys / "class/net", self.target, self.bin):
            directory.mkdir(parents=True)
        found = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
        busybox = subprocess.run(
            ["sh", "-c", "command -v busybox"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in {*found.stdout.split(), "busybox"}:
            (self.bin / name).symlink_to(busybox)
        self.cmdline("quiet")

    def cmdline(self, text: str) -> None:
        (self.place / "cmdline").write_text(text + "\n")

    def kickstart(self, text: str) -> None:
        parsed = parse(text, self.ks)
        assert parsed.lines("errors") == []

    def environment(self) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "CMDLINE": str(self.place / "cmdline"),
            "SYS": str(self.sys),
            "LOG": str(self.place / "log"),
            "RESOLV": str(self.place / "resolv.conf"),
            "KICKSTART": str(self.place / "ks.cfg"),
            "MEMINFO": str(self.place / "meminfo"),
        }

    def run(
        self, parts: str, commands: str, stubs: str = STUBS, wrap: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        script = stubs + "".join(f". {INSTALLER / name}.sh\n" for name in parts.split())
        script += f"KS={shlex.quote(str(self.ks))} TARGET={shlex.quote(str(self.target))}\n"
        script += f"[ ! -e $KS/scalars.sh ] || . $KS/scalars.sh\n{commands}\n"
        return subprocess.run(
            [*wrap, str(self.bin / "busybox"), "sh", "-c", script],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def disk(self, name: str, mib: int = 8192, **files: str | bytes) -> None:
        """A disk in /sys; `device_x` is the attribute x of its device."""
        path = self.sys / "block" / name
        known = {"size": str(mib * 2048), "ro": "0", "removable": "0"}
        for key, value in {**known, **files}.items():
            file = path / key.replace("device_", "device/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(value if isinstance(value, bytes) else value.encode() + b"\n")


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return Installer(tmp_path)


# --- disks


def identification(model: str, serial: str) -> bytes:
    """Page 0x83 of an ATA disk behind the kernel's libata, with a T10 designator."""
    text = b"ATA     " + model.ljust(40).encode() + serial.rjust(20).encode()
    return (
        b"\x00\x83\x00\x48\x02\x01\x00" + bytes([len(text)]) + text + b"\x01\x03\x00\x08PN\xab\xcd"
    )


def all_kinds(installer: Installer) -> None:
    installer.disk("vda", serial="ROOT 01")
    installer.disk(
        "sda",
        device_vendor="ATA     ",
        device_model="Samsung SSD 860 ",
        device_wwid="naa.5002538e40a1b2c3",
        device_vpd_pg83=identification("Samsung SSD 860 EVO 500GB", "S3Z2NB0K123456"),
    )
    installer.disk(
        "sdb",
        device_vendor="QEMU    ",
        device_model="QEMU HARDDISK   ",
        device_wwid="t10.QEMU    QEMU HARDDISK   data",
        device_vpd_pg80=b"\x00\x80\x00\x04data",
    )
    installer.disk(
        "nvme0n1",
        wwid="eui.0025385b71b0a1c2",
        nsid="1",
        device_model="Samsung SSD 980 PRO 1TB                 ",
        device_serial="S5GXNX0R123456      ",
    )
    installer.disk("sr0", removable="1")
    installer.disk("loop0")
    installer.disk("sdc", removable="1")
    installer.disk("vdb", mib=0)


@pytest.mark.parametrize(
    ("name", "disk"),
    [
        ("virtio-ROOT_01", "vda"),
        ("ata-Samsung_SSD_860_EVO_500GB_S3Z2NB0K123456", "sda"),
        ("wwn-0x5002538e40a1b2c3", "sda"),
        ("scsi-0QEMU_QEMU_HARDDISK_data", "sdb"),
        ("nvme-eui.0025385b71b0a1c2", "nvme0n1"),
        ("nvme-Samsung_SSD_980_PRO_1TB_S5GXNX0R123456", "nvme0n1"),
        ("nvme-Samsung_SSD_980_PRO_1TB_S5GXNX0R123456_1", "nvme0n1"),
    ],
)
@pytest.mark.parametrize("prefix", ["disk/by-id/", "/dev/disk/by-id/"])
def test_a_disk_is_found_by_the_name_udev_gives_it(
    installer: Installer, prefix: str, name: str, disk: str
) -> None:
    all_kinds(installer)
    installer.kickstart(f"part / --size=1 --grow --ondisk={prefix}{name}\n")
    done = installer.run("cmdline names", 'choose_disk; echo "DISK=$DISK"')
    assert f"DISK={disk}\n" in done.stdout


def test_an_unknown_disk_stops_the_install_and_the_others_are_listed(installer: Installer) -> None:
    all_kinds(installer)
    installer.kickstart("part / --size=1 --ondisk=disk/by-id/virtio-ROOT\n")
    done = installer.run("cmdline names", "choose_disk")
    assert done.returncode == 9
    assert "no disk disk/by-id/virtio-ROOT here; there is: vda (8192 MiB) virtio-ROOT_01; sda" in (
        done.stdout
    )
    assert "sdc" not in done.stdout


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "DISK=vda"),
        ("ignoredisk --drives=disk/by-id/virtio-ROOT_01\n", "DISK=sda"),
        ("ignoredisk --only-use=sdb\n", "DISK=sdb"),
        # the partitions' disk is not there: no other one is taken in its place
        ("ignoredisk --only-use=sda\npart /x --size=1 --ondisk=sdz\n", "FAIL: no disk sdz here"),
        (
            "part /x --size=1 --ondisk=sda\npart /y --size=1 --ondisk=vda\n",
            "FAIL: partitions on",
        ),
        ("ignoredisk --only-use=sdc\n", "FAIL: no disk sdc"),
        ("ignoredisk --drives=vda,sda,sdb,nvme0n1\n", "FAIL: every disk here"),
        ("bootloader --boot-drive=sda\n", "FAIL: bootloader --boot-drive=sda is not the disk"),
        (
            "ignoredisk --drives=sda\n"
            "part /x --size=1 --ondisk=disk/by-id/wwn-0x5002538e40a1b2c3\n",
            "FAIL: sda is named by the kickstart, and ignored by it too",
        ),
    ],
)
def test_which_disk_is_written_to(installer: Installer, lines: str, said: str) -> None:
    all_kinds(installer)
    installer.kickstart(ROOT + lines)
    done = installer.run("cmdline names", 'choose_disk; echo "DISK=$DISK"')
    assert said in done.stdout


# --- the installed system's network


def network_files(installer: Installer, *lines: str) -> dict[str, str]:
    directory = installer.target / "etc/systemd/network"
    directory.mkdir(parents=True)
    installer.kickstart(ROOT + "".join(f"network {line}\n" for line in lines))
    done = installer.run("cmdline networkd", "set_network")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


DHCP = "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n"


@pytest.mark.parametrize("lines", [(), ("--bootproto=dhcp --device=eth0",), ("--device=link",)])
def test_one_card_by_dhcp_may_have_any_name(installer: Installer, lines: tuple[str, ...]) -> None:
    assert network_files(installer, *lines) == {"10-goldimg.network": DHCP}


def test_addresses_of_both_kinds_and_a_card_by_its_mac(installer: Installer) -> None:
    files = network_files(
        installer,
        "--bootproto=static --device=52:54:00:12:34:56 --ip=192.0.2.5 --netmask=255.255.255.192"
        " --gateway=192.0.2.1 --nameserver=192.0.2.53,2001:db8::53 --ipv6=2001:db8::5/64"
        " --ipv6gateway=fe80::1 --mtu=9000",
        "--bootproto=dhcp --device=eth1 --noipv6",
        "--bootproto=dhcp --device=eth2 --noipv4 --ipv6=dhcp",
        "--bootproto=dhcp --device=eth3 --onboot=no",
    )
    assert files == {
        "10-goldimg.network": "[Match]\nPermanentMACAddress=52:54:00:12:34:56\n\n"
        "[Link]\nMTUBytes=9000\n\n"
        "[Network]\nAddress=192.0.2.5/26\nGateway=192.0.2.1\n"
        "Address=2001:db8::5/64\nIPv6AcceptRA=no\nGateway=fe80::1\n"
        "DNS=192.0.2.53\nDNS=2001:db8::53\n",
        "20-goldimg.network": "[Match]\nName=eth1\n\n[Network]\nDHCP=ipv4\n"
        "IPv6AcceptRA=no\nLinkLocalAddressing=no\n\n[DHCPv4]\nClientIdentifier=mac\n",
        "30-goldimg.network": "[Match]\nName=eth2\n\n[Network]\nDHCP=ipv6\nIPv6AcceptRA=yes\n",
    }


def test_two_vlans_on_a_bond_that_has_no_address(installer: Installer) -> None:
    files = network_files(
        installer,
        "--bootproto=static --device=bond0 --bondslaves=eth0,52:54:00:00:00:02"
        " --bondopts=mode=1,miimon=100,primary=eth0 --vlanid=100 --interfacename=vlan100"
        " --ip=192.0.2.5 --netmask=255.255.255.0",
        "--bootproto=dhcp --device=bond0 --vlanid=200 --noipv6",
    )
    assert files == {
        "05-goldimg-bond0.network": "[Match]\nName=bond0\n\n"
        "[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nVLAN=vlan100\nVLAN=bond0.200\n",
        "10-goldimg.netdev": "[NetDev]\nName=bond0\nKind=bond\nMACAddress=none\n\n"
        "[Bond]\nMode=active-backup\nMIIMonitorSec=100ms\n",
        "10-goldimg.link": "[Match]\nOriginalName=bond0\n\n"
        "[Link]\nNamePolicy=keep kernel\nMACAddressPolicy=none\n",
        "10-goldimg-eth0.network": "[Match]\nName=eth0\n\n"
        "[Network]\nBond=bond0\nPrimarySlave=yes\n",
        "10-goldimg-525400000002.network": "[Match]\nPermanentMACAddress=52:54:00:00:00:02\n\n"
        "[Network]\nBond=bond0\n",
        "10-goldimg-vlan.netdev": "[NetDev]\nName=vlan100\nKind=vlan\n\n[VLAN]\nId=100\n",
        "10-goldimg.network": "[Match]\nName=vlan100\n\n[Network]\nAddress=192.0.2.5/24\n",
        "20-goldimg.netdev": "[NetDev]\nName=bond0.200\nKind=vlan\n\n[VLAN]\nId=200\n",
        "20-goldimg.network": "[Match]\nName=bond0.200\n\n[Network]\nDHCP=ipv4\n"
        "IPv6AcceptRA=no\nLinkLocalAddressing=no\n\n[DHCPv4]\nClientIdentifier=mac\n",
    }


def test_a_vlan_on_a_card_with_an_address_of_its_own(installer: Installer) -> None:
    files = network_files(
        installer,
        "--bootproto=dhcp --device=eth0 --vlanid=7",
        "--bootproto=static --device=eth0 --ip=192.0.2.5 --netmask=255.255.255.0",
    )
    assert sorted(files) == [
        "10-goldimg.netdev",
        "10-goldimg.network",
        "20-goldimg.network",
        "20-goldimg.network.d/eth0.7.conf",
    ]
    assert files["20-goldimg.network.d/eth0.7.conf"] == "[Network]\nVLAN=eth0.7\n"


# --- time and package sources


def test_time_servers_and_proxies_reach_the_installed_system(installer: Installer) -> None:
    for name in ("lib/systemd/system", "etc/apt/apt.conf.d", "etc/systemd"):
        (installer.target / name).mkdir(parents=True)
    (installer.target / "lib/systemd/system/systemd-timesyncd.service").touch()
    sources = installer.target / "etc/apt/sources.list"
    sources.write_text(
        "deb http://old/debian bookworm main\ndeb http://old/sec bookworm-security main\n"
    )
    installer.kickstart(
        ROOT + "timezone Etc/UTC --ntpservers=a.example.com\n"
        "timesource --ntp-server=b.example.com\n"
        "url --url=http://new/debian/ --proxy=http://proxy:3128\n"
        "repo --name=security --baseurl=http://sec.example.com:81/sec --proxy=http://other:80\n"
    )
    done = installer.run("cmdline target", "set_time; set_sources")
    assert (done.returncode, done.stderr) == (0, "")
    time_configuration = installer.target / "etc/systemd/timesyncd.conf.d/goldimg.conf"
    assert time_configuration.read_text() == "[Time]\nNTP=a.example.com b.example.com\n"
    assert sources.read_text() == (
        "deb http://new/debian bookworm main\n"
        "deb http://sec.example.com:81/sec bookworm-security main\n"
    )
    proxies = installer.target / "etc/apt/apt.conf.d/90goldimg-proxy"
    assert proxies.read_text() == (
        'Acquire::http::Proxy "http://proxy:3128";\nAcquire::https::Proxy "http://proxy:3128";\n'
        'Acquire::http::Proxy::sec.example.com "http://other:80";\n'
    )


# --- the installer's own network, on real cards of a network namespace


def online(installer: Installer, cmdline: str) -> subprocess.CompletedProcess[str]:
    """network_up with the two ends of a veth pair as cards."""
    needs("unshare")
    namespace = ("unshare", "--map-root-user", "--net", "--mount")
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs network namespaces")
    installer.cmdline(cmdline)
    cards = (
        "ip link add ens3 type veth; ip link set veth0 name ens4\n"
        "ip link set ens3 address 52:54:00:00:00:03; ip link set ens4 address 52:54:00:00:00:04\n"
        "mount -t sysfs sys $SYS && network_up || exit\n"
        "ip -4 -o addr; ip route; cat $RESOLV"
    )
    if subprocess.run(
        [*namespace, "ip", "link", "add", "ens3", "type", "veth"], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs a kernel with veth")
    return installer.run("cmdline online", cards, wrap=namespace)


@pytest.mark.parametrize(
    ("cmdline", "card"),
    [
        ("ip=192.0.2.5::192.0.2.1:255.255.255.0:node01:ens4:none", "ens4"),
        ("ip=192.0.2.5::192.0.2.1:24::52-54-00-00-00-04:off", "ens4"),
        ("BOOTIF=01-52-54-00-00-00-04 ip=192.0.2.5::192.0.2.1:255.255.255.0:::none", "ens4"),
        ("BOOTIF=01-52-54-00-00-00-04 ip=192.0.2.5::192.0.2.1:24::enp9s0:none", "ens4"),
        ("ip=192.0.2.5::192.0.2.1:255.255.255.0:::none", "ens3"),
    ],
)
def test_a_static_address_on_the_card_that_is_meant(
    installer: Installer, cmdline: str, card: str
) -> None:
    done = online(installer, cmdline + " nameserver=192.0.2.53 nameserver=192.0.2.54")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{card}    inet 192.0.2.5/24" in done.stdout
    assert f"default via 192.0.2.1 dev {card}" in done.stdout
    assert done.stdout.endswith("nameserver 192.0.2.53\nnameserver 192.0.2.54\n")


@pytest.mark.parametrize(
    ("cmdline", "said"),
    [
        (
            "ip=192.0.2.5::192.0.2.1:24::enp9s0:none",
            "no network card 'enp9s0'; "
            "there is: ens3 (52:54:00:00:00:03), ens4 (52:54:00:00:00:04)",
        ),
        ("ip=192.0.2.5::192.0.2.1:::ens3:none", "has no netmask"),
        ("ip=192.0.2.5::198.51.100.1:24::ens3:none", "the gateway 198.51.100.1 was refused"),
        ("ip=[2001:db8::5]::[2001:db8::1]:64::ens3:none", "understands IPv4 only"),
        ("ip=ibft", "ip=ibft is not understood"),
        ("vlan=ens3", "not vlan=NAME:DEVICE"),
    ],
)
def test_a_network_that_is_not_understood_stops_the_install(
    installer: Installer, cmdline: str, said: str
) -> None:
    done = online(installer, cmdline)
    assert done.returncode == 9
    assert said in done.stdout


# --- what comes over HTTP


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, breaks off as often as `breaks` says, and keeps what it was sent."""

    content = b""
    breaks = 0
    is_deaf = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.headers: list[list[tuple[str, str]]] = []
        self.reports: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, start = self.server, 0
        server.headers.append(self.headers.items())
        wanted = self.headers.get("Range")
        if wanted:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        body = server.content[start:]
        if server.breaks:
            server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if self.server.is_deaf:
            self.server.reports.append((self.path, ""))
            return
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.reports.append((self.path, body))
        self.send_response(204)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


def fetch(installer: Installer, server: Server) -> subprocess.CompletedProcess[str]:
    url, file = f"{server.url}/goldimg/root.img", installer.place / "root.img"
    return installer.run(
        "cmdline source", f'fetch_whole {url} {file} "$(size_at {server.url})"; echo whole'
    )


def test_a_transfer_that_breaks_off_is_resumed(installer: Installer, server: Server) -> None:
    server.content = bytes(range(256)) * 4096
    done_once = installer.run("cmdline source", f"size_at {server.url}")
    assert done_once.stdout == f"{len(server.content)}\n"
    server.breaks = 1
    done = installer.run(
        "cmdline source",
        f"fetch_whole {server.url}/x {installer.place}/root.img {len(server.content)}; echo whole",
    )
    assert f"the transfer stopped at {len(server.content) // 2} of" in done.stdout
    assert done.stdout.endswith("whole\n")
    assert (installer.place / "root.img").read_bytes() == server.content
    assert ("Range", f"bytes={len(server.content) // 2}-") in server.headers[-1]


def test_progress_is_told_by_fifths(installer: Installer, server: Server) -> None:
    server.content = bytes(1 << 20)
    done = fetch(installer, server)
    assert [line.strip() for line in done.stdout.splitlines()] == [
        *("20 %", "40 %", "60 %", "80 %"),
        "whole",
    ]


def test_too_little_memory_is_told_before_anything_is_fetched(
    installer: Installer, server: Server
) -> None:
    server.content = bytes(8 << 20)
    (installer.place / "meminfo").write_text("MemTotal: 300000 kB\nMemAvailable:   102400 kB\n")
    done = installer.run("cmdline source", f"REPO={server.url}/tree; fetch_image")
    assert done.returncode == 9
    assert "201 MiB are needed, 100 MiB are free" in done.stdout


@pytest.mark.parametrize(
    ("cmdline", "said"),
    [
        ("inst.repo=http://h/tree/ inst.stage2=http://other/", "REPO=http://h/tree"),
        ("inst.stage2=http://h/tree", "REPO=http://h/tree"),
        ("inst.stage2=hd:LABEL=GOLDIMG", "REPO=\n"),
        ("quiet", "REPO=\n"),
        (
            "inst.repo=https://u:pw@h/t?x",
            "FAIL: inst.repo: only http:// is understood, not https://h",
        ),
        ("inst.repo=nfs:h:/tree", "FAIL: inst.repo: only http:// is understood, not nfs:h:"),
    ],
)
def test_where_the_root_file_system_comes_from(
    installer: Installer, cmdline: str, said: str
) -> None:
    installer.cmdline(cmdline)
    done = installer.run("cmdline source", 'choose_source; echo "REPO=$REPO"')
    assert said in done.stdout
    assert "pw" not in done.stdout


def cards_and_serial(installer: Installer) -> None:
    for card, mac in (("eth0", "52:54:00:00:00:01"), ("eth1", "52:54:00:00:00:02")):
        (installer.sys / "class/net" / card).mkdir()
        (installer.sys / "class/net" / card / "address").write_text(mac + "\n")
    (installer.sys / "class/dmi/id").mkdir(parents=True)
    (installer.sys / "class/dmi/id/product_serial").write_text("SN 42\n")


def kickstart_headers(installer: Installer, server: Server, words: str) -> dict[str, str]:
    cards_and_serial(installer)
    server.content = b"# goldimg-report: http://10.0.2.2/report/x\n"
    installer.cmdline(f"inst.ks={server.url}/ks/t0ken {words}")
    done = installer.run("cmdline source", "CARDS='eth0 eth1'; fetch_kickstart; echo $REPORT")
    assert done.stdout.endswith("http://10.0.2.2/report/x\n"), done.stdout + done.stderr
    assert "t0ken" not in done.stdout
    return {name: value for name, value in server.headers[0] if name.startswith("X-")}


def test_the_machine_says_who_it_is_where_it_is_told_to(
    installer: Installer, server: Server
) -> None:
    assert kickstart_headers(installer, server, "inst.ks.sendmac inst.ks.sendsn") == {
        "X-RHN-Provisioning-MAC-0": "eth0 52:54:00:00:00:01",
        "X-RHN-Provisioning-MAC-1": "eth1 52:54:00:00:00:02",
        "X-System-Serial-Number": "SN 42",
    }


def test_the_machine_does_not_say_who_it_is_otherwise(installer: Installer, server: Server) -> None:
    assert kickstart_headers(installer, server, "inst.ks.sendmacs") == {}


# --- reports

LOG_LINES = "for n in $(seq 1 30); do echo line $n >>$LOG; done\n"


def test_every_report_has_the_end_of_the_log(installer: Installer, server: Server) -> None:
    installer.run("cmdline say", f"REPORT={server.url}\n{LOG_LINES}report packages", stubs="")
    ((path, body),) = server.reports
    assert path == "/packages"
    assert body.splitlines() == [f"line {number}" for number in range(11, 31)]


def test_the_failure_report_begins_with_the_reason(installer: Installer, server: Server) -> None:
    commands = f"REPORT={server.url}\n{LOG_LINES}report_last failed 'no disk'"
    installer.run("cmdline say", commands, stubs="")
    ((path, body),) = server.reports
    assert path == "/failed"
    assert body.splitlines()[:2] == ["no disk", "line 11"]


def test_a_server_that_does_not_answer_is_asked_no_more(
    installer: Installer, server: Server
) -> None:
    server.is_deaf = True
    stages = "; ".join(f"report {stage}" for stage in ("started", "pre", "packages", "post"))
    began = time.monotonic()
    installer.run("cmdline say", f"REPORT={server.url}\n{stages}; report_last done", stubs="")
    assert [path for path, _ in server.reports] == ["/started", "/pre", "/done"]
    assert time.monotonic() - began < 10
