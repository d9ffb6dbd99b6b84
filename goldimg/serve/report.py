"""Hosts and their histories as text and JSON. Nothing secret is in either, but in `boot_line`."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from goldimg.errors import GoldimgError
from goldimg.serve.entries import host_of
from goldimg.serve.hosts import find_host
from goldimg.serve.service import Service
from goldimg.serve.store import UNDER_WAY, WAITING, Record


def when(time: float) -> str:
    """A moment as people read it, in UTC; empty for none."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC") if time else ""


def records(service: Service) -> list[Record]:
    """A record of every host that has a file or a state, by name."""
    known = service.store.hosts()
    names = sorted({*service.catalogue.view().hosts, *known})
    return [known.get(name) or Record(name=name) for name in names]


def hosts_table(service: Service) -> str:
    """A line for each host, with a heading."""
    view = service.catalogue.view()
    rows = [("HOST", "STATE", "SINCE", "OS", "MAC", "MESSAGE")]
    for record in records(service):
        host = view.hosts.get(record.name)
        problem = f"{len(host.problems)} problem(s) in its file" if host and host.problems else ""
        rows.append(
            (
                record.name,
                _state(record),
                when(record.since),
                record.os or (host.os if host else "") or "-",
                ",".join(host.mac) if host and host.mac else "-",
                problem or record.message,
            )
        )
    if len(rows) == 1:
        return "no hosts yet; 'goldimg host add node01 --mac 52:54:00:12:34:56 -O …' makes one"
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = (
        "  ".join(it.ljust(width) for it, width in zip(row, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _state(record: Record) -> str:
    return (
        f"{record.state}: {record.stage}"
        if record.state in UNDER_WAY and record.stage
        else record.state
    )


def host_json(service: Service, name: str, lines: int = 0) -> dict[str, object]:
    """All that is known of a host; UsageError for a name that nobody knows."""
    view, record = service.catalogue.view(), service.store.host(name)
    host = host_of(view, name, record)
    if host is None and not record.armed:
        host = find_host(view.hosts, name)
    found: dict[str, object] = {
        "name": name,
        "state": str(record.state),
        "since": record.since or None,
        "os": record.os or (host.os if host else None),
        "build": host.build if host else record.build,
        "mac": list(host.mac) if host else [],
        "serial": host.serial if host else None,
        "stage": record.stage,
        "message": record.message,
        "address": record.address,
        "armed": record.armed or None,
        "expires": record.expires if record.state in WAITING else None,
        "problems": [str(problem) for problem in host.problems] if host else [],
    }
    if lines:
        found["history"] = [
            {"time": it.time, "state": it.state, "text": it.text}
            for it in service.store.history(name)
        ]
        found["log"] = service.store.lines(name, lines)
    return found


def hosts_json(service: Service) -> str:
    """Every host, as JSON."""
    return json.dumps([host_json(service, it.name) for it in records(service)], indent=2)


def host_text(service: Service, name: str, lines: int) -> str:
    """A host with its history and the end of its log."""
    found = host_json(service, name)
    record = service.store.host(name)
    text = [f"{name}: {_state(record)}" + (f" since {when(record.since)}" if record.since else "")]
    for key in ("build", "os", "mac", "serial", "address", "message", "expires"):
        value = found[key]
        if key == "expires" and record.state in WAITING:
            value = when(record.expires)
        if isinstance(value, list):
            value = ", ".join(value)
        if value:
            text.append(f"  {key:<8} {value}")
    text += [f"  problem  {problem}" for problem in found["problems"]]  # type: ignore[attr-defined]
    if history := service.store.history(name, 40):
        text.append("history (UTC):")
        for it in history:
            at = datetime.fromtimestamp(it.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
            text.append(f"  {at}  {it.state:<17}  {it.text}")
    if log := service.store.lines(name, lines):
        text += ["log:", *(f"  {line}" for line in log)]
    return "\n".join(text)


def boot_line(service: Service, name: str) -> str:
    """The boot options of an armed host, its token included; GoldimgError where it is not armed."""
    view, record = service.catalogue.view(), service.store.host(name)
    host = host_of(view, name, record) or find_host(view.hosts, name)
    if not service.desk.may_install(view, host, record):
        raise GoldimgError(
            f"{name} is {record.state}", hint=f"'goldimg host install {name}' arms it first"
        )
    return service.desk.manual_arguments(view, host, record)
