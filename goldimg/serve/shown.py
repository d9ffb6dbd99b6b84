"""What the pages and the API say of hosts and builds: nothing in it is a secret."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from goldimg.errors import GoldimgError
from goldimg.kickstart.bootline import boot_arguments
from goldimg.kickstart.model import Options
from goldimg.serve.catalogue import View
from goldimg.serve.desk import Desk
from goldimg.serve.hosts import Host
from goldimg.serve.journal import BuildRecord, Happening
from goldimg.serve.store import UNDER_WAY, WAITING, Record, State, Store

# The order on the page: what needs a person first.
URGENCY = [
    State.FAILED,
    State.INSTALLING,
    State.FETCHED,
    State.BOOTING,
    State.ARMED,
    State.KNOWN,
    State.INSTALLED,
]
STUCK = 45 * 60  # seconds without a word from an install that is under way
_SECRETS = (
    (re.compile(r"\$(?:1|2[abxy]?|5|6|7|y|gy)\$[^\s'\"]+"), "(hash)"),
    (re.compile(r"(token=)[A-Za-z0-9~_.-]+"), r"\1(token)"),
    (re.compile(r"(/report/[^/\s]+/[^/\s]+/)[A-Za-z0-9_-]{16,}"), r"\1(token)"),
)


def redacted(text: str) -> str:
    """The text without what looks like a password's hash or one of our tokens."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def utc(moment: float) -> str:
    """`2026-11-21T03:18:14Z`; empty for no time."""
    return f"{datetime.fromtimestamp(int(moment), UTC):%Y-%m-%dT%H:%M:%SZ}" if moment else ""


def stamp(moment: float) -> str:
    """`2026-11-21 03:18:14 UTC`, for people; empty for no time."""
    return f"{datetime.fromtimestamp(int(moment), UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def span(seconds: float) -> str:
    """A duration in the two largest units: `3 d 4 h`, `12 min 5 s`, `8 s`."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def ago(moment: float, now: float) -> str:
    """`3 min 5 s ago`, `in 2 h`, `now`; empty for no time."""
    if not moment:
        return ""
    if abs(moment - now) < 1:
        return "now"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


@dataclass(frozen=True, kw_only=True)
class HostShown:
    """One host as people see it: its definition, where it has one, and what became of it."""

    name: str
    host: Host | None
    record: Record
    now: float
    heard: float = 0  # when an install that is under way last said something
    line: str = ""  # what its log ends with

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def problems(self) -> list[str]:
        return [str(it) for it in self.host.problems] if self.host else []

    @property
    def os(self) -> str:
        return self.record.os or (self.host and self.host.os) or ""

    @property
    def macs(self) -> tuple[str, ...]:
        return self.host.mac if self.host else ()

    @property
    def is_waiting(self) -> bool:
        return self.record.state in WAITING

    @property
    def is_under_way(self) -> bool:
        return self.record.state in UNDER_WAY

    @property
    def is_silent(self) -> bool:
        """Whether its install has said nothing for so long that somebody should look."""
        return self.is_under_way and self.now - self.heard > STUCK

    @property
    def message(self) -> str:
        return redacted(self.record.message or self.line)

    @property
    def fqdn(self) -> str:
        options = self.host.options if self.host else None
        return (options.fqdn if options else None) or ""

    def as_json(self) -> dict[str, object]:
        """What the API says of it."""
        record = self.record
        return {
            "name": self.name,
            "state": str(record.state),
            "since": utc(record.since) or None,
            "os": self.os or None,
            "fqdn": self.fqdn or None,
            "mac": list(self.macs),
            "serial": self.host.serial if self.host else None,
            "stage": record.stage or None,
            "message": self.message or None,
            "address": record.address or None,
            "armed": utc(record.armed) or None,
            "expires": (utc(record.expires) or None) if self.is_waiting else None,
            "fetched": utc(record.fetched) or None,
            "problems": self.problems,
        }


def shown_host(view: View, store: Store, name: str) -> HostShown | None:
    """One host; None where neither a file nor an earlier install tells of it."""
    record = store.host(name)
    if name not in view.hosts and not record.armed:
        return None
    return _shown(view, store, name, record)


def shown_hosts(view: View, store: Store) -> list[HostShown]:
    """Every host, those that need a person first."""
    records = store.hosts()
    found = [
        _shown(view, store, name, records.get(name) or Record(name=name))
        for name in sorted({*view.hosts, *records})
    ]
    return sorted(found, key=lambda it: (not it.problems, URGENCY.index(it.state)))


def _shown(view: View, store: Store, name: str, record: Record) -> HostShown:
    heard, line = record.since, ""
    if record.state in UNDER_WAY:
        heard = max((it.time for it in store.history(name, 1)), default=record.since)
        line = "".join(store.lines(name, 1))
    return HostShown(
        name=name,
        host=view.hosts.get(name),
        record=record,
        now=store.clock(),
        heard=heard,
        line=line,
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One entry of a timeline, with how long it lasted; None for the last, which goes on."""

    time: float
    state: str
    text: str
    seconds: float | None

    def as_json(self) -> dict[str, object]:
        return {
            "time": utc(self.time),
            "state": self.state,
            "text": self.text,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
        }


def steps(history: Sequence[Happening]) -> list[Step]:
    """A history as steps, the first one first."""
    ends = [*(it.time for it in history[1:]), None][: len(history)]
    return [
        Step(
            time=it.time,
            state=it.state,
            text=redacted(it.text).removeprefix(f"{it.state}: "),
            seconds=None if end is None else end - it.time,
        )
        for it, end in zip(history, ends, strict=True)
    ]


def build_json(build: BuildRecord) -> dict[str, object]:
    """What the API says of a build of images."""
    return {
        "name": build.name,
        "state": build.state,
        "since": utc(build.since),
        "started": utc(build.started),
        "text": redacted(build.text),
    }


def boot_line(view: View, desk: Desk, host: Host, os_name: str) -> str:
    """What is typed at the boot menu of install media for this host; empty where none can be."""
    try:
        settings = view.settings(os_name)
        options = view.options(host.build, os_name)
        kickstart = settings.os.kickstart
        url = desk.ks_url(host.build, os_name)
        return " ".join(boot_arguments(options, kickstart.family, kickstart.syntax, url))
    except GoldimgError:
        return ""


def what_is_wiped(options: Options | None) -> str:
    """The disks whose content an install destroys, in words."""
    if options is None:
        return "its disks"
    if options.disks:
        names = [name if name.startswith("/") else f"/dev/{name}" for name in options.disks]
        return "all of " + " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    if options.smallest == "any":
        return "all of its smallest disk"
    if options.smallest:
        return f"all of its smallest {options.smallest} disk"
    return "all of its disks"
