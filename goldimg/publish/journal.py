"""What a run has created and sent, written down as it happens, so that nothing is lost or orphaned.

A journal belongs to one target (an account and region, a project, a registry …) and stands beside
the artifacts as `.publish-<target>.journal`. Each entry is one line of JSON, appended; a line that
a crash cut short is ignored. What is created or set is on the disk before the call returns.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from goldimg.errors import GoldimgError
from goldimg.project import make_directory


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Something at a provider that a run made: `kind` and `id` in the provider's own words.

    `where` is its region or the like. `is_resumable`: a failed run leaves it, for the next to go on
    with. `is_temporary`: a run that ends well removes it.
    """

    kind: str
    id: str
    where: str = ""
    is_resumable: bool = False
    is_temporary: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.id}" + (f" in {self.where}" if self.where else "")


class Journal:
    """The journal of one target. Safe to use from several threads."""

    def __init__(self, path: Path, image: str) -> None:
        """Opens the journal, and reads what earlier runs wrote for `image`, a SHA-256."""
        self.path, self._lock = path, threading.Lock()
        self.image = image
        self.other_image: str | None = (
            None  # that an unfinished run of another image left things of
        )
        self._created: dict[tuple[str, str, str], Resource] = {}
        self._values: dict[str, Any] = {}
        self._blocks: dict[str, dict[int, str]] = {}
        self._file: int | None = None
        if path.exists():
            self._read()

    def _read(self) -> None:
        found = ""
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut short by a crash
            if not isinstance(entry, dict):
                continue
            found = str(entry.get("image", found))
            self._replay(entry)
        if found and found != self.image:
            self.other_image = found

    def _replay(self, entry: Mapping[str, Any]) -> None:
        if "created" in entry:
            resource = Resource(**entry["created"])
            self._created[_key(resource)] = resource
        elif "removed" in entry:
            kind, id_, where = entry["removed"]
            self._created.pop((kind, id_, where), None)
        elif "set" in entry:
            self._values.update(entry["set"])
        elif "block" in entry:
            name, index, digest = entry["block"]
            self._blocks.setdefault(name, {})[index] = digest
        elif "forgotten" in entry:
            self._blocks.pop(entry["forgotten"], None)

    def _write(self, entry: Mapping[str, Any], *, durable: bool) -> None:
        if self._file is None:
            make_directory(self.path.parent)
            is_new = not self.path.exists()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
            if is_new:
                self._append({"image": self.image, "time": round(time.time(), 3)})
            else:
                os.write(self._file, b"\n")  # after a line that a crash cut short
        self._append(entry)
        if durable:
            os.fsync(self._file)

    def _append(self, entry: Mapping[str, Any]) -> None:
        assert self._file is not None  # noqa: S101 - _write has opened it
        try:
            os.write(self._file, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise GoldimgError(
                f"cannot write {self.path}", why=(error.strerror or str(error)).lower()
            ) from error

    @property
    def created(self) -> tuple[Resource, ...]:
        """What was created and not removed since, the newest last."""
        with self._lock:
            return tuple(self._created.values())

    def find(self, kind: str, where: str = "") -> Resource | None:
        """The newest resource of this kind there, if an earlier run or this one made one."""
        found = [it for it in self.created if it.kind == kind and it.where == where]
        return found[-1] if found else None

    def add(self, resource: Resource) -> None:
        """Notes what was created, or is about to be where its name is known beforehand."""
        with self._lock:
            self._created[_key(resource)] = resource
            self._write({"created": asdict(resource)}, durable=True)

    def remove(self, resource: Resource) -> None:
        """Notes that it is gone."""
        with self._lock:
            if self._created.pop(_key(resource), None) is not None:
                self._write({"removed": _key(resource)}, durable=True)

    def get(self, key: str) -> Any:
        """A value that a run has set (JSON), None where none has."""
        with self._lock:
            return self._values.get(key)

    def set(self, key: str, value: Any) -> None:
        """Keeps a value, such as an upload's id or the token of a request. Never a secret."""
        with self._lock:
            self._values[key] = value
            self._write({"set": {key: value}}, durable=True)

    def blocks(self, name: str) -> dict[int, str]:
        """The blocks of the upload `name` that have arrived, each with what was noted of it."""
        with self._lock:
            return dict(self._blocks.get(name, {}))

    def block(self, name: str, index: int, note: str) -> None:
        """Notes that a block has arrived. Not forced to the disk: a lost note costs one block."""
        with self._lock:
            self._blocks.setdefault(name, {})[index] = note
            self._write({"block": [name, index, note]}, durable=False)

    def forget_blocks(self, name: str) -> None:
        """Forgets an upload that cannot be gone on with."""
        with self._lock:
            if self._blocks.pop(name, None) is not None:
                self._write({"forgotten": name}, durable=True)

    def restart(self) -> None:
        """Forgets everything: what other images' runs left was undone."""
        self.finish()
        self.other_image = None
        self._created, self._values, self._blocks = {}, {}, {}

    def finish(self) -> None:
        """Removes the journal: nothing unfinished is left."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file; the journal stays for the next run."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None


def _key(resource: Resource) -> tuple[str, str, str]:
    return resource.kind, resource.id, resource.where


def journal_path(directory: Path, target: str) -> Path:
    """Where the journal of a target stands."""
    return directory / f".publish-{hashlib.sha256(target.encode()).hexdigest()[:12]}.journal"
