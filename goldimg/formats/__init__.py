"""Disk and archive formats: a disk in, one file out, hashed while it is written.

Every module has `write` (atomic, deterministic: the same disk gives the same bytes, whatever the
number of threads) and `check` (reads a whole file against the rules of its format). Where reading
all takes long, `check_front` holds to them what is known without, and `check` can be stopped. None
knows of a cloud.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[int, int], None]  # bytes of the source done, bytes in all
Heed = Callable[[], None]  # called every so many bytes; what it raises ends the work


@dataclass(frozen=True, kw_only=True)
class Written:
    """A finished file: `size` in bytes on reading it, `sha256` in lower-case hex.

    `virtual_size` is the size in bytes of the disk that a machine sees in it, None where the file
    holds no disk.
    """

    path: Path
    size: int
    sha256: str
    virtual_size: int | None


@dataclass(frozen=True, kw_only=True)
class Region:
    """`size` bytes from `offset` on in the file `path`: a file of its own, or an archive member."""

    path: Path
    offset: int
    size: int

    @classmethod
    def whole(cls, path: Path) -> Region:
        """All of the file `path`."""
        return cls(path=path, offset=0, size=path.stat().st_size)


def round_up(number: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `number`."""
    return -(-number // step) * step
