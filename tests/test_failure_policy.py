"""What a failing or interrupted build leaves behind, by what the user asked for.

Packer is tests/packing.py's stand-in; test_real_build.py interrupts the real one.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.events import Bus, Event
from goldimg.hold import Holder
from goldimg.packer.driver import STOPPING
from goldimg.run import GRACE, Runner
from tests.packing import PackingSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackingSite]:
    made = PackingSite(tmp_path_factory.mktemp("policy"))
    # one base for all of these tests, but for those that make their own
    assert made.build("--only", "openstack", "--version", "0.0.1").returncode == 0
    yield made
    made.end()


def failing(site: PackingSite, name: str) -> Path:
    control = site.fake / f"fail-{name}"
    control.touch()
    return control


def said_by(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    text, _ = process.communicate(timeout=180)
    return text


def test_a_failed_task_is_named_and_cleaned_up_after(site: PackingSite) -> None:
    control = failing(site, "gcp")
    done = site.build("--only", "gcp,openstack", "--version", "1.0.0")
    control.unlink()
    assert done.returncode == 1
    assert "error: gcp: Ansible task 'Bring the agent' failed" in done.stderr
    assert "msg: No package matching agent" in done.stderr
    assert "log: artifacts/1.0.0/CentOS-7.2.1511/gcp/build.log" in done.stderr
    assert re.search(r"openstack +built", done.stdout), "one's failure stops no other"
    assert site.leftovers() == []
    log = (site.directory("gcp") / "build.log").read_text()
    assert "fatal: [default]: FAILED!" in log


def test_abort_stops_everything_and_leaves_the_files(site: PackingSite) -> None:
    control, slow = failing(site, "gcp"), site.fake / "slow-openstack"
    slow.touch()  # it would never end by itself
    done = site.build(
        "--only", "gcp,openstack", "--version", "1.0.1", "--on-error", "abort", "--jobs", "2"
    )
    control.unlink()
    slow.unlink()
    assert done.returncode == 1
    assert "Bring the agent" in done.stderr
    assert re.search(r"gcp +failed", done.stdout)
    assert re.search(r"openstack +interrupted", done.stdout)
    assert site.processes() == []
    left = list((site.root / ".cache/layers").glob("*.work/output"))
    assert left, "nothing was left to look at"
    again = site.build("--only", "gcp,openstack", "--version", "1.0.1")
    assert again.returncode == 0, again.stderr
    assert site.leftovers() == []


def test_keep_leaves_the_vm_and_says_how_to_reach_it(site: PackingSite) -> None:
    control = failing(site, "gcp")
    process = site.start("--only", "gcp", "--version", "1.0.2", "--on-error", "keep")
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "the VM is left running" in line:
            break
    control.unlink()
    time.sleep(1)
    running = [line for line in site.processes() if "qemu-system-fake" in line]
    process.send_signal(signal.SIGINT)
    said_by(process)
    text = "".join(lines)
    assert len(running) == 1, text
    assert f"-i {site.root}/keys/packer -p 3333" in text
    assert "root@127.0.0.1" in text
    assert "vnc://127.0.0.1:5911" in text
    assert re.search(r"process: \d+", text)
    assert process.returncode == 1
    assert site.leftovers() == []


def test_a_key_lets_a_kept_vm_go() -> None:
    heard: list[Event] = []
    bus = Bus()
    bus.subscribe(heard.append)
    mine, theirs = os.openpty()
    with os.fdopen(theirs, "r") as terminal:
        holder = Holder(bus, Runner(), stdin=terminal)
        thread = threading.Thread(target=holder, args=("gcp", ["it failed", "log in: ssh …"]))
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive()
        os.write(mine, b"\n")
        thread.join(timeout=5)
        assert not thread.is_alive()
    os.close(mine)
    assert "Enter or Ctrl-C" in heard[0].text
    assert "log in: ssh …" in heard[0].text


def test_without_a_terminal_only_ctrl_c_lets_a_kept_vm_go() -> None:
    runner = Runner()
    thread = threading.Thread(
        target=Holder(Bus(), runner, stdin=io.StringIO("\n")), args=("x", ["y"])
    )
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive()
    runner.cancel.set()
    thread.join(timeout=5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("phase", "build"),
    [
        ("installing for gcp", ""),  # validation
        ("boot", "gcp"),
        ("kickstart fetched", "gcp"),
        ("provisioning", "gcp"),
        ("cleaning", "openstack"),
        ("shutting down", "openstack"),
        ("converting", "openstack"),
    ],
)
def test_ctrl_c_leaves_nothing_in_any_phase(site: PackingSite, phase: str, build: str) -> None:
    """The first four interrupt an install of its own, the others a layer."""
    version = f"2.0.{len(phase)}"
    install = ["--no-base-cache"] if build != "openstack" else []
    name = build or "gcp"
    process = site.start("--only", name, "--version", version, *install)
    site.wait_for(process, phase)
    process.send_signal(signal.SIGINT)
    said = said_by(process)
    if phase != "converting":  # which is over in a moment
        assert process.returncode == 130, said
        assert "interrupted" in said
        assert not (site.directory(name, version) / "manifest.json").exists()
    assert site.leftovers() == []
    done = site.build("--only", name, "--version", version)
    assert done.returncode == 0, done.stderr
    assert site.leftovers() == []


def test_ctrl_c_twice_kills_what_does_not_listen(site: PackingSite) -> None:
    (site.fake / "stubborn").touch()
    process = site.start("--only", "gcp", "--version", "3.0.0")
    site.wait_for(process, "provisioning")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said_by(process)
    took = time.monotonic() - began
    (site.fake / "stubborn").unlink()
    assert process.returncode == 130
    assert took < STOPPING + GRACE[signal.SIGTERM], "it was asked politely twice"
    assert site.leftovers() == []


def test_a_kickstart_that_is_never_fetched_is_told_with_the_files_that_show_it(
    site: PackingSite,
) -> None:
    (site.fake / "unfetched").touch()
    (site.fake / "fail-base").touch()
    done = site.build("--only", "azure", "--version", "4.0.0")
    (site.fake / "unfetched").unlink()
    (site.fake / "fail-base").unlink()
    assert done.returncode == 1
    directory = site.directory("azure", "4.0.0")
    assert "log: artifacts/4.0.0/CentOS-7.2.1511/azure/build.log" in done.stderr
    assert "Waiting for SSH" in (directory / "build.log").read_text()
    assert (directory / "console.log").read_text() == "Loading kernel... ok\n"
