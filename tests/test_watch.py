"""What a build tells while it runs and afterwards: its timeline, its logs, `goldimg watch`."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.cli.watch import lines_of
from goldimg.events import Bus, Event, JsonLines
from goldimg.packer.output import ansible_reason
from goldimg.packer.policy import ways_in
from goldimg.packer.story import Story
from goldimg.project import Site, locked
from goldimg.running import running_pids
from goldimg.timeline import latest_timeline, read_events, timeline_text, usual_seconds
from tests.packing import GOLDIMG, OS, PackingSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackingSite]:
    made = PackingSite(tmp_path_factory.mktemp("watch"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def built(site: PackingSite) -> tuple[PackingSite, str]:
    """A build that was watched from beside it, and what the watcher saw."""
    watcher = subprocess.Popen(
        [GOLDIMG, "-v", "watch", "--wait"],
        cwd=site.root,
        env=site.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    done = site.build("--only", "gcp")
    assert done.returncode == 0, done.stderr
    seen, _ = watcher.communicate(timeout=30)
    assert watcher.returncode == 0
    return site, seen


def test_a_running_build_is_followed_from_another_terminal(
    built: tuple[PackingSite, str],
) -> None:
    _, seen = built
    for text in (
        "1 image from 1 install",
        "installing for gcp",
        "boot command typed",
        "kickstart fetched",
        "Bring the agent: 0.3 s",
        "shut down",
        "converting",
        "✓ CentOS-7.2.1511-1.0.0_gcp.tar.gz",
    ):
        assert text in seen
    elapsed = [line[:6].strip() for line in seen.splitlines()]
    assert all(re.fullmatch(r"\d+:\d\d", text) for text in elapsed)
    assert elapsed == sorted(elapsed)


def test_watch_says_that_nothing_runs(built: tuple[PackingSite, str]) -> None:
    done = built[0].goldimg("watch")
    assert done.returncode == 0
    assert done.stderr == "nothing is being built here\n"
    assert done.stdout == ""


def test_the_timeline_shows_the_install_the_image_and_the_slowest_tasks(
    built: tuple[PackingSite, str],
) -> None:
    done = built[0].goldimg("logs", "gcp", "-O", OS, "--timeline")
    assert done.returncode == 0, done.stderr
    first, _, slowest = done.stdout.partition("slowest tasks")
    expected = [
        "VM started",
        "boot command typed",
        "kickstart fetched",
        "first SSH login",
        "Write the files",
        "Clean the image",
        "shutting down",
        "shut down",
        "VM started",
        "first SSH login",
        "converting",
        "done: CentOS-7.2.1511-1.0.0_gcp.tar.gz",
    ]
    lines = iter(first.splitlines())
    for text in expected:
        assert any(text in line for line in lines), f"no '{text}' after what comes before it"
    assert re.search(r"0\.\d s +gcp +(Write the files|Bring the agent|Clean the image)", slowest)


def test_logs_finds_what_a_build_said(built: tuple[PackingSite, str]) -> None:
    def shown(*options: str) -> str:
        done = built[0].goldimg("logs", "gcp", "-O", OS, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Build 'gcp' finished." in shown()
    assert "Build 'base' finished." in shown("--install")
    assert shown("--console") == "Loading kernel... ok\n"
    assert shown("--install", "--console") == "Loading kernel... ok\n"


def test_logs_of_what_was_never_built_are_refused(built: tuple[PackingSite, str]) -> None:
    done = built[0].goldimg("logs", "azure", "-O", OS)
    assert done.returncode == 2
    assert "no build of CentOS-7.2.1511 1.0.0 for azure is known here" in done.stderr
    done = built[0].goldimg("logs", "gpc", "-O", OS)
    assert done.returncode == 2
    assert "no such provider: gpc" in done.stderr


def test_a_log_is_followed_until_the_build_ends(built: tuple[PackingSite, str]) -> None:
    site = built[0]
    process = site.start("--only", "gcp", "--version", "1.1.0")
    site.wait_for(process, "boot", "gcp")
    done = site.goldimg("logs", "gcp", "-O", OS, "--version", "1.1.0", "-f")
    process.communicate(timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Starting VM" in done.stdout
    assert "Build 'gcp' finished." in done.stdout


def test_only_held_locks_count_as_running_builds(tmp_path: Path) -> None:
    site = Site(root=tmp_path)
    lock = site.cache / "locks/1.0.0-Debian-12-gcp-12345678.lock"
    with locked(lock, what="this"):
        (found,) = running_pids(site).values()
        assert found == [lock.stem]
    assert running_pids(site) == {}, "the file of a lock that was let go says nothing"


def test_events_of_killed_builds_and_of_others_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for run, version in (("a-1", "1.0.0"), ("b-2", "1.0.0"), ("c-3", "2.0.0")):
        bus, log = Bus(), JsonLines(path, run=run, os=OS, version=version)
        bus.subscribe(log)
        bus.emit("base-x", "mark", "installing for gcp", providers=["gcp"])
        bus.emit("base-x", "phase", "boot", phase="boot")
        bus.emit("base-y", "phase", "boot", phase="boot")
        bus.emit("gcp", "task", f"of {run}", seconds=2.5)
        bus.emit("gcp", "files", "", log=f"/{run}/build.log")
        bus.emit("gcp", "progress", "", fraction=0.5)
        log.close()
    with path.open("a") as stream:
        stream.write('{"time": 1, "build": "gcp", "ki')
    timeline = latest_timeline(read_events(path), OS, "1.0.0", "gcp")
    assert timeline is not None
    assert [moment.what for moment in timeline.moments] == [
        "installing for gcp",
        "VM started",
        "of b-2",
    ]
    assert timeline.files["log"] == "/b-2/build.log"
    assert "2.5 s  gcp" in timeline_text(timeline)
    assert latest_timeline(read_events(path), OS, "3.0.0", "gcp") is None
    assert latest_timeline(read_events(tmp_path / "none"), OS, "1.0.0", "gcp") is None


def test_what_is_usual_comes_from_earlier_builds(tmp_path: Path) -> None:
    site = Site(root=tmp_path)
    for number, seconds in enumerate((10, 12, 50)):
        base = site.cache / f"bases/{number}"
        base.mkdir(parents=True)
        (base / "manifest.json").write_text(json.dumps({"seconds": {"boot": seconds}}))
    (site.cache / "bases/0/manifest.json").write_text(
        json.dumps({"seconds": {"boot": 10, "rare": 3}})
    )
    broken = site.cache / "bases/broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    assert usual_seconds(site, OS) == {True: {"boot": 12.0}, False: {}}


def test_a_file_that_is_replaced_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "build.log"
    path.write_text("one\ntwo\nhal")
    growing = threading.Event()
    growing.set()
    found: list[str] = []

    def read() -> None:
        found.extend(lines_of(path, growing.is_set))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.7)
    path.write_text("new\n")
    time.sleep(0.7)
    growing.clear()
    thread.join(timeout=5)
    assert found == ["one", "two", "new"]


def test_a_story_measures_tasks_and_finds_ports() -> None:
    marks: list[str] = []
    tasks: list[str] = []
    story = Story(
        on_phase=marks.append,
        on_detail=lambda _: None,
        is_install=True,
        on_mark=marks.append,
        on_task=lambda task, seconds: tasks.append(f"{task} {seconds >= 0}"),
    )
    for line in (
        "Found port for communicator (SSH, WinRM, etc): 3594.",
        "Starting VM, booting from CD-ROM",
        r"view the screen, connect via VNC without a password to\nvnc://127.0.0.1:11",
        "Typing the boot command over VNC...",
        "Waiting for SSH to become available...",
        "Connected to SSH!",
        "TASK [one] ***",
        "TASK [two] ***",
        "PLAY RECAP ***",
        "Running local shell script: /tmp/x",
    ):
        story.hear(f"1700000000,,ui,say,==> base: {line}")
    assert marks == ["boot", "boot command typed", "provisioning", "saving"]
    assert tasks == ["one True", "two True"]
    assert (story.ssh_port, story.vnc) == (3594, "127.0.0.1:5911")


@pytest.mark.parametrize(
    ("said", "ways"),
    [
        (
            [
                "Creating forwarded port mapping for communicator (SSH, WinRM, etc) "
                "(host port 3456)",
                "Using ssh communicator to connect: 127.0.0.1",
            ],
            ["-p 3456", "root@127.0.0.1"],
        ),
        (
            [
                r'connect via VNC with the password "Xq7Vnc" to\nvnc://127.0.0.1:5999',
                "Using ssh communicator to connect: 192.168.77.128",
            ],
            ["-p 22", "root@192.168.77.128", "vnc://127.0.0.1:5999 (password Xq7Vnc)"],
        ),
    ],
    ids=["virtualbox", "vmware"],
)
def test_it_is_known_how_to_reach_a_machine_of_another_hypervisor(
    said: list[str], ways: list[str], tmp_path: Path
) -> None:
    story = Story(on_phase=lambda _: None, on_detail=lambda _: None)
    for line in said:
        story.hear(f"1700000000,,ui,say,==> vmware: {line}")
    lines = ways_in(
        key=tmp_path / "key",
        host=story.ssh_host,
        port=story.ssh_port,
        vnc=story.vnc,
        vnc_password=story.vnc_password,
        picture=tmp_path / "none",
        console=tmp_path / "console.log",
        pids=[],
    )
    for way in ways:
        assert way in "\n".join(lines)


def test_a_failed_task_gives_its_reason_in_lines_for_people() -> None:
    lines = [
        "TASK [x] ***",
        'fatal: [default]: FAILED! => {"cmd": ["dpkg", "-s", "x"], "msg": "non-zero", "stderr": "a',
        'b", "stdout": "c"}',
    ]
    assert ansible_reason(lines) == [
        "command: dpkg -s x",
        "msg: non-zero",
        "stderr: a",
        "stderr: b",
    ]
    assert ansible_reason(["fatal: [default]: UNREACHABLE! => {broken"]) == [
        "fatal: [default]: UNREACHABLE! => {broken"
    ]
    assert ansible_reason(["ok: [default]"]) == []


def test_an_event_is_one_line_whatever_it_says(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "events.jsonl", run="r-1")
    log(Event(time=1.0, build="gcp", kind="warning", text="two\nlines"))
    log.close()
    (event,) = read_events(tmp_path / "events.jsonl")
    assert (event.text, event.data) == ("two\nlines", {"run": "r-1"})
