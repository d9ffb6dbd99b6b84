"""What a build's VM shows: its screen, its serial console, and what they mean when it stalls."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.packer.console import (
    NoScreen,
    QmpScreen,
    VBoxScreen,
    console_tail,
    png_of_ppm,
    text_of_cells,
)
from goldimg.packer.monitor import Monitor
from goldimg.packer.story import Story
from goldimg.packer.watchdog import Scene, Watchdog, sign_in, ssh_state
from goldimg.run import Runner
from tests.support import needs


def pixels_of(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of a PNG without interlacing whose lines are not filtered."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, size = 8, b"", (0, 0)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length)[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    lines, row = zlib.decompress(packed), 1 + 3 * size[0]
    assert len(lines) == row * size[1]
    return *size, b"".join(lines[at + 1 : at + row] for at in range(0, len(lines), row))


def test_a_ppm_becomes_a_png_with_the_same_pixels() -> None:
    pixels = bytes(range(3 * 4 * 2))
    assert pixels_of(png_of_ppm(b"P6\n4 2\n255\n" + pixels)) == (4, 2, pixels)
    for wrong in (b"P5\n4 2\n255\n" + pixels, b"P6\n4 2\n255\n" + pixels[:-1], b""):
        with pytest.raises(ValueError, match="PPM"):
            png_of_ppm(wrong)


def test_a_text_screen_is_read_and_a_picture_is_not() -> None:
    rows = ["Booting from Hard Disk...", "", "No bootable device."]
    text = "".join(row.ljust(80) for row in rows).ljust(80 * 25)
    cells = b"".join(bytes([ord(char), 7]) for char in text)
    assert text_of_cells(cells) == "\n".join(rows)
    assert text_of_cells(bytes(4000)) == ""
    assert text_of_cells(b"\xff" * 4000) == ""
    assert text_of_cells(b"") == ""


def test_a_console_is_read_without_what_drives_terminals(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    assert console_tail(path) == ""
    path.write_bytes(b"\x1b[2J\x1b[01;32mWelcome\x1b[0m\r\n\n\x07ok \xff\r\n")
    assert console_tail(path) == "Welcome\nok \ufffd"
    path.write_bytes(b"\x1b[1;1Hlqqqqqqqqqqk\x1b[2;1Hx  Install  x\x1b[9;1Hboot: linux")
    assert console_tail(path) == "x  Install  x\nboot: linux"
    path.write_bytes(b"old\n" * 100_000 + b"new\n")
    assert len(console_tail(path)) < 20_000
    assert console_tail(path).endswith("new")


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs", "panicked"),
        ("Boot failed: could not read from CDROM (code 0003)", "nothing to boot"),
        ("No bootable device.", "nothing to boot"),
        ("grub> ", "GRUB"),
        ("dracut:/# ", "first stage"),
        ("Please make a selection from the above ['c' to continue, 'q' to quit]: ", "a question"),
        ("Please respond 'yes' or 'no': ", "a question"),
        ("The following error occurred while installing.  This is a fatal error", "anaconda"),
        ("Give root password for maintenance", "emergency mode"),
    ],
)
def test_signs_of_trouble_are_understood(said: str, meaning: str) -> None:
    found = sign_in(f"Booting\n{said}\nmore")
    assert meaning in found
    assert said.strip()[:20].split("] ")[-1] in found


def test_an_install_that_goes_well_shows_no_sign() -> None:
    assert sign_in("Booting from ROM...\nWelcome to GRUB!\nStarting sshd: ok\nlogin:") == ""


class Times:
    """A watchdog on a build whose clock the test turns."""

    def __init__(self, console: Path, usual: dict[str, float] | None = None) -> None:
        self.said: list[str] = []
        self.console = console
        self.dog = Watchdog(say=self.said.append, is_emulated=True, usual=usual or {})

    def look(self, phase: str, silent: float, **more: object) -> list[str]:
        scene = Scene(
            phase=phase,
            silent=silent,
            is_install=bool(more.get("is_install", False)),
            is_fetched=bool(more.get("is_fetched", False)),
            console=self.console,
            screen=NoScreen(),
            kickstart="http://10.0.2.2:8000",
            task=str(more.get("task", "")),
        )
        self.dog.look(scene)
        said, self.said[:] = list(self.said), []
        return said


def test_a_stall_is_told_once_with_its_likely_reason(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("Loading kernel... ok\n")
    times = Times(console)
    assert times.look("boot", 60, is_install=True) == []
    (said,) = times.look("boot", 101, is_install=True)
    assert said.startswith("no news in phase 'boot' for 101 s")
    assert "the kickstart was never fetched: the guest must reach http://10.0.2.2:8000" in said
    assert 'the serial console\'s last line is "Loading kernel... ok"' in said
    assert times.look("boot", 200, is_install=True) == []
    times.dog.progressed()
    assert len(times.look("boot", 101, is_install=True)) == 1
    (task,) = times.look("provisioning", 700, task="Update all packages")
    assert "the task is 'Update all packages'" in task


def test_what_earlier_builds_took_says_what_is_long(tmp_path: Path) -> None:
    times = Times(tmp_path / "console.log", {"provisioning": 20.0, "ssh": 1.0})
    assert times.look("provisioning", 59) == []
    assert "(earlier builds took 20 s in all)" in times.look("provisioning", 61)[0]
    assert times.look("ssh", 29) == []  # never less than half a minute
    assert len(times.look("ssh", 31)) == 1


def test_a_question_on_the_console_is_told_at_once_and_once(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    times = Times(console)
    console.write_text("Please respond 'yes' or 'no': ")
    assert times.look("installing", 1) == [
        "the installer is asking a question: \"Please respond 'yes' or 'no':\""
    ]
    console.write_text("Please respond 'yes' or 'no': \n")
    assert times.look("installing", 2) == []


class FullDisk(NoScreen):
    """A QEMU that has stopped its guest because a write failed, until it may go on."""

    state = "io-error"

    def go_on(self) -> None:
        self.state = "running"


def test_a_vm_that_a_full_disk_has_stopped_is_told_of_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    free = 0
    monkeypatch.setattr("goldimg.packer.monitor.free_bytes", lambda _: free)
    monkeypatch.setattr("goldimg.packer.monitor.LOOKS", 0.05)
    monkeypatch.setattr("goldimg.packer.monitor.EVERY", 0.05)
    story = Story(on_phase=said.append, on_detail=said.append)
    story.enter("provisioning")
    screen = FullDisk()
    watchdog = Watchdog(say=said.append, is_emulated=True)
    picture, console = tmp_path / "screen.png", tmp_path / "console.log"
    with Monitor(story=story, watchdog=watchdog, console=console, picture=picture, screen=screen):
        time.sleep(0.5)
        assert screen.state == "io-error"
        free = 1 << 30
        time.sleep(0.5)
    assert screen.state == "running"
    assert said == [
        "provisioning",
        "QEMU has stopped the VM since a disk of this host is full; it goes on by itself once "
        "there is space",
    ]


def test_ssh_that_is_forwarded_to_nobody_is_told_from_ssh_that_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = ("127.0.0.1", server.getsockname()[1])

        def answer(greeting: bytes) -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        for greeting, meaning in ((b"", "does not answer"), (b"SSH-2.0-x\r\n", "takes no login")):
            thread = threading.Thread(target=answer, args=(greeting,))
            thread.start()
            assert meaning in ssh_state(address, patience=5)
            thread.join()
    assert "does not answer" in ssh_state(address, patience=1)


def test_virtualbox_is_asked_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in shows what is asked of VBoxManage; that VirtualBox draws it is not shown."""
    fake = tmp_path / "VBoxManage"
    fake.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "controlvm vm1 screenshotpng" ] && echo PNG > "$4"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    target = tmp_path / "screen.png"
    assert VBoxScreen(name="vm1", runner=Runner()).shoot(target)
    assert target.read_text() == "PNG\n"
    assert not VBoxScreen(name="other", runner=Runner()).shoot(tmp_path / "none.png")
    assert not list(tmp_path.glob("*none*"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A QEMU that has nothing to boot, its QMP socket and its process."""
    needs("qemu-system-x86_64")
    directory = tmp_path_factory.mktemp("vm")
    path = directory / "qmp"
    words = ["-accel", "tcg", "-m", "32", "-display", "none", "-net", "none", "-nodefaults"]
    words += ["-vga", "std", "-qmp", f"unix:{path},server=on,wait=off"]
    process = subprocess.Popen(["qemu-system-x86_64", *words], stdin=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if path.exists() and "No bootable device" in QmpScreen(socket=path).text():
                break
            time.sleep(0.2)
        yield path, process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_qemu_shows_its_screen(machine: tuple[Path, int], tmp_path: Path) -> None:
    for screen in (QmpScreen(socket=machine[0]), QmpScreen(socket=machine[0], has_png=False)):
        target = tmp_path / "screen.png"
        assert screen.shoot(target)
        assert target.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert target.stat().st_size > 1000
        target.unlink()
    width, height, pixels = pixels_of_ppm_shot(machine[0], tmp_path)
    assert (width, height) == (720, 400)
    assert len(set(pixels)) > 1, "the screen is of one colour"
    screen = QmpScreen(socket=machine[0])
    assert "No bootable device" in screen.text()
    screen.shoot(tmp_path / "last.png")
    assert screen.state == "running"
    screen.go_on()
    (tmp_path / "last.png").unlink()
    assert list(tmp_path.iterdir()) == []


def pixels_of_ppm_shot(path: Path, directory: Path) -> tuple[int, int, bytes]:
    target = directory / "shot.png"
    assert QmpScreen(socket=path, has_png=False).shoot(target)
    data = target.read_bytes()
    target.unlink()
    return pixels_of(data)


def test_a_screen_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    screen = QmpScreen(socket=tmp_path / "none")
    assert not screen.shoot(tmp_path / "screen.png")
    assert screen.text() == ""
    (tmp_path / "dead").touch()
    assert not QmpScreen(socket=tmp_path / "dead").shoot(tmp_path / "screen.png")
    assert not (tmp_path / "screen.png").exists()


def test_watching_a_vm_costs_little_and_keeps_its_last_picture(
    machine: tuple[Path, int], tmp_path: Path
) -> None:
    """CPU of ours and of QEMU over a while, most of which is sleep: below 2 % of one core."""
    said: list[str] = []
    story = Story(on_phase=said.append, on_detail=said.append, is_install=True)
    picture = tmp_path / "screen.png"
    monitor = Monitor(
        story=story,
        watchdog=Watchdog(say=said.append, is_emulated=True),
        console=tmp_path / "console.log",
        picture=picture,
        screen=QmpScreen(socket=machine[0]),
    )
    monitor.shoot()  # what is imported once is not counted
    picture.unlink()
    story.enter("boot")
    wall, used, theirs = time.monotonic(), time.process_time(), cpu_of(machine[1])
    with monitor:
        while time.monotonic() - wall < 8:
            time.sleep(0.5)
        monitor.keep(tmp_path / "failure.png")
    spent = time.process_time() - used + cpu_of(machine[1]) - theirs
    assert (tmp_path / "failure.png").exists()
    assert not picture.exists()
    assert spent / (time.monotonic() - wall) < 0.02


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
