"""Images that are built twice, and what is told of the differences."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from goldimg.again import Compared
from goldimg.again_report import compared_json, compared_text
from goldimg.errors import VerificationFailed
from goldimg.formats import rootfs, tree
from goldimg.formats.source import Disk
from goldimg.formats.tree import Different
from goldimg.inventory.diff import Changed
from goldimg.run import Runner
from tests.packing import OS, PackingSite
from tests.root_disks import ext4_disk, make_tree

LATE = 2_000_000_000
SINCE = 1_000_000_000
# What layers are told stays here; and the next one has a byte of its own where `unlike` is.
UNLIKE = """\
with (here / "told").open("a") as stream:
    told = [variables[key] for key in ("goldimg_stage", "packer_build_name", "goldimg_epoch",
                                       "goldimg_root_hash")]
    stream.write(json.dumps(told) + "\\n")
if builder.get("use_backing_file") and (here / "unlike").exists():
    subprocess.run(["qemu-io", "-c", f"write -P {time.time_ns() % 250 + 1} 5M 4k",
                    output / "disk.qcow2"], stdout=-3)
raw.unlink()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> PackingSite:
    packing = PackingSite(tmp_path_factory.mktemp("again"))
    packer = packing.fake / "packer.py"
    packer.write_text(packer.read_text().replace("raw.unlink()\n", UNLIKE))
    return packing


def state(packing: PackingSite) -> dict[Path, tuple[int, int]]:
    """All that is finished, and whether anybody has touched it."""
    found = [path for path in (packing.root / "artifacts").rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in found}


def test_a_second_build_gives_the_same_artifact_and_touches_nothing(site: PackingSite) -> None:
    done = site.build("--only", "gcp,openstack")
    assert done.returncode == 0, done.stderr
    before, _ = state(site), site.calls()
    first = told_to_layers(site)
    done = site.build("--only", "gcp,openstack", "--verify-reproducible")
    assert done.returncode == 0, done.stderr
    for name in ("gcp", "openstack"):
        assert f"{OS} 1.0.0 {name}: identical artifact\n  {OS}-1.0.0_{name}" in done.stdout
    # layers only, each provisioned anew
    assert sorted(site.calls()) == [f"{word} {name}" for word in ("build", "validate")
                                    for name in ("gcp", "openstack")]  # fmt: skip
    assert state(site) == before
    assert not (site.root / ".cache/again").exists()
    assert site.leftovers() == []
    # the same hash of root's password and the same day, and in each image a salt of its own
    assert told_to_layers(site) == first
    assert len({it[-1] for it in first}) == 2
    assert all(it[-1].startswith("$6$rounds=100000$") for it in first)
    (manifest,) = (site.root / ".cache/bases").glob("*/manifest.json")
    installed = str(int((manifest.parent / "disk.qcow2").stat().st_mtime))
    assert {it[2] for it in first} == {installed}


def told_to_layers(packing: PackingSite) -> list[list[str]]:
    """Provider, time and root's hash that the playbooks were given since the last time."""
    path = packing.fake / "told"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    return sorted(line for line in lines if line[0] == "layer")


def test_what_differs_is_an_error_of_its_own(site: PackingSite) -> None:
    (site.fake / "unlike").touch()
    try:
        done = site.build("--only", "gcp", "--verify-reproducible", "--json")
    finally:
        (site.fake / "unlike").unlink()
    assert done.returncode == 5, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["identical"] is False
    (pair,) = found["artifacts"].values()
    assert pair["first"] != pair["second"]
    # the stand-in's disks hold no file system
    assert found["files"] is None
    assert found["error"]
    assert not (site.root / ".cache/again").exists()


def test_a_second_build_that_fails_leaves_the_first_alone(site: PackingSite) -> None:
    before = state(site)
    (site.fake / "fail-gcp").touch()
    try:
        done = site.build("--only", "gcp", "--verify-reproducible")
    finally:
        (site.fake / "fail-gcp").unlink()
    assert done.returncode == 1
    assert "gcp: the second build failed: " in done.stderr
    assert state(site) == before
    assert site.leftovers() == []


def test_what_a_killed_second_build_left_goes_with_the_next(site: PackingSite) -> None:
    left = site.root / ".cache/again/layers/x.work"
    left.mkdir(parents=True)
    (left / "owner").write_text("1-1-1")
    done = site.build("--only", "gcp")
    assert done.returncode == 0, done.stderr
    assert not left.parents[1].exists()


# --- files -------------------------------------------------------------------------------------


def archive(directory: Path, name: str, newest: int | None = None) -> Path:
    raw = ext4_disk(directory, directory.parent / f"{name}.raw")
    with Disk(raw) as disk:
        target = directory.parent / f"{name}.tar.gz"
        return rootfs.write(disk, target, runner=Runner(), newest=newest).path


def test_every_way_in_which_a_file_can_differ_is_told(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree")
    before = tree.read(archive(root, "a"))
    same = tree.differences(before, tree.read(archive(root, "b")))
    assert [it for it in same if it.path != "/"] == []  # mke2fs makes that one anew
    (root / "etc/os-release").write_text("other")
    (root / "etc/hostname").chmod(0o600)
    (root / "etc/new").write_text("new")
    (root / "etc/link").unlink()
    (root / "etc/link").symlink_to("os-release")
    (root / "tmp/-rf").unlink()
    os.chown(root / "etc/fstab", 5, 6)
    os.utime(root / "etc/debian_version", (1, 1))
    subprocess.run(["setfattr", "-x", "user.note", root / "etc/hostname"], check=True)
    found = {it.path: it for it in tree.differences(before, tree.read(archive(root, "c")))}
    assert found["/etc/os-release"].what[0] == "content"
    assert found["/etc/os-release"].sizes[1] == 5
    assert {"mode", "attributes"} <= set(found["/etc/hostname"].what)
    assert (found["/etc/new"].kind, found["/etc/new"].what) == ("added", ())
    assert "content" in found["/etc/link"].what
    assert found["/tmp/-rf"].kind == "removed"
    assert found["/etc/fstab"].what == ("owner",)
    assert found["/etc/debian_version"].is_time


def test_no_archive_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(VerificationFailed, match=r"x\.tar\.gz"):
        tree.read(path)


def test_what_changed_later_than_it_may_is_told_to_have_changed_then(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree")
    long_name = root / "etc" / ("n" * 180)
    for path, when in ((root / "etc/hostname", LATE), (root / "etc/fstab", SINCE - 1)):
        os.utime(path, (when, when))
    long_name.write_text("x")
    path = archive(root, "a", SINCE)
    rootfs.check(path)
    subprocess.run(["tar", "-tzf", path], check=True, capture_output=True)
    members = tree.read(path)
    assert members["/etc/hostname"].time == SINCE
    assert members["/etc/fstab"].time == SINCE - 1
    assert max(it.time for it in members.values()) == SINCE
    os.utime(root / "etc/hostname", (LATE + 1, LATE + 1))
    long_name.touch()
    again = archive(root, "b", SINCE)
    assert again.read_bytes() == path.read_bytes()


# --- told --------------------------------------------------------------------------------------

TWO = {"a.qcow2": ("0" * 64, "1" * 64)}
TIME = Different(path="/etc/x", kind="changed", what=("time",), sizes=(1, 1))
CONTENT = replace(TIME, path="/etc/y", what=("content", "time"), sizes=(1, 2))


def told(artifacts: Mapping[str, tuple[str, str]] = TWO, *, is_verbose: bool = False,
         **more: object) -> str:  # fmt: skip
    compared = Compared(provider="gcp", artifacts=artifacts, **more)  # type: ignore[arg-type]
    json.loads(compared_json([compared]))
    return "\n".join(compared_text("Debian-12 1.0.0", [compared], is_verbose=is_verbose))


def test_times_alone_are_no_difference_of_files() -> None:
    text = told(files=(TIME,))
    assert text.startswith("Debian-12 1.0.0 gcp: the same files, another artifact")
    assert "files: the same; 1 differ in nothing but their times" in text
    assert "/etc/x" not in text
    assert "~ /etc/x  time" in told(files=(TIME,), is_verbose=True)
    assert Compared(provider="gcp", artifacts=TWO, files=(TIME,)).is_same


def test_files_and_packages_are_named() -> None:
    package = Changed(name="bash:amd64", before="5.2", after="5.3")
    text = told(files=(TIME, CONTENT), packages=(package,))
    assert text.startswith("Debian-12 1.0.0 gcp: other files")
    assert "~ package bash:amd64  5.2 => 5.3" in text
    assert "~ /etc/y  content, time (1 => 2 bytes)" in text
    assert "files: 1 changed; 1 differ" in text
    many = tuple(replace(CONTENT, path=f"/{number}") for number in range(60))
    assert "… 20 more" in told(files=many)
    assert not Compared(provider="gcp", artifacts=TWO, files=many).is_same
    assert "not compared: why" in told(fault="why")
    assert not Compared(provider="gcp", artifacts=TWO, fault="why").is_same
