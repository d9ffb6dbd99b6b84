"""Inventories, differences and images as text for people and as JSON for machines. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from goldimg.artifacts import Finished
from goldimg.images import Finding
from goldimg.inventory import Inventory
from goldimg.inventory.diff import Changed
from goldimg.inventory.sides import Pair
from goldimg.project import Site
from goldimg.report import table
from goldimg.words import size_text

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
MANY = 40  # files that are shown to people without -v


def images_table(site: Site, images: Sequence[Finding]) -> str:
    """One line an image."""
    rows = [("os", "version", "provider", "built", "size", "published", "tested", "channels")]
    for it in images:
        if it.fault:
            shown = site.shown(it.directory)
            rows.append(
                (it.os, it.version, it.provider, "-", "-", "-", "-", f"unreadable: {shown}")
            )
            continue
        known = (it.built[:16].replace("T", " "), size_text(it.size), ",".join(it.published) or "-")
        state = (tested_text(it), ",".join(it.channels) or "-")
        rows.append((it.os, it.version, it.provider, *known, *state))
    return table(rows)


def tested_text(image: Finding) -> str:
    return {True: "passed", False: "failed", None: "-"}[image.tested]


def images_json(images: Sequence[Finding]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [
        {
            "os": it.os,
            "version": it.version,
            "provider": it.provider,
            "path": str(it.directory),
            "built": it.built or None,
            "size": it.size,
            "published": list(it.published),
            "tested": it.tested,
            "channels": list(it.channels),
            "error": it.fault or None,
        }
        for it in images
    ]


def image_text(
    site: Site, image: Finding, finished: Finished, inventory: Inventory | None
) -> list[str]:
    """What is known of one image, for people."""
    manifest: Any = finished.manifest
    builder = (manifest.get("builder") or {}).get("name", "-")
    lines = [f"{image.os} {image.version} {image.provider}"]
    rows = [
        ("path", site.shown(image.directory)),
        ("built", image.built),
        ("builder", f"{builder}, {manifest.get('firmware', '-')}"),
        ("iso", str(((manifest.get("inputs") or {}).get("iso") or {}).get("name", "-"))),
        ("tested", tested_text(image)),
        ("channels", ", ".join(image.channels) or "-"),
        ("published", ", ".join(image.published) or "-"),
    ]
    rows += [("file", f"{it['file']}  {size_text(int(str(it['size'])))}") for it in finished.files]
    if inventory:
        rows.append(("contents", contents_text(inventory)))
        rows += [("enabled", name) for name, it in inventory.services.items() if it == "enabled"]
    else:
        rows.append(("contents", "no inventory"))
    lines += [f"  {key.ljust(9)}  {value}" for key, value in rows]
    return lines


def contents_text(inventory: Inventory) -> str:
    system = inventory.os.get("PRETTY_NAME", "unknown system")
    return f"{system}, {len(inventory.packages)} packages, {len(inventory.files)} files"


def image_json(image: Finding, finished: Finished, inventory: Inventory | None) -> dict[str, Any]:
    """The same as JSON, with the manifest as a whole and every package."""
    packages = [package.as_json() for package in inventory.packages] if inventory else None
    return {
        **images_json([image])[0],
        "manifest": dict(finished.manifest),
        "packages": packages,
        "services": inventory.services if inventory else None,
        "files": len(inventory.files) if inventory else None,
    }


def diff_text(site: Site | None, pairs: Sequence[Pair], *, is_verbose: bool) -> list[str]:
    """What differs, for people: a heading and one line each."""
    lines: list[str] = []
    for pair in pairs:
        shown = [site.shown(it) if site else str(it) for it in (pair.before, pair.after)]
        lines += [*([""] if lines else []), f"{shown[0]} -> {shown[1]}"]
        found = pair.difference
        for title, changes in (
            ("packages", found.packages),
            ("services", found.services),
            ("files", found.files),
        ):
            lines += _section(title, changes, is_verbose=is_verbose)
        lines.append("size")
        for what, (before, after) in found.sizes.items():
            sizes = f"{size_text(before)} -> {size_text(after)}"
            lines.append(f"  {what.ljust(9)}  {sizes} ({_growth(before, after)})")
    return lines


def _section(title: str, changes: Sequence[Changed], *, is_verbose: bool) -> list[str]:
    counts = Counter(it.kind for it in changes)
    said = ", ".join(f"{counts[kind]} {kind}" for kind in SIGNS if counts[kind])
    lines = [f"{title}: {said or 'the same'}"]
    shown = changes if is_verbose or title != "files" else changes[:MANY]
    for it in shown:
        values = [value for value in (it.before, it.after) if value is not None]
        lines.append(f"  {SIGNS[it.kind]} {it.name}  {' => '.join(values)}")
    if len(shown) < len(changes):
        lines.append(f"  … {len(changes) - len(shown)} more: goldimg -v diff, or --json")
    return lines


def _growth(before: int, after: int) -> str:
    sign, size = "-" if after < before else "+", abs(after - before)
    return f"{sign}{size_text(size)}"


def diff_json(pairs: Sequence[Pair]) -> str:
    """The same as JSON: a list of pairs."""
    return json.dumps([_pair_json(pair) for pair in pairs], indent=2, ensure_ascii=False)


def _pair_json(pair: Pair) -> dict[str, Any]:
    found = pair.difference
    sections = {"packages": found.packages, "services": found.services, "files": found.files}
    return {
        "before": str(pair.before),
        "after": str(pair.after),
        **{
            title: {kind: [_change_json(it) for it in changes if it.kind == kind] for kind in SIGNS}
            for title, changes in sections.items()
        },
        "size": {
            what: {"before": before, "after": after}
            for what, (before, after) in found.sizes.items()
        },
    }


def _change_json(change: Changed) -> dict[str, str]:
    told = {"name": change.name, "before": change.before, "after": change.after}
    return {key: it for key, it in told.items() if it is not None}
