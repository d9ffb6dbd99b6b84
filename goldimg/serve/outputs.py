"""What builds have made, for the page: the last picture of their screen, their artifacts.

Only files whose places a build itself has noted are read; no part of a request names one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from goldimg.artifacts import MANIFEST
from goldimg.packer.monitor import FAILURE
from goldimg.serve.journal import Place

PNG = b"\x89PNG\r\n\x1a\n"  # https://www.w3.org/TR/png-3/#5PNG-file-signature
LARGEST = 8 << 20  # bytes of a picture


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as a file holds it; `mark` changes with it."""

    data: bytes = field(repr=False)
    mark: int


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A finished file and its size in bytes."""

    name: str
    size: int


def picture_of(place: Place | None) -> Picture | None:
    """The screen as it was last seen, also of a build that has failed; None where there is none."""
    for path in (place.picture, place.directory / FAILURE) if place else ():
        try:
            status = path.stat()
            data = path.read_bytes() if status.st_size <= LARGEST else b""
        except OSError:
            continue
        if data.startswith(PNG):
            return Picture(data=data, mark=status.st_mtime_ns)
    return None


def artifacts_of(place: Place | None) -> list[Artifact]:
    """The finished files of a build, by name; none before its manifest says that all are there."""
    if place is None or not (place.directory / MANIFEST).is_file():
        return []
    found = (path for path in place.directory.iterdir() if path.is_file())
    return sorted(
        (Artifact(name=path.name, size=path.stat().st_size) for path in found),
        key=lambda it: it.name,
    )
