"""Machines: what a definition may say, what is refused and where, and the kickstart it becomes."""

from __future__ import annotations

import os
import re
import timeit
from pathlib import Path
from typing import Any

import pytest

from goldimg.errors import ConfigError
from goldimg.kickstart.bootline import boot_arguments
from goldimg.kickstart.model import Options, builds, load_options
from goldimg.kickstart.render import render
from goldimg.kickstart.semantic import semantic
from goldimg.kickstart.syntax import SYNTAXES, Family
from goldimg.kickstart.validate import validate, validate_many
from goldimg.run import Runner
from tests.kickstarts import Machine, words_of
from tests.support import needs
from tests.test_kickstart import FLAVOURS, GOLDEN, REPORT, make_target, os_defaults
from tests.test_kickstart import site as site  # a fixture

KS_URL = "http://ks.example.com:8080/ks/metal/big?os=AlmaLinux-9"
BIG = """
fqdn: big.example.com
mac: [52-54-00-AA-34-56, 5254.0012.3457]
serial: 1234567
os: AlmaLinux-9
raid: {level: raid5, disks: [sda, sdb, /dev/disk/by-id/wwn-0x5000c500]}
bond: {devices: [em1, em2], mode: 802.3ad, options: {lacp_rate: fast}}
vlan: 100
ipaddr: 192.0.2.11/24
gateway: 192.0.2.1
nameserver: [192.0.2.53, "2001:db8::53"]
ipv6: 2001:db8::11/64
gateway6: fe80::1
mtu: 9000
addresses: [192.0.2.12/24, 2001:db8:0::12/64]
interfaces:
  - {device: bond0, vlan: 200, ipaddr: 203.0.113.7/24}
  - {device: em3, ipaddr: 198.51.100.7, netmask: 255.255.255.0, addresses: 198.51.100.8/24}
  - {device: "52:54:00:00:00:01", ipv6: none}
ntp: [ntp.example.com, 192.0.2.1]
proxy: http://proxy.example.com:3128
repos: {extras: "http://repo.example.com/extras/"}
firewall: [ssh, https, 8080/tcp]
selinux: permissive
ssh_keys: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFkbWlu admin
post: [motd, second]
"""
SIX = """
fqdn: six.example.com
ipaddr: 192.0.2.11/24
gateway: 192.0.2.1
nameserver: 192.0.2.53
device: em1
vlan: 100
addresses: [192.0.2.12/24]
ipv6: none
raid: {level: 10, disks: [sda, sdb, sdc, sdd]}
efi: false
ntp: ntp.example.com
proxy: http://proxy.example.com:3128
"""
LEAN = """
disk: /dev/disk/by-id/virtio-SYSTEM
device: 52:54:00:12:34:56
ipaddr: 192.0.2.11/24
gateway: 192.0.2.1
nameserver: 192.0.2.53
addresses: 192.0.2.12/24
ntp: ntp.example.com
post: [motd]
"""


@pytest.fixture
def metal(site: Path) -> Path:
    """A site with machines of every shape."""
    for name, text in (
        ("big", BIG),
        ("six", SIX),
        ("lean", LEAN),
        ("small", "disk: smallest:ssd\nswapsize: 512\n"),
        ("plainraid", "raid: {level: 1, disks: [vda, vdb]}\nlvm: false\nefi: true\n"),
    ):
        (site / f"builds/metal/{name}.yml").write_text(text)
    (site / "snippets/motd.sh").write_text("echo 'Welcome, %s' > /etc/motd\n")
    (site / "snippets/second.sh").write_text("#!/bin/sh\nset -e\ntrue\n")
    return site


def written(site: Path, text: str, name: str = "host") -> Options:
    (site / f"builds/metal/{name}.yml").write_text(text)
    return load_options(site, f"metal/{name}", {})


# --- what may be said --------------------------------------------------------------------------


def test_values_are_read_in_any_common_notation(metal: Path) -> None:
    options = load_options(metal, "metal/big", {})
    assert options.mac == ("52:54:00:aa:34:56", "52:54:00:12:34:57")
    assert options.serial == "1234567"
    assert options.raid is not None
    assert options.raid.level == 5
    assert options.disk is None  # metal/defaults.yml has one
    assert options.disks == ("sda", "sdb", "disk/by-id/wwn-0x5000c500")
    assert (options.ipaddr, options.netmask) == ("192.0.2.11", "255.255.255.0")
    assert options.nameserver == "192.0.2.53,2001:db8::53"
    assert options.addresses == ("192.0.2.12/24", "2001:db8::12/64")
    assert [link.name for link in options.links] == ["vlan100", "vlan200", "em3", None]
    assert options.ntp == ("ntp.example.com", "192.0.2.1")
    assert options.firewall == ("ssh", "https", "8080/tcp")
    assert written(metal, "mac: 525400123456\n").mac == ("52:54:00:12:34:56",)
    assert written(metal, "mac: 52:54:00:12:34:56\n").mac == ("52:54:00:12:34:56",)
    assert written(metal, "firewall: 'false'\n").firewall is False


def test_a_machine_overrides_what_stands_below_it_in_another_notation(metal: Path) -> None:
    (metal / "builds/metal/defaults.yml").write_text(
        "hardware: metal\nraid: {level: 1, disks: [sda, sdb]}\n"
        "device: em1\nipaddr: 192.0.2.2\nnetmask: 255.255.0.0\n"
    )
    host = written(metal, "disk: vdb\nipaddr: 198.51.100.2/25\n")
    assert (host.disk, host.raid) == ("vdb", None)
    assert (host.ipaddr, host.netmask) == ("198.51.100.2", "255.255.255.128")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mac: 52:54:00:12:34\n", "1:1: mac[0]: must be a MAC address"),
        ("mac: [52:54:00:12:34:56, 01:00:5e:00:00:01]\n", "mac[1]: must be the MAC address of one"),
        ("mac: [52:54:00:12:34:56, 52-54-00-12-34-56]\n", "1:1: mac: holds an address twice"),
        ("serial: To be filled by O.E.M.\n", "serial: is what machines without a serial number"),
        ("os: a/b\n", "1:1: os: must be the name of an operating system"),
        ("disk: smallest:floppy\n", "disk: must be smallest, smallest:nvme"),
        ("disk: sda1\n", "disk: must be a whole disk"),
        ("disk: disk/by-id/ata-x-part1\n", "disk: must be a whole disk"),
        ("disk: ../../etc/passwd\n", "disk: must be a disk's name"),
        ("dsik: sda\n", "1:1: dsik: unknown key (did you mean 'disk'?)"),
        ("raid: {level: 2, disks: [sda, sdb]}\n", "raid.level: must be one of 0, 1, 4, 5, 6, 10"),
        ("raid: {level: 5, disks: [sda, sdb]}\n", "raid.disks: must have at least 3 for level 5"),
        ("raid: {level: 1, disks: [sda, sda]}\n", "raid.disks: holds a disk twice"),
        ("raid: {level: 1, disks: [sda, smallest]}\n", "raid.disks: must be names of disks"),
        (
            "raid: {levle: 1, disks: [sda, sdb]}\n",
            "raid.levle: unknown key (did you mean 'level'?)",
        ),
        ("raid: {level: 1, disks: [sda, sdb]}\ndisk: sda\n", "1:1: raid: excludes disk"),
        ("raid: {level: 1, disks: [sda, sdb]}\nboot: false\n", "2:1: boot: is needed with raid"),
        ("ipaddr: 192.0.2.0/24\n", "ipaddr: is the address of the network itself"),
        ("ipaddr: 192.0.2.255/24\n", "ipaddr: is the address of the network itself, or its broad"),
        ("ipaddr: 224.0.0.1/24\n", "ipaddr: must be the address of one machine"),
        ("ipaddr: 192.0.2.1/33\n", "ipaddr: must be an IPv4 address"),
        ("ipaddr: 192.0.2.1/24\nnetmask: 255.0.0.0\n", "2:1: netmask: is not the one of ipaddr's"),
        ("ipaddr: 192.0.2.1/24\ngateway: 192.0.2.1\n", "gateway: is the machine's own address"),
        ("ipaddr: 192.0.2.1/24\ngateway: 192.0.2.255\n", "gateway: is the address of the network"),
        ("ipaddr: 192.0.2.1/24\nnameserver: 192.0.2.1,x\n", "nameserver: must be addresses"),
        ("ipv6: 2001:db8::1\n", "ipv6: must be auto, dhcp, none or an address"),
        ("ipv6: 2001:db8::/64\n", "ipv6: is the address of the network itself"),
        ("ipv6: ff02::1/64\n", "ipv6: must be the address of one machine"),
        ("ipv6: auto\ngateway6: fe80::1\n", "gateway6: needs an address in ipv6"),
        ("ipv6: 2001:db8::7/64\ngateway6: 2001:db9::1\n", "gateway6: is neither in the network"),
        ("ipv6: 2001:db8::7/64\nmtu: 1279\n", "mtu: must be at least 1280 for IPv6"),
        ("mtu: 70000\n", "mtu: must be at most 65535"),
        ("vlan: 4095\ndevice: em1\n", "vlan: must be at most 4094"),
        ("vlan: 100\n", "vlan: needs device"),
        ("addresses: [192.0.2.7/24]\n", "addresses: needs device"),
        ("device: em1\naddresses: [192.0.2.0/24]\n", "addresses[0]: is the address of the network"),
        (
            "device: em1\naddresses: [192.0.2.7]\n",
            "addresses[0]: must be an address with its prefix",
        ),
        (
            "device: em1\nipv6: none\naddresses: ['2001:db8::7/64']\n",
            "3:13: addresses[0]: needs IPv6",
        ),
        (
            "device: em1\nipaddr: 192.0.2.7/24\naddresses: [192.0.2.7/32]\n",
            "addresses[0]: is given twice",
        ),
        ("device: a-name-that-is-too-long\n", "device: must be a network device's name"),
        ("device: link\nbond: {devices: [em1]}\n", "1:1: device: must be the bond's own name"),
        ("bond: {devices: [em1, em1]}\n", "bond.devices: holds a device twice"),
        ("bond: {devices: []}\n", "bond.devices: must have at least 1"),
        (
            "bond: {devices: [em1], mode: lacp}\n",
            "bond.mode: must be one of active-backup, 802.3ad",
        ),
        ("bond: {devices: [em1], options: {mode: x}}\n", "bond.options.mode: is a key of the bond"),
        ("bond: {devices: [em1], options: {miimon: '1,2'}}\n", "bond.options.miimon: must be one"),
        ("interfaces: [{ipaddr: 192.0.2.7/24}]\n", "interfaces[0].device: is required"),
        (
            "device: em1\ninterfaces: [{device: em1}]\n",
            "2:15: interfaces[0].device: is given twice",
        ),
        (
            "bond: {devices: [em1]}\ninterfaces: [{device: em1}]\n",
            "interfaces[0].device: is part of a bond",
        ),
        (
            "ipaddr: 192.0.2.7/24\ngateway: 192.0.2.1\n"
            "interfaces: [{device: em2, ipaddr: 198.51.100.7/24, gateway: 198.51.100.1}]\n",
            "interfaces[0].gateway: is given twice",
        ),
        ("interfaces: [{device: em2, fqdn: x}]\n", "interfaces[0].fqdn: unknown key"),
        ("ntp: [a b]\n", "ntp[0]: must be a host name or an address"),
        ("proxy: http://me:secret@proxy:3128\n", "proxy: must not hold a user or password"),
        ("proxy: http://proxy/path\n", "proxy: must be such as http://"),
        ("repos: {a b: 'http://h/'}\n", "may hold letters, digits"),
        ("repos: {a: /srv}\n", "repos.a: must be an http:// or https:// URL"),
        ("firewall: [ssh, 0/tcp]\n", "firewall: must be true, false or a list of services"),
        ("ssh_keys: [hello]\n", "ssh_keys[0]: must be a public key"),
        ("post: [../x]\n", "post: must be shell text, or a list of names"),
        (
            "post: [modt]\n",
            "1:8: post[0]: there is no kickstart/snippets/modt.sh (did you mean 'motd'?)",
        ),
        ("pre: [bad]\n", "pre[0]: kickstart/snippets/bad.sh: must not have a line that starts"),
    ],
)
def test_what_cannot_work_is_refused_at_its_place(metal: Path, text: str, told: str) -> None:
    (metal / "snippets/bad.sh").write_text("true\n%end\n")
    with pytest.raises(ConfigError) as caught:
        written(metal, text)
    assert len(caught.value.problems) == 1, str(caught.value)
    assert told in str(caught.value)
    assert "kickstart/builds/metal/host.yml:" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["mac: 52:54:00:12:34:56", "serial: A1", "os: Debian-12"])
def test_an_image_is_no_machine(metal: Path, key: str) -> None:
    (metal / "builds/virtual/aws.yml").write_text(f"{key}\n")
    with pytest.raises(ConfigError, match=r"virtual/aws\.yml:1:1: \w+: is for machines"):
        load_options(metal, "virtual/aws", {})


def test_the_example_shows_every_key_and_each_may_be_used(site: Path) -> None:
    example = (site / "builds/metal/example.yml.example").read_text()
    general = (site / "builds/defaults.yml").read_text()
    for key in Options.model_fields:
        assert re.search(rf"^#? ?{key}:", example + general, re.MULTILINE) or key == "hardware", key
    for name in ("raid-controller", "monitoring", "backup"):
        (site / f"snippets/{name}.sh").write_text("true\n")
    # Of keys that are shown several times the last one stands: raid, not disk; each is tried.
    lines = [re.sub(r"^# (?=[a-z0-9_]+:)", "", line) for line in example.splitlines()]
    lines = [re.sub(r"^#  (?= - )", " ", line) for line in lines]
    shown = "\n".join(line for line in lines if not line.startswith("#"))
    disks = re.findall(r"^disk: .*", shown, re.MULTILINE)
    rest = re.sub(r"^(disk|raid): .*\n", "", shown, flags=re.MULTILINE)
    raid = re.findall(r"^raid: .*", shown, re.MULTILINE)
    assert (len(disks), len(raid)) == (4, 1)
    for chosen in (*disks, *raid):
        assert written(site, rest.replace("device: em1 ", "device: bond0 ") + f"\n{chosen}\n")


# --- what becomes of it ------------------------------------------------------------------------

SAMPLES: list[tuple[str, str, Family]] = [
    *(("big", syntax, "el") for syntax in ("RHEL7", "RHEL9", "RHEL10")),
    *(("small", syntax, "el") for syntax in ("RHEL6", "RHEL9")),
    ("small", "RHEL9", "debian"),
    ("lean", "RHEL9", "debian"),
    ("six", "RHEL6", "el"),
    ("plainraid", "RHEL8", "el"),
]


@pytest.mark.parametrize(("name", "syntax", "family"), SAMPLES)
def test_renderings_are_as_reviewed(metal: Path, name: str, syntax: str, family: Family) -> None:
    """After a change on purpose: GOLDIMG_UPDATE_GOLDEN=1 pytest, then read the diff."""
    options = load_options(metal, f"metal/{name}", os_defaults(family))
    target = make_target(
        syntax, family, build=f"metal/{name}", report_url=REPORT, hostname=name, ks_url=KS_URL
    )
    text = render(metal, options, target)
    shown = syntax if family == "el" else family
    golden = GOLDEN / "kickstart" / f"{shown}-metal-{name}.ks"
    if os.environ.get("GOLDIMG_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert not re.search(r"[ \t]$|\n\n\n", text, re.MULTILINE)


@pytest.mark.parametrize(("syntax", "family"), FLAVOURS)
def test_every_machine_passes_ksvalidator_as_it_is_and_with_its_includes(
    metal: Path, tmp_path: Path, syntax: str, family: Family
) -> None:
    needs("ksvalidator", "dash")
    machine = Machine(tmp_path / "machine", cmdline="EJECT selinux=0")
    machine.disk("sda", 20480)
    refused, texts = [], []
    for build in builds(metal):
        options = load_options(metal, build, os_defaults(family))
        for report, ks_url in ((REPORT, KS_URL), (None, None)):
            target = make_target(
                syntax, family, build=build, report_url=report, ks_url=ks_url, hostname="host"
            )
            try:
                text = render(metal, options, target)
            except ConfigError:
                refused.append(build)
                continue
            texts += [text, machine.expand(text)]
    cannot = {"debian": ["big", "plainraid", "six"], "RHEL6": ["big"]}
    wanted = cannot.get(family if family == "debian" else syntax, [])
    assert sorted(set(refused)) == [f"metal/{name}" for name in wanted]
    told = dict(validate_many(texts, syntax, Runner()))
    assert {text: problems for text, problems in told.items() if problems} == {}
    assert len(told) > 20


def test_what_a_release_cannot_do_is_refused_and_named(metal: Path) -> None:
    options = load_options(metal, "metal/big", {})
    with pytest.raises(ConfigError) as caught:
        render(metal, options, make_target("RHEL6", build="metal/big"))
    assert [str(problem) for problem in caught.value.problems] == [
        "kickstart metal/big: gateway6: cannot be said in RHEL6's kickstart",
        "kickstart metal/big: vlan: cannot lie over a bond in RHEL6's kickstart",
    ]
    with pytest.raises(ConfigError, match="raid: is not done by goldimg's Debian installer"):
        render(metal, options, make_target("RHEL9", "debian"))


def test_keys_of_site_and_machine_each_get_in_once(metal: Path) -> None:
    target = make_target("RHEL9")
    twice = Options(hardware="metal", disk="sda", ssh_keys=(*target.ssh_keys, "ssh-rsa AAAA me"))
    keys = [words[-1] for words in words_of(render(metal, twice, target), "sshkey")]
    assert keys == [*target.ssh_keys, "ssh-rsa AAAA me"]


@pytest.mark.parametrize(
    ("options", "syntax", "url", "arguments"),
    [
        ({}, "RHEL9", "http://h/ks", "inst.ks=http://h/ks ip=dhcp"),
        ({}, "RHEL6", "http://h/ks", "ks=http://h/ks ksdevice=link ip=dhcp"),
        (
            {"device": "em1", "mtu": 9000},
            "RHEL8",
            "http://h/",
            "inst.ks=http://h/ ip=em1:dhcp:9000",
        ),
        (
            {
                "fqdn": "node01.example.com",
                "device": "em1",
                "ipaddr": "192.0.2.11/24",
                "gateway": "192.0.2.1",
                "nameserver": "192.0.2.53,192.0.2.54",
            },
            "RHEL7",
            "http://h/ks",
            "inst.ks=http://h/ks"
            " ip=192.0.2.11::192.0.2.1:255.255.255.0:node01.example.com:em1:none"
            " nameserver=192.0.2.53 nameserver=192.0.2.54",
        ),
        (
            {
                "device": "em1",
                "ipaddr": "192.0.2.11/24",
                "gateway": "192.0.2.1",
                "nameserver": "192.0.2.53,192.0.2.54",
                "ipv6": "none",
                "proxy": "http://proxy:3128",
            },
            "RHEL6",
            "http://h/ks",
            "ks=http://h/ks ksdevice=em1 ip=192.0.2.11 netmask=255.255.255.0 gateway=192.0.2.1"
            " dns=192.0.2.53,192.0.2.54 noipv6 proxy=http://proxy:3128",
        ),
        (
            {"device": "52-54-00-12-34-56".replace("-", ":"), "ipaddr": "192.0.2.11/24"},
            "RHEL9",
            None,
            "BOOTIF=01-52-54-00-12-34-56 ip=192.0.2.11:::255.255.255.0:::none",
        ),
        (
            {"device": "52:54:00:12:34:56", "vlan": 7},
            "RHEL9",
            None,
            "ifname=net0:52:54:00:12:34:56 vlan=vlan7:net0 ip=vlan7:dhcp",
        ),
        (
            {"bond": {"devices": ["em1", "em2"], "mode": "802.3ad"}, "vlan": 7},
            "RHEL10",
            None,
            "bond=bond0:em1,em2:mode=802.3ad,miimon=100 vlan=vlan7:bond0 ip=vlan7:dhcp",
        ),
        (
            {"bond": {"devices": ["em1", "em2"]}, "vlan": 7},
            "RHEL6",
            None,
            "ksdevice=em1 ip=dhcp",
        ),
        (
            {"device": "em1", "ipv6": "2001:db8::7/64", "gateway6": "fe80::1"},
            "RHEL9",
            "http://[2001:db8::1]/ks",
            "inst.ks=http://[2001:db8::1]/ks ip=[2001:db8::7]::[fe80::1]:64::em1:none",
        ),
    ],
)
def test_the_boot_line_is_the_releases(
    options: dict[str, Any], syntax: str, url: str | None, arguments: str
) -> None:
    found = boot_arguments(Options.model_validate(options), "el", syntax, url)
    assert " ".join(found) == arguments


def test_the_boot_line_stands_on_top_for_machines_and_never_for_images(metal: Path) -> None:
    for build in ("metal/node01", "virtual/aws"):
        options = load_options(metal, build, {})
        text = render(metal, options, make_target("RHEL9", build=build, ks_url=KS_URL))
        is_shown = text.startswith(f"# Boot options:\n# inst.ks={KS_URL} ip=192.0.2.11::192.0.2.1:")
        assert is_shown == (build == "metal/node01")
        assert ("Boot options:\n" in text) == is_shown


def test_a_sites_own_sections_come_last_in_name_order_and_are_checked(metal: Path) -> None:
    options = load_options(metal, "metal/node01", {})
    plain = render(metal, options, make_target())
    (metal / "ks.d/20-b.ks.j2").write_text("%post\necho {{ options.disk }} '%s'\n%end\n")
    (metal / "ks.d/10-a.ks.j2").write_text("%post\necho {{ hostname }}\n%end\n")
    (metal / "ks.d/ignored.txt").write_text("{{ nonsense }}")
    text = render(metal, options, make_target())
    own = text.removeprefix(plain)
    assert own.index("echo node01.lab.example.com") < own.index("echo sda '%s'")
    assert semantic(text) == []
    (metal / "ks.d/20-b.ks.j2").write_text("%include /etc/passwd\n")
    assert [it.message for it in semantic(render(metal, options, make_target()))] == [
        "%include brings in text that was not checked"
    ]
    (metal / "ks.d/20-b.ks.j2").write_text("\n{{ nonsense }}\n")
    with pytest.raises(ConfigError, match=r"kickstart/ks\.d/20-b\.ks\.j2:2: 'nonsense'"):
        render(metal, options, make_target())


def test_snippets_run_in_order_each_by_itself(metal: Path) -> None:
    text = render(metal, load_options(metal, "metal/big", {}), make_target("RHEL9"))
    first = text.index("%post --erroronfail --log=/var/log/goldimg-post.log\necho 'Welcome, %s'")
    second = text.index("%post --erroronfail --log=/var/log/goldimg-post2.log\n#!/bin/sh\nset -e")
    assert first < second


def test_a_rendering_takes_less_than_5_ms(metal: Path) -> None:
    options = load_options(metal, "metal/big", {})
    target = make_target("RHEL9", report_url=REPORT, ks_url=KS_URL)
    render(metal, options, target)  # compiles the templates
    best = min(timeit.repeat(lambda: render(metal, options, target), number=10, repeat=5)) / 10
    assert best < 0.005


# --- faults that a parser cannot see -------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (r"^part raid.12 .*\n", "", "no part makes the array's raid.12"),
        (r"raid.21 raid.22 raid.23$", "raid.21 raid.22", "no array uses raid.23"),
        (r"raid.21 raid.22 raid.23$", "raid.21 raid.22 raid.13", "raid.13 is in two arrays"),
        (r"^raid pv.01 .*\n", "", "no part makes the physical volume pv.01"),
        (r"--only-use=sda,sdb,", "--only-use=sdb,", "ignoredisk leaves sda out"),
        (r"--bondslaves=em1,em2", "--bondslaves=em1,em3", "em3 is set up and is part of a bond"),
        (r"--vlanid=200", "--vlanid=100", "the network device bond0 is set up twice"),
        (r"--ipv6=\S+", "--ipv6=192.0.2.1/24", "--ipv6 is not an IPv6 address"),
        (r"--nameserver=\S+", "--nameserver=dns", "--nameserver is not a list of addresses"),
    ],
)
def test_parts_that_do_not_fit_are_found(metal: Path, old: str, new: str, told: str) -> None:
    options = load_options(metal, "metal/big", {})
    text = render(metal, options, make_target("RHEL9"))
    assert semantic(text) == []
    changed = re.sub(old, new, text, flags=re.MULTILINE)
    assert changed != text
    assert told in [problem.message for problem in semantic(changed)]


def test_a_fault_behind_a_repeated_line_is_found(metal: Path) -> None:
    """ksvalidator alone stops at the second VLAN of a card and at the second key."""
    needs("ksvalidator")
    options = load_options(metal, "metal/big", {})
    text = render(metal, options, make_target("RHEL9"))
    assert validate(text, "RHEL9", Runner()) == []
    faults = {"firstboot --disabled": "firstboot --sometimes", "=vlan200": "=vlan200 --no-such"}
    for old, new in faults.items():
        broken = text.replace(old, new)
        lines = broken.splitlines()
        found = validate(broken, "RHEL9", Runner())
        assert [problem.line for problem in found] == [
            next(at for at, line in enumerate(lines, 1) if new in line)
        ]
    assert set(SYNTAXES) == {f"RHEL{major}" for major in range(6, 11)}
