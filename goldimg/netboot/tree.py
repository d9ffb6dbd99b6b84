"""The files of an ISO, read where they lie in it: no mount, no extraction, no second copy.

A file of an ISO 9660 image is one run of bytes (https://ecma-international.org/publications-and-
standards/standards/ecma-119/, 6.4; a large one is several runs on end), so that its offset and
length are all that a server needs to hand it to the kernel's sendfile.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from goldimg.errors import GoldimgError
from goldimg.project import make_directory, write_text
from goldimg.run import Runner

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SECTOR = 2048
SCHEMA = 1
# xorriso(1), report_lba: "File data lba:", extent, start, blocks, bytes, quoted path.
_LINE = re.compile(r"File data lba:\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*('.*)")


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Where a file's bytes are in the ISO."""

    offset: int
    size: int


class Slice(io.RawIOBase):
    """`size` bytes of a file from `offset`, as if they were a file of their own.

    The descriptor's own position follows, so that a server which passes `fileno()` to sendfile
    starts at the right byte; how many to send it must take from Content-Length.
    """

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset, self._size, self._at = offset, size, 0
        os.lseek(self._descriptor, offset, os.SEEK_SET)

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        os.lseek(self._descriptor, self._offset + self._at, os.SEEK_SET)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        got = os.readv(self._descriptor, [view[:wanted]]) if wanted else 0
        self._at += got
        return got

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@dataclass(frozen=True, kw_only=True)
class Tree:
    """An ISO and the place of every file in it."""

    iso: Path
    size: int  # of the ISO
    mtime_ns: int
    files: Mapping[str, Extent]

    @classmethod
    def of(cls, iso: Path, cache: Path, runner: Runner) -> Tree:
        """The tree of `iso`. Its index is made once (a second) and kept in `cache`.

        Names are Rock Ridge's. Raises MissingTool for xorriso, GoldimgError for a file that is no
        ISO. Symbolic links and files that do not lie in one piece are left out.
        """
        try:
            status = iso.stat()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise GoldimgError(f"cannot read the ISO {iso}", why=reason) from None
        known = {
            "schema": SCHEMA,
            "iso": str(iso.resolve()),
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
        }
        index = cache / f"{iso.name}.index.json"
        files = _kept(index, known)
        if files is None:
            files = _listed(iso, runner)
            rows = {path: (it.offset, it.size) for path, it in files.items()}
            make_directory(cache)
            write_text(index, json.dumps({**known, "files": rows}) + "\n")
        return cls(iso=iso, size=status.st_size, mtime_ns=status.st_mtime_ns, files=files)

    def find(self, path: str) -> Extent | None:
        """The file at `path`, exactly as the ISO spells it, without a leading slash."""
        return self.files.get(path)

    def open(self, path: str) -> Slice:
        """The file's bytes, as a stream that the caller closes; KeyError where there is none."""
        extent = self.files[path]
        return Slice(self.iso, extent.offset, extent.size)

    def etag(self, path: str) -> str:
        """Changes whenever the file may have; without quotes."""
        extent = self.files[path]
        return f"{self.mtime_ns:x}-{extent.offset:x}-{extent.size:x}"


def _kept(index: Path, known: Mapping[str, object]) -> dict[str, Extent] | None:
    try:
        kept = json.loads(index.read_text(encoding="utf-8"))
        if {key: kept[key] for key in known} != known:
            return None
        return {path: Extent(offset=at, size=size) for path, (at, size) in kept["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _listed(iso: Path, runner: Runner) -> dict[str, Extent]:
    lines: list[str] = []
    runner.run(
        ["xorriso", "-indev", iso, "-find", "/", "-type", "f", "-exec", "report_lba", "--"],
        reason="read the files of an ISO",
        on_line=lines.append,  # the output of a DVD can be longer than what run() keeps
        timeout=300,
    )
    files = parse_report(lines)
    if not files:
        raise GoldimgError(f"{iso} holds no files", hint="it must be an ISO 9660 image")
    return files


def parse_report(lines: list[str]) -> dict[str, Extent]:
    """Files by path out of what xorriso's report_lba says: a line an extent, sizes of the whole."""
    pieces: dict[str, list[tuple[int, int, int]]] = {}
    for line in lines:
        if match := _LINE.fullmatch(line):
            start, blocks, size = (int(match.group(number)) for number in (2, 3, 4))
            path = shlex.split(match.group(5))[0].removeprefix("/")
            pieces.setdefault(path, []).append((start, blocks, size))
    files = {}
    for path, runs in pieces.items():
        runs.sort()
        ends = [start + blocks for start, blocks, _ in runs]
        if all(end == start for end, (start, _, _) in zip(ends, runs[1:], strict=False)):
            files[path] = Extent(offset=runs[0][0] * SECTOR, size=runs[0][2])
    return files
