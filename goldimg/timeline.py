"""What happened in a build and when, read back from `events.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from goldimg.events import Event
from goldimg.project import Site

EVENTS = "events.jsonl"
KNOWN = ("time", "build", "kind", "text", "phase", "fraction")
# what the moments are called at which phases begin
BEGINNINGS = {
    "boot": "VM started",
    "ssh": "waiting for SSH",
    "rebooting": "reboot",
    "provisioning": "first SSH login",
    "cleaning": "clean-up",
    "saving": "saving the guest",
    "shutting down": "shutting down",
}
SLOWEST = 10  # tasks in a summary
ENOUGH = 3  # earlier builds that say what is usual


def events_path(site: Site) -> Path:
    """The file that every build of the site appends its events to."""
    return site.cache / "logs" / EVENTS


def event_of(line: str) -> Event | None:
    """The event of one line; None for a line that is not whole, as a killed build leaves it."""
    try:
        members = json.loads(line)
        return Event(
            time=float(members["time"]),
            build=str(members["build"]),
            kind=members["kind"],
            text=str(members["text"]),
            phase=str(members.get("phase", "")),
            fraction=members.get("fraction"),
            data={key: value for key, value in members.items() if key not in KNOWN},
        )
    except (ValueError, KeyError, TypeError):
        return None


def read_events(path: Path) -> Iterator[Event]:
    """Every whole event in the file, in order; none where there is no file."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if event := event_of(line):
                yield event


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One row of a timeline: seconds since its build began, and for a task how long it took."""

    at: float
    build: str
    what: str
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The latest build of one provider's image: its moments in order, and where its files are.

    `files` are what the last runs of Packer said, by `log`, `console` and `picture`; `bases` those
    of the install.
    """

    began: float
    moments: Sequence[Moment]
    files: Mapping[str, str] = field(default_factory=dict)
    bases: Mapping[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> list[Moment]:
        """The Ansible tasks, the slowest first."""
        found = [moment for moment in self.moments if moment.seconds is not None]
        return sorted(found, key=lambda moment: -(moment.seconds or 0))


def latest_timeline(
    events: Iterable[Event], os_name: str, version: str, provider: str
) -> Timeline | None:
    """The timeline of the provider's latest build, with its install where that was part of it."""
    runs: dict[str, list[Event]] = {}
    for event in events:
        if event.data.get("os") == os_name and event.data.get("version") == version:
            runs.setdefault(str(event.data.get("run", "")), []).append(event)
    for found in reversed(runs.values()):
        bases = {event.build for event in found if _is_base_of(event, provider)}
        wanted = [event for event in found if event.build in (provider, *bases)]
        if wanted:
            return _timeline(wanted, provider)
    return None


def _is_base_of(event: Event, provider: str) -> bool:
    """Whether the event says that its build installs for the provider among others."""
    named = event.data.get("providers")
    return isinstance(named, list) and provider in named


def _timeline(events: Sequence[Event], provider: str) -> Timeline:
    began = events[0].time
    moments: list[Moment] = []
    files: dict[str, str] = {}
    bases: dict[str, str] = {}
    for event in events:
        if event.kind == "files":
            places = {key: str(value) for key, value in event.data.items()}
            files, bases = (places, bases) if event.build == provider else (files, places)
        elif moment := _moment(event, began):
            moments.append(moment)
    return Timeline(began=began, moments=moments, files=files, bases=bases)


def _moment(event: Event, began: float) -> Moment | None:
    at = event.time - began
    if event.kind == "task":
        seconds = float(str(event.data.get("seconds", 0)))
        return Moment(at=at - seconds, build=event.build, what=event.text, seconds=seconds)
    what = {
        "phase": BEGINNINGS.get(event.text, event.text),
        "mark": event.text,
        "note": event.text,
        "warning": f"warning: {event.text}",
        "done": f"done: {event.text}",
        "failed": f"failed: {event.text}",
    }.get(event.kind)
    if what is None:
        return None
    return Moment(at=at, build=event.build, what=what)


def timeline_text(timeline: Timeline) -> str:
    """The moments, a line each, and the slowest tasks."""
    moments = sorted(timeline.moments, key=lambda moment: moment.at)
    width = max((len(moment.build) for moment in moments), default=0)
    lines = []
    for moment in moments:
        took = "" if moment.seconds is None else f"  ({moment.seconds:.1f} s)"
        indent = "" if moment.seconds is None else "  "
        lines.append(f"{_clock(moment.at)}  {moment.build:<{width}}  {indent}{moment.what}{took}")
    slow = [task for task in timeline.tasks[:SLOWEST] if (task.seconds or 0) >= 0.1]
    if slow:
        lines += ["", "slowest tasks"]
        lines += [f"{task.seconds:7.1f} s  {task.build:<{width}}  {task.what}" for task in slow]
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    tenths = round(max(0.0, seconds) * 10)
    return f"{tenths // 600:3d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def usual_seconds(site: Site, os_name: str) -> dict[bool, dict[str, float]]:
    """What phases of installs (True) and layers (False) took in earlier builds on this host.

    The median of each, where enough builds say so: manifests of bases, and of finished images.
    """
    bases = [_seconds(path) for path in (site.cache / "bases").glob("*/manifest.json")]
    layers = [
        _seconds(path).get("layer") for path in site.artifacts.glob(f"*/{os_name}/*/manifest.json")
    ]
    return {True: _medians(bases), False: _medians(layers)}


def _seconds(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("seconds")
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _medians(builds: Iterable[object]) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    for build in builds:
        for phase, seconds in build.items() if isinstance(build, dict) else ():
            if isinstance(seconds, int | float):
                times.setdefault(phase, []).append(float(seconds))
    return {phase: median(found) for phase, found in times.items() if len(found) >= ENOUGH}
