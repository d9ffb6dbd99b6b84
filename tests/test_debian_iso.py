"""The installer ISO of Debian: where packages come from, what a kickstart may say, what is made."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from goldimg.errors import GoldimgError
from goldimg.iso.debian import assemble as assembling
from goldimg.iso.debian.assemble import Recipe, assemble, digest_of, recipe_digest, volume_id
from goldimg.iso.debian.mirror import Mirrors, host_mirrors, parse_targets
from goldimg.iso.debian.resolve import KEYRING, Package
from goldimg.run import Runner
from tests.support import needs

DATA = assembling.DATA
GOLDEN = Path(__file__).parent / "golden/kickstart"
RECIPE = Recipe(
    suite="bookworm",
    mirrors=Mirrors(main="http://mirror.example.com/debian", security=None),
    components=("main",),
    kernel="linux-image-cloud-amd64",
    packages=("sudo",),
)
PACKAGES = [
    Package(file="apt_2.6.1_amd64.deb", size=1, sha256="a" * 64),
    Package(file="bash_5.2_amd64.deb", size=2, sha256="b" * 64),
]
ROOT = "part / --size=1024 --grow\n"


class Parsed:
    def __init__(self, directory: Path, code: int) -> None:
        self.directory, self.code = directory, code

    def lines(self, table: str) -> list[str]:
        return (self.directory / table).read_text().splitlines()

    def scalar(self, name: str) -> str:
        """What the installer's shell gets, after its own unquoting."""
        script = f'. ./scalars.sh; printf %s "$KS_{name}"'
        return subprocess.run(
            ["sh", "-c", script], cwd=self.directory, capture_output=True, text=True, check=True
        ).stdout


def parse(kickstart: str, directory: Path, root: Path | None = None) -> Parsed:
    """Runs the installer's parser as the installer does: by busybox's awk.

    With `root`, as after %pre: included files are read below it.
    """
    needs("busybox")
    directory.mkdir(exist_ok=True)
    source = directory.parent / "ks.cfg"
    source.write_text(kickstart)
    command: list[str | Path] = ["busybox", "awk", "-v", f"out={directory}"]
    if root is not None:
        command += ["-v", "expand=1", "-v", f"root={root}"]
    for name in ("parse.awk", "commands.awk"):
        command += ["-f", DATA / "installer" / name]
    return Parsed(directory, subprocess.run([*command, source], check=False).returncode)


def target(url: str, release: str, codename: str, kind: str = "Packages") -> str:
    return f"{kind}|{url}|{release}|{codename}|main"


def test_mirrors_are_those_of_the_hosts_suite() -> None:
    text = "\n".join(
        [
            target("http://a.example.com/debian/", "trixie", "trixie"),
            target("http://b.example.com/debian/", "bookworm", "bookworm"),
            target("http://s.example.com/debian-security/", "bookworm-security", "bookworm-sec"),
            target("https://vendor.example.com/linux/", "bookworm", "bookworm"),
        ]
    )
    assert parse_targets(text, "bookworm") == Mirrors(
        main="http://b.example.com/debian", security="http://s.example.com/debian-security"
    )


@pytest.mark.parametrize(
    "url",
    [
        "file:/srv/debian/",
        "cdrom://debian/",
        "http://user:pw@a.example.com/debian/",
        "ftp://x/debian/",
    ],
)
def test_a_source_that_a_guest_cannot_use_is_no_mirror(url: str) -> None:
    assert parse_targets(target(url, "bookworm", "bookworm"), "bookworm") is None


def test_a_host_without_a_mirror_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("apt-get")
    (tmp_path / "apt.conf").write_text(
        'Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "/dev/null";'
    )
    runner = Runner()
    run = runner.run
    monkeypatch.setattr(
        runner, "run", lambda argv: run(argv, env={"APT_CONFIG": str(tmp_path / "apt.conf")})
    )
    with pytest.raises(GoldimgError) as caught:
        host_mirrors(runner, "bookworm")
    assert "repo_server" in str(caught.value.hint)


def test_the_digest_follows_every_input() -> None:
    same = digest_of(RECIPE, PACKAGES)
    assert digest_of(replace(RECIPE), list(PACKAGES)) == same
    newer = [PACKAGES[0], replace(PACKAGES[1], sha256="c" * 64)]
    others = {
        digest_of(RECIPE, newer),
        digest_of(replace(RECIPE, packages=("python3",)), PACKAGES),
        digest_of(replace(RECIPE, kernel="linux-image-amd64"), PACKAGES),
        digest_of(replace(RECIPE, components=("main", "contrib")), PACKAGES),
    }
    assert len(others) == 4
    assert same not in others


def test_a_changed_script_of_the_installer_changes_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_of(RECIPE, PACKAGES)
    (tmp_path / "init").write_text("another")
    monkeypatch.setattr(assembling, "DATA", tmp_path)
    assert digest_of(RECIPE, PACKAGES) != before


def unreachable(tmp_path: Path) -> Recipe:
    """A recipe whose mirror refuses connections at once: nothing listens on port 1."""
    needs("apt-get")
    if not KEYRING.exists():
        pytest.skip("needs debian-archive-keyring")
    return replace(RECIPE, mirrors=Mirrors(main="http://127.0.0.1:1/debian", security=None))


def test_without_a_mirror_an_earlier_iso_of_the_recipe_serves(tmp_path: Path) -> None:
    recipe = unreachable(tmp_path)
    iso = tmp_path / "debian-bookworm-0123456789abcdef.iso"
    iso.write_bytes(b"an ISO")
    described = {
        "digest": "0123456789abcdef",
        "recipe": recipe_digest(recipe),
        "sha256": assembling.sha256_of(iso),
        "packages": {"apt": "2.6.1"},
    }
    iso.with_suffix(".json").write_text(json.dumps(described))
    said: list[str] = []
    found = assemble(recipe, cache=tmp_path, runner=Runner(), progress=said.append)
    assert (found.path, found.was_cached) == (iso, True)
    assert any("did not answer" in line for line in said)


def test_without_a_mirror_a_damaged_iso_does_not_serve(tmp_path: Path) -> None:
    recipe = unreachable(tmp_path)
    iso = tmp_path / "debian-bookworm-0123456789abcdef.iso"
    iso.write_bytes(b"damaged")
    described = {"digest": "0", "recipe": recipe_digest(recipe), "sha256": "0" * 64, "packages": {}}
    iso.with_suffix(".json").write_text(json.dumps(described))
    with pytest.raises(GoldimgError, match="cannot resolve the packages of Debian bookworm"):
        assemble(recipe, cache=tmp_path, runner=Runner(), progress=lambda _: None)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("debian-*.ks")), ids=lambda path: path.stem)
def test_our_own_kickstarts_are_understood(path: Path, tmp_path: Path) -> None:
    """Parsed as the installer does it: before their %pre scripts ran, and after."""
    before = parse(path.read_text(), tmp_path / "before")
    assert before.lines("errors") == []
    place = tmp_path / "root/tmp"
    place.mkdir(parents=True)
    for row in before.lines("scripts"):
        kind, number, *_ = row.split("|")
        script = (before.directory / f"script.{number}").read_text()
        if kind == "pre" and "/sys/block" in script:
            # this machine's disks are no matter of the test
            (place / "goldimg-disk.ks").write_text("ignoredisk --only-use=vda\n")
        elif kind == "pre":
            text = script.replace("/tmp/goldimg-", f"{place}/goldimg-")
            subprocess.run(["busybox", "sh", "-c", text], check=True)
    parsed = parse(path.read_text(), tmp_path / "after", tmp_path / "root")
    assert parsed.lines("errors") == []
    assert parsed.code == 0
    assert parsed.scalar("final") == "reboot"
    assert any(row.startswith("/|") for row in parsed.lines("parts") + parsed.lines("logvols"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("raid / --level=1", "line 2: unsupported command 'raid'"),
        ("%addon org_fedora", "line 2: unsupported section '%addon'"),
        ("part /x --size=1 --hibernation", "line 2: unsupported option '--hibernation' of 'part'"),
        ("part /x --size=big", "line 2: --size of 'part' is not a number: big"),
        ("part /x --size=1 --fstype=btrfs", "line 2: unsupported file system 'btrfs' in 'part'"),
        ("volgroup vg pv.01", "line 2: volume group 'vg': no partition 'pv.01' before this line"),
        ("logvol /x --vgname=no --name=x --size=1", "line 2: logvol '/x': no volume group 'no'"),
        ("rootpw --iscrypted secret", "line 2: the hash of 'rootpw' is not a crypt(3) hash"),
        ("timezone 'Europe/Berlin", "line 2: a quote is not closed"),
        ("network --bootproto=static", "line 2: network --bootproto=static needs --ip"),
        ("bootloader --location=none", "line 2: unsupported bootloader --location=none"),
        ("network --device=eth0 --vlanid=4095", "line 2: network --vlanid: 1 to 4094, not 4095"),
        ("network --vlanid=5", "line 2: network --vlanid needs the --device below it"),
        ("network --device=e --bondopts=mode=1", "line 2: network --bondopts needs --bondslaves"),
        (
            "network --device=bond0 --bondslaves=a,b --bondopts=speed=1",
            "line 2: unsupported network --bondopts: speed=1",
        ),
        (
            "network --device=bond0 --bondslaves=a,b --bondopts=mode=7",
            "line 2: unknown mode=7 in network --bondopts",
        ),
        ("network --device=e --ipv6=fe80::1", "line 2: unsupported network --ipv6=fe80::1"),
        ("network --device=e --ipv6gateway=fe80::1", "line 2: network --ipv6gateway needs --ipv6"),
        (
            "network --device=e\nnetwork --device=e",
            "line 3: network device 'e' is already configured in line 2",
        ),
        (
            "url --url=http://m/debian --proxy=http://u:secret@p:3128",
            "line 2: 'url --proxy' is not http://HOST:PORT",
        ),
        ("timesource --nts --ntp-server=a", "line 2: unsupported option '--nts' of 'timesource'"),
        ("timesource --ntp-server='a b'", "line 2: not names of time servers in 'timesource': a b"),
        ("ignoredisk --only-use=disk/by-path/x", "line 2: not a disk name in 'ignoredisk'"),
        ("part /x --size=1 --ondisk=../sda", "line 2: not a disk name in 'part': ../sda"),
        ("%include /etc/passwd", "line 2: %include: only /tmp/goldimg-NAME.ks, written by a %pre"),
        ("%include /tmp/goldimg-/../x.ks", "line 2: %include: only /tmp/goldimg-NAME.ks"),
        ("%packages\nUpper\n%end", "line 3: not a Debian package name: 'Upper'"),
        ("%post\necho", "line 2: section '%post' has no %end"),
    ],
)
def test_what_is_not_understood_is_named_with_its_line(
    line: str, problem: str, tmp_path: Path
) -> None:
    parsed = parse(ROOT + line + "\n", tmp_path / "ks")
    assert parsed.code == 1
    assert any(error.startswith(problem) for error in parsed.lines("errors"))


INCLUDING = """\
zerombr
%include /tmp/goldimg-disk.ks
volgroup vg pv.01
logvol / --vgname=vg --name=root --size=1024 --grow
%pre
echo part pv.01 > /tmp/goldimg-disk.ks
%end
"""


def test_what_a_pre_script_will_write_is_not_missed_before_it_ran(tmp_path: Path) -> None:
    parsed = parse(INCLUDING, tmp_path / "ks")
    assert parsed.lines("errors") == []
    assert parsed.lines("includes") == ["/tmp/goldimg-disk.ks"]
    assert parsed.lines("parts") == []


def included(tmp_path: Path, text: str) -> Parsed:
    written = tmp_path / "root/tmp/goldimg-disk.ks"
    written.parent.mkdir(parents=True)
    written.write_text(text)
    return parse(INCLUDING, tmp_path / "ks", tmp_path / "root")


def test_what_a_pre_script_wrote_counts_as_if_it_stood_there(tmp_path: Path) -> None:
    parsed = included(
        tmp_path,
        "# chosen\r\n"
        "ignoredisk --only-use=sdb\r\n"
        "clearpart --drives=sdb --all --initlabel\n"
        "bootloader --boot-drive=sdb --append=quiet\n"
        "part pv.01 --size=1 --grow --ondisk=/dev/sdb\n"
        "reboot --eject\n"
        "selinux --disabled",
    )
    assert parsed.lines("errors") == []
    (part,) = parsed.lines("parts")
    assert part.split("|")[5] == "sdb"
    assert part.endswith("|2 (/tmp/goldimg-disk.ks:5)")
    assert [parsed.scalar(name) for name in ("only_use", "boot_drive", "eject", "append")] == [
        "sdb",
        "sdb",
        "1",
        "quiet",
    ]
    assert parsed.lines("volgroups") == ["vg|pv.01||3"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("raid\n", "line 2 (/tmp/goldimg-disk.ks:1): unsupported command 'raid'"),
        ("\n%post\n", "line 2 (/tmp/goldimg-disk.ks:2): an included file cannot have '%post'"),
        (
            "%include /tmp/goldimg-disk.ks",
            "line 2 (/tmp/goldimg-disk.ks:1): an included file cannot have '%include'",
        ),
        ("zerombr\n", "line 3: volume group 'vg': no partition 'pv.01' before this line"),
    ],
)
def test_a_problem_in_an_included_file_is_named_with_both_lines(
    text: str, problem: str, tmp_path: Path
) -> None:
    parsed = included(tmp_path, text)
    assert parsed.code == 1
    assert problem in parsed.lines("errors")


def test_a_missing_include_names_the_script_that_should_have_written_it(tmp_path: Path) -> None:
    parsed = parse(INCLUDING, tmp_path / "ks", tmp_path)
    assert parsed.code == 1
    assert (
        "line 2: %include /tmp/goldimg-disk.ks: no such file; "
        "the %pre of line 5 should have written it" in parsed.lines("errors")
    )


def test_all_problems_are_told_at_once_and_no_secret_with_them(tmp_path: Path) -> None:
    parsed = parse("raid\nrootpw --iscrypted hunter2\n", tmp_path / "ks")
    assert len(parsed.lines("errors")) == 3  # the third: no root file system
    assert "hunter2" not in "".join(parsed.lines("errors"))


def test_options_and_quotes_in_every_spelling(tmp_path: Path) -> None:
    parsed = parse(
        "part pv.01 --size 1 --grow  # a comment\n"
        'volgroup vg pv.01 --pesize="32768"\n'
        "logvol / --vgname=vg --name 'root' --size=1024 --grow\n"
        "logvol swap --vgname=vg --name=swap --recommended\n"
        "bootloader --append=\"console=tty0 quiet='it is'\"\n"
        "rootpw --plaintext 'it'\\''s $HOME'\n"
        'sshkey --username=root "ssh-ed25519 AAAA me # not a comment"\n'
        "services --enabled=a,b --disabled=c\n"
        "%packages\n@core\nvim\n-nano\n%end\n"
        "%post --nochroot --erroronfail --log=/tmp/x\necho '%packages'\n%end\n",
        tmp_path / "ks",
    )
    assert parsed.lines("errors") == []
    assert [line.split("|")[:4] for line in parsed.lines("parts")] == [["pv.01", "1", "1", "pv"]]
    assert parsed.lines("volgroups") == ["vg|pv.01|32768|2"]
    assert parsed.scalar("append") == "console=tty0 quiet='it is'"
    assert parsed.scalar("rootpw") == "it's $HOME"
    assert parsed.lines("sshkeys") == ["root|ssh-ed25519 AAAA me # not a comment"]
    assert sorted(parsed.lines("services")) == ["disable|c", "enable|a", "enable|b"]
    assert parsed.lines("packages") == ["+vim", "-nano"]
    assert parsed.lines("scripts") == ["post|1|14|/bin/sh|1|/tmp/x|1"]
    assert parsed.lines("script.1") == ["echo '%packages'"]


def test_shell_scripts_of_the_installer_are_clean() -> None:
    needs("shellcheck")
    scripts = [path for path in DATA.rglob("*") if path.suffix == ".sh"]
    scripts += [DATA / "installer/init", DATA / "root/etc/initramfs-tools/hooks/goldimg"]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_volume_ids_fit_the_standard() -> None:
    assert volume_id(RECIPE) == "GOLDIMG_DEBIAN_BOOKWORM"
    assert len(volume_id(replace(RECIPE, suite="a" * 60))) == 32


@pytest.mark.real
def test_the_iso_boots_by_bios_and_uefi_and_comes_from_the_cache(
    tmp_path: Path,
) -> None:
    needs("mmdebstrap", "xorriso", "apt-get")
    cache = Path(os.environ.get("GOLDIMG_CACHE", tmp_path)) / "iso"
    runner = Runner()
    recipe = replace(RECIPE, mirrors=host_mirrors(runner, "bookworm"))
    made = assemble(recipe, cache=cache, runner=runner, progress=print)
    again = assemble(recipe, cache=cache, runner=runner, progress=print)
    assert again.was_cached
    assert (again.path, again.sha256) == (made.path, made.sha256)
    boots = runner.run(["xorriso", "-indev", made.path, "-report_el_torito", "plain"]).stdout
    assert "BIOS" in boots
    assert "UEFI" in boots
    listed = runner.run(["xorriso", "-indev", made.path, "-find", "/"]).stdout
    for name in (
        "isolinux/vmlinuz",
        "isolinux/initrd.img",
        "isolinux/menu.c32",
        "goldimg/root.img",
        "boot/netboot/shimx64.efi",
        "boot/netboot/grubx64.efi",
    ):
        assert f"'/{name}'" in listed
    assert {"openssh-server", "python3", "linux-image-cloud-amd64"} <= set(made.packages)
    assert "isolinux" not in made.packages
