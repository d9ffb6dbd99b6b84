"""Where ISOs and packages come from: a site's own copies first, then the servers, in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.config import Settings, load_settings
from goldimg.errors import BuildFailed, GoldimgError
from goldimg.events import Bus, Event
from goldimg.iso.debian.mirror import Mirrors
from goldimg.iso.expected import digest_in
from goldimg.iso.fetch import locate
from goldimg.iso.obtain import obtain_iso
from goldimg.iso.reach import check_repositories, missing_repositories, preflight, repositories
from goldimg.project import Site
from goldimg.run import Runner
from tests.packing import PackingSite
from tests.test_fetch import BODY, QUICK, SHA256, Mirror, mirror, other

__all__ = ["mirror", "other"]  # fixtures

ISO = "/9/isos/x86_64/Rocky-9-latest-x86_64-boot.iso"
BASE, APPS = "/9/BaseOS/x86_64/os/repodata/repomd.xml", "/9/AppStream/x86_64/os/repodata/repomd.xml"
LIST = f"SHA256 (Rocky-9.8-x86_64-boot.iso) = {SHA256}\n".encode()


def rocky(tmp_path: Path, server: str, own: str = "", **keys: str) -> Settings:
    """Rocky-9 as it is shipped, with its servers replaced by ours."""
    site = Site(root=tmp_path)
    site.os_dir.mkdir(parents=True, exist_ok=True)
    text = f"os_mirrors: {{Rocky: '{own}'}}\n" if own else "version: 1.0.0\n"
    (site.templates / "site.yml").write_text(text)
    lines = {
        "os_name": "Rocky",
        "os_version": '"9"',
        "iso": "Rocky-9-latest-x86_64-boot",
        "iso_checksum": "file:{iso_server}/{os_version}/isos/x86_64/{iso_file}.CHECKSUM",
        "iso_server": server,
        "repo_server": server,
    } | keys
    (site.os_dir / "Rocky-9.yml").write_text("".join(f"{k}: {v}\n" for k, v in lines.items()))
    return load_settings(site, "Rocky-9", environ={})


def full(server: Mirror) -> None:
    """The server has the ISO, its list, and both repositories."""
    server.files |= {ISO: BODY, f"{ISO}.CHECKSUM": LIST, BASE: b"<repomd/>", APPS: b"<repomd/>"}


# --- ISOs --------------------------------------------------------------------------------------


def test_the_sites_own_copy_is_asked_first(tmp_path: Path, mirror: Mirror, other: Mirror) -> None:
    full(mirror)
    full(other)
    settings = rocky(tmp_path, other.url, own=mirror.url)
    assert locate(settings, tmp_path / "cache", policy=QUICK).source == mirror.url + ISO
    assert settings.repo_url() == f"{mirror.url}/9/BaseOS/x86_64/os"
    assert not other.requests


def test_one_mirror_may_be_for_isos_or_packages_alone(tmp_path: Path) -> None:
    settings = rocky(tmp_path, "http://official.example.com")
    site = Site(root=tmp_path)
    text = "os_mirrors: {Rocky-9: {repo: 'http://m.example.com'}, Rocky: 'http://no.example.com'}\n"
    (site.templates / "site.yml").write_text(text)
    changed = load_settings(site, "Rocky-9", environ={})
    assert changed.iso_urls() == settings.iso_urls()
    assert changed.repo_url() == "http://m.example.com/9/BaseOS/x86_64/os"
    assert dict(changed.extra_repos())["AppStream"].startswith("http://m.example.com/9/")
    # playbooks are told the same
    assert changed.packer_os()["repo_server"] == "http://m.example.com"


def test_the_command_line_wins_over_the_sites_mirror(tmp_path: Path) -> None:
    rocky(tmp_path, "http://official.example.com", own="http://own.example.com")
    asked = ["repo_server=http://once.example.com"]
    settings = load_settings(Site(root=tmp_path), "Rocky-9", environ={}, variables=asked)
    assert settings.repo_url() == "http://once.example.com/9/BaseOS/x86_64/os"
    assert settings.iso_urls()[0].startswith("http://own.example.com/")


def test_the_next_server_is_tried_and_said_so(
    tmp_path: Path, mirror: Mirror, other: Mirror
) -> None:
    """A point release that has moved: neither the ISO nor its list is there any more."""
    full(other)
    settings = rocky(tmp_path, mirror.url, mirrors=f"[{other.url}]")
    said: list[str] = []
    bus = Bus()

    def listen(event: Event) -> None:
        said.append(event.text)

    bus.subscribe(listen)
    assert preflight(settings, tmp_path / "cache", policy=QUICK) == []
    assert obtain_iso(settings, None, tmp_path / "cache", Runner(), bus).sha256 == SHA256
    assert f"not at {mirror.url}{ISO}: HTTP 404 Not Found" in said


def test_when_nobody_has_it_one_message_names_all(
    tmp_path: Path, mirror: Mirror, other: Mirror
) -> None:
    settings = rocky(tmp_path, other.url, own=mirror.url)
    with pytest.raises(GoldimgError, match="no checksum list of Rocky-9-latest") as caught:
        locate(settings, tmp_path / "cache", policy=QUICK)
    assert [mirror.url in caught.value.details[0], other.url in caught.value.details[1]] == [
        True
    ] * 2
    mirror.files[f"{ISO}.CHECKSUM"] = LIST
    with pytest.raises(GoldimgError, match="cannot fetch Rocky-9-latest") as caught:
        locate(settings, tmp_path / "cache", policy=QUICK)
    assert [line.partition(": ")[0] for line in caught.value.details] == [
        mirror.url + ISO,
        other.url + ISO,
    ]
    assert "put one into iso_dir" in caught.value.hint


def test_an_iso_in_the_sites_directory_wins_even_offline(tmp_path: Path, mirror: Mirror) -> None:
    full(mirror)
    (tmp_path / "isos").mkdir()
    local = tmp_path / "isos/Rocky-9-latest-x86_64-boot.iso"
    local.write_bytes(BODY)
    local.with_name(f"{local.name}.CHECKSUM").write_bytes(LIST)
    settings = rocky(tmp_path, mirror.url)
    assert settings.iso_path == local
    assert preflight(settings, tmp_path / "cache", policy=QUICK) == []
    assert locate(settings, tmp_path / "cache", policy=QUICK).source == "local"
    assert not mirror.requests
    local.write_bytes(BODY + b"x")
    with pytest.raises(GoldimgError, match="is not the ISO that was asked for"):
        locate(settings, tmp_path / "cache", policy=QUICK)


def test_a_list_of_all_isos_may_lie_beside_it_too(tmp_path: Path) -> None:
    (tmp_path / "isos").mkdir()
    local = tmp_path / "isos/Rocky-9-latest-x86_64-boot.iso"
    local.write_bytes(BODY)
    (tmp_path / "isos/SHA256SUMS").write_text(f"{'0' * 64}  other.iso\n{SHA256} *{local.name}\n")
    settings = rocky(tmp_path, "http://127.0.0.1:9")
    assert locate(settings, tmp_path / "cache", policy=QUICK).path == local


@pytest.mark.parametrize(
    ("text", "listing", "expected"),
    [
        (LIST.decode(), "x.iso.CHECKSUM", SHA256),  # "latest" stands for another name
        (LIST.decode(), "CHECKSUM", None),
        (LIST.decode() + f"SHA256 (y.iso) = {'0' * 64}\n", "x.iso.CHECKSUM", None),
        (f"{SHA256}\n", "x.iso.sha256", SHA256),
        (f"{SHA256}\n", "SHA256SUMS", None),
        (f"{SHA256}  x.iso\n{'0' * 64}  y.iso\n", "SHA256SUMS", SHA256),
    ],
)
def test_a_list_called_after_the_iso_is_its_own(
    text: str, listing: str, expected: str | None
) -> None:
    assert digest_in(text, "x.iso", listing) == expected


# --- packages ----------------------------------------------------------------------------------


def test_every_repository_is_asked_for_what_an_installer_reads(
    tmp_path: Path, mirror: Mirror
) -> None:
    full(mirror)
    settings = rocky(tmp_path, mirror.url)
    assert missing_repositories(settings, policy=QUICK) == []
    assert mirror.paths("HEAD") == [BASE, APPS]
    assert not mirror.paths("GET")
    del mirror.files[APPS]
    assert missing_repositories(settings, policy=QUICK) == [f"{mirror.url}{APPS}: HTTP 404"]


def test_a_release_that_moved_to_the_vault_is_found_there(
    tmp_path: Path, mirror: Mirror, other: Mirror
) -> None:
    full(other)
    settings = rocky(tmp_path, mirror.url, mirrors=f"[{other.url}]")
    failures = missing_repositories(settings, policy=QUICK)
    assert len(failures) == 3
    assert failures[-1].startswith(f"but {other.url}/9/BaseOS/x86_64/os is there: set repo_server")
    with pytest.raises(BuildFailed, match="Rocky-9 cannot be installed") as caught:
        check_repositories(settings)
    assert caught.value.details == tuple(failures)
    assert "os_mirrors.Rocky" in caught.value.hint


def test_a_server_on_this_host_is_asked_as_this_host_reaches_it(
    tmp_path: Path, mirror: Mirror
) -> None:
    full(mirror)
    settings = rocky(tmp_path, mirror.url.replace("127.0.0.1", "10.0.2.2"))
    assert missing_repositories(settings, policy=QUICK) == []


def test_a_debian_repository_is_known_by_its_release_file(tmp_path: Path, mirror: Mirror) -> None:
    site = Site(root=tmp_path)
    site.os_dir.mkdir(parents=True)
    (site.templates / "site.yml").write_text("version: 1.0.0\n")
    (site.os_dir / "Debian-13.yml").write_text("os_name: Debian\nos_version: '13'\n")
    settings = load_settings(site, "Debian-13", environ={})
    mirrors = Mirrors(main=f"{mirror.url}/debian", security=None)
    mirror.files["/debian/dists/trixie/Release"] = b"Origin: Debian\n"
    assert [it.probe for it in repositories(settings, mirrors)] == [
        f"{mirror.url}/debian/dists/trixie/Release"
    ]
    assert missing_repositories(settings, mirrors, policy=QUICK) == []
    assert missing_repositories(settings, None, policy=QUICK)[0].startswith("Debian-13 has no pack")


# --- a whole build -----------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Iterator[PackingSite]:
    made = PackingSite(tmp_path)
    yield made
    made.end()


def test_no_vm_starts_for_packages_that_are_not_there(place: PackingSite, mirror: Mirror) -> None:
    words = ["--var", f"repo_server={mirror.url}", "--var", "check_sources=true"]
    done = place.build("--only", "gcp", *words)
    assert done.returncode == 1
    assert "CentOS-7.2.1511 cannot be installed: its packages cannot be had" in done.stderr
    assert f"{mirror.url}/7.2.1511/os/x86_64/repodata/repomd.xml: HTTP 404" in done.stderr
    assert not [call for call in place.calls() if call.startswith("build")]

    mirror.files["/7.2.1511/os/x86_64/repodata/repomd.xml"] = b"<repomd/>"
    done = place.build("--only", "gcp", *words)
    assert done.returncode == 0, done.stderr
    mirror.files.clear()
    # openstack's base is gcp's, which stands: nothing is installed, so nobody is asked
    done = place.build("--only", "openstack", *words)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((place.directory("openstack") / "manifest.json").read_text())
    assert manifest["inputs"]["iso"]["name"] == "tiny.iso"
