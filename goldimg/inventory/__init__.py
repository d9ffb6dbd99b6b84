"""What is in an image: packages, files, services; taken in the guest at the end of its layer.

`ansible/library/goldimg_inventory.py` takes it, docs/inventory.md has the members of the file.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from goldimg.errors import VerificationFailed

SCHEMA = 1
EXTENSION = "inventory.json.gz"
LARGEST = 256 << 20  # bytes of JSON; an image of all of a distribution has a tenth of it
ENABLED = re.compile(r"/etc/systemd/system/[^/]+\.(?:wants|requires|upholds)/([^/]+)$")
UNIT = re.compile(r"/etc/systemd/system/([^/]+\.\w+)$")


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed package. `version` has epoch and release where there are such.

    `size` in bytes, as the package manager tells it. `licence` in the words of the package; dpkg
    knows none.
    """

    name: str
    version: str
    arch: str
    source: str = ""
    source_version: str = ""
    size: int = 0
    licence: str = ""

    @property
    def key(self) -> str:
        """What stays the same over versions."""
        return f"{self.name}:{self.arch}"

    def as_json(self) -> dict[str, str | int]:
        """What is known of it."""
        return {key: it for key, it in vars(self).items() if it}


@dataclass(frozen=True, kw_only=True)
class File:
    """A regular file or a link. `mode` is octal, "link" for a link; `owner` is uid:gid.

    `content` is the SHA-256 in hex where one was taken, or where a link points to.
    """

    mode: str
    size: int
    owner: str
    content: str | None


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What an image holds. `taken` in seconds since 1970."""

    taken: int
    os: Mapping[str, str]  # os-release(5)
    manager: Literal["dpkg", "rpm"]
    packages: tuple[Package, ...]
    files: Mapping[str, File] = field(default_factory=dict)

    @property
    def services(self) -> dict[str, str]:
        """By unit: "enabled" or "masked", as the links below /etc/systemd/system say.

        What systemd starts by links in /usr/lib is part of its package, and not told.
        https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html
        """
        found = {}
        for path, file in self.files.items():
            if file.mode != "link":
                continue
            if wanted := ENABLED.match(path):
                found[wanted[1]] = "enabled"
            elif unit := UNIT.match(path):
                found[unit[1]] = "masked" if file.content == "/dev/null" else "enabled"
        return dict(sorted(found.items()))


def dump(inventory: Inventory) -> bytes:
    """The file's bytes; the same for the same inventory."""
    packages = sorted(inventory.packages, key=lambda it: (it.name, it.arch, it.version))
    whole = {
        "schema": SCHEMA,
        "taken": inventory.taken,
        "os": dict(sorted(inventory.os.items())),
        "manager": inventory.manager,
        "packages": [package.as_json() for package in packages],
        "services": inventory.services,
        "files": [
            [path, it.mode, it.size, it.owner, it.content]
            for path, it in sorted(inventory.files.items())
        ],
    }
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode(errors="replace"), 6, mtime=0)


def load(path: Path) -> Inventory:
    """The inventory in a file; VerificationFailed where it is none that is understood."""
    try:
        return parse(path.read_bytes(), taken=int(path.stat().st_mtime))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise VerificationFailed(
            f"{path} is not an inventory", why=why, hint="build the image again with --force"
        ) from error


def parse(data: bytes, *, taken: int) -> Inventory:
    """The inventory in a file's bytes; `taken` for one that does not say when, as the guest's."""
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    text = reader.decompress(data, LARGEST)
    if reader.unconsumed_tail or not reader.eof or reader.unused_data:
        raise ValueError("it is cut short, or too large" if not reader.unused_data else "surplus")
    whole: dict[str, Any] = json.loads(text)
    if not isinstance(whole, dict) or whole.get("schema") != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    if whole["manager"] not in ("dpkg", "rpm"):
        raise ValueError(f"package manager {whole['manager']!r}")
    return Inventory(
        taken=int(whole.get("taken", taken)),
        os={str(key): str(it) for key, it in whole["os"].items()},
        manager=whole["manager"],
        packages=tuple(Package(**it) for it in whole["packages"]),
        files={
            str(path): File(mode=str(mode), size=int(size), owner=str(owner), content=content)
            for path, mode, size, owner, content in whole["files"]
        },
    )
