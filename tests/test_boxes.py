"""Builds with --boxes, and what lists them; Packer is a stand-in, the rest is goldimg's own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from goldimg.inventory.describe import EXTENSIONS
from tests.packing import OS, PackingSite
from tests.support import needs
from tests.test_trust import check_provenance

PROVIDERS = ("--only", "aws,gcp,virtualbox")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> PackingSite:
    """Three images, built without debugging boxes."""
    packing = PackingSite(tmp_path_factory.mktemp("boxes"))
    done = packing.build(*PROVIDERS)
    assert done.returncode == 0, done.stderr
    return packing


def sums(packing: PackingSite) -> list[str]:
    path = packing.root / "artifacts/1.0.0/SHA256SUMS"
    subprocess.run(["sha256sum", "--quiet", "-c", path.name], cwd=path.parent, check=True)
    return [line.split("  ")[1] for line in path.read_text().splitlines()]


def catalog(packing: PackingSite, key: str = "") -> dict[str, str]:
    """Checksums of the boxes of version 1.0.0, by Vagrant's provider."""
    path = packing.root / f"artifacts/{OS}{key}.json"
    (version,) = json.loads(path.read_text())["versions"]
    return {entry["name"]: entry["checksum"] for entry in version["providers"]}


def test_a_build_lists_what_it_made(built: PackingSite) -> None:
    listed = sums(built)
    described = [f"{OS}/{name}/{OS}-1.0.0_{name}." for name in ("aws", "gcp", "virtualbox")]
    descriptions = [it + kind for it in described for kind in EXTENSIONS]
    assert set(descriptions) <= set(listed)
    assert [it for it in listed if it not in descriptions] == [
        f"{OS}/aws/{OS}-1.0.0_aws.ova",
        f"{OS}/gcp/{OS}-1.0.0_gcp.tar.gz",
        f"{OS}/virtualbox/{OS}-1.0.0_virtualbox.box",
        f"{OS}/virtualbox/{OS}-1.0.0_virtualbox.ova",
    ]
    manifest = json.loads((built.directory("virtualbox") / "manifest.json").read_text())
    (box,) = [it for it in manifest["artifacts"] if it["file"].endswith(".box")]
    assert catalog(built) == {"virtualbox": box["sha256"]}
    assert built.leftovers() == []


def test_boxes_are_made_of_images_that_are_finished(built: PackingSite) -> None:
    """They start no machine, and leave the images as they are."""
    before = {path: path.stat().st_mtime_ns for path in built.root.glob("artifacts/*/*/*/*.tar.gz")}
    before |= {path: path.stat().st_mtime_ns for path in built.root.glob("artifacts/*/*/*/*.ova")}
    built.calls()
    shown = built.goldimg("plan", "-O", OS, *built.iso, *PROVIDERS, "--boxes").stdout
    assert f"artifacts/1.0.0/{OS}/gcp/{OS}-1.0.0_gcp.box" in shown
    done = built.build(*PROVIDERS, "--boxes")
    assert done.returncode == 0, done.stderr
    assert built.calls() == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert catalog(built).keys() == {"libvirt", "virtualbox"}
    assert catalog(built, "_aws").keys() == {"virtualbox"}
    assert catalog(built, "_gcp").keys() == {"libvirt"}
    assert len(sums(built)) == 7 + 3 * len(EXTENSIONS)
    verified = built.goldimg("verify", "-O", OS)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count(".box: OK") == 4
    for provider in ("aws", "gcp", "virtualbox"):
        check_provenance(built.directory(provider))
    again = built.build(*PROVIDERS, "--boxes")
    assert again.stdout.count("up to date") == 3
    assert built.leftovers() == []


def test_boxes_of_a_build_are_those_made_afterwards(built: PackingSite) -> None:
    """The same bytes, whether out of the layer or out of the finished image.

    gcp's are not: its archive has a disk of a whole number of GiB, and the stand-in's is smaller.
    """
    built.build("--only", "aws,virtualbox", "--boxes")
    after = {key: catalog(built, key) for key in ("", "_aws")}
    done = built.build("--only", "aws,virtualbox", "--boxes", "--force")
    assert done.returncode == 0, done.stderr
    assert {key: catalog(built, key) for key in after} == after


def test_the_disks_in_the_boxes_are_those_of_the_images(built: PackingSite, tmp_path: Path) -> None:
    needs("qemu-img", "tar")
    built.build(*PROVIDERS, "--boxes")
    for name, box in (("gcp", "gcp"), ("virtualbox", "libvirt")):
        work = tmp_path / name
        work.mkdir()
        archive = built.directory(name) / f"{OS}-1.0.0_{box}.box"
        run("tar", "-C", work, "-xzf", archive)
        if name == "gcp":
            run("tar", "-C", work, "-xzf", built.directory(name) / f"{OS}-1.0.0_{name}.tar.gz")
            run("qemu-img", "compare", "-F", "raw", work / "box.img", work / "disk.raw")
        else:
            run("tar", "-C", work, "-xf", built.directory(name) / f"{OS}-1.0.0_{name}.ova")
            disk = next(work.glob("*.vmdk"))
            run("qemu-img", "compare", "-F", "vmdk", work / "box.img", disk)


def run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, env=os.environ)


def test_a_catalog_that_somebody_broke_fails_no_build(built: PackingSite) -> None:
    path = built.root / f"artifacts/{OS}.json"
    whole = path.read_text()
    path.write_text(whole[:-20])
    done = built.build("--only", "gcp", "--force")
    assert done.returncode == 0, done.stderr
    assert f"images are not listed: {path} is not a catalog" in done.stderr
    assert path.read_text() == whole[:-20]
    path.write_text(whole)
    assert built.build("--only", "gcp").returncode == 0
    assert "virtualbox" in catalog(built)


def test_without_boxes_a_new_build_takes_the_old_ones_away(built: PackingSite) -> None:
    built.build("--only", "gcp", "--boxes")
    assert catalog(built, "_gcp").keys() == {"libvirt"}
    done = built.build("--only", "gcp", "--force")
    assert done.returncode == 0, done.stderr
    assert not list(built.directory("gcp").glob("*.box"))
    assert json.loads((built.root / f"artifacts/{OS}_gcp.json").read_text())["versions"] == []


def test_settings_that_shape_a_file_make_it_stale(built: PackingSite) -> None:
    assert built.build("--only", "openstack").returncode == 0
    zstd = ("--only", "openstack", "--var", "qcow2_compression=zstd")
    refused = built.build(*zstd)
    assert refused.returncode == 1
    assert "openstack: a finished image of other inputs is there" in refused.stderr
    assert "--update" in refused.stderr
    assert built.build(*zstd, "--update").returncode == 0
    image = next(built.directory("openstack").glob("*.qcow2"))
    info = subprocess.run(["qemu-img", "info", image], check=True, capture_output=True, text=True)
    assert "compression type: zstd" in info.stdout
    assert "up to date" in built.build(*zstd).stdout


def test_what_a_killed_build_left_unsealed_is_sealed_by_the_next(built: PackingSite) -> None:
    directory = built.directory("gcp")
    whole = {path.name for path in directory.iterdir()}
    for name in ("manifest.json.sig", f"{OS}-1.0.0_gcp.provenance.json.sig"):
        (directory / name).unlink()
    done = built.build("--only", "gcp")
    assert "up to date" in done.stdout
    assert {path.name for path in directory.iterdir()} == whole
    check_provenance(directory)
    assert built.goldimg("verify", str(directory)).returncode == 0
