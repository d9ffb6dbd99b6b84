"""What users write, what becomes of it, and how a mistake is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from goldimg.config import OsFile, Settings, SiteFile, list_oses, load_settings
from goldimg.config.loader import load_yaml
from goldimg.config.secrets import crypt_hash, random_password
from goldimg.errors import ConfigError, GoldimgError, UsageError
from goldimg.project import Site
from tests.support import needs

REPOSITORY = Path(__file__).parents[1]
# The original system's templates/site.json.example and templates/os/CentOS-7.2.1511.json.example.
ORIGINAL_SITE = """{
  "namespace": "mysitename",
  "version": "0.0.0",
  "headless": "true",
  "ks_server": "http://my.server.com/path/to/http/dir",
  "disk_size": "8192",
  "lang": "en_US.UTF-8",
  "keyboard":  "us",
  "timezone": "America/New_York",
  "root_pass": "password",
  "root_salt": "salt",
  "ssh_timeout": "10m",
  "vmware_sha": "sha256"
}
"""
ORIGINAL_OS = """{
  "vm_name": "CentOS-7.2.1511",
  "os_name": "CentOS",
  "os_version": "7.2.1511",
  "iso": "CentOS-7-x86_64-Minimal-1511",
  "iso_checksum": "f90e4d28fa377669b2db16cbcb451fcb9a89d2460e3645993e30e137ac37d284",
  "iso_server": "http://mirror.example.com/centos",
  "repo_server": "http://mirror.example.com/centos"
}
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site as the original had it."""
    write(tmp_path, "templates/site.json", ORIGINAL_SITE)
    write(tmp_path, "templates/os/CentOS-7.2.1511.json", ORIGINAL_OS)
    return Site(root=tmp_path)


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(site: Site, *variables: str, os_name: str = "CentOS-7.2.1511", **kwargs: Any) -> Settings:
    return load_settings(site, os_name, variables=variables, **{"environ": {}} | kwargs)


def problems(site: Site, *variables: str, **kwargs: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(site, *variables, **kwargs)
    assert caught.value.code == 2
    return [str(problem) for problem in caught.value.problems]


# --- the original's files ---------------------------------------------------------------------


def test_the_original_files_are_accepted_unchanged(site: Site) -> None:
    settings = load(site)
    assert (settings.site.headless, settings.site.disk_size) == (True, 8192)
    assert settings.site.ssh_timeout == 600
    assert settings.root_pass == SecretStr("password")
    assert settings.os.installer.kind == "anaconda"
    assert (settings.os.kickstart.family, settings.os.kickstart.syntax) == ("el", "RHEL7")
    assert (settings.os.python, settings.os.package_manager) == ("2.7", "yum")
    base = "http://mirror.example.com/centos/7.2.1511"
    assert settings.iso_urls() == (f"{base}/isos/x86_64/CentOS-7-x86_64-Minimal-1511.iso",)
    assert settings.repo_url() == f"{base}/os/x86_64"
    assert "inst.ks=http://h:1/ks/t" in settings.boot_command("http://h:1/ks/t")
    assert any("public example" in note for note in settings.notes)
    assert settings.packer_os()["repo_server"] == "http://mirror.example.com/centos"


def test_the_original_root_hash_is_reproduced() -> None:
    original = (
        "$6$rounds=5000$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6Wou"
        "IL9AjRbLCelDCy.g."
    )
    assert crypt_hash(SecretStr("password"), "salt") == original


# The specification's own vectors with 5000 rounds: https://www.akkadia.org/drepper/SHA-crypt.txt
@pytest.mark.parametrize(
    ("salt", "password", "digest"),
    [
        (
            "toolongsaltstring",
            "This is just a test",
            "lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0",
        ),
        (
            "saltstring",
            "Hello world!",
            "svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ),
    ],
)
def test_hashes_follow_the_specification(salt: str, password: str, digest: str) -> None:
    hashed = crypt_hash(SecretStr(password), salt)
    assert hashed == f"$6$rounds=5000${salt[:16]}${digest}"


@pytest.mark.parametrize("length", [1, 15, 63, 64, 65, 127, 128, 200])
def test_hashes_are_those_of_openssl(length: int) -> None:
    needs("openssl")
    password = ("correct horse " * 20)[: length - 1] + "x"
    argv = ["openssl", "passwd", "-6", "-salt", "rounds=5000$Na.Cl/16", "-stdin"]
    said = subprocess.run(argv, input=password, capture_output=True, text=True, check=True).stdout
    assert crypt_hash(SecretStr(password), "Na.Cl/16") == said.strip()


def test_without_a_salt_every_hash_differs() -> None:
    first, second = (crypt_hash(SecretStr("password")) for _ in range(2))
    assert first != second
    assert re.fullmatch(r"\$6\$rounds=100000\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}", first)
    assert random_password() != random_password()


def test_what_cannot_be_a_password_is_refused() -> None:
    for password in ("", "a\0b", "x" * 513):
        with pytest.raises(ValueError, match="1 to 512 bytes"):
            crypt_hash(SecretStr(password), "salt")


# --- files of today ----------------------------------------------------------------------------


@pytest.mark.parametrize("os_name", list_oses(Site(root=REPOSITORY)))
def test_every_os_of_the_project_loads(os_name: str) -> None:
    settings = load_settings(Site(root=REPOSITORY), os_name, environ={})
    assert settings.boot_command("http://h/ks/1").count("http://h/ks/1") == 1
    assert settings.boot_command("http://h/ks/1", "efi").count("http://h/ks/1") == 1
    is_given = settings.os.installer.kind == "debian-packages" or settings.unsupplied()
    assert settings.iso_urls() or is_given
    settings.repo_url()
    settings.extra_repos()
    assert json.dumps(settings.packer_os())


def test_the_example_says_every_key_and_holds_no_password(tmp_path: Path) -> None:
    text = (REPOSITORY / "templates/site.yml.example").read_text()
    given = set(re.findall(r"^(?:# )?([a-z0-9_]+):", text, re.MULTILINE))
    assert given == set(SiteFile.model_fields) - {"root_pass", "ks_server"}
    uncommented = re.sub(r"^# ?(?=[a-z0-9_]+: )", "", text, flags=re.MULTILINE)
    SiteFile.model_validate(yaml.safe_load(uncommented))
    values = {k: v for k, v in SiteFile.model_validate(yaml.safe_load(text)) if v is not None}
    assert values == {k: v for k, v in SiteFile() if v is not None}  # the example is the default


def test_without_a_site_file_the_example_serves_and_a_note_says_so(site: Site) -> None:
    (site.templates / "site.json").unlink()
    write(site.root, "templates/site.yml.example", "version: 3.2.1\n")
    settings = load(site)
    assert settings.site.version == "3.2.1"
    assert settings.notes == (
        "templates/site.yml not found; using the values of templates/site.yml.example",
    )
    assert settings.root_pass is None


def test_yaml_wins_over_json(site: Site) -> None:
    write(site.root, "templates/site.yml", "version: 2.0.0\n")
    assert load(site).site.version == "2.0.0"


def test_versions_and_words_stay_as_written(site: Site) -> None:
    write(site.root, "templates/site.yml", "version: 1.10\nkeyboard: no\nroot_pass: 007\n")
    settings = load(site)
    assert (settings.site.version, settings.site.keyboard) == ("1.10", "no")
    assert settings.root_pass == SecretStr("007")
    write(site.root, "templates/site.yml", '{"version": 1.10}')
    assert load(site).site.version == "1.10"


def test_anchors_and_merges_work(site: Site) -> None:
    text = (
        "builder: {aws: &b qemu, azure: *b}\nvmx_data: &p {x: 1}\nvmx_data_post: {<<: *p, y: 2}\n"
    )
    write(site.root, "templates/site.yml", text)
    settings = load(site)
    assert settings.site.builder == {"aws": "qemu", "azure": "qemu"}
    assert settings.site.vmx_data_post == {"x": "1", "y": "2"}


def test_variables_override_files_and_the_last_one_wins(site: Site) -> None:
    file = write(site.root, "extra.yml", "version: 2.0.0\njobs: 3\niso_server: https://a.example\n")
    settings = load(
        site,
        "version=3.0.0",
        "version=4.0.0",
        "builder.aws=qemu",
        "headless=no",
        "providers=aws, gcp",
        "kickstart.options.fstype=ext4",
        "repo_server=",
        var_files=[file],
    )
    assert (settings.site.version, settings.site.jobs) == ("4.0.0", 3)
    assert settings.site.builder == {"aws": "qemu"}
    assert settings.site.headless is False
    assert settings.site.providers == ("aws", "gcp")
    assert settings.os.kickstart.options == {"fstype": "ext4"}
    assert settings.os.kickstart.syntax == "RHEL7"
    assert settings.os.iso_server == "https://a.example"
    assert settings.repo_url() is None


def test_paths_are_relative_to_the_site(site: Site) -> None:
    settings = load(site, "cache_dir=c", "iso_path=~/x.iso", "iso_checksum=file:lists/SUMS")
    assert settings.cache_dir == site.root / "c"
    assert settings.iso_path == Path.home() / "x.iso"
    assert settings.checksum_file == site.root / "lists/SUMS"


@pytest.mark.parametrize(
    ("version", "syntax", "repo"),
    [
        ("6.10", "RHEL6", "https://m/6.10/os/x86_64"),
        ("7.9.2009", "RHEL7", "https://m/7.9.2009/os/x86_64"),
        ("8.10", "RHEL8", "https://m/8.10/BaseOS/x86_64/os"),
        ("9.6", "RHEL9", "https://m/9.6/BaseOS/x86_64/os"),
        ("10", "RHEL10", "https://m/10/BaseOS/x86_64/os"),
    ],
)
def test_a_new_release_needs_a_few_lines(site: Site, version: str, syntax: str, repo: str) -> None:
    text = (
        f"os_name: RedHat\nos_version: {version}\niso: rhel.iso\niso_server: https://m\n"
        f"repo_server: https://m\niso_checksum: sha256:{'A' * 64}\n"
    )
    write(site.root, "templates/os/RedHat.yml", text)
    settings = load(site, os_name="RedHat")
    assert (settings.os.kickstart.syntax, settings.repo_url()) == (syntax, repo)
    assert settings.os.iso_checksum == "a" * 64
    assert bool(settings.extra_repos()) == (settings.os_major in ("8", "9", "10"))


# --- mistakes ----------------------------------------------------------------------------------


def test_all_mistakes_of_all_files_are_shown_at_once(site: Site) -> None:
    write(
        site.root,
        "templates/site.yml",
        "namespace: a\nheadles: true\ndisk_size: 2047\nssh_timeout: 10\nbuilder:\n  aws: quemu\n"
        "vmware_sha: sha2566\n",
    )
    write(
        site.root,
        "templates/os/CentOS-7.2.1511.json",
        ORIGINAL_OS.replace("iso_checksum", "iso_checksm"),
    )
    extra = write(site.root, "extra.yml", "a: 1\njobs: many\n")
    assert problems(site, "versoin=1", "providers=a/b", "nothing", var_files=[extra]) == [
        "--var: 'nothing': write it as key=value",
        "extra.yml:1:1: a: unknown key",
        "--var: versoin: unknown key (did you mean 'version'?)",
        "--var: providers[0]: may hold letters, digits and . _ - only",
        "extra.yml:2:1: jobs: must be a whole number",
        "templates/site.yml:2:1: headles: unknown key (did you mean 'headless'?)",
        "templates/site.yml:3:1: disk_size: must be at least 2048",
        "templates/site.yml:4:1: ssh_timeout: must be a duration with a unit, "
        'such as "10m" or "1h30m"',
        "templates/site.yml:6:3: builder.aws: must be one of auto, qemu, virtualbox-iso, "
        "vmware-iso (did you mean 'qemu'?)",
        "templates/site.yml:7:1: vmware_sha: must be one of sha1, sha256, sha512 "
        "(did you mean 'sha256'?)",
        "templates/os/CentOS-7.2.1511.json:6:3: iso_checksm: unknown key "
        "(did you mean 'iso_checksum'?)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: [1\njobs: 2\n", "2:5: not YAML: while parsing a flow sequence"),
        ("version: 1\nversion: 2\n", "2:1: version: duplicate key, already given on line 1"),
        ("- version\n", "1:1: must be a mapping of keys to values"),
        ("just text\n", "1:1: must be a mapping of keys to values"),
        ("version: 1\n---\nversion: 2\n", "2:1: not YAML: expected a single document"),
        ("publish: &a {b: *a}\n", "1:10: not YAML: nested too deeply or repeated too often"),
        ("root_pass: *hunter2\n", "1:12: not YAML: undefined alias, anchor or tag"),
        ("root_pass: !hunter2\n", "1:12: not YAML: undefined alias, anchor or tag"),
        ("root_pass: !!python/name:os.system hunter2\n", "1:12: not YAML: undefined alias"),
        ("? [a]\n: 1\n", "1:3: a key must be plain text"),
        ("jobs: 1\n\tcpus: 2\n", "2:1: not YAML"),
        ("version: \x07\n", "not YAML: unacceptable character"),
    ],
)
def test_files_that_cannot_be_parsed(site: Site, text: str, expected: str) -> None:
    write(site.root, "templates/site.yml", text)
    (problem,) = problems(site)
    place = "templates/site.yml:" if expected[0].isdigit() else "templates/site.yml: "
    assert problem.startswith(place + expected)
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{\n\t"version": "1",\n\t"jobs" 2\n}', ":3:9: not JSON: expecting ':' delimiter"),
        ('{"jobs": 1,\n "jobs": 2}', ":2:2: jobs: duplicate key, already given on line 1"),
        ('{\n\t"jobs": "x"\n}', ":2:2: jobs: must be a whole number"),
        ("[" * 3000, ": not JSON that makes sense here"),
    ],
)
def test_json_mistakes_have_positions_too(site: Site, text: str, expected: str) -> None:
    write(site.root, "templates/site.json", text)
    assert problems(site) == [f"templates/site.json{expected}"]


def test_files_that_cannot_be_read(site: Site, tmp_path: Path) -> None:
    (site.root / "binary.yml").write_bytes(b"a: 1\nb: \xff")
    (site.root / "large.yml").write_bytes(b"#" * (1 << 20) + b"\n")
    names = ["absent.yml", "binary.yml", "large.yml", "templates"]
    assert problems(site, var_files=[site.root / name for name in names]) == [
        "absent.yml: cannot be read: no such file or directory",
        "binary.yml:2:4: is not UTF-8 text",
        "large.yml: is larger than 1 MiB, so no settings file",
        "templates: is not a file",
    ]


def test_a_billion_laughs_are_cut_short(site: Site) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    write(site.root, "templates/site.yml", "\n".join(lines))
    assert "repeated too often" in problems(site)[0]


def test_an_unknown_provider_is_found_wherever_it_is_named(site: Site) -> None:
    text = "providers: [aws, asure]\nbuilder:\n  asw: qemu\n"
    write(site.root, "templates/site.yml", text)
    known = ("aws", "azure", "gcp")
    assert problems(site, "builder.foo=qemu", providers=known) == [
        "templates/site.yml:1:18: providers[1]: unknown provider (did you mean 'azure'?)",
        "templates/site.yml:3:3: builder.asw: unknown provider (did you mean 'aws'?)",
        "--var: builder.foo: unknown provider",
    ]
    write(site.root, "templates/site.yml", "publish: {gpc: {}}\n")
    assert problems(site, providers=known) == [
        "templates/site.yml:1:11: publish.gpc: unknown key (did you mean 'gcp'?)"
    ]
    write(site.root, "templates/site.yml", "providers: aws, asure\n")
    assert problems(site, providers=known) == [
        "templates/site.yml:1:1: providers[1]: unknown provider (did you mean 'azure'?)"
    ]


def test_an_os_file_that_cannot_be_parsed_is_one_problem(site: Site) -> None:
    path = write(site.root, "templates/os/CentOS-7.2.1511.json", "{")
    assert len(problems(site)) == 1
    path.write_text("")
    assert problems(site)[0].startswith("templates/os/CentOS-7.2.1511.json:1:1: ")


@pytest.mark.parametrize("name", ["CentOS-7.2.151", "centos-7.2.1511", "Nothing"])
def test_an_unknown_os_lists_the_known_ones(site: Site, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(site, os_name=name)
    assert "CentOS-7.2.1511" in str(caught.value)
    assert ("did you mean" in caught.value.what) == (name != "Nothing")


@pytest.mark.parametrize("name", ["../site", "/etc/passwd", "", ".", "..", "a/b", "-x", "a\n"])
def test_an_os_name_is_never_a_path(site: Site, name: str) -> None:
    with pytest.raises(UsageError, match="unknown operating system"):
        load(site, os_name=name)


def test_a_copied_os_file_must_get_its_own_name(site: Site) -> None:
    write(site.root, "templates/os/CentOS-7.9.json", ORIGINAL_OS)
    assert problems(site, os_name="CentOS-7.9") == [
        "templates/os/CentOS-7.9.json:2:3: vm_name: must be 'CentOS-7.9', the name of the file"
    ]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("iso=", "iso: is needed: a file name"),
        ("iso=a/b.iso", "iso: must be a file name"),
        ("iso_server=", "iso_server: is needed"),
        ("iso_server=ftp://a", "iso_server: must be an http"),
        ("repo_server=http://a b", "repo_server: must be an http"),
        ("iso_checksum=md5:00", "iso_checksum: must be 64 hex"),
        ("iso_checksum=file:gopher://x/y", "iso_checksum: must be an http"),
        ("boot.bios=<tab><enter>", "boot.bios: must contain {ks_url}"),
        ("boot.bios={ks_url}{x.y}", "boot.bios: has a placeholder other than {ks_url}"),
        ("kickstart.repo_path={0}", "kickstart.repo_path: has a placeholder other than"),
        ("kickstart.repo_path={", "kickstart.repo_path: has a '{' or '}'"),
        ("installer.kind=preceed", "installer.kind: must be one of"),
        ("version=../../etc", "version: must be a version"),
        ("namespace=a/b", "namespace: may hold"),
        ("timezone=../etc", "timezone: must be a time zone"),
        ("ks_port=70000", "ks_port: must be at most 65535"),
        ("headless=maybe", "headless: must be true or false"),
        ("providers.0=aws", "providers: must be a list"),
    ],
)
def test_wrong_values_name_their_key(site: Site, variable: str, expected: str) -> None:
    (problem,) = problems(site, variable)
    assert expected in problem


@given(
    key=st.sampled_from(["lang", "keyboard", "timezone", "version", "namespace", "root_salt"]),
    value=st.text(max_size=30) | st.sampled_from(["us\n%pre", "us --x", "a;b", "$(id)", "a'b"]),
)
def test_no_text_can_leave_its_word(key: str, value: str) -> None:
    try:
        text = str(getattr(SiteFile.model_validate({key: value}), key))
    except ValueError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._/@+-]+", text)


# --- secrets -----------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file_over_the_key(site: Site) -> None:
    write(site.root, "pw", "from-file\nrest\n")
    assert load(site).root_pass == SecretStr("password")
    assert load(site, "root_pass_file=pw").root_pass == SecretStr("from-file")
    environ = {"GOLDIMG_ROOT_PASS": "from-environment"}
    settings = load(site, "root_pass_file=pw", environ=environ)
    assert settings.root_pass == SecretStr("from-environment")


def test_without_a_password_there_is_none(site: Site) -> None:
    for text in ("version: 1.0.0\n", "root_pass:\n", 'root_pass: ""\n'):
        write(site.root, "templates/site.yml", text)
        assert load(site).root_pass is None


def test_a_password_is_never_shown(site: Site) -> None:
    write(site.root, "templates/site.yml", "root_pass: hunter2hunter2\nroot_salt: s\n")
    settings = load(site)
    assert settings.root_pass == SecretStr("hunter2hunter2")
    document = load_yaml(site.templates / "site.yml")
    shown = f"{settings} {settings!r} {settings.site} {settings.packer_os()} {document!r}"
    assert "hunter2" not in shown

    for wrong in ("[hunter2]", "{hunter2: hunter2}", "true", '"hunter2\\nhunter2"'):
        write(site.root, "templates/site.yml", f"root_pass: {wrong}\njobs: x\n")
        with pytest.raises(GoldimgError) as caught:
            load(site)
        assert "hunter2" not in repr(caught.value) + str(caught.value)


def test_a_password_on_the_command_line_is_refused(site: Site) -> None:
    (problem,) = problems(site, "root_pass=hunter2")
    assert "GOLDIMG_ROOT_PASS" in problem
    assert "hunter2" not in problem


def test_a_password_file_that_does_not_help(site: Site) -> None:
    write(site.root, "empty", "\n")
    write(site.root, "templates/site.yml", "version: 1.0.0\nroot_pass_file: empty\n")
    where = "templates/site.yml:2:1: root_pass_file: "
    assert problems(site) == [where + "its first line holds no usable password"]
    write(site.root, "templates/site.yml", "version: 1.0.0\nroot_pass_file: absent\n")
    assert problems(site) == [where + "cannot be read"]
    # what is wrong with the variable is not blamed on the file
    (problem,) = problems(site, environ={"GOLDIMG_ROOT_PASS": "a\nb"})
    assert problem == "GOLDIMG_ROOT_PASS: holds no usable password"


def test_site_and_os_keys_never_meet() -> None:
    assert not set(SiteFile.model_fields) & set(OsFile.model_fields)


def test_oses_are_listed_in_the_order_of_versions(site: Site) -> None:
    for name in ("Debian-12.yml", "Debian-9.yml", "a.yml.example", ".hidden.yml", "x y.yml"):
        write(site.root, f"templates/os/{name}", "")
    os.mkfifo(site.os_dir / "pipe.txt")
    assert list_oses(site) == ["CentOS-7.2.1511", "Debian-9", "Debian-12"]
