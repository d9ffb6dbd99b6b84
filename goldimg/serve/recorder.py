"""Writes what happens in `goldimg build` where the status page reads it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.events import Event
from goldimg.serve.journal import Place
from goldimg.serve.store import Store

LONG = 1.0  # seconds from which on it is told how long a task took
STATES = {"done": "done", "failed": "failed", "skipped": "skipped"}


class Recorder:
    """Keeps the phases of a build's images and bases; `name_of` names them across runs.

    `directory_of` says where their artifacts will be.

    A build is never stopped by it: once the store cannot be written, nothing more is recorded.
    """

    def __init__(
        self, store: Store, name_of: Callable[[str], str], directory_of: Callable[[str], Path]
    ) -> None:
        self._store, self._name_of, self._directory_of = store, name_of, directory_of
        self._begun: set[str] = set()
        self._broken = False

    def __call__(self, event: Event) -> None:
        if self._broken or not event.build or event.kind == "progress":
            return
        try:
            self._record(event, self._name_of(event.build))
        except (GoldimgError, OSError, sqlite3.Error):
            self._broken = True

    def _record(self, event: Event, name: str) -> None:
        if name not in self._begun:
            self._begun.add(name)
            self._store.build(name, "queued", "")
        if event.kind == "files":
            picture, directory = Path(str(event.data["picture"])), self._directory_of(event.build)
            self._store.set_place(name, Place(picture=picture, directory=directory))
            return
        state = STATES.get(event.kind) or (event.phase if event.kind == "phase" else "")
        if state:
            self._store.build(name, state, event.text)
        elif event.kind == "task":  # named already, when it began
            seconds = float(str(event.data.get("seconds", 0)))
            self._store.log(name, [f"  took {seconds:.1f} s"] if seconds >= LONG else [])
        else:
            said = f"warning: {event.text}" if event.kind == "warning" else event.text
            self._store.log(name, said.splitlines())
