"""The inventory of an image that ships as an archive of files.

Such an image loses what only a machine needs when the guest powers off, after the inventory was
taken; so the archive has the last word.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from goldimg.inventory import File, Inventory

STATUS = "/var/lib/dpkg/status"
FIELD = re.compile(r"^(Package|Status|Version|Architecture): *(.*)$", re.M)


def as_shipped(inventory: Inventory, archive: Path) -> Inventory:
    """The inventory without the packages and files that are not in the archive.

    Files that are not in the inventory stay out of it: it leaves out what is of no interest.
    """
    shipped: dict[str, File] = {}
    installed: set[tuple[str, str, str]] | None = None
    with tarfile.open(archive, "r|*") as stream:
        for member in stream:
            path = "/" + member.name.removeprefix("./").strip("/")
            before = inventory.files.get(path)
            data = b""
            if member.isreg() and (path == STATUS or (before and before.content)):
                reader = stream.extractfile(member)
                data = reader.read() if reader else b""
            if path == STATUS:
                installed = set(_installed(data.decode(errors="replace")))
            if before:
                shipped[path] = _file(member, before, data)
    packages = inventory.packages
    if inventory.manager == "dpkg" and installed is not None:
        packages = tuple(it for it in packages if (it.name, it.version, it.arch) in installed)
    return replace(inventory, packages=packages, files=shipped)


def _file(member: tarfile.TarInfo, before: File, data: bytes) -> File:
    owner = f"{member.uid}:{member.gid}"
    if member.issym():
        return File(mode="link", size=0, owner=owner, content=member.linkname)
    if not member.isreg():  # a hard link: what it is was seen in the guest
        return before
    content = hashlib.sha256(data).hexdigest() if before.content else None
    return File(mode=f"{member.mode & 0o7777:04o}", size=member.size, owner=owner, content=content)


def _installed(status: str) -> Iterator[tuple[str, str, str]]:
    """Name, version and architecture of each installed package; the format is deb822(5)."""
    for paragraph in status.split("\n\n"):
        fields = dict(FIELD.findall(paragraph))
        if fields.get("Status", "").split()[-1:] == ["installed"]:
            yield fields["Package"], fields.get("Version", ""), fields.get("Architecture", "")
