"""Catalogs: what Vagrant makes of them, what others wrote into them, and who wins."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goldimg.artifacts import add_files, read_finished
from goldimg.catalog.boxes import Box, find_boxes
from goldimg.catalog.merge import is_ours, is_usable, merge, providers_of
from goldimg.catalog.version import compare, is_version
from goldimg.config.models import SiteFile
from goldimg.errors import ConfigError
from goldimg.formats import Region, box
from goldimg.formats.source import Disk
from goldimg.providers import Boxing, all_providers
from tests.clouds.docker import dockerd
from tests.shelf import OS, Shelf
from tests.support import needs

URL = "https://boxes.example.com/images"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "a site, größer")  # a path that a URL cannot hold as it is


@pytest.fixture
def vagrant(tmp_path: Path) -> Vagrant:
    needs("vagrant")
    return Vagrant(tmp_path / "vagrant")


class Vagrant:
    """The real Vagrant, with a home of its own."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.env = {"VAGRANT_HOME": str(home), "VAGRANT_CHECKPOINT_DISABLE": "1"}

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["vagrant", *words],
            cwd=self.home,
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def boxes(self) -> list[str]:
        return self("box", "list").stdout.splitlines()


def add_boxes(shelf: Shelf, provider: str, version: str = "1.0.0") -> None:
    """What `build --boxes` does for a finished image."""
    directory = shelf.directory(provider, version)
    staging = directory / ".staging"
    staging.mkdir()
    boxing = Boxing(
        directory=directory, open_disk=lambda: Disk(shelf.disk), **shelf.job(staging, version)
    )
    finished = read_finished(directory)
    assert finished
    add_files(finished, staging, all_providers()[provider].write_boxes(boxing))


def read(shelf: Shelf, key: str = "") -> dict[str, Any]:
    found = json.loads((shelf.artifacts / f"{OS}{key}.json").read_text())
    assert isinstance(found, dict)
    return found


def test_vagrant_takes_the_catalog_and_hears_of_the_next_version(
    shelf: Shelf, vagrant: Vagrant
) -> None:
    shelf.finish(version="1.9.0")
    made = shelf.goldimg("catalog")
    assert made.returncode == 0, made.stderr
    assert f"goldimg/{OS}  1.9.0    active  virtualbox" in made.stdout
    catalog = shelf.artifacts / f"{OS}.json"
    added = vagrant("box", "add", "--provider", "virtualbox", catalog)
    assert added.returncode == 0, added.stderr
    assert vagrant.boxes() == [f"goldimg/{OS} (virtualbox, 1.9.0)"]
    assert "up to date" in vagrant("box", "outdated", "--global").stdout
    shelf.finish(version="1.10.0")
    shelf.goldimg("catalog")
    assert [it["version"] for it in read(shelf)["versions"]] == ["1.10.0", "1.9.0"]
    said = vagrant("box", "outdated", "--global").stdout
    assert "is outdated! Current: 1.9.0. Latest: 1.10.0" in said
    updated = vagrant("box", "update", "--box", f"goldimg/{OS}", "--provider", "virtualbox")
    assert updated.returncode == 0, updated.stderr
    assert f"goldimg/{OS} (virtualbox, 1.10.0)" in vagrant.boxes()


def test_vagrant_refuses_a_box_that_was_changed(shelf: Shelf, vagrant: Vagrant) -> None:
    directory = shelf.finish()
    shelf.goldimg("catalog")
    with next(directory.glob("*.box")).open("ab") as stream:
        stream.write(b"surplus")
    refused = vagrant("box", "add", "--provider", "virtualbox", shelf.artifacts / f"{OS}.json")
    assert refused.returncode != 0
    assert "checksum" in refused.stderr
    assert not any(OS in line for line in vagrant.boxes())


def test_python_vagrant_adds_the_newest_box(shelf: Shelf, vagrant: Vagrant) -> None:
    pytest.importorskip("vagrant")
    for version in ("1.0.0", "1.1.0"):
        shelf.finish(version=version)
        add_boxes(shelf, "virtualbox", version)
    asked = shelf.goldimg("catalog", "--add", **vagrant.env)
    assert asked.returncode == 1
    assert "has boxes for libvirt and virtualbox" in asked.stderr
    assert "hint: name one: --provider libvirt" in asked.stderr
    done = shelf.goldimg("catalog", "-O", OS, "--add", "--provider", "libvirt", **vagrant.env)
    assert done.returncode == 0, done.stderr
    assert f"added goldimg/{OS} 1.1.0" in done.stderr
    assert vagrant.boxes() == [f"goldimg/{OS} (libvirt, 1.1.0)"]
    assert "up to date" in vagrant("box", "outdated", "--global").stdout


@pytest.mark.parametrize(("image", "kind"), [("aws", "virtualbox"), ("azure", "libvirt")])
def test_a_debugging_box_has_a_catalog_of_its_own(
    shelf: Shelf, vagrant: Vagrant, image: str, kind: str
) -> None:
    shelf.finish(image)
    before = {path: path.stat() for path in shelf.directory(image).glob(f"{OS}*")}
    add_boxes(shelf, image)
    assert all(path.stat() == then for path, then in before.items())  # the image is not touched
    shelf.goldimg("catalog")
    assert not (shelf.artifacts / f"{OS}.json").exists()
    added = vagrant("box", "add", "--provider", kind, shelf.artifacts / f"{OS}_{image}.json")
    assert added.returncode == 0, added.stderr
    assert vagrant.boxes() == [f"goldimg/{OS}_{image} ({kind}, 1.0.0)"]
    verified = shelf.goldimg("verify", "-O", OS)
    assert verified.returncode == 0, verified.stderr
    assert f"_{image}.box: OK" in verified.stdout
    (inside,) = vagrant.home.glob("boxes/*/1.0.0/*/Vagrantfile")
    assert 'config.ssh.username = "root"' in inside.read_text()


def test_a_box_for_docker_builds_its_image_from_itself(tmp_path: Path, vagrant: Vagrant) -> None:
    """By the real Vagrant and the real Docker: it is built, runs, and is gone again."""
    needs("busybox", "docker", "tar")
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), tree / "bin/sleep")
    shutil.copy(str(shutil.which("busybox")), tree / "bin/cat")
    (tree / "marker").write_text("golden")
    archive, target = tmp_path / "rootfs.tar.gz", tmp_path / "it.box"
    subprocess.run(["tar", "-C", tree, "-czf", archive, "."], check=True)
    box.write_docker(Region.whole(archive), target)
    box.check(target)
    assert vagrant("box", "add", "--name", "mine/docker", target).returncode == 0
    (vagrant.home / "Vagrantfile").write_text(
        'Vagrant.configure("2") { |config| config.vm.box = "mine/docker" }\n'
    )
    with dockerd() as engine:
        vagrant.env["DOCKER_HOST"] = engine.url
        up = vagrant("up", "--provider", "docker")
        assert up.returncode == 0, up.stderr
        container = (vagrant.home / ".vagrant/machines/default/docker/id").read_text()
        said = subprocess.run(
            ["docker", "--host", engine.url, "exec", container, "cat", "/marker"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout == "golden"
        assert vagrant("destroy", "--force").returncode == 0


@pytest.fixture
def web(shelf: Shelf) -> Iterator[str]:
    """artifacts/ on a web server."""
    handler = functools.partial(QuietHandler, directory=str(shelf.artifacts))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_configured_url_is_where_others_find_the_boxes(
    shelf: Shelf, vagrant: Vagrant, web: str
) -> None:
    shelf.finish()
    (shelf.site.templates / "site.yml").write_text(f"namespace: acme\ncatalog: {{url: {web}}}\n")
    done = shelf.goldimg("catalog", "--json")
    (entry,) = json.loads(done.stdout)[f"{OS}.json"]["versions"][0]["providers"]
    assert entry["url"] == f"{web}/1.0.0/{OS}/virtualbox/{OS}-1.0.0_virtualbox.box"
    added = vagrant("box", "add", "--provider", "virtualbox", f"{web}/{OS}.json")
    assert added.returncode == 0, added.stderr
    assert vagrant.boxes() == [f"acme/{OS} (virtualbox, 1.0.0)"]


def test_a_url_that_is_none_is_told_with_its_place(shelf: Shelf) -> None:
    (shelf.site.templates / "site.yml").write_text("catalog:\n  url: ftp://example.com\n")
    done = shelf.goldimg("catalog")
    assert done.returncode == ConfigError.code
    assert "templates/site.yml:2:3: catalog.url: must be an http:// or https:// URL" in done.stderr


def test_what_others_wrote_stays_and_what_is_gone_goes(shelf: Shelf) -> None:
    shelf.finish(version="1.0.0")
    shelf.finish(version="1.1.0")
    shelf.goldimg("catalog")
    catalog = read(shelf)
    catalog["description"] = "Our machines"
    catalog["contact"] = {"mail": "root@example.com"}
    catalog["versions"][0]["notes"] = "with the new agent"
    catalog["versions"][1]["providers"].append({"name": "hyperv", "url": "https://example.com/h"})
    foreign = {"version": "0.9", "providers": [{"name": "virtualbox", "url": "https://x.com/b"}]}
    catalog["versions"].append(foreign)
    (shelf.artifacts / f"{OS}.json").write_text(json.dumps(catalog))
    shutil.rmtree(shelf.artifacts / "1.0.0")
    shelf.finish(version="1.2.0")
    shelf.goldimg("catalog")
    after = read(shelf)
    assert after["description"] == "Our machines"
    assert after["contact"] == {"mail": "root@example.com"}
    assert [it["version"] for it in after["versions"]] == ["1.2.0", "1.1.0", "1.0.0", "0.9"]
    assert after["versions"][1]["notes"] == "with the new agent"
    assert [it["name"] for it in after["versions"][2]["providers"]] == ["hyperv"]
    assert after["versions"][3] == foreign
    shutil.rmtree(shelf.artifacts / "1.2.0")
    shelf.goldimg("catalog")
    assert [it["version"] for it in read(shelf)["versions"]] == ["1.1.0", "1.0.0", "0.9"]


def test_a_catalog_that_is_right_is_not_written_again(shelf: Shelf) -> None:
    shelf.finish()
    shelf.goldimg("catalog")
    path = shelf.artifacts / f"{OS}.json"
    before = path.stat().st_mtime_ns
    shelf.goldimg("catalog")
    assert path.stat().st_mtime_ns == before
    assert shelf.goldimg("catalog", "--check").returncode == 0


def test_the_entry_of_somebody_else_wins_over_a_box_of_ours(shelf: Shelf) -> None:
    shelf.finish()
    theirs = {"name": "virtualbox", "url": "https://example.com/theirs.box"}
    catalog = {"name": "x", "versions": [{"version": "1.0.0", "providers": [theirs]}]}
    (shelf.artifacts / f"{OS}.json").write_text(json.dumps(catalog))
    done = shelf.goldimg("catalog")
    assert "1.0.0 for virtualbox: kept the entry that somebody else wrote" in done.stderr
    assert read(shelf)["versions"][0]["providers"] == [theirs]


def test_a_catalog_written_by_hand_for_the_original_is_taken_over(shelf: Shelf) -> None:
    directory = shelf.finish()
    url = next(directory.glob("*.box")).as_uri()
    entry = {"name": "virtualbox", "url": url, "checksum_type": "sha1", "checksum": "0" * 40}
    catalog = {"name": f"ns/{OS}", "versions": [{"version": "1.0.0", "providers": [entry]}]}
    (shelf.artifacts / f"{OS}.json").write_text(json.dumps(catalog))
    assert shelf.goldimg("catalog").returncode == 0
    (now,) = read(shelf)["versions"][0]["providers"]
    assert now["checksum_type"] == "sha256"
    assert now["checksum"] == find_boxes(shelf.artifacts, OS)[0].sha256
    assert is_ours(now)


def test_check_names_every_fault_and_writes_nothing(shelf: Shelf) -> None:
    directory = shelf.finish()
    missing = shelf.goldimg("catalog", "--check")
    assert missing.returncode == 5
    assert f"artifacts/{OS}.json: there is no such file, and there are boxes" in missing.stderr
    shelf.goldimg("catalog")
    catalog = read(shelf)
    own = next(directory.glob("*.ova")).as_uri()
    catalog["versions"] += [
        {"version": "latest", "providers": [{"name": "virtualbox", "url": "https://x.com/b"}]},
        {"version": "0.1", "providers": []},
        {"version": "0.2", "providers": [{"name": "virtualbox", "url": "boxes/b.box"}]},
        {"version": "0.3", "providers": [{"name": "v", "url": "file:///nonexistent/b.box"}]},
        {"version": "0.4", "providers": [
            {"name": "v", "url": own, "checksum_type": "sha256", "checksum": "0" * 64}]},
        {"version": "0.5", "providers": [
            {"name": "v", "url": own, "checksum_type": "sha256", "checksum": "abc"}]},
    ]  # fmt: skip
    path = shelf.artifacts / f"{OS}.json"
    path.write_text(json.dumps(catalog))
    before = path.read_bytes()
    done = shelf.goldimg("catalog", "--check")
    assert done.returncode == 5
    for fault in (
        "version 'latest': no version for Vagrant, which refuses the whole file",
        "version 0.1 has no provider",
        "version 0.2: virtualbox: 'boxes/b.box' is not absolute",
        "version 0.3: v: /nonexistent/b.box does not exist",
        "has another checksum",
        "version 0.5: v: checksum and checksum_type do not fit together",
    ):
        assert fault in done.stderr
    assert path.read_bytes() == before


def test_check_misses_a_box_that_is_not_listed(shelf: Shelf) -> None:
    shelf.finish()
    shelf.goldimg("catalog")
    shelf.finish(version="1.1.0")
    done = shelf.goldimg("catalog", "--check")
    assert done.returncode == 5
    assert "it does not list exactly the boxes that there are" in done.stderr


def test_a_broken_catalog_is_named_and_kept(shelf: Shelf) -> None:
    shelf.finish()
    (shelf.artifacts / f"{OS}.json").write_text('{"name": ')
    done = shelf.goldimg("catalog")
    assert done.returncode == 5
    assert f"{OS}.json is not a catalog" in done.stderr
    assert (shelf.artifacts / f"{OS}.json").read_text() == '{"name": '


def test_without_boxes_it_says_how_to_get_some(shelf: Shelf) -> None:
    done = shelf.goldimg("catalog")
    assert done.returncode == 2
    assert "there are no boxes in artifacts/" in done.stderr
    assert "--boxes" in done.stderr


def test_builds_side_by_side_lose_nothing_of_one_another(shelf: Shelf) -> None:
    code = (
        "import sys; from pathlib import Path; from goldimg.catalog.local import update;"
        "from goldimg.artifacts import write_version_sums; from tests.shelf import OS, Shelf;"
        "s = Shelf(Path(sys.argv[1])); v = sys.argv[2]; s.finish(version=v);"
        "write_version_sums(s.site, v); update(s.site, 'ns', OS, 'https://example.com')"
    )
    versions = [f"1.{number}.0" for number in range(8)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, shelf.site.root, version],
            cwd=Path(__file__).parent.parent,
        )
        for version in versions
    ]
    assert [process.wait(120) for process in running] == [0] * len(versions)
    assert [it["version"] for it in read(shelf)["versions"]] == versions[::-1]
    assert shelf.goldimg("catalog", "--var", "catalog.url=https://example.com",
                         "--var", "namespace=ns", "--check").returncode == 0  # fmt: skip


# --- merging, for any catalog and any boxes


versions = st.from_regex(r"[0-3]\.[0-3](\.[0-2])?(-(rc|beta)\.[1-2])?", fullmatch=True)
names = st.sampled_from(["virtualbox", "libvirt", "hyperv"])
their_providers = st.fixed_dictionaries(
    {"name": names, "url": st.just("https://example.com/their.box")},
    optional={"note": st.text(max_size=3), "architecture": st.sampled_from(["amd64", "arm64"])},
)
their_versions = st.fixed_dictionaries(
    {"version": st.one_of(versions, st.just("latest"))},
    optional={
        "providers": st.lists(their_providers, max_size=2),
        "status": st.sampled_from(["active", "revoked"]),
        "note": st.text(max_size=3),
    },
)
their_catalogs = st.fixed_dictionaries(
    {},
    optional={
        "versions": st.lists(st.one_of(their_versions, st.just("nonsense")), max_size=4),
        "description": st.text(max_size=5),
        "extra": st.integers(),
    },
)
box_sets = st.dictionaries(st.tuples(versions, names), st.binary(min_size=32, max_size=32)).map(
    lambda found: [
        Box(
            os_name=OS,
            version=version,
            provider=name,
            catalog="",
            path=f"{version}/{OS}/virtualbox/{name}.box",
            size=1,
            sha256=digest.hex(),
        )
        for (version, name), digest in found.items()
    ]
)


def merged(existing: dict[str, Any] | None, boxes: list[Box], url: str = URL) -> dict[str, Any]:
    return merge(existing, boxes, name=f"ns/{OS}", description="d", base_url=url).catalog


def theirs(catalog: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every provider entry that goldimg did not write, with its version."""
    return [
        (str(version.get("version")), entry)
        for version in catalog.get("versions", [])
        for entry in providers_of(version)
        if not is_ours(entry)
    ]


@given(existing=their_catalogs, first=box_sets, second=box_sets)
def test_merging_keeps_what_is_theirs_and_lists_what_is_ours(
    existing: dict[str, Any], first: list[Box], second: list[Box]
) -> None:
    before = json.dumps(existing)
    once = merged(existing, first)
    assert json.dumps(existing) == before
    assert merged(once, first) == once
    then = merged(once, second)
    kept = sorted(theirs(existing), key=repr)
    assert sorted(theirs(once), key=repr) == kept
    assert sorted(theirs(then), key=repr) == kept
    assert then.get("extra") == existing.get("extra")
    assert then["description"] == existing.get("description", "d")
    nonsense = [it for it in existing.get("versions", []) if it == "nonsense"]
    assert [it for it in then["versions"] if it == "nonsense"] == nonsense
    ours = {
        (version["version"], entry["name"], entry["checksum"])
        for version in then["versions"]
        for entry in providers_of(version)
        if is_ours(entry)
    }
    listed = {(it.version, it.provider, it.sha256) for it in second}
    assert ours <= listed
    taken = {(version, entry["name"]) for version, entry in theirs(existing)}
    assert {it for it in listed if it[:2] not in taken} <= ours


@given(boxes=box_sets)
def test_without_others_nothing_is_left_of_boxes_that_are_gone(boxes: list[Box]) -> None:
    catalog = merged(None, boxes)
    assert {it["version"] for it in catalog["versions"]} == {it.version for it in boxes}
    assert merged(catalog, [])["versions"] == []
    elsewhere = merged(catalog, boxes, "https://other.example.com/x/")
    urls = [entry["url"] for version in elsewhere["versions"] for entry in version["providers"]]
    assert all(url.startswith("https://other.example.com/x/") for url in urls)
    assert len(urls) == len(boxes)


@given(existing=their_catalogs, boxes=box_sets)
def test_the_newest_usable_version_comes_first(existing: dict[str, Any], boxes: list[Box]) -> None:
    found = [it for it in merged(existing, boxes)["versions"] if isinstance(it, dict)]
    usable = [is_version(it["version"]) and is_usable(it) for it in found]
    assert usable == sorted(usable, reverse=True)
    numbers = [it["version"] for it, is_good in zip(found, usable, strict=True) if is_good]
    assert all(compare(newer, older) >= 0 for newer, older in itertools.pairwise(numbers))


RUBY = """
require "json"
pairs, texts = JSON.parse($stdin.read)
sorts = pairs.map { |one, other| Gem::Version.new(one) <=> Gem::Version.new(other) }
puts JSON.dump([sorts, texts.map { |text| Gem::Version.correct?(text) ? true : false }])
"""
any_version = st.from_regex(
    r"[0-9]{1,2}(\.[0-9a-cA-C]{1,3}){0,4}(-[0-9a-c.-]{1,5})?", fullmatch=True
).filter(is_version)
any_text = st.one_of(
    any_version, st.text("0aA.-_ \n", max_size=6), st.sampled_from(["", " 1.0 ", "v1", "1..2"])
)


@settings(max_examples=15, deadline=None)
@given(
    pairs=st.lists(st.tuples(any_version, any_version), min_size=50, max_size=200),
    texts=st.lists(any_text, min_size=20, max_size=100),
)
def test_versions_are_ordered_as_ruby_orders_them(
    pairs: list[tuple[str, str]], texts: list[str]
) -> None:
    needs("ruby")
    done = subprocess.run(
        ["ruby", "-W0", "-e", RUBY],
        input=json.dumps([pairs, texts]),
        capture_output=True,
        text=True,
        check=True,
    )
    sorts, correct = json.loads(done.stdout)
    assert [compare(one, other) for one, other in pairs] == sorts
    assert [is_version(text) for text in texts] == correct


@given(numbers=st.lists(versions, min_size=1))
def test_every_version_of_a_site_is_one_for_vagrant(numbers: list[str]) -> None:
    for number in numbers:
        assert SiteFile(version=number).version == number
        assert is_version(number)


def test_boxes_are_told_apart_by_what_is_in_them(shelf: Shelf) -> None:
    shelf.finish()
    add_boxes(shelf, "virtualbox")
    shelf.finish("gcp")
    add_boxes(shelf, "gcp")
    found = {
        (it.provider, it.catalog, Path(it.path).name) for it in find_boxes(shelf.artifacts, OS)
    }
    assert found == {
        ("virtualbox", "", f"{OS}-1.0.0_virtualbox.box"),
        ("libvirt", "", f"{OS}-1.0.0_libvirt.box"),
        ("libvirt", "gcp", f"{OS}-1.0.0_gcp.box"),
    }
