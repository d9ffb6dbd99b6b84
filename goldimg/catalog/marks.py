"""Channels in a catalog: what a version's entry says of them. Pure.

Vagrant takes the highest version that fits, whatever its status and description are; they are for
people, and for those who write `config.vm.box_version` from them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from goldimg.catalog.merge import ordered

CHANNELS, TEXT = "channels", "description_markdown"
ROLLED_BACK = "revoked"


def marked(
    catalog: Mapping[str, Any], channels: Mapping[str, tuple[str, ...]], rolled_back: set[str]
) -> dict[str, Any]:
    """The catalog with the `channels` of the versions given, and no more of them than these.

    A version in a channel is active. One that is in none and was `rolled_back` is revoked, which
    puts it at the end of the list. Descriptions that others wrote stay.
    """
    found = copy.deepcopy(dict(catalog))
    versions = found.get("versions")
    if not isinstance(versions, list):
        return found
    for entry in versions:
        number = str(entry.get("version", "")) if isinstance(entry, dict) else ""
        if number in channels:
            _mark(entry, channels[number], is_rolled_back=number in rolled_back)
    found["versions"] = ordered(versions)
    return found


def _mark(entry: dict[str, Any], names: tuple[str, ...], *, is_rolled_back: bool) -> None:
    before = entry.get(CHANNELS)
    is_ours = TEXT not in entry or entry[TEXT] == _text(before if before else ())
    entry.pop(CHANNELS, None)
    if is_ours:
        entry.pop(TEXT, None)
    if names:
        entry |= {"status": "active", CHANNELS: list(names)}
        if is_ours:
            entry[TEXT] = _text(names)
    elif is_rolled_back:
        entry["status"] = ROLLED_BACK


def _text(names: object) -> str:
    return f"channels: {', '.join(map(str, names))}" if isinstance(names, list | tuple) else ""
