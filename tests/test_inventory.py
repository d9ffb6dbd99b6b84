"""What is in an image: taken in a guest, described for machines, compared, listed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from goldimg.artifacts import MANIFEST, SUMS, add_files, read_finished, write_version_sums
from goldimg.errors import ConfigError, VerificationFailed
from goldimg.formats import Written
from goldimg.inventory import EXTENSION, File, Inventory, Package, dump, load, parse
from goldimg.inventory.archive import as_shipped
from goldimg.inventory.describe import CYCLONEDX, SPDX, describe
from goldimg.inventory.diff import diff
from goldimg.inventory.purl import purl
from goldimg.inventory.sbom import Subject, cyclonedx, spdx
from tests.shelf import OS, Shelf
from tests.support import needs

ROOT = Path(__file__).resolve().parent.parent
ANSIBLE = ROOT / "ansible"
BIN = Path(sys.executable).parent
DEBIAN = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
ALMA = {"ID": "almalinux", "VERSION_ID": "9.6", "PRETTY_NAME": "AlmaLinux 9.6"}
BASH = Package(
    name="bash", version="5.2.15-2+b7", arch="amd64", source="bash", source_version="5.2.15-2",
    size=7_164_000,
)  # fmt: skip
VIM = Package(
    name="vim-common", version="2:8.2.2637-22.el9_6", arch="x86_64", size=29_000_000,
    source="vim-8.2.2637-22.el9_6.src.rpm", licence="Vim and MIT",
)  # fmt: skip
HOSTS = File(mode="0644", size=9, owner="0:0", content="a" * 64)
WANTS = "/etc/systemd/system/multi-user.target.wants"
LINK = File(mode="link", size=0, owner="0:0", content="/lib/systemd/system/ssh.service")
GUEST = Inventory(
    taken=1_700_000_000,
    os=DEBIAN,
    manager="dpkg",
    packages=(BASH, Package(name="libc6", version="2.36-9", arch="amd64", size=1000)),
    files={
        "/etc/hosts": HOSTS,
        "/usr/bin/bash": File(mode="0755", size=1_200_000, owner="0:0", content=None),
        f"{WANTS}/ssh.service": LINK,
        "/etc/systemd/system/apt-daily.timer": replace(LINK, content="/dev/null"),
    },
)
SUBJECT = Subject(name=f"{OS}-1.0.0_aws", version="1.0.0", artifacts=(("a.ova", "0" * 64),))
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
packages = st.builds(
    Package, name=texts, version=texts, arch=texts, source=texts, size=st.integers(0), licence=texts
)


FLEETING = (
    *("/etc/machine-id", "/etc/ssh/ssh_host_rsa_key", "/var/log/syslog", "/tmp/x"),
    *("/usr/lib/python3/__pycache__/a.pyc", "/var/lib/dpkg/info/bash.list"),
)


# --- taken in the guest ------------------------------------------------------------------------


def take(root: Path, place: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs the module by its action plugin, as tasks/clean.yml does, on the files of `root`."""
    if not (BIN / "ansible-playbook").exists():
        needs("ansible-playbook")
    arguments = {"dest": str(place / "taken"), "manager": "dpkg", "root": str(root), **options}
    play = {
        "name": "Take",
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"name": "Take", "goldimg_inventory": arguments}],
    }
    (place / "play.yml").write_text(yaml.safe_dump([play]))
    return subprocess.run(
        [BIN / "ansible-playbook", "-i", "localhost,", "-c", "local", place / "play.yml",
         "-e", f"ansible_python_interpreter={sys.executable}"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(place),
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
            "ANSIBLE_LIBRARY": str(ANSIBLE / "library"),
            "ANSIBLE_ACTION_PLUGINS": str(ANSIBLE / "action_plugins"),
            "ANSIBLE_LOCAL_TEMP": str(place / "local"),
            "ANSIBLE_REMOTE_TMP": str(place / "remote"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def write(root: Path, name: str, text: str = "", mode: int = 0o644) -> None:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def status(*entries: tuple[str, str, str]) -> str:
    """A dpkg status file: name, version, state."""
    return "\n".join(
        f"Package: {name}\nStatus: install ok {state}\nMaintainer: x <x@example.com>\n"
        f"Installed-Size: 7\nArchitecture: amd64\nSource: src-{name} (9)\nVersion: {version}\n"
        f"Description: x\n"
        for name, version, state in entries
    )


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    write(root, "/etc/os-release", 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian"\n')
    known = (("bash", "5.2", "installed"), ("old", "1", "config-files"))
    write(root, "/var/lib/dpkg/status", status(*known))
    write(root, "/etc/hosts", "127.0.0.1 localhost\n")
    write(root, "/etc/shadow", "root:$6$secret:::\n", 0o640)
    write(root, "/usr/bin/bash", "ELF", 0o755)
    for fleeting in FLEETING:
        write(root, fleeting, "differs")
    (root / WANTS.lstrip("/")).mkdir(parents=True)
    (root / WANTS.lstrip("/") / "ssh.service").symlink_to("/lib/systemd/system/ssh.service")
    (root / "etc" / os.fsdecode(b"not-utf8-\xff")).write_text("x")
    return root


def test_a_guest_tells_its_packages_files_and_services(guest: Path, tmp_path: Path) -> None:
    needs("dpkg-query")
    done = take(guest, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = load(tmp_path / "taken")
    assert found.os["ID"] == "debian"
    (bash,) = found.packages
    assert bash == Package(
        name="bash", version="5.2", arch="amd64", source="src-bash", source_version="9", size=7168
    )
    assert found.services == {"ssh.service": "enabled"}
    assert set(found.files) == {
        *("/etc/hosts", "/etc/shadow", "/etc/os-release", "/usr/bin/bash", "/etc/not-utf8-\ufffd"),
        f"{WANTS}/ssh.service",
    }
    assert found.files["/etc/hosts"].content == hashlib.sha256(b"127.0.0.1 localhost\n").hexdigest()
    assert found.files["/usr/bin/bash"].content is None
    assert found.files["/usr/bin/bash"].mode == "0755"


def test_no_digest_tells_of_a_secret(guest: Path, tmp_path: Path) -> None:
    assert take(guest, tmp_path).returncode == 0
    shadow = load(tmp_path / "taken").files["/etc/shadow"]
    assert (shadow.mode, shadow.content) == ("0640", None)
    assert b"secret" not in gzip.decompress((tmp_path / "taken").read_bytes())


def test_taking_it_leaves_no_trace_in_the_guest(guest: Path, tmp_path: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in guest.rglob("*")}
    assert take(guest, tmp_path).returncode == 0
    assert {path: path.lstat().st_mtime_ns for path in guest.rglob("*")} == before


def test_a_package_manager_that_fails_ends_the_build_with_its_words(tmp_path: Path) -> None:
    needs("dpkg-query")
    (tmp_path / "root/var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "root/var/lib/dpkg/status").write_text("nonsense\n")
    done = take(tmp_path / "root", tmp_path)
    assert done.returncode == 2
    assert "dpkg-query failed" in done.stdout
    assert not (tmp_path / "taken").exists()


def test_a_place_that_cannot_be_written_is_named(guest: Path, tmp_path: Path) -> None:
    done = take(guest, tmp_path, dest=str(tmp_path / "nowhere/taken"))
    assert done.returncode == 2
    assert f"cannot write {tmp_path}/nowhere/taken" in done.stdout.replace("\\n", "")


def test_the_clean_up_takes_nothing_that_is_told(tmp_path: Path) -> None:
    """What clean.sh deletes by an absolute path must be left out, or it is told wrongly."""
    script = (ANSIBLE / "files/clean.sh").read_text()
    source = (ANSIBLE / "library/goldimg_inventory.py").read_text()
    code = source[source.index("SKIPPED = ") : source.index("# Where people")]
    code += source[source.index("def is_told") : source.index("def digest_of")]
    scope: dict[str, Any] = {"re": re}
    exec(code, scope)  # noqa: S102 - the module itself needs Ansible around it

    def is_told(path: str) -> bool:
        parents = [str(it) for it in Path(path).parents if str(it) != "/"]
        return all(scope["is_told"](it) for it in [path, *parents])

    named = [
        word
        for line in re.findall(r"^ *rm -r?f (.*(?:\\\n.*)*)$", script, re.M)
        for word in line.replace("\\\n", " ").split()
        if word.startswith("/")
    ]
    named += ["/etc/machine-id", "/etc/resolv.conf", "/etc/ssh/ssh_host_rsa_key"]
    assert len(named) > 40
    known = {  # things of EL's installer and of a play without our ansible.cfg
        *("/etc/udev/rules.d/70-persistent-net.rules", "/root/install.log*", "/root/ks-*"),
        *("/root/cobbler.ks", "/root/.pki", "/root/.ansible_async"),
        "/etc/NetworkManager/system-connections/cloud-init-*",
    }
    told = {word for word in named if is_told(word.replace("*", "x"))}
    assert told - known == set()


# --- kept and read again -----------------------------------------------------------------------


@given(st.lists(packages, max_size=4), texts)
def test_an_inventory_is_read_as_it_was_written(some: list[Package], path: str) -> None:
    inventory = replace(GUEST, packages=tuple(some), files={path: HOSTS})
    found = parse(dump(inventory), taken=0)
    assert set(found.packages) == set(some)
    assert (found.files, found.taken) == (inventory.files, inventory.taken)
    assert dump(found) == dump(inventory)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        gzip.compress(b"[]"),
        gzip.compress(b'{"schema": 2}'),
        gzip.compress(b'{"schema": 1}'),
        dump(GUEST)[:-9],
        dump(GUEST) + b"x",
        gzip.compress(gzip.decompress(dump(GUEST)).replace(b'"dpkg"', b'"pkg"')),
        gzip.compress(gzip.decompress(dump(GUEST)).replace(b'"name"', b'"title"')),
    ],
    ids=["empty", "text", "list", "schema 2", "no members", "cut", "surplus", "manager", "package"],
)
def test_what_is_no_inventory_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.inventory.json.gz"
    path.write_bytes(data)
    with pytest.raises(VerificationFailed, match=r"x\.inventory\.json\.gz is not an inventory"):
        load(path)


def test_a_container_loses_what_its_archive_has_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    known = (("bash", "5.2.15-2+b7", "installed"), ("libc6", "2.36-9", "deinstalled"))
    write(root, "/var/lib/dpkg/status", status(*known))
    write(root, "/etc/hosts", "new\n", 0o600)
    write(root, "/usr/bin/bash", "ELF")
    write(root, "/usr/bin/other", "not in the inventory")
    archive = tmp_path / "root.tar.gz"
    with tarfile.open(archive, "w:gz") as stream:
        stream.add(root, "./")
    found = as_shipped(GUEST, archive)
    assert found.packages == (BASH,)
    assert set(found.files) == {"/etc/hosts", "/usr/bin/bash"}
    assert found.files["/etc/hosts"].mode == "0600"
    assert found.files["/etc/hosts"].content == hashlib.sha256(b"new\n").hexdigest()
    assert found.services == {}


# --- described for machines --------------------------------------------------------------------


def valid_cyclonedx(text: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error


def valid_spdx(text: str, place: Path) -> None:
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    path = place / "x.spdx.json"
    path.write_text(text)
    found = validate_full_spdx_document(parse_file(str(path)))
    assert not found, found


LIBRARY = replace(VIM, name="libstdc++", licence="GPLv3+ with exceptions")
AL = replace(GUEST, os=ALMA, manager="rpm", packages=(VIM, replace(VIM, arch="noarch"), LIBRARY))


@pytest.mark.parametrize("inventory", [GUEST, AL, replace(GUEST, os={}, packages=())])
def test_the_documents_are_what_the_standards_say(inventory: Inventory, tmp_path: Path) -> None:
    valid_cyclonedx(cyclonedx(inventory, SUBJECT))
    valid_spdx(spdx(inventory, SUBJECT), tmp_path)


def test_the_validators_would_find_a_fault(tmp_path: Path) -> None:
    broken = cyclonedx(GUEST, SUBJECT).replace('"operating-system"', '"operating system"')
    with pytest.raises(AssertionError):
        valid_cyclonedx(broken)
    member = '"relatedSpdxElement": "SPDXRef-{}"'
    broken = spdx(GUEST, SUBJECT).replace(member.format("image"), member.format("nobody"))
    with pytest.raises(AssertionError):
        valid_spdx(broken, tmp_path)


def test_the_same_image_has_the_same_documents() -> None:
    turned = replace(GUEST, packages=GUEST.packages[::-1])
    for kind in (cyclonedx, spdx):
        assert kind(GUEST, SUBJECT) == kind(turned, SUBJECT)
        other = kind(GUEST, replace(SUBJECT, name="other"))
        assert ids_in(other).isdisjoint(ids_in(kind(GUEST, SUBJECT)))


def ids_in(text: str) -> set[str]:
    found = set(re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f-]{21}", text))
    assert found
    return found


def test_package_urls_are_the_distributions() -> None:
    from packageurl import PackageURL

    assert (
        purl(BASH, "dpkg", DEBIAN)
        == "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12"
    )
    assert (
        purl(VIM, "rpm", ALMA)
        == "pkg:rpm/almalinux/vim-common@8.2.2637-22.el9_6?arch=x86_64&distro=almalinux-9.6&epoch=2"
    )
    epoch = purl(replace(BASH, version="1:2~rc1"), "dpkg", DEBIAN)
    assert epoch.startswith("pkg:deb/debian/bash@1:2~rc1?")
    redhat = purl(VIM, "rpm", {"ID": "rhel", "VERSION_ID": "9.6"})
    assert redhat.startswith("pkg:rpm/redhat/vim-common@")
    for package, manager, system in ((BASH, "dpkg", DEBIAN), (VIM, "rpm", ALMA)):
        url = purl(package, manager, system)
        read = PackageURL.from_string(url)
        assert read.to_string() == url
        assert read.name == package.name


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.+_-]*", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.+~^:_-]*", fullmatch=True),
)
def test_any_name_and_version_comes_back_from_its_package_url(name: str, version: str) -> None:
    from packageurl import PackageURL

    for manager, system in (("dpkg", DEBIAN), ("rpm", ALMA)):
        url = purl(replace(BASH, name=name, version=version), manager, system)
        read = PackageURL.from_string(url)
        qualifiers = read.qualifiers
        assert isinstance(qualifiers, dict)
        epoch = f"{qualifiers['epoch']}:" if qualifiers.get("epoch") else ""
        assert f"{epoch}{read.version}" == version


def test_the_documents_name_source_licence_and_artifact() -> None:
    bom = json.loads(cyclonedx(AL, SUBJECT))
    vim = next(it for it in bom["components"] if it["name"] == "vim-common")
    assert vim["licenses"] == [{"license": {"name": "Vim and MIT"}}]
    assert vim["properties"][0]["value"] == "vim-8.2.2637-22.el9_6.src.rpm"
    assert bom["metadata"]["component"]["properties"] == [
        {"name": "goldimg:sha256:a.ova", "value": "0" * 64}
    ]
    document = json.loads(spdx(GUEST, SUBJECT))
    image, bash = document["packages"][:2]
    assert image["checksums"] == [{"algorithm": "SHA256", "checksumValue": "0" * 64}]
    assert bash["sourceInfo"] == "built from bash 5.2.15-2"
    assert bash["licenseDeclared"] == "NOASSERTION"
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


def test_source_date_epoch_is_the_time_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(dump(GUEST))

    def made(name: str, **environ: str) -> list[bytes]:
        target = tmp_path / name
        target.mkdir()
        written = describe(
            tmp_path / "taken", target, name="x", version="1", artifacts=[], environ=environ
        )
        return [file.path.read_bytes() for file in written]

    assert made("a") == made("b")
    assert b"2023-11-14" in made("c")[1]
    assert b"2001-09-09T01:46:40Z" in made("d", SOURCE_DATE_EPOCH="1000000000")[1]
    with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        made("e", SOURCE_DATE_EPOCH="yesterday")


# --- compared ----------------------------------------------------------------------------------

NEWER = replace(
    GUEST,
    packages=(replace(BASH, version="5.3"), Package(name="zsh", version="1", arch="amd64")),
    files={
        "/etc/hosts": replace(HOSTS, content="b" * 64),
        "/etc/new": replace(HOSTS, owner="1000:1000"),
        f"{WANTS}/cron.service": LINK,
    },
)


def test_a_difference_is_what_was_added_removed_and_changed() -> None:
    found = diff(GUEST, NEWER)
    assert [(it.kind, it.name) for it in found.packages] == [
        ("changed", "bash:amd64"),
        ("removed", "libc6:amd64"),
        ("added", "zsh:amd64"),
    ]
    assert [(it.kind, it.name) for it in found.services] == [
        ("removed", "apt-daily.timer"),
        ("added", "cron.service"),
        ("removed", "ssh.service"),
    ]
    changed = {it.name: it for it in found.files}
    assert changed["/etc/hosts"].before == "0644 9 bytes aaaaaaaaaaaa"
    assert changed["/etc/new"].after == "0644 1000:1000 9 bytes aaaaaaaaaaaa"
    assert found.sizes["packages"] == (7_165_000, 7_164_000)
    assert not diff(GUEST, GUEST)


@given(st.lists(packages, max_size=4), st.lists(packages, max_size=4))
def test_a_difference_the_other_way_round_is_its_mirror(
    one: list[Package], other: list[Package]
) -> None:
    before, after = (replace(GUEST, packages=tuple(some)) for some in (one, other))
    there, back = diff(before, after), diff(after, before)
    assert [(it.name, it.before, it.after) for it in there.packages] == [
        (it.name, it.after, it.before) for it in back.packages
    ]


# --- the commands ------------------------------------------------------------------------------


def describe_in(directory: Path, inventory: Inventory, version: str) -> None:
    """Gives a finished directory the files that a build gives it."""
    finished = read_finished(directory)
    assert finished
    taken = directory.parent / "taken"
    taken.write_bytes(dump(inventory))
    artifacts = [
        Written(path=directory / str(it["file"]), size=0, sha256=str(it["sha256"]), virtual_size=0)
        for it in finished.files
    ]
    staging = directory / ".staging"
    staging.mkdir()
    name = f"{OS}-{version}_{directory.name}"
    made = describe(taken, staging, name=name, version=version, artifacts=artifacts)
    add_files(finished, staging, made)
    taken.unlink()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    shelf = Shelf(tmp_path_factory.mktemp("shelf") / "site")
    for version, inventory in (("1.9.0", GUEST), ("1.10.0", NEWER)):
        for provider in ("gcp", "openstack"):
            describe_in(shelf.finish(provider, version), inventory, version)
        write_version_sums(shelf.site, version)
    shelf.finish("gcp", "0.1.0")  # by a goldimg that took no inventory
    return shelf


def said(shelf: Shelf, *arguments: str, code: int = 0) -> str:
    done = shelf.goldimg(*arguments)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_descriptions_are_sealed_and_verified_as_the_artifacts_are(
    shelf: Shelf, tmp_path: Path
) -> None:
    directory = shelf.directory("gcp", "1.9.0")
    names = [f"{OS}-1.9.0_gcp.{kind}" for kind in (EXTENSION, CYCLONEDX, SPDX)]
    sums = (directory / SUMS).read_text()
    assert all(name in sums for name in names)
    lines = said(shelf, "verify", str(directory)).splitlines()
    assert [line for line in lines if line.endswith(": OK")] == lines
    assert len(lines) == 5  # the archive, the three and the version's list
    for name in names:
        copy = tmp_path / name
        data = bytearray((directory / name).read_bytes())
        copy.write_bytes(data)
        assert said(shelf, "verify", str(copy)).startswith(f"{copy}: OK")
        data[2] ^= 0x80  # by its format alone
        copy.write_bytes(data)
        assert name in said(shelf, "verify", str(copy), code=5)


def test_list_shows_what_is_finished_in_the_order_of_versions(shelf: Shelf) -> None:
    lines = said(shelf, "list").splitlines()
    assert lines[0].split() == [
        "os",
        "version",
        "provider",
        "built",
        "size",
        "published",
        "tested",
        "channels",
    ]
    assert [line.split()[1:3] for line in lines[1:]] == [
        ["0.1.0", "gcp"],
        *(["1.9.0", name] for name in ("gcp", "openstack")),
        *(["1.10.0", name] for name in ("gcp", "openstack")),
    ]
    found = json.loads(said(shelf, "list", "--json", "-O", OS))
    assert {it["os"] for it in found} == {OS}
    assert found[0]["published"] == []
    assert found[0]["tested"] is None
    assert found[0]["size"] == next(shelf.directory("gcp", "0.1.0").glob("*.gz")).stat().st_size
    assert json.loads(said(shelf, "list", "--json", "-O", "Debian-12")) == []


def test_list_goes_on_after_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "site")
    manifest = shelf.finish("gcp") / MANIFEST
    whole = json.loads(manifest.read_text())
    published = [{"target": "prod"}, {"target": "dev"}]
    booted = {it["file"]: it["sha256"] for it in whole["artifacts"]}
    result = {"ok": True, "artifacts": booted}
    manifest.write_text(json.dumps({**whole, "publications": published, "tests": result}))
    (shelf.finish("openstack") / MANIFEST).write_text("{")
    lines = said(shelf, "list").splitlines()
    assert lines[1].split()[-3:] == ["dev,prod", "passed", "-"]
    assert f"unreadable: artifacts/1.0.0/{OS}/openstack" in lines[2]


def test_show_tells_what_is_in_an_image(shelf: Shelf) -> None:
    text = said(shelf, "show", OS, "1.9.0", "gcp")
    assert f"contents   {DEBIAN['PRETTY_NAME']}, 2 packages, 4 files" in text
    assert "enabled    ssh.service" in text
    assert text.count(f"{OS}-1.9.0_gcp.") == 4
    assert "no inventory" in said(shelf, "show", OS, "0.1.0")
    (found,) = json.loads(said(shelf, "show", OS, "1.9.0", "gcp", "--json"))
    assert [it["name"] for it in found["packages"]] == ["bash", "libc6"]
    assert found["manifest"]["layer"] == "key"


def test_show_names_what_there_is_instead(shelf: Shelf) -> None:
    text = said(shelf, "show", OS, "7.0.0", code=2)
    assert f"error: {OS} 7.0.0 is not finished; of {OS} there is 0.1.0/gcp, 1.9.0/gcp" in text
    assert f"there is {OS}" in said(shelf, "show", "Debian-99", "1.0.0", code=2)


def test_two_versions_are_compared_for_every_provider(shelf: Shelf) -> None:
    text = said(shelf, "diff", "1.9.0", "1.10.0", "-O", OS)
    heading = f"artifacts/1.9.0/{OS}/{{0}} -> artifacts/1.10.0/{OS}/{{0}}"
    assert heading.format("gcp") in text
    assert heading.format("openstack") in text
    assert "packages: 1 added, 1 removed, 1 changed\n  ~ bash:amd64  5.2.15-2+b7 => 5.3\n" in text
    assert "  + cron.service  enabled\n" in text
    assert "  - /usr/bin/bash  0755 1200000 bytes\n" in text
    only = said(shelf, "diff", "1.9.0", "1.10.0", "-O", OS, "--only", "gcp")
    assert "openstack" not in only


def test_providers_directories_and_mixtures_are_compared(shelf: Shelf, tmp_path: Path) -> None:
    same = said(shelf, "diff", "gcp", "openstack", "-O", OS, "--version", "1.9.0")
    assert "packages: the same\nservices: the same\nfiles: the same\n" in same
    words = ("1.9.0/gcp", str(shelf.directory("gcp", "1.10.0")))
    (pair,) = json.loads(said(shelf, "diff", *words, "-O", OS, "--json"))
    assert pair["packages"]["changed"] == [
        {"name": "bash:amd64", "before": "5.2.15-2+b7", "after": "5.3"}
    ]
    assert set(pair["size"]) == {"packages", "files", "artifacts"}
    # copies of directories need no site around them
    directories = [str(shelf.directory("gcp", it)) for it in ("1.9.0", "1.10.0")]
    done = subprocess.run(
        [BIN / "goldimg", "diff", *directories], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("1.9.0", "7.7"), "'7.7' names no finished image of"),
        (("1.9.0", "1.10.0", "--only", "aws"), "have no provider in common of --only"),
        (("0.1.0/gcp", "1.9.0/gcp"), "has no inventory; it was built by a goldimg that took none"),
        (("aws", "gcp"), "'aws' names no finished image"),
    ],
)
def test_what_cannot_be_compared_is_named(shelf: Shelf, words: tuple[str, ...], told: str) -> None:
    assert told in said(shelf, "diff", *words, "-O", OS, "--version", "1.9.0", code=2)


def test_a_published_image_has_no_descriptions_among_its_files(shelf: Shelf) -> None:
    from goldimg.publish.image import files_of

    finished = read_finished(shelf.directory("gcp", "1.9.0"))
    assert finished
    assert [file.path.name for file in files_of(finished)] == [f"{OS}-1.9.0_gcp.tar.gz"]


def test_the_reference_names_every_member_of_the_file() -> None:
    text = (ROOT / "docs/inventory.md").read_text()
    members: Mapping[str, object] = json.loads(gzip.decompress(dump(AL)))
    for name in [*members, *vars(VIM)]:
        assert f"`{name}`" in text, name
