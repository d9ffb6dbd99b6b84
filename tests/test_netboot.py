"""What machines that start over the network are told and sent; real boots are in test_pxe.py."""

from __future__ import annotations

import os
import random
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from goldimg.config.serve import Netboot
from goldimg.errors import ConfigError, GoldimgError, MissingTool
from goldimg.netboot import LOCAL, Boot, Entry, daemon, scripts
from goldimg.netboot.daemon import Dnsmasq, Heard, heard, interface_address, taken_ports
from goldimg.netboot.dnsmasq import Config, Place, config
from goldimg.netboot.tftp import LOADERS, Source, TftpRoot
from goldimg.netboot.tree import Tree, parse_report
from goldimg.run import Runner
from tests.support import needs

TEMPLATES = Path(__file__).resolve().parent.parent / "kickstart"
BASE = "http://10.77.0.1:8080"
MAC = "52:54:00:aa:00:01"
OWN = "01-52-54-00-aa-00-01"
ENTRY = Entry(
    title="Debian-12 on node01",
    os="Debian-12",
    kernel="boot/vmlinuz",
    initrd="boot/initrd.img",
    arguments=(f"inst.ks={BASE}/ks/metal/node01?os=Debian-12&token=s3cret", f"BOOTIF={OWN}"),
)
INSTALL = Boot(action="install", note="node01 is installed with Debian-12", entries=(ENTRY,))
MENU = Boot(action="menu", entries=(ENTRY, replace(ENTRY, title="another")))
KERNEL = random.Random(7).randbytes(300_000)  # noqa: S311 - every test process has the same


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("xorriso")
    root = tmp_path_factory.mktemp("iso")
    for name, data in {
        "boot/vmlinuz": KERNEL,
        "boot/initrd.img": os.urandom(5000),
        "EFI/BOOT/BOOTX64.EFI": b"shim",
        "EFI/BOOT/grubx64.efi": b"grub",
        "it's, a 'name'": b"quoted",
        ".treeinfo": b"[general]\n",
        "empty": b"",
    }.items():
        (root / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "tree" / name).write_bytes(data)
    make_iso(root / "tree", root / "os.iso")
    return root / "os.iso"


def make_iso(tree: Path, target: Path) -> None:
    words = ("xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-o", target, tree)
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)


@pytest.fixture
def tree(iso: Path, tmp_path: Path) -> Tree:
    return Tree.of(iso, tmp_path / "cache", Runner())


# --- an ISO's files --------------------------------------------------------------------------


def test_a_file_of_an_iso_is_read_where_it_lies(tree: Tree) -> None:
    with tree.open("boot/vmlinuz") as stream:
        assert stream.read() == KERNEL
        stream.seek(-5, os.SEEK_END)
        assert stream.read(100) == KERNEL[-5:]
    with tree.open("it's, a 'name'") as stream:
        assert stream.read() == b"quoted"


@pytest.mark.parametrize(
    "path", ["", "/boot/vmlinuz", "boot", "boot/../boot/vmlinuz", "BOOT/VMLINUZ", "boot//vmlinuz"]
)
def test_only_exact_names_are_found(tree: Tree, path: str) -> None:
    assert tree.find(path) is None


def test_the_index_is_made_once_and_anew_for_another_iso(
    iso: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.iso"
    own.write_bytes(iso.read_bytes())
    first = Tree.of(own, tmp_path / "cache", Runner())
    with monkeypatch.context() as without_tools:
        without_tools.setattr("goldimg.run.find_program", lambda *_: pytest.fail("asked again"))
        assert Tree.of(own, tmp_path / "cache", Runner()) == first
    (tmp_path / "new").mkdir()
    (tmp_path / "new/other").write_bytes(b"x")
    make_iso(tmp_path / "new", own)
    assert set(Tree.of(own, tmp_path / "cache", Runner()).files) == {"other"}


def test_what_is_no_iso_is_said_to_be_none(tmp_path: Path) -> None:
    needs("xorriso")
    (tmp_path / "x.iso").write_bytes(b"no image" * 10_000)
    with pytest.raises(GoldimgError, match=r"xorriso failed|holds no files"):
        Tree.of(tmp_path / "x.iso", tmp_path, Runner())
    with pytest.raises(GoldimgError, match="cannot read the ISO"):
        Tree.of(tmp_path / "absent.iso", tmp_path, Runner())


def test_large_files_are_several_runs_on_end() -> None:
    # As xorriso 1.5.4 reports a file of 4500 MiB.
    lines = [
        "File data lba:  0 ,       33 ,  2097151 , 4718592000 , '/big'",
        "File data lba:  1 ,  2097184 ,   206849 , 4718592000 , '/big'",
        "File data lba:  0 ,      100 ,        1 ,         10 , '/torn'",
        "File data lba:  1 ,      200 ,        1 ,         10 , '/torn'",
    ]
    files = parse_report(lines)
    assert (files["big"].offset, files["big"].size) == (33 * 2048, 4718592000)
    assert "torn" not in files


# --- over HTTP -------------------------------------------------------------------------------

APP = """
import sys
from pathlib import Path
from flask import Flask, request
from goldimg.netboot.send import send
from goldimg.netboot.tree import Tree
from goldimg.run import Runner
tree = Tree.of(Path({iso!r}), Path({cache!r}), Runner())
app = Flask("app", static_folder=None)

@app.route("/tree/<path:path>")
def files(path):
    headers = request.headers
    return send(tree, path, method=request.method, range_header=headers.get("Range"),
                if_range=headers.get("If-Range"))
"""


@pytest.fixture(scope="module", params=["gunicorn", "waitress"])
def served(
    request: pytest.FixtureRequest, iso: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    place = tmp_path_factory.mktemp("app")
    (place / "app.py").write_text(APP.format(iso=str(iso), cache=str(place)))
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    at = f"127.0.0.1:{port}"
    words = {
        "gunicorn": ("gunicorn", "--bind", at, "--threads", "2", "app:app"),
        "waitress": ("waitress", "--listen", at, "app:app"),
    }[request.param]
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(TEMPLATES.parent)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port)
        yield f"http://{at}/tree"
    finally:
        process.terminate()
        process.wait(10)


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")


def test_a_file_is_sent_whole_with_its_length(served: str) -> None:
    answer = requests.get(f"{served}/boot/vmlinuz", timeout=10)
    assert (answer.status_code, answer.content) == (200, KERNEL)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert (
        requests.get(f"{served}/.treeinfo", timeout=10)
        .headers["Content-Type"]
        .startswith("text/plain")
    )
    assert requests.get(f"{served}/empty", timeout=10).content == b""


def test_head_tells_the_length_and_sends_nothing(served: str) -> None:
    answer = requests.head(f"{served}/boot/vmlinuz", timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(KERNEL))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bytes=0-9", KERNEL[:10]),
        ("bytes=299990-", KERNEL[299990:]),
        ("bytes=-7", KERNEL[-7:]),
        ("bytes=299990-999999", KERNEL[299990:]),
    ],
)
def test_an_interrupted_download_goes_on(served: str, wanted: str, expected: bytes) -> None:
    answer = requests.get(f"{served}/boot/vmlinuz", headers={"Range": wanted}, timeout=10)
    assert (answer.status_code, answer.content) == (206, expected)
    first = len(KERNEL) - len(expected) if wanted != "bytes=0-9" else 0
    span = f"bytes {first}-{first + len(expected) - 1}/{len(KERNEL)}"
    assert answer.headers["Content-Range"] == span


def test_ranges_that_cannot_be_had(served: str) -> None:
    url = f"{served}/boot/vmlinuz"
    beyond = requests.get(url, headers={"Range": "bytes=300000-"}, timeout=10)
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, "bytes */300000")
    for odd in ("bytes=0-1,5-6", "lines=1-2", "bytes=x-"):
        assert requests.get(url, headers={"Range": odd}, timeout=10).content == KERNEL
    tag = requests.head(url, timeout=10).headers["ETag"]
    for given_tag, status in ((tag, 206), ('"another"', 200)):
        headers = {"Range": "bytes=0-9", "If-Range": given_tag}
        assert requests.get(url, headers=headers, timeout=10).status_code == status


def test_absent_files_are_404(served: str) -> None:
    for path in ("absent", "boot", "boot%2f..%2f..%2fetc/passwd", "..%2fos.iso"):
        assert requests.get(f"{served}/{path}", timeout=10).status_code == 404


# --- scripts ---------------------------------------------------------------------------------


def all_scripts(boot: Boot) -> dict[str, str]:
    return {
        make.__name__: make(TEMPLATES, boot, BASE)
        for make in (scripts.ipxe, scripts.grub, scripts.pxelinux)
    }


def test_a_machine_that_is_not_to_be_installed_gets_nothing_to_load() -> None:
    told = all_scripts(LOCAL)
    for text in told.values():
        assert "vmlinuz" not in text
        assert "inst.ks" not in text
    assert told["ipxe"].rstrip().endswith("exit 1")  # 0 ends in UEFI's own menu
    assert "localboot" in told["pxelinux"]
    assert "chainloader" in told["grub"]


def test_an_install_names_kernel_initrd_and_all_arguments() -> None:
    for name, text in all_scripts(INSTALL).items():
        where = f"{BASE}/tree/Debian-12" if name == "ipxe" else "/boot/Debian-12"
        for path in ("boot/vmlinuz", "boot/initrd.img"):
            assert f"{where}/{path}" in text
        for word in ENTRY.arguments:
            assert word in text
        assert "node01 is installed with Debian-12" in text


def test_a_menu_starts_the_disk_unless_somebody_chooses() -> None:
    told = all_scripts(MENU)
    assert "choose --timeout 30000 --default local" in told["ipxe"]
    assert "set timeout=30\nset default=local" in told["grub"]
    assert "timeout 300\n" in told["pxelinux"]
    assert "    menu default\n    localboot" in told["pxelinux"]
    for text in told.values():
        assert "another" in text


def test_the_first_script_asks_who_the_machine_is() -> None:
    text = scripts.ipxe_first(TEMPLATES, BASE)
    for name in ("mac", "uuid", "serial", "platform", "buildarch"):
        assert re.search(rf"[?&]{name}=\$\{{", text)
    assert text.startswith("#!ipxe\n")
    assert text.rstrip().endswith("exit 1")


@pytest.mark.parametrize("boot", [LOCAL, INSTALL, MENU], ids=lambda boot: boot.action)
@pytest.mark.parametrize("finds_machine", [False, True])
def test_grub_can_read_its_configuration(boot: Boot, finds_machine: bool, tmp_path: Path) -> None:
    needs("grub-script-check")
    text = scripts.grub(TEMPLATES, boot, BASE, finds_machine=finds_machine)
    (tmp_path / "grub.cfg").write_text(text)
    subprocess.run(["grub-script-check", tmp_path / "grub.cfg"], check=True)


@pytest.mark.parametrize("bad", [*list(" \n\r\t'\"`$;{}|<>#\\()*\x00"), "é", ""])
def test_an_argument_that_a_loader_would_take_apart_is_refused_without_its_value(bad: str) -> None:
    word = f"inst.ks=http://x/s3cret{bad}y" if bad else ""
    boot = replace(INSTALL, entries=(replace(ENTRY, arguments=(word,)),))
    for make in (scripts.ipxe, scripts.grub, scripts.pxelinux):
        with pytest.raises(ConfigError) as error:
            make(TEMPLATES, boot, BASE)
        assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("path", ["../etc/shadow", "/boot/vmlinuz", "a b", "a;b", "a/$x", ""])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    for wrong in (
        replace(ENTRY, kernel=path),
        replace(ENTRY, initrd=path),
        replace(ENTRY, os=path),
    ):
        with pytest.raises(ConfigError):
            scripts.ipxe(TEMPLATES, replace(INSTALL, entries=(wrong,)), BASE)


@given(note=st.text(max_size=80), title=st.text(max_size=80))
def test_no_text_for_the_screen_becomes_a_command(note: str, title: str) -> None:
    plain = Boot(action="menu", note="note", entries=(replace(ENTRY, title="title"),))
    odd = Boot(action="menu", note=f"x{note}", entries=(replace(ENTRY, title=f"x{title}"),))
    for name, text in all_scripts(odd).items():
        assert len(text.splitlines()) == len(all_scripts(plain)[name].splitlines())
        shown = [line for line in text.splitlines() if line not in all_scripts(plain)[name]]
        for line in shown:
            assert not set("$`\\;{|&<>#").intersection(re.sub(r'\{$|"', "", line))


@pytest.mark.parametrize("url", ["http://x y", "ftp://x", "http://x/'", "http://${ip}", "x", ""])
def test_a_server_url_must_be_one(url: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.url"):
        scripts.ipxe_first(TEMPLATES, url)


def test_a_mac_address_is_written_as_boot_loaders_do() -> None:
    assert scripts.dashed("52:54:00:AA:00:01") == OWN
    for wrong in ("", "52:54:00:aa:00", "52:54:00:aa:00:01/../x", "52-54-00-aa-00-01\n"):
        with pytest.raises(ValueError, match="not a MAC address"):
            scripts.dashed(wrong)


# --- files for TFTP --------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Where the loaders' packages are installed."""
    for name, (_, place) in LOADERS.items():
        (tmp_path / "system" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "system" / place).write_bytes(name.encode())
    return tmp_path / "system"


@pytest.fixture
def tftp(tree: Tree, tmp_path: Path, system: Path) -> TftpRoot:
    source = Source(tree=tree, shim="EFI/BOOT/BOOTX64.EFI", grub="EFI/BOOT/grubx64.efi")
    return TftpRoot(
        path=tmp_path / "tftp",
        templates=TEMPLATES,
        base_url=BASE,
        netboot=Netboot(loader="grub"),
        sources={"Debian-12": source},
        system=system,
    )


def files(root: TftpRoot) -> dict[str, bytes]:
    return {
        str(path.relative_to(root.path)): path.read_bytes()
        for path in root.path.rglob("*")
        if path.is_file()
    }


def own_files(root: TftpRoot) -> list[str]:
    return sorted(name for name in files(root) if "01-" in name)


def test_a_machine_has_files_only_while_it_is_to_be_installed(tftp: TftpRoot) -> None:
    tftp.path.mkdir(mode=0o700)
    tftp.sync({}, LOCAL)
    assert stat.S_IMODE(tftp.path.stat().st_mode) == 0o755  # for dnsmasq's user
    assert own_files(tftp) == []
    assert b"inst.ks" not in b"".join(files(tftp).values())

    changed = tftp.sync({MAC: INSTALL, "52:54:00:aa:00:02": LOCAL}, LOCAL)
    own = [f"grub/grub.cfg-{OWN}", f"pxelinux.cfg/{OWN}"]
    assert own_files(tftp) == own
    assert set(own) <= set(changed)
    for name in own:
        assert b"token=s3cret" in files(tftp)[name]
        assert stat.S_IMODE((tftp.path / name).stat().st_mode) == 0o600
    assert files(tftp)["boot/Debian-12/boot/vmlinuz"] == KERNEL
    assert tftp.sync({MAC: INSTALL}, LOCAL) == []  # nothing to do

    assert sorted(tftp.sync({}, LOCAL)) == own
    assert own_files(tftp) == []


def test_shim_finds_grub_beside_it_and_grub_its_configuration(tftp: TftpRoot) -> None:
    tftp.sync({}, LOCAL)
    found = files(tftp)
    assert (found["Debian-12/shimx64.efi"], found["Debian-12/grubx64.efi"]) == (b"shim", b"grub")
    general = found["grub/grub.cfg"]
    for place in ("Debian-12", "debian-installer/amd64/grub", "EFI/redhat"):
        assert found[f"{place}/grub.cfg"] == general


def test_ipxe_needs_no_files_but_itself(tftp: TftpRoot) -> None:
    plain = replace(tftp, netboot=Netboot())
    plain.sync({MAC: INSTALL}, LOCAL)
    assert sorted(files(plain)) == ["ipxe.efi", "snponly.efi", "undionly.kpxe"]


def test_one_broken_machine_does_not_keep_the_others(tftp: TftpRoot) -> None:
    lost = replace(INSTALL, entries=(replace(ENTRY, os="Gone-1"),))
    odd = replace(INSTALL, entries=(replace(ENTRY, arguments=("a b",)),))
    machines = {MAC: INSTALL, "52:54:00:aa:00:02": lost, "52:54:00:aa:00:03": odd}
    with pytest.raises(ConfigError) as error:
        tftp.sync(machines, LOCAL)
    assert "Gone-1" in str(error.value)
    assert len(error.value.problems) == 2
    assert own_files(tftp) == [f"grub/grub.cfg-{OWN}", f"pxelinux.cfg/{OWN}"]


def test_a_new_iso_brings_new_kernels(tftp: TftpRoot, tmp_path: Path) -> None:
    tftp.sync({MAC: INSTALL}, LOCAL)
    (tmp_path / "new/boot").mkdir(parents=True)
    for name in ("boot/vmlinuz", "boot/initrd.img"):
        (tmp_path / "new" / name).write_bytes(b"newer")
    make_iso(tmp_path / "new", tmp_path / "new.iso")
    new = Tree.of(tmp_path / "new.iso", tmp_path, Runner())
    changed = replace(tftp, sources={"Debian-12": Source(tree=new)}).sync({MAC: INSTALL}, LOCAL)
    assert "boot/Debian-12/boot/vmlinuz" in changed
    assert files(tftp)["boot/Debian-12/boot/vmlinuz"] == b"newer"


def test_missing_loaders_are_named_with_their_packages(tftp: TftpRoot, system: Path) -> None:
    assert tftp.missing() == []
    (system / LOADERS["pxelinux.0"][1]).unlink()
    bare = replace(tftp, sources={"Debian-12": Source(tree=tftp.sources["Debian-12"].tree)})
    said = "\n".join(bare.missing())
    assert "pxelinux.0 is not installed; apt-get install pxelinux" in said
    assert "the ISO of Debian-12 has none" in said
    assert "shim" not in "\n".join(replace(tftp, sources={}).missing())  # nothing armed yet
    with pytest.raises(MissingTool):
        tftp.sync({}, LOCAL)
    https = replace(tftp, netboot=Netboot(), base_url="https://ks.example.com")
    assert "no https" in "\n".join(https.missing())


# --- dnsmasq ---------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "tftp").mkdir(exist_ok=True)
    return Place(
        interface="lo",
        address=IPv4Interface("10.77.0.1/24"),
        tftp_root=tmp_path / "tftp",
        lease_file=tmp_path / "leases",
        user="nobody",
    )


DHCP = {"mode": "dhcp", "dhcp_range": "10.77.0.100-10.77.0.200"}


@pytest.mark.parametrize("mode", ["proxy", "dhcp"])
@pytest.mark.parametrize("loader", ["ipxe", "grub"])
@pytest.mark.parametrize("secure_boot", [False, True])
def test_dnsmasq_takes_its_configuration(
    mode: str, loader: str, secure_boot: bool, place: Place, tmp_path: Path
) -> None:
    needs("dnsmasq")
    given = {"mode": mode, "loader": loader, "secure_boot": secure_boot}
    netboot = Netboot.model_validate({**DHCP, **given, "nameservers": ["10.77.0.53"]})
    made = config(netboot, place, BASE, {MAC: "Debian-12"}, ["AlmaLinux-9", "Debian-12"])
    (tmp_path / "dnsmasq.conf").write_text(made.text)
    made.hosts_dir.mkdir()
    done = subprocess.run(
        ["/usr/sbin/dnsmasq", "--test", f"--conf-file={tmp_path}/dnsmasq.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "port=0" in made.text.splitlines()


def test_a_proxy_gives_no_addresses_and_a_server_only_its_own(place: Place) -> None:
    proxy = config(Netboot(), place, BASE, {}, []).text.splitlines()
    assert "dhcp-range=10.77.0.0,proxy,255.255.255.0" in proxy
    assert not any(line.startswith(("dhcp-option", "dhcp-boot")) for line in proxy)
    server = config(Netboot.model_validate(DHCP), place, BASE, {}, []).text.splitlines()
    assert "dhcp-range=10.77.0.100,10.77.0.200,255.255.255.0,1h" in server
    assert "dhcp-option=option:router" in server  # none, rather than this server
    assert f"dhcp-boot=tag:http,tag:!ipxe,{BASE}/netboot/files/snponly.efi" in server


def test_a_signed_shim_goes_to_machines_of_its_own_os(place: Place) -> None:
    oses = ["Debian-12", "AlmaLinux-9"]
    for mode, others in (("proxy", False), ("dhcp", True)):
        netboot = Netboot.model_validate({**DHCP, "mode": mode, "secure_boot": True})
        made = config(netboot, place, BASE, {MAC: "Debian-12"}, oses)
        assert made.hosts == {MAC: f"{MAC},set:os-Debian-12"}
        assert "tag:os-Debian-12" in made.text
        assert "Debian-12/shimx64.efi" in made.text
        # A stranger's GRUB can read where its disk is only where we gave the address.
        assert ("tag:!os-AlmaLinux-9,tag:!os-Debian-12" in made.text) is others


def test_dnsmasqs_lines_become_events_for_people() -> None:
    root = Path("/srv/tftp")
    assert heard(f"dnsmasq-dhcp[1]: DHCPACK(br0) 10.77.0.102 {MAC} node01", root) == Heard(
        kind="asked", text="has the address 10.77.0.102", who=MAC
    )
    assert heard(f"dnsmasq-dhcp[1]: PXE(br0) 10.77.0.9 {MAC} undionly.kpxe", root) == Heard(
        kind="asked", text="is told to load undionly.kpxe", who=MAC
    )
    assert heard("dnsmasq-tftp[1]: sent /srv/tftp/grub/grub.cfg to 10.77.0.102", root) == Heard(
        kind="sent", text="loaded grub/grub.cfg", who="10.77.0.102"
    )
    gone = "dnsmasq-tftp[1]: file /srv/tftp/{} not found for 10.77.0.102"
    lost = heard(gone.format("kernel"), root)
    assert lost
    assert (lost.kind, lost.text) == ("absent", "asked for kernel, which is not there")
    for probe in (f"pxelinux.cfg/{OWN}", "Debian-12/revocations_sku.efi", "grub/x86_64-efi/fs.lst"):
        assert heard(gone.format(probe), root) is None
    assert heard("dnsmasq[1]: compile time options: IPv6", root) is None


def test_interfaces_and_ports_are_looked_at_before_the_start(tmp_path: Path) -> None:
    assert interface_address("lo") == IPv4Interface("127.0.0.1/8")
    needs("dnsmasq")
    said = "\n".join(Dnsmasq(tmp_path / "conf", "nosuch0", tmp_path).preflight())
    assert "there is no network interface nosuch0; there are: " in said


def test_a_taken_port_is_told_with_its_program() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 4011))
        comm = Path("/proc/self/comm").read_text().strip()
        assert taken_ports()[4011] == (comm, os.getpid())
    assert 4011 not in taken_ports()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dnsmasq that does what a test writes, first on the path."""
    monkeypatch.setattr(daemon, "PAUSE", 0.01)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path / "bin/dnsmasq"


def started(tmp_path: Path, text: str = "one") -> Dnsmasq:
    made = Dnsmasq(tmp_path / "conf", "lo", tmp_path)
    made.configure(Config(text=text, hosts={}, hosts_dir=tmp_path / "hosts"))
    return made


def script(program: Path, *lines: str) -> None:
    program.write_text("\n".join(("#!/bin/sh", *lines, "")))
    program.chmod(0o755)


def test_a_wrong_configuration_is_told_with_dnsmasqs_words(program: Path, tmp_path: Path) -> None:
    script(program, "echo 'dnsmasq: bad option at line 3' >&2", "exit 1")
    with pytest.raises(GoldimgError) as error:
        started(tmp_path).run(Runner(), lambda event: None)
    assert "exit code 1" in str(error.value)
    assert error.value.details == ("dnsmasq: bad option at line 3",)


def test_crashes_are_survived_a_few_times(program: Path, tmp_path: Path) -> None:
    script(program, f"echo x >>{tmp_path}/starts", "kill -9 $$")
    events: list[Heard] = []
    with pytest.raises(GoldimgError, match="exit code -9"):
        started(tmp_path).run(Runner(), events.append)
    assert len((tmp_path / "starts").read_text().split()) == daemon.RESTARTS + 1
    assert {event.kind for event in events} == {"trouble"}


def test_a_new_configuration_starts_it_anew_and_new_machines_do_not(
    program: Path, tmp_path: Path
) -> None:
    log, hosts = tmp_path / "log", tmp_path / "hosts"
    script(program, "trap 'exit 0' TERM", f"cat {tmp_path}/conf >>{log}", *SLEEPING)
    runner, made = Runner(), started(tmp_path, "one\n")
    thread = threading.Thread(target=made.run, args=(runner, lambda event: None))
    thread.start()
    try:
        wait_for_text(log, "one\n")
        tagged = Config(text="one\n", hosts={MAC: f"{MAC},set:os-x"}, hosts_dir=hosts)
        made.configure(tagged)
        assert (hosts / OWN).read_text() == f"{MAC},set:os-x\n"
        made.configure(replace(tagged, hosts={}))
        assert (hosts / OWN).read_text() == f"{MAC},set:no-os\n"
        made.configure(replace(tagged, text="two\n"))
        wait_for_text(log, "one\ntwo\n")
    finally:
        runner.cancel.set()
        thread.join(20)
    assert not thread.is_alive()


SLEEPING = ("while :; do sleep 0.05; done",)


def wait_for_text(path: Path, text: str) -> None:
    end = time.monotonic() + 20
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < end, path.read_text()
        time.sleep(0.02)
