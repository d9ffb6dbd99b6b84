"""What happens during a build, as values, and who hears of it.

Everything that a person sees while a build runs, and every line of `events.jsonl`, is an Event.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

Kind = Literal[
    "phase",  # a build is in another phase: `phase`
    "stage",  # what goes on in it, such as the Ansible task that begins
    "mark",  # a moment in its timeline
    "task",  # an Ansible task has ended: `seconds`
    "files",  # where what shows it is: `log`, `console`, `picture`
    "progress",  # how far it is: `fraction`
    "note",
    "warning",
    "skipped",
    "done",
    "failed",
]
SILENT = ("files", "progress")  # kinds that say nothing to people


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened: `time` in seconds since the epoch, `build` a provider or base."""

    time: float
    build: str
    kind: Kind
    text: str
    phase: str = ""
    fraction: float | None = None
    data: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> str:
        """One line of JSON without empty members."""
        members: dict[str, object] = {
            "time": round(self.time, 3),
            "build": self.build,
            "kind": self.kind,
            "text": self.text,
        }
        if self.phase:
            members["phase"] = self.phase
        if self.fraction is not None:
            members["fraction"] = round(self.fraction, 4)
        return json.dumps({**members, **self.data}, ensure_ascii=False)


Sink = Callable[[Event], None]


class Bus:
    """Hands each event to every sink, one at a time, whatever thread it comes from."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._sinks: list[Sink] = []
        self._lock = threading.RLock()
        self._clock = clock

    def subscribe(self, sink: Sink) -> None:
        """From the next event on `sink` is called too."""
        with self._lock:
            self._sinks.append(sink)

    def emit(
        self,
        build: str,
        kind: Kind,
        text: str,
        *,
        phase: str = "",
        fraction: float | None = None,
        **data: object,
    ) -> None:
        """Tells every sink; `build` is empty for what concerns the whole run."""
        event = Event(
            time=self._clock(),
            build=build,
            kind=kind,
            text=text,
            phase=phase,
            fraction=fraction,
            data=data,
        )
        with self._lock:
            for sink in self._sinks:
                sink(event)


class JsonLines:
    """Appends every event but progress to a file, a line each, with the members of `always`.

    Each line is one write to a file opened for appending, so that builds which run at the same
    time do not mix theirs.
    """

    def __init__(self, path: Path, **always: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream: IO[str] = path.open("a", encoding="utf-8")
        self._always = always

    def __call__(self, event: Event) -> None:
        if event.kind != "progress" and not self._stream.closed:
            event = replace(event, data={**self._always, **event.data})
            self._stream.write(event.as_json() + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Ends the file; later events are ignored."""
        self._stream.close()
