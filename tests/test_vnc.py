"""Screens by VNC: QEMU's server shows them here, which is not VMware's."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from goldimg.packer.des import encrypt
from goldimg.packer.vnc import Access, VncError, VncScreen, frame
from tests.support import needs
from tests.test_console import pixels_of
from tests.vm import free_port

SECRET = "Xq7Vnc"
# A boot sector: mov ax, 0xb800; mov es, ax; mov word [es:0], 0x0cdb; hlt. A full block, light red.
RED = bytes.fromhex("b800b8 8ec0 26c7060000db0c f4ebfd").ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture(scope="module", params=["", SECRET], ids=["open", "password"])
def access(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Access]:
    """A QEMU with something red on its screen, which it shows by VNC."""
    needs("qemu-system-x86_64")
    port, password = free_port(), request.param
    words = ["-accel", "tcg", "-m", "32", "-display", "none", "-net", "none", "-nodefaults"]
    disk = tmp_path_factory.mktemp("vnc") / "disk"
    disk.write_bytes(RED)
    words += ["-vga", "std", "-drive", f"file={disk},format=raw,if=ide"]
    guarded = ",password-secret=vnc" if password else ""
    if password:
        words += ["-object", f"secret,id=vnc,data={password}"]
    words += ["-vnc", f"127.0.0.1:{port - 5900}{guarded}"]
    process = subprocess.Popen(["qemu-system-x86_64", *words], stdin=subprocess.DEVNULL)
    try:
        yield Access(host="127.0.0.1", port=port, password=password)
    finally:
        process.kill()
        process.wait()


def screen_of(access: Access | None) -> VncScreen:
    return VncScreen(access=lambda: access)


def test_a_screen_is_shown_while_somebody_else_looks(access: Access, tmp_path: Path) -> None:
    screen, target = screen_of(access), tmp_path / "screen.png"
    end = time.monotonic() + 60
    width, height, pixels = 0, 0, bytes(3)
    while len(set(pixels[:3])) == 1:  # black or grey: what the firmware says
        assert time.monotonic() < end, f"a picture of {width} by {height}"
        time.sleep(0.1)
        if screen.shoot(target):
            width, height, pixels = pixels_of(target.read_bytes())
    assert (width, height) == (720, 400)
    red, green, blue = pixels[:3]
    assert red == 255
    assert green == blue < 100
    with socket.create_connection((access.host, access.port)) as other:
        assert other.recv(12).startswith(b"RFB")
        assert screen.shoot(target)
        other.sendall(b"RFB 003.008\n")
        assert other.recv(1), "the other one was sent away"
    assert [path.name for path in tmp_path.iterdir()] == ["screen.png"]


def test_a_password_matters_where_one_is_wanted(access: Access, tmp_path: Path) -> None:
    if not access.password:
        assert screen_of(replace(access, password="not wanted")).shoot(tmp_path / "screen.png")
        return
    for wrong in ("", "Xq7Vnd"):
        other = replace(access, password=wrong)
        with pytest.raises(VncError):
            frame(other)
        assert not screen_of(other).shoot(tmp_path / "screen.png")
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there_or_talks_nonsense_is_no_error(tmp_path: Path) -> None:
    target = tmp_path / "screen.png"
    assert not screen_of(None).shoot(target)
    closed = Access(host="127.0.0.1", port=free_port())
    assert not screen_of(closed).shoot(target)
    other = b"SSH-2.0-x\r\n\r\n\r\n"
    for said in (other, b"RFB 003.008\n\0", greeting(0, 480), greeting(640, 480)):
        with socket.create_server(("127.0.0.1", 0)) as server:
            access = Access(host="127.0.0.1", port=server.getsockname()[1])

            def answer(server: socket.socket = server, said: bytes = said) -> None:
                client, _ = server.accept()
                with client:
                    client.sendall(said)

            thread = threading.Thread(target=answer)
            thread.start()
            assert not screen_of(access).shoot(target)
            thread.join()
    assert not list(tmp_path.iterdir())


def greeting(width: int, height: int) -> bytes:
    """A server's part of the greeting, up to a screen of that size and no name."""
    return b"RFB 003.008\n\1\1" + bytes(4) + struct.pack(">HH16xI", width, height, 0)


def test_a_slow_server_costs_no_more_than_the_patience() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        access = Access(host="127.0.0.1", port=server.getsockname()[1])
        with pytest.raises(TimeoutError):
            frame(access, patience=0.3)


@pytest.mark.parametrize(
    ("key", "block", "expected"),
    [
        # NIST SP 500-20, appendix B
        ("0101010101010101", "95f8a5e5dd31d900", "8000000000000000"),
        ("8001010101010101", "0000000000000000", "95a8d72813daa94d"),
        ("7ca110454a1a6e57", "01a1d6d039776742", "690f5b0d9a26939b"),
        ("0131d9619dc1376e", "5cd54ca83def57da", "7a389d10354bd271"),
        ("07a1133e4a0b2686", "0248d43806f67172", "868ebb51cab4599a"),
        ("0000000000000000", "0000000000000000", "8ca64de9c1b123a7"),
    ],
)
def test_des_gives_the_published_answers(key: str, block: str, expected: str) -> None:
    assert encrypt(bytes.fromhex(key), bytes.fromhex(block)).hex() == expected
