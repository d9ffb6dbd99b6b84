"""What a running VM shows: pictures of its screen, the text on it, and its serial console.

QEMU is asked through a QMP socket of our own, VirtualBox through VBoxManage; VMware, which has no
such way that needs no password of the guest, by VNC (goldimg.packer.vnc).
QEMU's commands: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from goldimg.errors import GoldimgError
from goldimg.run import Runner

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

PATIENCE = 5.0  # seconds that a hypervisor may take to answer
COLUMNS, ROWS = 80, 25  # of a PC's text mode
TEXT_MEMORY = 0xB8000  # where it keeps its characters, each with a byte of colour
TAIL = 16 << 10  # bytes of a serial console that are looked at
MOVES = re.compile(rb"\x1b\[[0-9;]*[Hf]")  # what comes next is elsewhere on the screen
FRAME = re.compile(r"^[lqkxmjtu\s]{9,}$")  # lines and corners, as terminals draw them
ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|[()][0-9A-B]|[=>78cM])")


class Screen(Protocol):
    """A way to see one VM's screen. No method raises while the VM is starting or ending.

    `state` is what the hypervisor said of the VM when it was last asked for a picture, such as
    `running` or `io-error`; empty where it says nothing.
    """

    @property
    def state(self) -> str: ...

    def shoot(self, target: Path) -> bool:
        """Writes a PNG of the screen to `target`, whole or not at all; whether it could."""
        ...

    def text(self) -> str:
        """The text on a screen in text mode; empty in any other mode."""
        ...

    def go_on(self) -> None:
        """Lets a VM run again that its hypervisor has stopped."""
        ...


class NoScreen:
    """A VM whose screen nobody can see."""

    state = ""

    def shoot(self, target: Path) -> bool:
        """Never can."""
        return False

    def text(self) -> str:
        """Nothing."""
        return ""

    def go_on(self) -> None:
        """Cannot."""


@dataclass
class QmpScreen:
    """The screen of a QEMU that listens on the QMP `socket`.

    QEMU writes PNG from 7.1 on, where it was built with libpng, and PPM always; the latter is
    turned into a PNG here, so that what is left is always one.
    """

    socket: Path
    has_png: bool = True
    state: str = ""

    def shoot(self, target: Path) -> bool:
        """Writes a PNG of the screen to `target`; False where QEMU does not answer."""
        temporary = self.socket.with_name("screen.part")
        try:
            asyncio.run(asyncio.wait_for(self._dump(temporary), PATIENCE))
            data = temporary.read_bytes()
            if not self.has_png:
                data = png_of_ppm(data)
            put(data, target)
        except Exception:  # QEMU's, the socket's and the disk's: no picture is worth a build
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    async def _dump(self, target: Path) -> None:
        from qemu.qmp import ExecuteError

        client = await _connected(self.socket)
        try:
            status = await client.execute("query-status")
            self.state = str(status.get("status", "")) if isinstance(status, dict) else ""
            if self.has_png:
                try:
                    await client.execute("screendump", {"filename": str(target), "format": "png"})
                except ExecuteError:
                    self.has_png = False
            if not self.has_png:
                await client.execute("screendump", {"filename": str(target)})
        finally:
            await client.disconnect()

    def text(self) -> str:
        """The screen's text, read from the memory of the VGA's text mode."""
        temporary = self.socket.with_name("text.part")
        try:
            asyncio.run(asyncio.wait_for(self._save(temporary), PATIENCE))
            return text_of_cells(temporary.read_bytes())
        except Exception:
            return ""
        finally:
            temporary.unlink(missing_ok=True)

    def go_on(self) -> None:
        """Lets the guest run on, as after a write that failed for want of space."""
        with contextlib.suppress(Exception):
            asyncio.run(asyncio.wait_for(self._continue(), PATIENCE))
            self.state = ""

    async def _continue(self) -> None:
        client = await _connected(self.socket)
        try:
            await client.execute("cont")
        finally:
            await client.disconnect()

    async def _save(self, target: Path) -> None:
        client = await _connected(self.socket)
        try:
            size = 2 * COLUMNS * ROWS
            await client.execute(
                "pmemsave", {"val": TEXT_MEMORY, "size": size, "filename": str(target)}
            )
        finally:
            await client.disconnect()


async def _connected(socket: Path) -> QMPClient:
    from qemu.qmp import QMPClient

    client = QMPClient("goldimg-screen")
    client.logger.disabled = True  # a VM that is not there yet is no news
    await client.connect(str(socket))
    return client


@dataclass(frozen=True, kw_only=True)
class VBoxScreen:
    """The screen of the VirtualBox machine `name`.

    https://www.virtualbox.org/manual/ch08.html#vboxmanage-controlvm
    """

    name: str
    runner: Runner
    state: str = ""

    def shoot(self, target: Path) -> bool:
        """Writes a PNG of the screen to `target`; False where the VM does not run."""
        part = target.with_name(f".{target.name}.part")
        words: list[str | Path] = ["VBoxManage", "controlvm", self.name, "screenshotpng", part]
        try:
            if self.runner.run(words, check=False, timeout=PATIENCE).code != 0:
                return False
            part.replace(target)
        except (GoldimgError, OSError):
            return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def text(self) -> str:
        """Nothing: VBoxManage reads no memory."""
        return ""

    def go_on(self) -> None:
        """Not needed: VirtualBox stops no VM by itself."""


def put(picture: bytes, target: Path) -> None:
    """Writes a picture to `target`, whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_bytes(picture)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def png_of_ppm(data: bytes) -> bytes:
    """A binary PPM (P6, 8 bits a colour) as a PNG. ValueError for anything else.

    https://netpbm.sourceforge.net/doc/ppm.html
    """
    header = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", data)
    if not header:
        raise ValueError("not a binary PPM of 8 bits")
    width, height = int(header[1]), int(header[2])
    pixels = data[header.end() : header.end() + 3 * width * height]
    if len(pixels) < 3 * width * height:
        raise ValueError("a PPM that ends too early")
    return png_of_rgb(width, height, pixels)


def png_of_rgb(width: int, height: int, pixels: bytes) -> bytes:
    """Three bytes a pixel, row by row, as a PNG: https://www.w3.org/TR/png-3/."""
    row = 3 * width
    lines = b"".join(b"\0" + pixels[at : at + row] for at in range(0, row * height, row))

    def chunk(kind: bytes, body: bytes) -> bytes:
        whole = kind + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(lines, 1)
    parts = (chunk(b"IHDR", size), chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def text_of_cells(cells: bytes) -> str:
    """The lines of a text screen out of its memory; empty where it holds no text.

    In a graphics mode other things are read at that address; they are hardly ever ASCII.
    """
    characters = cells[0 : 2 * COLUMNS * ROWS : 2].replace(b"\0", b" ")
    ascii_only = sum(byte < 0x7F for byte in characters)
    if len(characters) < COLUMNS * ROWS or ascii_only < 0.7 * len(characters):
        return ""
    text = characters.decode("cp437")
    rows = [text[at : at + COLUMNS].rstrip() for at in range(0, len(text), COLUMNS)]
    shown = "\n".join(
        "".join(char if char.isprintable() else " " for char in row).rstrip() for row in rows
    )
    return shown.strip("\n")


def console_tail(path: Path) -> str:
    """The last lines of a serial console's file, without what drives terminals."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL))
            data = stream.read()
    except OSError:
        return ""
    data = MOVES.sub(b"\n", data)
    text = ESCAPES.sub(b"", data).decode("utf-8", "replace").replace("\r", "\n")
    lines = ("".join(char for char in line if char.isprintable()) for line in text.split("\n"))
    return "\n".join(line.rstrip() for line in lines if line.strip() and not FRAME.match(line))
