"""What publishing shows to people, and to machines as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from goldimg.errors import GoldimgError
from goldimg.project import Site
from goldimg.publish.image import Image
from goldimg.publish.publisher import Preview
from goldimg.publish.records import Record
from goldimg.publish.sweep import Leftover, Removal
from goldimg.publish.upload import Outcome
from goldimg.report import error_text, table
from goldimg.words import size_text


def preview_text(site: Site, image: Image, outcome: Outcome) -> str:
    """What a publication would do, for people."""
    preview = outcome.preview or Preview(account="", names={}, calls=())
    lines = [f"{outcome.provider}: {image.os_name} {image.version} to {outcome.target}"]
    rows = [("as", preview.account)] if preview.account else []
    rows += [(kind, name) for kind, name in preview.names.items()]
    rows += [("file", site.shown(file.path)) for file in image.files]
    width = max(len(key) for key, _ in rows)
    lines += [f"  {key.ljust(width)}  {value}" for key, value in rows]
    lines.append("  calls")
    for number, call in enumerate(preview.calls, 1):
        size = f" ({size_text(call.size)})" if call.size else ""
        detail = f": {call.detail}" if call.detail else ""
        lines.append(f"  {number:>3}. {call.operation}{detail}{size}")
    lines += [f"  note: {note}" for note in preview.notes]
    return "\n".join(lines)


def outcomes_table(outcomes: Sequence[Outcome]) -> str:
    """The table that ends an upload."""
    rows = [("provider", "status", "time", "where", "id")]
    for item in outcomes:
        ids = item.record.publication.ids if item.record else {}
        shown = list(ids.items()) or [("", "")]
        for number, (place, id_) in enumerate(shown):
            first = (
                (item.provider, item.status, f"{item.seconds:.0f} s")
                if not number
                else ("", "", "")
            )
            rows.append((*first, place or item.target, id_))
    return table(rows)


def outcome_json(outcome: Outcome) -> dict[str, object]:
    """One outcome as JSON's types."""
    preview, record = outcome.preview, outcome.record
    return {
        "provider": outcome.provider,
        "target": outcome.target,
        "status": outcome.status,
        "seconds": round(outcome.seconds, 1),
        "preview": {
            "account": preview.account,
            "names": dict(preview.names),
            "calls": [asdict(call) for call in preview.calls],
            "notes": list(preview.notes),
        }
        if preview
        else None,
        "publication": record.as_json() if record else None,
        "kept": [str(it) for it in outcome.kept],
        "left": [str(it) for it in outcome.left],
        "error": str(outcome.error) if outcome.error else None,
    }


def failures(site: Site, outcomes: Sequence[Outcome]) -> list[str]:
    """Each error with what is kept, what is left, and what to type next."""
    lines: list[str] = []
    for item in outcomes:
        if item.error is None:
            continue
        if item.status == "interrupted":
            lines.append(f"{item.provider}: interrupted")
        elif isinstance(item.error, GoldimgError):
            lines += error_text(item.error, site)
        for resource in item.kept:
            lines.append(f"  kept: {resource}; the same command goes on from there")
        for resource in item.left:
            lines.append(f"  left: {resource}; 'goldimg gc {item.provider}' removes it")
        if not item.kept and not item.left:
            lines.append(f"  nothing of this run is left at {item.target}")
    return lines


def records_table(records: Sequence[Record]) -> str:
    """`goldimg published`: a line for each id."""
    head = ("provider", "version", "name", "where", "id", "published")
    has_environments = any(record.environment for record in records)
    rows: list[tuple[str, ...]] = [(*head, "env") if has_environments else head]
    for record in records:
        for place, id_ in (record.publication.ids or {record.target: ""}).items():
            name, at = record.publication.name, record.published[:16]
            row = (record.provider, record.version, name, place, id_, at)
            rows.append((*row, record.environment) if has_environments else row)
    return table(rows)


def records_json(records: Sequence[Record]) -> str:
    """The same as JSON, with resources, hashes and URLs."""
    return json.dumps(
        [
            {"provider": it.provider, "os": it.os_name, "version": it.version, **it.as_json()}
            for it in records
        ],
        indent=2,
    )


def leftovers_table(found: Sequence[tuple[str, Leftover]]) -> str:
    """`goldimg gc`: what is there to remove, each with its provider."""
    rows = [("provider", "what", "where", "known from")]
    for provider, it in found:
        resource = it.resource
        rows.append((provider, f"{resource.kind} {resource.id}", resource.where, it.source))
    return table(rows)


def removals_text(removals: Sequence[Removal]) -> list[str]:
    """A line for each resource that was removed, or was not."""
    return [
        f"{it.resource}: " + (f"not removed: {it.error}" if it.error else "removed")
        for it in removals
    ]
