"""A build that was killed is finished by the next one, which repeats only what is missing.

Packer is tests/packing.py's stand-in; benchmarks/kill.py kills at random moments, the real one too.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.orphans import reap_orphans
from goldimg.run import Runner
from goldimg.stages import discard_base, is_over
from tests.packing import OS, PackingSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackingSite]:
    made = PackingSite(tmp_path_factory.mktemp("resume"))
    assert made.build("--only", "gcp").returncode == 0
    made.calls()
    yield made
    made.end()


def kill_at(site: PackingSite, phase: str, build: str, *arguments: str) -> list[str]:
    """Kills a build, and nothing that it has started, once it is in `phase`; returns its VMs.

    They stay behind, until the next build on this host ends them: this test's or another's.
    """
    process = site.start(*arguments)
    try:
        site.wait_for(process, phase, build)
        return [line for line in site.processes() if "qemu-system-fake" in line]
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("phase", "build"),
    [
        ("boot", "gcp"),
        ("kickstart fetched", "gcp"),
        ("cleaning", "gcp"),
        ("shut down", "gcp"),
        ("provisioning", ""),
        ("shutting down", ""),
        ("converting", ""),
    ],
)
def test_a_killed_build_is_finished_by_the_next(site: PackingSite, phase: str, build: str) -> None:
    """Those of `gcp` are killed in an install of their own, the others over the shared base."""
    reference = site.described("gcp")
    shutil.rmtree(site.directory("gcp"))
    vms = kill_at(site, phase, build, "--only", "gcp", *(["--no-base-cache"] if build else []))
    if phase not in ("boot", "converting", "shut down"):
        assert vms, "no VM was left behind"
    done = site.build("--only", "gcp")
    assert done.returncode == 0, done.stderr
    assert site.described("gcp") == reference
    assert site.leftovers() == []
    verified = site.goldimg("verify", "-O", OS, "--only", "gcp")
    assert verified.returncode == 0, verified.stderr


def test_what_a_killed_build_left_running_is_ended_and_told(site: PackingSite) -> None:
    told = None
    for _ in range(3):  # a build of another test may have been quicker
        assert len(kill_at(site, "provisioning", "gcp", "--only", "gcp", "--version", "1.1.0")) == 1
        done = site.build("--only", "openstack", "--version", "1.1.0")
        assert done.returncode == 0, done.stderr
        assert site.processes() == []
        told = re.search(r"removed what a killed build had left: [1-9]\d* running", done.stderr)
        if told:
            break
    assert told


def test_what_a_live_build_runs_is_left_alone(site: PackingSite) -> None:
    """A second build in the same site ends neither the first's VM nor anything else of it."""
    process = site.start("--only", "gcp", "--version", "1.2.0")
    site.wait_for(process, "boot")
    other = site.build("--only", "openstack", "--version", "1.2.0")
    assert other.returncode == 0, other.stderr
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_a_base_is_not_replaced_under_an_image_that_is_being_made(site: PackingSite) -> None:
    """An overlay reads its base until it is converted, whatever another build asks for."""
    slow = site.fake / "slow-gcp"
    slow.touch()
    process = site.start("--only", "gcp", "--version", "1.4.0")
    site.wait_for(process, "provisioning", "gcp")
    other = site.start("--only", "openstack", "--version", "1.4.0", "--no-base-cache")
    site.wait_for(other, "waiting for another build that has the base")
    slow.unlink()
    for each in (process, other):
        said, _ = each.communicate(timeout=180)
        assert each.returncode == 0, said

    def moment(of: subprocess.Popen[str], key: str, value: str) -> float:
        run = [it for it in site.events() if str(it["run"]).endswith(f"-{of.pid}")]
        return next(float(str(it["time"])) for it in run if it[key] == value)

    assert moment(process, "kind", "done") < moment(other, "text", "boot")


def test_a_base_is_used_by_two_builds_at_once(site: PackingSite) -> None:
    slow = site.fake / "slow-gcp"
    slow.touch()
    process = site.start("--only", "gcp", "--version", "1.5.0")
    site.wait_for(process, "provisioning", "gcp")
    other = site.build("--only", "openstack", "--version", "1.5.0")
    assert process.poll() is None, "the first one should take longer"
    slow.unlink()
    assert other.returncode == 0, other.stderr
    assert "waiting" not in other.stderr
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said


def test_a_site_and_its_copy_build_at_the_same_time(site: PackingSite, tmp_path: Path) -> None:
    """Their digests are the same; the directories of their sockets must not be."""
    twin = copy_of(site, tmp_path)
    slow = site.fake / "slow-gcp"
    slow.touch()
    both = [each.start("--only", "gcp", "--version", "1.6.0") for each in (site, twin)]
    for each, process in zip((site, twin), both, strict=True):
        each.wait_for(process, "provisioning", "gcp")
    (work,) = (site.root / ".cache/layers").glob("*.work")
    assert len(list(Path("/tmp").glob(f"goldimg-*-{work.stem}"))) == 2
    slow.unlink()
    for process in both:
        said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said
    assert twin.described("gcp", "1.6.0") == site.described("gcp", "1.6.0")


def copy_of(site: PackingSite, directory: Path) -> PackingSite:
    """The same site elsewhere, steered by the same files."""
    found = copy.copy(site)
    found.root = directory / "site"
    shutil.copytree(site.root, found.root)
    return found


def test_a_step_that_is_done_is_not_repeated(site: PackingSite) -> None:
    kill_at(site, "converting", "gcp", "--only", "gcp", "--version", "1.3.0")
    site.calls()
    done = site.build("--only", "gcp", "--version", "1.3.0")
    assert done.returncode == 0, done.stderr
    if "up to date" not in done.stdout:
        assert "provisioned disk found in the cache" in done.stderr
    assert site.calls() == []
    key = site.described("gcp", "1.3.0")["layer"]
    assert not list((site.root / ".cache/layers").glob(f"{key}*"))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("install", ["build base", "build gcp"]),
        ("layer", ["build gcp"]),
        ("convert", ["build gcp"]),  # a finished image's provisioned disk is not kept
    ],
)
def test_a_build_can_be_made_again_from_a_step_on(
    site: PackingSite, step: str, expected: list[str]
) -> None:
    reference = site.described("gcp")
    site.calls()
    done = site.build("--only", "gcp", "--from", step)
    assert done.returncode == 0, done.stderr
    assert [call for call in site.calls() if call.startswith("build")] == expected
    assert site.described("gcp") == reference


def test_from_convert_takes_a_provisioned_disk_that_is_there(site: PackingSite) -> None:
    kill_at(site, "converting", "gcp", "--only", "gcp", "--from", "layer")
    site.calls()
    done = site.build("--only", "gcp", "--from", "convert")
    assert done.returncode == 0, done.stderr
    assert site.calls() == []


def test_a_layer_over_a_base_that_was_made_again_is_not_taken(tmp_path: Path) -> None:
    base, layer = tmp_path / "base", tmp_path / "layer"
    base.touch()
    assert not is_over(layer, base)
    layer.touch()
    os.utime(base, (1000, 1000))
    os.utime(layer, (1001, 1001))
    assert is_over(layer, base)
    os.utime(base, (1002, 1002))
    assert not is_over(layer, base)


def test_half_a_base_never_looks_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "manifest.json").touch()
    (base / "disk.qcow2").touch()
    # killed in the middle of its removal
    monkeypatch.setattr("goldimg.stages.shutil.rmtree", lambda *_, **__: None)
    discard_base(base)
    assert not (base / "manifest.json").exists()


def test_only_the_orphans_of_the_dead_are_ended(tmp_path: Path) -> None:
    """A process started by a live goldimg stays, as does one that no goldimg has started."""
    script = tmp_path / "start.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom goldimg.run import Runner\n"
        f"Runner().run(['sh', '-c', 'sleep 60 & echo $! > {tmp_path}/child; wait'])\n"
    )
    parent = subprocess.Popen([sys.executable, script])
    stranger = subprocess.Popen(["sleep", "60"])
    child = tmp_path / "child"
    while not child.exists() or not child.read_text().strip():
        time.sleep(0.05)
    pid = int(child.read_text())
    try:
        assert pid not in reap_orphans()
        assert Path(f"/proc/{pid}").exists()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        reap_orphans()
        assert not is_alive(pid)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        parent.kill()
        parent.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_every_child_knows_who_started_it() -> None:
    said = Runner().run(["sh", "-c", "echo $GOLDIMG_OWNER"]).stdout
    assert said.startswith(f"{os.getpid()}-")
