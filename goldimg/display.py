"""Shows events to people on stderr: one live line a build, or plain timestamped lines."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from goldimg.events import SILENT, Event

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

HEARTBEAT = 30.0  # seconds of silence after which plain output says what it is waiting for
MARKS = {"done": "✓", "failed": "✗", "skipped": "-"}


class Display(Protocol):
    """A sink that may hold the terminal until it is closed."""

    def __call__(self, event: Event) -> None: ...
    def close(self) -> None: ...


def clock_text(seconds: float) -> str:
    """Seconds as `m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def is_shown(event: Event, *, verbose: bool) -> bool:
    """Whether people see the event: stages and tasks only where they asked for everything."""
    return event.kind not in SILENT and (verbose or event.kind not in ("stage", "task"))


def text_of(event: Event) -> str:
    """What an event says to people."""
    if event.kind == "task":
        return f"{event.text}: {float(str(event.data.get('seconds', 0))):.1f} s"
    return event.text


class PlainDisplay:
    """Timestamped lines, `[build]` before each, and a heartbeat where nothing else is said."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream, self._verbose = stream, verbose
        self._started = time.monotonic()
        self._phases: dict[str, tuple[str, float]] = {}
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if not is_shown(event, verbose=self._verbose):
                return
            if event.kind == "phase":
                self._phases[event.build] = (event.text, time.monotonic())
            elif event.kind in MARKS:
                self._phases.pop(event.build, None)
            prefix = "warning: " if event.kind == "warning" else ""
            mark = MARKS.get(event.kind, "")
            self._say(event.build, f"{mark} {prefix}{text_of(event)}".strip())

    def _say(self, build: str, text: str) -> None:
        self._last = time.monotonic()
        elapsed = clock_text(self._last - self._started)
        name = f"[{build}] " if build else ""
        print(f"{elapsed:>6} {name}{text}", file=self._stream, flush=True)

    def _beat(self) -> None:
        while not self._closed.wait(1.0):
            with self._lock:
                now = time.monotonic()
                if self._phases and now - self._last >= HEARTBEAT:
                    waiting = ", ".join(
                        f"{build}: {phase} for {clock_text(now - since)}"
                        for build, (phase, since) in self._phases.items()
                    )
                    self._say("", f"still working ({waiting})")

    def close(self) -> None:
        """Ends the heartbeat."""
        self._closed.set()


class LiveDisplay:
    """One line a build with phase, progress and elapsed time; what is said scrolls above it."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live

        self._verbose = verbose
        self._console = Console(file=stream, highlight=False)
        self._rows: dict[str, tuple[str, str, float, float | None]] = {}
        self._lock = threading.Lock()
        self._live: Live = Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=2,
            transient=True,
        )
        self._live.start()

    def __call__(self, event: Event) -> None:
        if event.kind in ("phase", "progress"):
            self._update(event)
            return
        if event.kind == "stage":
            self._detail(event)
        if not is_shown(event, verbose=self._verbose):
            return
        if event.kind in MARKS:
            with self._lock:
                self._rows.pop(event.build, None)
        name = f"[bold]{event.build}[/bold] " if event.build else ""
        style = {"failed": "red", "done": "green", "warning": "yellow"}.get(event.kind, "")
        mark = MARKS.get(event.kind, "warning:" if event.kind == "warning" else "")
        from rich.markup import escape

        text = escape(text_of(event))
        self._console.print(f"{mark} {name}{text}".strip(), style=style)

    def _update(self, event: Event) -> None:
        with self._lock:
            text, _, since, _ = self._rows.get(event.build, ("", "", time.monotonic(), None))
            if event.kind == "phase":
                self._rows[event.build] = (event.text, "", since, None)
            else:
                self._rows[event.build] = (text, event.text, since, event.fraction)

    def _detail(self, event: Event) -> None:
        """What goes on in a phase stands beside it, until the next thing does."""
        with self._lock:
            if event.build in self._rows:
                phase, _, since, fraction = self._rows[event.build]
                self._rows[event.build] = (phase, event.text, since, fraction)

    def _table(self) -> Table:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        with self._lock:
            for build, (phase, detail, since, fraction) in self._rows.items():
                done = f"{fraction:.0%}" if fraction is not None else ""
                row = (f"  {build or 'goldimg'}", phase, done or detail, clock_text(now - since))
                table.add_row(*row)
        return table

    def close(self) -> None:
        """Gives the terminal back."""
        self._live.stop()


class QuietDisplay:
    """Only what went wrong."""

    def __call__(self, event: Event) -> None:
        if event.kind in ("failed", "warning"):
            name = f"[{event.build}] " if event.build else ""
            print(f"{name}{event.text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to give back."""


def choose_display(stream: TextIO, *, quiet: bool, verbose: bool) -> Display:
    """A live display on a terminal, plain lines elsewhere, almost nothing with `quiet`."""
    if quiet:
        return QuietDisplay()
    if stream.isatty():
        return LiveDisplay(stream, verbose=verbose)
    return PlainDisplay(stream, verbose=verbose)
