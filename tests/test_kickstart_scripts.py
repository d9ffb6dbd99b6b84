"""Scripts in rendered kickstarts, run for real: choosing a disk, boot options, addresses."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from goldimg.kickstart.layout import smallest_disk
from goldimg.kickstart.model import Options
from goldimg.kickstart.render import render
from goldimg.kickstart.syntax import Family
from tests.kickstarts import Machine, scripts_of, words_of
from tests.support import needs
from tests.test_kickstart import FLAVOURS, REPORT, ROOT, make_target

SHELLS = (("dash",), ("bash", "--posix"), ("bash",), ("busybox", "sh"))
METAL: dict[str, Any] = {"hardware": "metal"}


@pytest.fixture(params=SHELLS, ids=" ".join)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    needs(request.param[0])
    return tuple(request.param)


def rendered(
    syntax: str = "RHEL9", family: Family = "el", report: str | None = REPORT, **options: Any
) -> str:
    wanted = Options.model_validate({**METAL, "disk": "sda", **options})
    return render(ROOT, wanted, make_target(syntax, family, report_url=report))


def section(text: str, part: str, kind: str = "%pre") -> str:
    """The one script of the kind that holds `part`."""
    (found,) = [script for script in scripts_of(text, kind) if part in script]
    return found


# --- the smallest disk ---------------------------------------------------------------------------


def choose(machine: Machine, shell: Sequence[str], kind: str, **options: Any) -> str | None:
    """The disk that the installer is told to use, or None with the failure reported."""
    text = rendered(disk=kind, **options)
    machine.run(section(text, "report started"), shell)
    done = machine.run(section(text, "least="), shell)
    chosen = machine.root / "tmp/goldimg-disk.ks"
    assert (done.returncode == 0) == chosen.exists(), done.stderr
    if done.returncode:
        return None
    (only,) = words_of(chosen.read_text(), "ignoredisk")
    (clear,) = words_of(chosen.read_text(), "clearpart")
    disk = only[1].removeprefix("--only-use=")
    assert only == ["ignoredisk", f"--only-use={disk}"]
    assert clear == ["clearpart", f"--drives={disk}", "--all", "--initlabel"]
    assert chosen.read_text().count("\n") == 2
    return disk


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a disk of each kind, and all that is no disk to install on."""
    machine = Machine(tmp_path / "machine", mounts=["/dev/sdh1", "/dev/sdaa", "proc"])
    machine.disk("sda", 953869, rotational=1)
    machine.disk("sdb", 228936, rotational=1)
    machine.disk("sdc", 114473)
    machine.disk("sdd", 7600, removable=1)  # a USB stick
    machine.disk("sde", 30720, ro=1)
    machine.disk("sdf", 0)  # an empty card reader, fixed as some are
    machine.disk("sdg", 500)  # an internal SD card that nothing fits on
    machine.disk("sdh", 15360)  # the install medium: a USB disk that says it is fixed
    machine.disk("nvme0n1", 244198)
    machine.disk("nvme1n1", 122104)
    machine.disk("nvme1c1n1", 122104)
    (machine.root / "sys/block/nvme1c1n1/hidden").write_text("1\n")  # a path of nvme1n1
    for name in ("loop0", "ram0", "zram0", "sr0", "fd0", "dm-0", "md127", "nbd0"):
        machine.disk(name, 4096)
    return machine


@pytest.mark.parametrize(
    ("kind", "disk"),
    [
        ("smallest", "sdc"),
        ("smallest:ssd", "sdc"),
        ("smallest:nvme", "nvme1n1"),
        ("smallest:hdd", "sdb"),
    ],
)
def test_the_smallest_disk_of_a_kind_is_chosen_and_no_other_is_touched(
    machine: Machine, shell: tuple[str, ...], kind: str, disk: str
) -> None:
    assert choose(machine, shell, kind) == disk
    assert "failed" not in machine.said


def test_a_disk_that_the_layout_does_not_fit_on_is_passed_over(
    machine: Machine, shell: tuple[str, ...]
) -> None:
    assert choose(machine, shell, "smallest", swapsize=130_000) == "sdb"
    least = smallest_disk(Options(bootsize=1024, swap=False))
    exact = Machine(machine.root / "exact")
    exact.disk("vda", least - 1)
    exact.disk("vdb", least)
    exact.disk("vdc", least)
    assert choose(exact, shell, "smallest", swap=False) == "vdb"


def test_without_a_fitting_disk_nothing_is_written_and_the_server_hears_why(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    machine = Machine(tmp_path / "machine")
    machine.disk("sda", 953869, rotational=1)
    machine.disk("sdb", 7600, removable=1)
    assert choose(machine, shell, "smallest:nvme") is None
    assert f"URL {REPORT}/failed\nno disk to install on: kind nvme," in machine.said
    assert "there is sda (953869 MiB)\n" in machine.said
    # The installer reads no more: %pre fails, and where that is not fatal the file is missing.
    text = rendered(disk="smallest:nvme")
    assert "%pre --erroronfail --log=/tmp/goldimg-disk.log\n" in text
    assert "%include /tmp/goldimg-disk.ks\n" in text


def test_names_with_a_slash_are_the_installers(tmp_path: Path, shell: tuple[str, ...]) -> None:
    machine = Machine(tmp_path / "machine", mounts=["/dev/cciss/c0d1p1"])
    machine.disk("cciss!c0d0", 70000, rotational=1)
    machine.disk("cciss!c0d1", 35000, rotational=1)
    machine.disk("mmcblk0boot0", 16000)
    assert choose(machine, shell, "smallest") == "cciss/c0d0"


# --- boot options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cmdline", "end", "selinux"),
    [
        ("inst.ks=http://h/ks quiet", "reboot", "enforcing"),
        ("EJECT inst.ks=http://h/ks", "reboot --eject", "enforcing"),
        ("inst.ks=http://h/ks EJECT selinux=0", "reboot --eject", "disabled"),
        ("selinux=01 NOEJECT EJECTED", "reboot", "enforcing"),
    ],
)
def test_boot_options_decide_the_end_and_selinux(
    tmp_path: Path, shell: tuple[str, ...], cmdline: str, end: str, selinux: str
) -> None:
    machine = Machine(tmp_path / "machine", cmdline=cmdline)
    done = machine.run(section(rendered(report=None), "EJECT"), shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert (machine.root / "tmp/goldimg-end.ks").read_text() == f"{end}\n"
    assert (machine.root / "tmp/goldimg-selinux.ks").read_text() == f"selinux --{selinux}\n"


@pytest.mark.parametrize(("syntax", "family"), FLAVOURS)
def test_every_kickstart_understands_them(tmp_path: Path, syntax: str, family: Family) -> None:
    for number, (cmdline, is_on) in enumerate((("quiet", True), ("EJECT selinux=0", False))):
        machine = Machine(tmp_path / str(number), cmdline=cmdline)
        text = machine.expand(rendered(syntax, family, selinux="enforcing"))
        assert words_of(text, "reboot") == [["reboot"] if is_on else ["reboot", "--eject"]]
        wanted = ["selinux", "--enforcing" if is_on else "--disabled"]
        assert words_of(text, "selinux") == ([wanted] if family == "el" else [])
        assert "%include" not in text


# --- reports -------------------------------------------------------------------------------------


def test_each_stage_is_reported_with_the_end_of_the_log(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    machine = Machine(tmp_path / "machine")
    (machine.root / "tmp/anaconda.log").write_text("".join(f"line {it}\n" for it in range(100)))
    (machine.root / "tmp/program.log").write_text("mkfs: no space\n")
    text = rendered()
    for kind in ("%pre", "%pre-install", "%post", "%onerror"):
        for script in scripts_of(text, kind):
            if "report" in script:
                done = machine.run(script, shell)
                assert (done.returncode, done.stderr) == (0, "")
    urls = re.findall(rf"^URL {REPORT}/(\w+)$", machine.said, re.MULTILINE)
    assert urls == ["started", "pre", "partitioning", "packages", "post", "done", "failed"]
    first, *_, last = machine.said.split("URL ")[1:]
    assert first.splitlines()[1:] == [f"line {it}" for it in range(80, 100)]
    assert last.splitlines()[1] == "anaconda stopped; its logs end so:"
    assert "mkfs: no space" in last
    assert last.splitlines()[-1] == "line 99"


def test_a_server_that_is_away_stops_no_install(tmp_path: Path, shell: tuple[str, ...]) -> None:
    machine = Machine(tmp_path / "machine")
    (machine.root / "bin/curl").write_text("#!/bin/sh\nexit 7\n")
    for script in scripts_of(rendered(), "%pre"):
        assert machine.run(script, shell).returncode == 0


# --- further addresses ---------------------------------------------------------------------------

KEYFILE = """[connection]
id=em1
type=ethernet
interface-name=em1

[ipv4]
address1=192.0.2.11/24,192.0.2.1
dns=192.0.2.53;
method=manual

[ipv6]
method=auto

[proxy]
"""


def test_addresses_join_the_keyfile_of_their_interface(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    machine = Machine(tmp_path / "machine")
    files = machine.root / "etc/NetworkManager/system-connections"
    files.mkdir(parents=True)
    (files / "Wired 1.nmconnection").write_text(KEYFILE)
    (files / "em11.nmconnection").write_text(other := KEYFILE.replace("em1", "em11"))
    addresses = ["192.0.2.12/24", "2001:db8::12/64", "192.0.2.13/24"]
    text = rendered(device="em1", ipaddr="192.0.2.11/24", addresses=addresses)
    done = machine.run(section(text, "add em1", "%post"), shell)
    assert (done.returncode, done.stderr) == (0, "")
    changed = (files / "Wired 1.nmconnection").read_text()
    assert changed == KEYFILE.replace(
        "method=manual\n\n", "method=manual\n\naddress2=192.0.2.12/24\naddress3=192.0.2.13/24\n"
    ).replace("method=auto\n\n", "method=auto\n\naddress1=2001:db8::12/64\n")
    assert (files / "em11.nmconnection").read_text() == other
    assert len(list(files.iterdir())) == 2


def test_addresses_join_the_ifcfg_file_where_the_card_is_known_by_its_mac(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    machine = Machine(tmp_path / "machine")
    for name, mac in (("em1", "52:54:00:12:34:55"), ("em2", "52:54:00:12:34:56")):
        (machine.root / f"sys/class/net/{name}/device").mkdir(parents=True)
        (machine.root / f"sys/class/net/{name}/address").write_text(f"{mac}\n")
    vlan = machine.root / "sys/class/net/vlan7"
    vlan.mkdir()
    (vlan / "address").write_text("52:54:00:12:34:56\n")
    files = machine.root / "etc/sysconfig/network-scripts"
    files.mkdir(parents=True)
    for name in ("em1", "em2"):
        (files / f"ifcfg-{name}").write_text(f'DEVICE="{name}"\nIPADDR=192.0.2.11\n')
    addresses = ["192.0.2.12/24", "2001:db8::12/64", "192.0.2.13/25", "2001:db8::13/64"]
    text = rendered("RHEL7", device="52-54-00-12-34-56".replace("-", ":"), addresses=addresses)
    done = machine.run(section(text, "add 52:54:00:12:34:56", "%post"), shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert (files / "ifcfg-em1").read_text() == 'DEVICE="em1"\nIPADDR=192.0.2.11\n'
    assert (files / "ifcfg-em2").read_text().splitlines()[2:] == [
        "IPADDR1=192.0.2.12",
        "PREFIX1=24",
        "IPADDR2=192.0.2.13",
        "PREFIX2=25",
        "IPV6INIT=yes",
        'IPV6ADDR_SECONDARIES="2001:db8::12/64 2001:db8::13/64"',
    ]


def test_an_interface_without_a_file_fails_the_install(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    machine = Machine(tmp_path / "machine")
    text = rendered(device="em1", ipaddr="192.0.2.11/24", addresses=["192.0.2.12/24"])
    done = machine.run(section(text, "add em1", "%post"), shell)
    assert done.returncode == 1
    assert done.stderr == "the installer wrote no file for em1\n"


def test_debian_gets_drop_ins_of_the_installers_files(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    machine = Machine(tmp_path / "machine")
    text = rendered(
        family="debian",
        device="em1",
        ipaddr="192.0.2.11/24",
        interfaces=[{"device": "em2", "addresses": ["198.51.100.8/24", "2001:db8::8/64"]}],
    )
    done = machine.run(section(text, "add 20", "%post"), shell)
    assert (done.returncode, done.stderr) == (0, "")
    files = machine.root / "etc/systemd/network"
    assert [path.name for path in files.iterdir()] == ["20-goldimg.network.d"]
    assert (files / "20-goldimg.network.d/addresses.conf").read_text() == (
        "[Network]\nAddress=198.51.100.8/24\nAddress=2001:db8::8/64\n"
    )


# --- their form ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("syntax", "family"), FLAVOURS)
def test_shellcheck_finds_nothing(tmp_path: Path, syntax: str, family: Family) -> None:
    needs("shellcheck")
    text = rendered(
        syntax,
        family,
        disk="smallest",
        device="em1",
        ipaddr="192.0.2.11/24",
        addresses=["192.0.2.12/24"],
        ntp=["ntp.example.com"],
    )
    kinds = ("%pre", "%pre-install", "%post", "%onerror", "%traceback")
    scripts = [script for kind in kinds for script in scripts_of(text, kind)]
    paths: list[Path] = []
    for number, script in enumerate(scripts):
        paths.append(tmp_path / f"{number}.sh")
        paths[-1].write_text(script)
    # SC1091: the file that the first %pre writes.
    options = ("--severity=style", "--shell=sh", "--exclude=SC1091")
    argv: list[str | Path] = ["shellcheck", *options, *paths]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert len(scripts) >= (3 if family == "debian" else 7)
