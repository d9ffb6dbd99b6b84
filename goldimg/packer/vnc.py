"""Pictures of a screen that a hypervisor shows by VNC: one frame, asked for and left again.

The protocol is RFC 6143 (https://www.rfc-editor.org/rfc/rfc6143), versions 3.3 to 3.8: no
authentication or a password, pixels sent as they are. Nothing is ever typed, and others who look
at the same screen stay connected.
"""

from __future__ import annotations

import io
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from goldimg.packer.console import png_of_rgb, put
from goldimg.packer.des import encrypt

PATIENCE = 5.0  # seconds that a picture may take
LARGEST = 8192  # pixels of a side: what is more is no screen
NO_PASSWORD, PASSWORD = 1, 2  # security types
RAW = 0  # the encoding that every server knows
# 32 bits a pixel, little-endian, whose bytes are red, green, blue and one that says nothing
PIXEL_FORMAT = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 0, 8, 16)


class VncError(Exception):
    """The server refuses, or says what the protocol does not know."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where a VNC server listens, and its password; empty where it wants none."""

    host: str
    port: int
    password: str = ""


@dataclass(frozen=True, kw_only=True)
class VncScreen:
    """The screen behind the VNC server that `access` tells of, once that is known."""

    access: Callable[[], Access | None]
    state: str = ""

    def shoot(self, target: Path) -> bool:
        """Writes a PNG of the screen to `target`; False where the server shows none."""
        access = self.access()
        if access is None:
            return False
        try:
            put(png_of_rgb(*frame(access)), target)
        except (OSError, VncError):
            return False
        return True

    def text(self) -> str:
        """Nothing: VNC has pictures only."""
        return ""

    def go_on(self) -> None:
        """Not possible by VNC."""


def frame(access: Access, patience: float = PATIENCE) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of the screen. OSError or VncError where there is none."""
    end = time.monotonic() + patience
    with socket.create_connection((access.host, access.port), timeout=patience) as connection:
        client = _Client(connection, end)
        client.log_in(access.password)
        return client.frame()


class _Client:
    """One connection; it ends at the time `end`, however slowly the server speaks."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self._socket, self._end = connection, end

    def _take(self, count: int) -> bytes:
        data = io.BytesIO()
        while (missing := count - data.tell()) > 0:
            self._socket.settimeout(max(0.01, self._end - time.monotonic()))
            part = self._socket.recv(min(missing, 1 << 20))
            if not part or time.monotonic() > self._end:
                raise VncError("the server ended in the middle of a message")
            data.write(part)
        return data.getvalue()

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def log_in(self, password: str) -> None:
        """The greeting up to the screen's size (section 7.1 to 7.3)."""
        said = self._take(12)
        if not said.startswith(b"RFB 003."):
            raise VncError("this is no VNC server")
        is_old = said < b"RFB 003.007"
        self._socket.sendall(b"RFB 003.003\n" if is_old else min(said, b"RFB 003.008\n"))
        kind = self._number(">I") if is_old else self._choose(password)
        if kind == PASSWORD:
            self._socket.sendall(answer(self._take(16), password))
        elif kind != NO_PASSWORD:
            raise VncError("the server refuses everybody")
        is_told = kind == PASSWORD or said >= b"RFB 003.008"
        if is_told and self._number(">I") != 0:
            raise VncError("the server refuses the password")
        self._socket.sendall(b"\x01")  # shared: nobody else is sent away

    def _choose(self, password: str) -> int:
        offered = self._take(self._number(">B"))
        kind = PASSWORD if password and PASSWORD in offered else NO_PASSWORD
        if kind not in offered:
            raise VncError("the server wants another way to log in")
        self._socket.sendall(bytes([kind]))
        return kind

    def frame(self) -> tuple[int, int, bytes]:
        """The whole screen, in as many parts as the server likes (section 7.5, 7.6)."""
        width, height = struct.unpack(">HH", self._take(4))
        self._take(16)
        self._take(self._number(">I"))
        if not 0 < width <= LARGEST or not 0 < height <= LARGEST:
            raise VncError(f"a screen of {width} by {height} pixels")
        self._socket.sendall(
            struct.pack(">B3x", 0)
            + PIXEL_FORMAT
            + struct.pack(">BxHi", 2, 1, RAW)
            + struct.pack(">BBHHHH", 3, 0, 0, 0, width, height)
        )
        pixels, missing = bytearray(3 * width * height), width * height
        while missing > 0:
            missing -= self._update(pixels, width, height)
        return width, height, bytes(pixels)

    def _update(self, pixels: bytearray, width: int, height: int) -> int:
        """Takes one message; returns how many pixels it brought."""
        kind = self._number(">B")
        if kind == 0:
            brought = 0
            for _ in range(self._number(">xH")):
                brought += self._rectangle(pixels, width, height)
            return brought
        if kind == 1:  # colours of a map, which nobody asked for
            self._take(6 * self._number(">x2xH"))
        elif kind == 3:  # a text that somebody copied
            self._take(self._number(">3xI"))
        elif kind != 2:  # a bell
            raise VncError(f"an unknown message ({kind})")
        return 0

    def _rectangle(self, pixels: bytearray, width: int, height: int) -> int:
        left, top, wide, high = (self._number(">H") for _ in range(4))
        encoding = self._number(">i")
        if encoding != RAW or left + wide > width or top + high > height:
            raise VncError("a rectangle that nobody asked for")
        data = self._take(4 * wide * high)
        rgb = bytearray(3 * wide * high)
        for colour in range(3):
            rgb[colour::3] = data[colour::4]
        for row in range(high):
            start = 3 * ((top + row) * width + left)
            pixels[start : start + 3 * wide] = rgb[3 * wide * row : 3 * wide * (row + 1)]
        return wide * high


def answer(challenge: bytes, password: str) -> bytes:
    """What proves the password without sending it (section 7.2.2).

    The key is its first eight characters, the bits of each reversed:
    https://www.rfc-editor.org/errata/rfc6143.
    """
    padded = password.encode("latin-1", "replace")[:8].ljust(8, b"\0")
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in padded)
    return b"".join(encrypt(key, challenge[at : at + 8]) for at in (0, 8))
