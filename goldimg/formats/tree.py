"""The members of a root file system's archive, and how those of two archives differ."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from goldimg.errors import VerificationFailed
from goldimg.formats.gz import GzipReader

PIECE = 1 << 20
KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "hard link",
    tarfile.FIFOTYPE: "pipe",
}


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of any kind. `owner` is uid:gid, `time` its mtime in seconds since 1970.

    `content` is the SHA-256 in hex, or where a link points to; `attributes` are extended ones.
    """

    kind: str
    mode: int
    owner: str
    size: int
    content: str
    attributes: tuple[tuple[str, str], ...]
    time: int


@dataclass(frozen=True, kw_only=True)
class Different:
    """A path that is not the same in two archives; `what` names the fields of Member that differ,
    and is empty where it is in one of them only.
    """

    path: str
    kind: Literal["added", "removed", "changed"]
    what: tuple[str, ...] = ()
    sizes: tuple[int, int] = (0, 0)  # bytes, before and after

    @property
    def is_time(self) -> bool:
        """Whether nothing but its time differs."""
        return self.what == ("time",)


def read(archive: Path) -> dict[str, Member]:
    """The members of a tar.gz by path; VerificationFailed where it is none."""
    found = {}
    try:
        with (
            GzipReader(archive) as stream,
            tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar,
        ):
            for member in tar:
                name = "" if member.name == "." else member.name.removeprefix("./")
                found[f"/{name.strip('/')}"] = _member(tar, member)
    except tarfile.TarError as error:
        raise VerificationFailed(f"{archive} is no archive of files", why=str(error)) from error
    return found


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Member:
    content = member.linkname
    if member.isreg() and (data := tar.extractfile(member)):
        digest = hashlib.sha256()
        while piece := data.read(PIECE):
            digest.update(piece)
        content = digest.hexdigest()
    return Member(
        kind=KINDS.get(member.type, "other"),
        mode=member.mode & 0o7777,
        owner=f"{member.uid}:{member.gid}",
        size=member.size,
        content=content,
        attributes=tuple(
            sorted(it for it in member.pax_headers.items() if it[0].startswith("SCHILY."))
        ),
        time=int(member.mtime),
    )


def differences(before: Mapping[str, Member], after: Mapping[str, Member]) -> list[Different]:
    """Every path that `after` has in another way than `before`, by name."""
    return list(_differences(before, after))


def _differences(before: Mapping[str, Member], after: Mapping[str, Member]) -> Iterator[Different]:
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            sizes = (old.size if old else 0, new.size if new else 0)
            yield Different(path=path, kind="removed" if old else "added", sizes=sizes)
        elif old != new:
            what = tuple(
                name
                for name in vars(old)
                if name != "size" and getattr(old, name) != getattr(new, name)
            )
            yield Different(path=path, kind="changed", what=what, sizes=(old.size, new.size))
