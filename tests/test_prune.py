"""What `goldimg prune` takes away, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from goldimg.artifacts import MANIFEST, write_version_sums
from goldimg.project import in_use_lock, locked, make_directory, waiting_lock
from goldimg.session import lock_path
from tests.packing import PackingSite
from tests.shelf import OS, Shelf
from tests.test_trust import valid_provenance

VERSIONS = ("1.2.0", "1.9.0", "1.10.0", "2.0.0")
LONG_AGO = time.time() - 9 * 86400


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "site")
    for version in VERSIONS:
        manifest = shelf.finish("gcp", version) / MANIFEST
        known = json.loads(manifest.read_text())
        inputs = {"iso": {"name": f"{version}.iso", "sha256": "0"}}
        manifest.write_text(json.dumps({**known, "base": f"base-{version}", "inputs": inputs}))
        write_version_sums(shelf.site, version)
        base = make_directory(shelf.site.cache / f"bases/base-{version}")
        (base / MANIFEST).write_text("{}")
        iso = make_directory(shelf.site.cache / "iso") / f"{version}.iso"
        iso.touch()
        for path in (base, iso):
            os.utime(path, (LONG_AGO, LONG_AGO))
    assert shelf.goldimg("sign").returncode == 0
    return shelf


def there(shelf: Shelf) -> list[str]:
    return sorted(path.parents[2].name for path in shelf.artifacts.glob(f"*/*/*/{MANIFEST}"))


def cached(shelf: Shelf) -> list[str]:
    bases = [path.name for path in (shelf.site.cache / "bases").iterdir() if path.is_dir()]
    return sorted([*bases, *(path.name for path in (shelf.site.cache / "iso").glob("*.iso"))])


def test_what_is_old_is_listed_and_goes_with_yes(shelf: Shelf) -> None:
    today = make_directory(shelf.site.cache / "bases/base-today")  # its layer may have failed
    (today / MANIFEST).write_text("{}")
    before = cached(shelf)
    done = shelf.goldimg("prune", "--keep", "2")
    assert done.returncode == 0, done.stderr
    assert "nothing was removed" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["image"] * 2 + [
        "base"
    ] * 2 + ["iso"] * 2
    assert (there(shelf), cached(shelf)) == (sorted(VERSIONS), before)
    done = shelf.goldimg("prune", "--keep", "2", "--yes")
    assert "removed 6 of 6" in done.stderr
    assert there(shelf) == ["1.10.0", "2.0.0"]  # as people count, not as text sorts
    assert cached(shelf) == [
        *("1.10.0.iso", "2.0.0.iso", "base-1.10.0", "base-2.0.0", "base-today"),
    ]
    assert not (shelf.artifacts / "1.2.0").exists()
    assert shelf.goldimg("verify", str(shelf.artifacts)).returncode == 0
    assert "nothing is old enough" in shelf.goldimg("prune", "--keep", "2", "--yes").stderr


def test_what_is_published_stays_with_its_base(shelf: Shelf) -> None:
    manifest = shelf.directory("gcp", "1.2.0") / MANIFEST
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**known, "publications": [{"name": "latest"}]}))
    (shelf.directory("gcp", "1.9.0") / ".publish-eu.journal").touch()
    done = shelf.goldimg("prune", "--keep", "1", "--yes")
    assert done.returncode == 0, done.stderr
    assert "1.2.0/CentOS-7.2.1511/gcp stays: it is published" in done.stderr
    assert "1.9.0/CentOS-7.2.1511/gcp stays: an upload of it is unfinished" in done.stderr
    assert there(shelf) == ["1.2.0", "1.9.0", "2.0.0"]
    assert "base-1.2.0" in cached(shelf)


def test_what_is_locked_stays(shelf: Shelf) -> None:
    directory = shelf.directory("gcp", "1.2.0")
    with (
        locked(lock_path(shelf.site, directory), what="it"),
        waiting_lock(in_use_lock(shelf.site), lambda: None, shared=True),
    ):
        done = shelf.goldimg("prune", "--keep", "2", "--yes")
    assert done.returncode == 0, done.stderr
    assert "1.2.0/CentOS-7.2.1511/gcp stays" in done.stderr
    assert "a build is running" in done.stderr
    assert there(shelf) == ["1.10.0", "1.2.0", "2.0.0"]
    assert len(cached(shelf)) == 8


def test_only_what_is_named_goes(shelf: Shelf) -> None:
    assert "nothing is old" in shelf.goldimg("prune", "--keep", "1", "-O", "Debian-12").stderr
    assert "nothing is old" in shelf.goldimg("prune", "--keep", "1", "--only", "aws").stderr
    assert shelf.goldimg("prune", "--keep", "0").returncode == 2
    found = json.loads(shelf.goldimg("prune", "--keep", "3", "-O", OS, "--json").stdout)
    assert [it["kind"] for it in found] == ["image", "base", "iso"]


def finished_base(bases: Path, process: subprocess.Popen[str]) -> Path:
    """Waits until the build has installed its base."""
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        for manifest in bases.glob(f"*/{MANIFEST}"):
            if manifest.parent.suffix != ".work":
                return manifest.parent
        time.sleep(0.05)
    raise AssertionError("the build installed no base")


def test_prune_during_a_build_takes_nothing_from_it(tmp_path: Path) -> None:
    site = PackingSite(tmp_path)
    (site.fake / "slow-gcp").touch()
    process = site.start("--only", "gcp")
    try:
        # The event "provisioning" would not do: the install says it as well, and has the same name.
        base = finished_base(site.root / ".cache/bases", process)
        os.utime(base, (LONG_AGO, LONG_AGO))
        done = site.goldimg("prune", "--keep", "1", "--yes")
        assert done.returncode == 0, done.stderr
        assert "a build is running" in done.stderr
        assert base.exists()
        (site.fake / "slow-gcp").unlink()
        said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said
        # the end of a build: provenance and signatures are there
        directory = site.directory("gcp")
        names = {path.name for path in directory.iterdir()}
        assert {
            "SHA256SUMS.sig",
            "manifest.json.sig",
            f"{OS}-1.0.0_gcp.provenance.json.sig",
        } <= names
        made = (directory / f"{OS}-1.0.0_gcp.provenance.json").read_text()
        valid_provenance(made)
        assert "changes nothing" not in made  # the root password
        done = site.goldimg("verify", "-O", OS)
        assert done.returncode == 0, done.stderr
        assert "1.0.0/SHA256SUMS: OK (signed by" in done.stdout
    finally:
        if process.poll() is None:
            process.kill()
        site.end()
