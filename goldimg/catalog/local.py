"""The site's own catalogs, `artifacts/<OS>.json`, kept as its boxes come and go."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldimg.artifacts import index_lock
from goldimg.catalog.boxes import Box, box_name, file_name, find_boxes, in_catalog
from goldimg.catalog.merge import Merged, merge, text_of
from goldimg.errors import VerificationFailed
from goldimg.project import Site, write_text
from goldimg.providers import all_providers


@dataclass(frozen=True, kw_only=True)
class Local:
    """A catalog of this site. `is_changed` tells whether its file had to be written."""

    path: Path
    name: str
    key: str  # "" for the main one, else the image whose debugging boxes it lists
    boxes: tuple[Box, ...]
    catalog: dict[str, Any]
    notes: tuple[str, ...] = ()
    is_changed: bool = False


def base_url_of(site: Site, configured: str | None) -> str:
    """The URL of artifacts/: the configured one, or where it is on this machine."""
    return configured or site.artifacts.resolve().as_uri()


def known_oses(site: Site) -> list[str]:
    """Names of the operating systems that have finished boxes or a catalog here."""
    found = {path.parent.parent.name for path in site.artifacts.glob("*/*/*/*.box")}
    suffixes = tuple(f"_{provider}" for provider in all_providers())
    for path in site.artifacts.glob("*.json"):
        stem = path.stem
        found.add(stem.rpartition("_")[0] if stem.endswith(suffixes) else stem)
    return sorted(found)


def read_catalog(path: Path) -> dict[str, Any] | None:
    """The catalog at `path`, None where there is none; VerificationFailed where it is not one."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        why = str(error)
    else:
        if isinstance(found, dict):
            return found
        why = "its outermost value must be an object"
    raise VerificationFailed(
        f"{path} is not a catalog", why=why, hint="mend it, or remove it and run 'goldimg catalog'"
    )


def catalogs(site: Site, namespace: str, os_name: str, base_url: str) -> list[Local]:
    """The catalogs of one OS as they should be, nothing written: the main one first."""
    boxes = find_boxes(site.artifacts, os_name)
    return [_merged(site, namespace, os_name, key, boxes, base_url) for key in _keys(site, os_name)]


def _keys(site: Site, os_name: str) -> list[str]:
    """Catalogs that exist or have a box to list; the main one is ''."""
    listed = {it.catalog for it in find_boxes(site.artifacts, os_name)}
    possible = sorted({"", *all_providers(), *listed})
    return [
        key
        for key in possible
        if key in listed or (site.artifacts / file_name(os_name, key)).exists()
    ]


def _merged(
    site: Site, namespace: str, os_name: str, key: str, boxes: Sequence[Box], base_url: str
) -> Local:
    path = site.artifacts / file_name(os_name, key)
    existing, own = read_catalog(path), in_catalog(boxes, key)
    name = box_name(namespace, os_name, key)
    made: Merged = merge(
        existing, own, name=name, description=description(os_name, key), base_url=base_url
    )
    return Local(
        path=path,
        name=name,
        key=key,
        boxes=tuple(own),
        catalog=made.catalog,
        notes=made.notes,
        is_changed=made.catalog != existing,
    )


def description(os_name: str, key: str) -> str:
    """What a new catalog says of itself; whoever edits it keeps what he wrote."""
    return f"{os_name}, as built for {key}; for debugging" if key else os_name


def update(
    site: Site,
    namespace: str,
    os_name: str,
    base_url: str,
    on_wait: Callable[[], None] = lambda: None,
) -> list[Local]:
    """Writes the catalogs of one OS where they are not as they should be.

    Each under its lock, read and written anew, so that builds side by side lose nothing of one
    another's; each whole or not at all. VerificationFailed where one cannot be read.
    """
    done = []
    for key in _keys(site, os_name):
        path = site.artifacts / file_name(os_name, key)
        with index_lock(site, path, on_wait):
            # looked for under the lock: another build may have finished meanwhile
            boxes = find_boxes(site.artifacts, os_name)
            local = _merged(site, namespace, os_name, key, boxes, base_url)
            if local.is_changed:
                write_text(path, text_of(local.catalog))
        done.append(local)
    return done
