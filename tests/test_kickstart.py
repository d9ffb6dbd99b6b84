"""Kickstarts as a site sees them: options in files, the text, its checks, the original's text."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from goldimg.errors import ConfigError
from goldimg.kickstart.model import Options, builds, load_options
from goldimg.kickstart.render import Target, disk_layout, render
from goldimg.kickstart.syntax import SYNTAXES, Family
from goldimg.kickstart.validate import semantic, validate, validate_many
from goldimg.run import Runner
from tests.support import needs

ROOT = Path(__file__).parents[1] / "kickstart"
GOLDEN = Path(__file__).parent / "golden"
PROVIDERS = ("aws", "azure", "docker", "gcp", "openstack", "virtualbox", "vmware")
# The original's hash of `password` with the salt `salt`.
HASH = (
    "$6$rounds=5000$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6Wou"
    "IL9AjRbLCelDCy.g."
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBKyHkUxvN7bVt9R0x3t2Zb5Y1w8hCq4dE6fG7iJ8kLm packer"
REPORT = "http://10.0.2.2:8080/report/t0ken"
FLAVOURS: tuple[tuple[str, Family], ...] = (
    *((name, "el") for name in SYNTAXES),
    ("RHEL9", "debian"),
)


def make_target(syntax: Any = "RHEL9", family: Any = "el", **changes: Any) -> Target:
    values: dict[str, Any] = {
        "build": "virtual/aws",
        "os_name": "Debian" if family == "debian" else "CentOS",
        "os_version": "12" if family == "debian" else "7.2.1511",
        "family": family,
        "syntax": syntax,
        "repo_url": "http://mirror.example.com/centos/7.2.1511/os/x86_64",
        "lang": "en_US.UTF-8",
        "keyboard": "us",
        "timezone": "America/New_York",
        "root_hash": HASH,
        "ssh_keys": (KEY,),
    }
    return Target(**{**values, **changes})


def os_defaults(family: Family) -> dict[str, object]:
    return {"fstype": "ext4"} if family == "debian" else {}


def rendered(build: str, syntax: str, family: Family, **changes: Any) -> str:
    options = load_options(ROOT, build, os_defaults(family))
    return render(ROOT, options, make_target(syntax, family, build=build, **changes))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's own copy of kickstart/, with the example as the machine node01."""
    root = Path(shutil.copytree(ROOT, tmp_path / "kickstart"))
    shutil.copy(root / "builds/metal/example.yml.example", root / "builds/metal/node01.yml")
    return root


# --- options ---------------------------------------------------------------------------------


def test_every_provider_has_a_build_and_nothing_else_has() -> None:
    assert builds(ROOT) == tuple(f"virtual/{name}" for name in PROVIDERS)


@pytest.mark.parametrize(
    ("build", "lvm", "boot", "swap"),
    [
        ("aws", True, True, True),
        ("virtualbox", True, True, True),
        ("vmware", True, True, True),
        ("azure", True, True, False),
        ("docker", False, False, False),
        ("gcp", False, False, False),
        ("openstack", False, False, False),
    ],
)
def test_images_get_the_original_systems_disks(
    build: str, lvm: bool, boot: bool, swap: bool
) -> None:
    options = load_options(ROOT, f"virtual/{build}", {})
    assert (options.lvm, options.boot, options.swap) == (lvm, boot, swap)
    assert (options.bootsize, options.swapsize, options.rootsize) == (400, "recommended", "max")
    assert options.fstype == "xfs"


def test_an_os_chooses_its_file_system_and_a_site_overrules_it(site: Path) -> None:
    assert load_options(site, "virtual/aws", {"fstype": "ext4"}).fstype == "ext4"
    (site / "builds/virtual/aws.yml").write_text("fstype: xfs\n")
    assert load_options(site, "virtual/aws", {"fstype": "ext4"}).fstype == "xfs"
    assert load_options(site, "virtual/vmware", {"fstype": "ext4"}).fstype == "ext4"


def test_the_original_systems_ways_to_write_values_are_taken(site: Path) -> None:
    (site / "builds/virtual/aws.yml").write_text(
        'lvm: 1\nboot: 0\nefi: 0\nswapsize: "2048"\nrootsize: 8192\nfqdn: ""\nipaddr: ""\n'
    )
    options = load_options(site, "virtual/aws", {})
    assert (options.lvm, options.boot, options.efi) == (True, False, False)
    assert (options.swapsize, options.rootsize) == (2048, 8192)
    assert (options.fqdn, options.ipaddr) == (None, None)


def test_every_fault_of_every_file_is_told_with_its_place(site: Path) -> None:
    (site / "builds/defaults.yml").write_text("lvm: true\nbotsize: 400\n")
    (site / "builds/virtual/aws.yml").write_text("# mine\nswapsize: lots\nbootsize: much\n")
    with pytest.raises(ConfigError) as caught:
        load_options(site, "virtual/aws", {"fstype": "zfs"})
    assert caught.value.code == 2
    told = [str(problem) for problem in caught.value.problems]
    assert told == [
        "kickstart.options of the OS: fstype: must be one of xfs, ext4, ext3 (did you mean 'xfs'?)",
        "kickstart/builds/defaults.yml:2:1: botsize: unknown key (did you mean 'bootsize'?)",
        "kickstart/builds/virtual/aws.yml:2:1: swapsize: must be 'recommended' or a size of"
        " 32 to 1048576 MiB",
        "kickstart/builds/virtual/aws.yml:3:1: bootsize: must be a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lvm: false\nrootsize: 4096\n", "2:1: rootsize: needs lvm"),
        ("lvm: false\nswapsize: 512\n", "2:1: swapsize: needs lvm"),
        ("ipaddr: 192.0.2.1\n", "1:1: ipaddr: needs netmask"),
        ("ipaddr: 192.0.2.1\nnetmask: 255.0.255.0\n", "2:1: netmask: must be a netmask"),
        ("ipaddr: 192.0.2.999\n", "1:1: ipaddr: must be an IPv4 address"),
        ("nameserver: 192.0.2.1\n", "1:1: nameserver: needs ipaddr"),
        (
            "ipaddr: 192.0.2.1\nnetmask: 255.255.255.0\ngateway: 198.51.100.1\n",
            "3:1: gateway: is not in the network",
        ),
        ("hardware: metal\n", "1:1: disk: is required for metal"),
        ("packages: ['a b']\n", "packages[0]: must be a package"),
        ('kernel_args: ["quiet\\" init=/bin/sh"]\n', "kernel_args[0]: must be one kernel argument"),
        ("post: |\n  true\n  %end\n", "post: must not have a line that starts with '%'"),
        ('post: "true\\u2028rootpw x"\n', "post: must not have control characters"),
        ("efi: perhaps\n", "1:1: efi: must be true, false or auto"),
        ("lvm: [\n", "not YAML"),
    ],
)
def test_values_that_cannot_work_are_refused(site: Path, text: str, told: str) -> None:
    (site / "builds/virtual/aws.yml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_options(site, "virtual/aws", {})
    assert len(caught.value.problems) == 1
    assert told in str(caught.value)
    assert "kickstart/builds/virtual/aws.yml" in str(caught.value)


@pytest.mark.parametrize(
    "build",
    [
        "virtual/awz",
        "virtual/defaults",
        "virtual",
        "metal/node01",
        "virtual/../metal/node01",
        "virtual/../../ks/main",
        "virtual/aws\n%pre",
        "",
        "/etc/passwd",
    ],
)
def test_an_unknown_build_is_an_error_and_not_other_peoples_defaults(build: str) -> None:
    with pytest.raises(ConfigError, match="no such build") as caught:
        load_options(ROOT, build, {})
    assert "\n" not in str(caught.value)


def test_an_unknown_build_is_told_what_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'virtual/openstack'"):
        load_options(ROOT, "virtual/openstak", {})


# --- text ------------------------------------------------------------------------------------

SAMPLES = [
    *((f"{syntax}-{build}", f"virtual/{build}", syntax, "el", None)
      for syntax in ("RHEL7", "RHEL9", "RHEL10") for build in ("aws", "azure", "docker")),
    *((f"debian-{build}", f"virtual/{build}", "RHEL9", "debian", None)
      for build in ("aws", "azure", "docker")),
    ("RHEL6-aws", "virtual/aws", "RHEL6", "el", None),
    ("RHEL7-aws-report", "virtual/aws", "RHEL7", "el", REPORT),
    ("RHEL9-aws-report", "virtual/aws", "RHEL9", "el", REPORT),
    ("debian-aws-report", "virtual/aws", "RHEL9", "debian", REPORT),
    ("RHEL6-aws-report", "virtual/aws", "RHEL6", "el", REPORT),
    ("RHEL7-node01", "metal/node01", "RHEL7", "el", None),
    ("RHEL9-node01", "metal/node01", "RHEL9", "el", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "build", "syntax", "family", "report"), SAMPLES, ids=[it[0] for it in SAMPLES]
)
def test_renderings_are_as_reviewed(
    site: Path, name: str, build: str, syntax: str, family: Family, report: str | None
) -> None:
    """After a change on purpose: GOLDIMG_UPDATE_GOLDEN=1 pytest, then read the diff."""
    options = load_options(site, build, os_defaults(family))
    text = render(site, options, make_target(syntax, family, build=build, report_url=report))
    golden = GOLDEN / "kickstart" / f"{name}.ks"
    if os.environ.get("GOLDIMG_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert not re.search(r"[ \t]$|\n\n\n", text, re.MULTILINE)


@pytest.mark.parametrize(("syntax", "family"), FLAVOURS)
def test_builds_with_equal_options_share_their_text(syntax: str, family: Family) -> None:
    texts = {name: rendered(f"virtual/{name}", syntax, family) for name in PROVIDERS}
    assert texts["aws"] == texts["virtualbox"] == texts["vmware"]
    assert texts["docker"] == texts["gcp"] == texts["openstack"]
    assert len(set(texts.values())) == 3
    assert not any(name in text for name in PROVIDERS for text in texts.values())


@pytest.mark.parametrize(("syntax", "family"), FLAVOURS)
def test_every_build_passes_ksvalidator_without_a_warning(
    site: Path, syntax: str, family: Family
) -> None:
    needs("ksvalidator")
    plain = site / "builds/metal/plain.yml"
    plain.write_text("lvm: false\nboot: false\nefi: true\nfstype: ext4\nrootsize: max\n")
    rich = site / "builds/metal/rich.yml"
    rich.write_text(
        "fqdn: node02.example.com\ndisk: disk/by-id/ata-x\nefi: false\nswapsize: 512\n"
        "rootsize: 9000\nselinux: permissive\nfirewall: false\npackages: [-plymouth, '@base']\n"
        "pre: |\n  echo one\npost: |\n  echo %two\n"
    )
    runner = Runner()
    texts = set()
    for build in builds(site):
        options = load_options(site, build, os_defaults(family))
        for hash_, report in ((HASH, REPORT), (None, None)):
            target = make_target(syntax, family, root_hash=hash_, report_url=report)
            texts.add(render(site, options, target))
    assert len(texts) == 12  # 3 images, 3 machines; each with report and hash, and without
    assert dict(validate_many(texts, syntax, runner)) == {text: [] for text in texts}


def test_root_is_locked_without_a_hash_and_never_in_by_password() -> None:
    for syntax, family in FLAVOURS:
        locked = rendered("virtual/aws", syntax, family, root_hash=None)
        assert re.findall(r"^rootpw .*", locked, re.M) == [
            "rootpw --lock --iscrypted '!!'" if syntax == "RHEL6" else "rootpw --lock"
        ]
        crypted = rendered("virtual/aws", syntax, family)
        assert re.findall(r"^rootpw .*", crypted, re.M) == [f"rootpw --iscrypted '{HASH}'"]


def test_the_report_url_is_where_the_installer_looks_for_it() -> None:
    for syntax, family in FLAVOURS:
        lines = rendered("virtual/gcp", syntax, family, report_url=REPORT).splitlines()
        assert lines[0] == f"# goldimg-report: {REPORT}"
        assert "report" not in rendered("virtual/gcp", syntax, family)


def test_selinux_is_as_the_original_had_it_up_to_7_and_enforcing_after(site: Path) -> None:
    said = re.compile(r"^selinux (?:--|=)?(\w+)|^selinux=(\w+)", re.M)
    found = {}
    for syntax in SYNTAXES:
        match = said.search(rendered("virtual/aws", syntax, "el"))
        assert match
        found[syntax] = [match[1] or match[2]]
    assert found == {
        "RHEL6": ["disabled"],
        "RHEL7": ["disabled"],
        "RHEL8": ["enforcing"],
        "RHEL9": ["enforcing"],
        "RHEL10": ["enforcing"],
    }
    (site / "builds/virtual/aws.yml").write_text("selinux: disabled\n")
    text = render(site, load_options(site, "virtual/aws", {}), make_target("RHEL9"))
    assert "selinux --disabled\n" in text
    assert "nouveau.modeset=0 selinux=0 " in text  # the command alone leaves it on in the kernel


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("root_hash", ""),
        ("root_hash", "$6$s$h"),
        ("root_hash", "$1$salt$qJH7.N4xYta3aEG/dfqo/0"),
        ("root_hash", "password"),
        ("lang", "en_US.UTF-8\nrootpw x"),
        ("lang", "--lang"),
        ("timezone", ""),
        ("hostname", "a b"),
        ("repo_url", "http://h/ --noverifyssl"),
        ("repo_url", "/srv/repo"),
        ("ssh_keys", ("ssh-ed25519 AAAA x\n%pre",)),
        ("ssh_keys", ("--username=x",)),
        ("extra_repos", (("App Stream", "http://h/"),)),
        ("report_url", "http://h/x'y"),
        ("report_url", "http://h/$(id)"),
        ("syntax", "RHEL5"),
        ("os_version", "../7"),
    ],
)
def test_a_target_of_no_use_is_refused_and_its_value_not_shown(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        make_target(**{key: value})
    assert key in str(caught.value)
    assert not value or str(value) not in str(caught.value)


def test_a_hash_is_not_shown_by_repr() -> None:
    assert HASH not in repr(make_target())


def test_a_broken_template_of_a_site_is_named_with_its_line(site: Path) -> None:
    options = load_options(site, "virtual/aws", {})
    for text, told in (
        ("one\n{{ options.nosuch }}\n", "kickstart/ks/locale.ks.j2:2"),
        ("one\n\n{% if %}\n", "kickstart/ks/locale.ks.j2:3"),
        ("{{ ''.__class__.__mro__ }}\n", "kickstart/ks/locale.ks.j2:1"),
        ('{{ "a\\nb" }}\n', "kickstart/ks/locale.ks.j2:1"),
    ):
        broken = Path(shutil.copytree(site, site.parent / f"{len(text)}" / "kickstart"))
        (broken / "ks/locale.ks.j2").write_text(text)
        with pytest.raises(ConfigError, match=re.escape(told)):
            render(broken, options, make_target())


# --- injection -------------------------------------------------------------------------------

NASTY = st.text(
    alphabet=st.one_of(
        st.sampled_from("\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029\0\\'\"`$(){}%#@-=;&| ax1/.:"),
        st.characters(),
    ),
    max_size=40,
)
WORDS = ("hostname", "lang", "keyboard", "timezone", "repo_url", "report_url", "root_hash")
OPTIONS = ("disk", "device", "fqdn", "ipaddr", "fstype", "swapsize", "pre", "post")


def outside(text: str) -> list[list[str]]:
    """Section names, and the words of each command; lines split as pykickstart splits them."""
    found, inside = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("%") and not line.startswith("%include /tmp/goldimg-"):
            inside = not line.lstrip().startswith("%end")
            found.append([line.split()[0]])
        elif not inside and line.strip() and not line.startswith("#"):
            found.append(shlex.split(line))
    return found


def shape(text: str) -> list[str]:
    return [words[0] for words in outside(text)]


@given(field=st.sampled_from(WORDS), value=NASTY, syntax=st.sampled_from(sorted(SYNTAXES)))
@example(field="hostname", value="a.b", syntax="RHEL7")
@example(field="repo_url", value="http://h/'\"$(id)`x`#;y", syntax="RHEL9")
def test_no_target_value_adds_a_line_or_a_word(field: str, value: str, syntax: str) -> None:
    options = load_options(ROOT, "virtual/aws", {})
    good = make_target(syntax, hostname="host", report_url=REPORT)
    expected = outside(render(ROOT, options, good))
    try:
        target = make_target(syntax, **{"hostname": "host", "report_url": REPORT, field: value})
    except ConfigError:
        return
    found = outside(render(ROOT, options, target))
    if value:
        assert [len(words) for words in found] == [len(words) for words in expected]
    assert [words[0] for words in found] == [words[0] for words in expected]


@given(comment=NASTY, syntax=st.sampled_from(sorted(SYNTAXES)))
@example(comment='it\'s "me" $(id) `id` \\ %end # é', syntax="RHEL9")
@example(comment='it\'s "me" $(id) `id` \\ %end # é', syntax="RHEL7")
@example(comment="\u2028rootpw x", syntax="RHEL9")
def test_a_keys_comment_stays_a_comment(comment: str, syntax: str) -> None:
    options = load_options(ROOT, "virtual/aws", {})
    key = f"{KEY} {comment}"
    expected = shape(render(ROOT, options, make_target(syntax)))
    try:
        target = make_target(syntax, ssh_keys=(key,))
    except ConfigError:
        return
    text = render(ROOT, options, target)
    assert shape(text) == expected
    lines = [line for line in text.splitlines() if KEY[:20] in line]
    assert len(lines) == 1
    assert key in shlex.split(lines[0])


@given(field=st.sampled_from(OPTIONS), value=NASTY)
@example(field="post", value="echo one\n\techo 'two'\n")
@example(field="post", value="true\n %end\nrootpw x\n%post")
@example(field="pre", value="true\r%end\rrootpw x")
@example(field="disk", value="disk/by-id/ata-x_1")
@example(field="device", value="52:54:00:12:34:56")
def test_no_option_adds_a_command(field: str, value: str) -> None:
    base: dict[str, object] = {
        "disk": "sda",
        "device": "em1",
        "fqdn": "host",
        "swapsize": 512,
        "hardware": "metal",
        "pre": "true",
        "post": "true",
    }
    target = make_target("RHEL9")
    expected = shape(render(ROOT, Options.model_validate(base), target))
    try:
        options = Options.model_validate({**base, field: value})
    except ValidationError:
        return
    found = shape(render(ROOT, options, target))
    if value:
        assert found == expected


@given(value=NASTY)
@example(value="@^minimal-environment")
@example(value="-plymouth*")
@example(value="%end")
def test_a_package_is_one_line_of_its_section(value: str) -> None:
    try:
        options = Options(packages=(value,))
    except ValidationError:
        return
    lines = render(ROOT, options, make_target()).splitlines()
    assert lines[lines.index("%packages") : lines.index("%end") + 1][-2] == value


# --- disks -----------------------------------------------------------------------------------


def test_the_plan_shows_what_the_kickstart_does(site: Path) -> None:
    (site / "builds/metal/efi.yml").write_text("efi: true\nswapsize: 512\nrootsize: 4096\n")
    for build in builds(site):
        options = load_options(site, build, {})
        words = outside(render(site, options, make_target()))
        made = [
            (line[1], next(word[9:] for word in line if word.startswith("--fstype=")))
            for line in words
            if line[0] in ("part", "logvol") and line[1] != "pv.01"
        ]
        shown = disk_layout(options, 8192)
        assert [(volume.mount, volume.fstype) for volume in shown] == made


def test_the_plan_knows_sizes_where_the_installer_leaves_no_choice() -> None:
    docker = disk_layout(load_options(ROOT, "virtual/docker", {}), 8192)
    assert [(it.mount, it.size, it.lvm) for it in docker] == [("/", 8191, False)]
    azure = disk_layout(load_options(ROOT, "virtual/azure", {}), 8192)
    assert [(it.mount, it.size, it.lvm) for it in azure] == [
        ("/boot", 400, False),
        ("/", 7776, True),
    ]
    aws = disk_layout(load_options(ROOT, "virtual/aws", {}), 8192)
    assert [(it.mount, it.size) for it in aws] == [("/boot", 400), ("swap", None), ("/", None)]
    sized = disk_layout(Options(swapsize=500, rootsize=4096, bootsize=400), 8192)
    assert [(it.mount, it.size) for it in sized] == [("/boot", 400), ("swap", 500), ("/", 4096)]


def test_a_disk_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2048 MiB leave \d+ MiB for /"):
        disk_layout(Options(), 2048)


# --- checks ----------------------------------------------------------------------------------


def test_what_a_release_has_dropped_is_found_with_its_line() -> None:
    needs("ksvalidator")
    text = rendered("virtual/aws", "RHEL7", "el")
    told = {problem.message: problem.line for problem in validate(text, "RHEL9", Runner())}
    lines = text.splitlines()
    assert told["install has been removed."] == lines.index("install") + 1
    assert told["Unknown command: unsupported_hardware"] == lines.index("unsupported_hardware") + 1
    assert any("authselect" in message for message in told)  # a mere deprecation


def test_a_section_left_open_is_found() -> None:
    needs("ksvalidator")
    text = rendered("virtual/aws", "RHEL9", "el").rstrip().removesuffix("%end")
    assert [problem.message for problem in validate(text, "RHEL9", Runner())] == [
        "Section %pre does not end with %end."
    ]


def test_no_problem_shows_a_password_hash() -> None:
    needs("ksvalidator")
    text = rendered("virtual/aws", "RHEL9", "el").replace("--iscrypted", "--iscrypted extra")
    problems = validate(text, "RHEL9", Runner())
    assert problems
    assert not any(HASH in str(problem) or HASH[-40:] in str(problem) for problem in problems)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (r"^rootpw .*", "", "no rootpw"),
        (r"^rootpw .*", "rootpw --iscrypted '$6$s$h'", "rootpw holds no sha256"),
        (r"^rootpw .*", "rootpw secret", "rootpw holds a password in clear text"),
        (r"^rootpw ", "rootpw --allow-ssh ", "rootpw --allow-ssh lets root log in"),
        (r"^network .*", "network --bootproto=static --device=link", "a static network needs --ip"),
        (
            r"^network .*",
            "network --bootproto static --ip 999.1.1.1 --netmask 255.0.0.0",
            "--ip is not an IPv4 address",
        ),
        (r"--vgname=rootvg", "--vgname=other", "no volgroup makes the volume group other"),
        (r"^volgroup rootvg (.*) pv.01", r"volgroup rootvg \1 pv.02", "no part makes"),
        (r"^volgroup rootvg", "volgroup _rootvg", "the volume group has no proper name"),
        (r"--fstype=xfs", "--fstype=zfs9", "unknown file system zfs9"),
        (r"^logvol / .*", "", "nothing is mounted at /"),
        (r"^part /boot .*", r"\g<0>\n\g<0>", "/boot is mounted twice"),
        (r"^firstboot.*", "%include http://192.0.2.1/x", "%include brings in text"),
        (r"^firstboot.*", "%include /tmp/../etc/passwd", "%include brings in text"),
        (
            r"^firstboot.*",
            "%include /tmp/goldimg-mine.ks",
            "%include of /tmp/goldimg-mine.ks, which",
        ),
        (r"^@core", "%include /tmp/goldimg-end.ks", "%include brings in text"),
        (
            r"> /tmp/goldimg-end.ks",
            "> /tmp/other",
            "%include of /tmp/goldimg-end.ks, which no %pre",
        ),
        (r"^@core", " %ksappend http://192.0.2.1/x", "%ksappend brings in text"),
    ],
)
def test_what_ksvalidator_lets_pass_is_found(old: str, new: str, told: str) -> None:
    text = rendered("virtual/aws", "RHEL9", "el")
    assert semantic(text) == []
    changed = re.sub(old, new, text, flags=re.M)
    assert changed != text
    assert any(problem.message.startswith(told) for problem in semantic(changed))


def test_our_debian_installer_understands_every_rendering_for_it(tmp_path: Path) -> None:
    needs("busybox")
    installer = ROOT.parent / "goldimg/iso/debian/data/installer"
    parsers = [word for path in sorted(installer.glob("*.awk")) for word in ("-f", path)]
    comment = 'it\'s "me" $(id) `id` \\ %end #'
    for build in builds(ROOT):
        for hash_, report in ((HASH, REPORT), (None, None)):
            text = rendered(
                build,
                "RHEL9",
                "debian",
                root_hash=hash_,
                report_url=report,
                hostname="host.example.com",
                ssh_keys=(f"{KEY} {comment}",),
            )
            kickstart = tmp_path / "ks.cfg"
            kickstart.write_text(text)
            done = Runner().run(
                ["busybox", "awk", "-v", f"out={tmp_path}", *parsers, kickstart], check=False
            )
            errors = tmp_path / "errors"
            assert (done.code, errors.read_text() if errors.exists() else "") == (0, ""), build
            assert (tmp_path / "sshkeys").read_text() == f"root|{KEY} {comment}\n"
