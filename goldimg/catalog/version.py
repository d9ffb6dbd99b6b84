"""Versions as Vagrant compares them, which is as RubyGems does.

Source: RubyGems, lib/rubygems/version.rb (class Gem::Version).
"""

from __future__ import annotations

import functools
import itertools
import re

_WELL_FORMED = re.compile(
    r"\s*([0-9]+(\.[0-9a-zA-Z]+)*(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?)?\s*", re.ASCII
)
_SEGMENT = re.compile(r"[0-9]+|[a-z]+", re.IGNORECASE | re.ASCII)


def is_version(text: str) -> bool:
    """Whether Vagrant takes `text` as a version; else it refuses the whole catalog."""
    return bool(_WELL_FORMED.fullmatch(text))


def compare(one: str, other: str) -> int:
    """-1, 0 or 1, for two well-formed versions. Letters come before numbers: 1.0.rc1 < 1.0."""
    for left, right in itertools.zip_longest(_segments(one), _segments(other), fillvalue=0):
        if left == right:
            continue
        if isinstance(left, int) and isinstance(right, int):
            return -1 if left < right else 1
        if isinstance(left, str) and isinstance(right, str):
            return -1 if left < right else 1
        return -1 if isinstance(left, str) else 1
    return 0


sort_key = functools.cmp_to_key(compare)


def _segments(text: str) -> list[int | str]:
    """The parts that count: zeros at the end of the numbers, and of the rest, do not."""
    parts = _SEGMENT.findall(text.strip().replace("-", ".pre."))
    segments: list[int | str] = [int(part) if part.isdecimal() else part for part in parts]
    letters = (at for at, part in enumerate(segments) if isinstance(part, str))
    split = next(letters, len(segments))
    return [*_trimmed(segments[:split]), *_trimmed(segments[split:])]


def _trimmed(segments: list[int | str]) -> list[int | str]:
    while segments and segments[-1] == 0:
        segments.pop()
    return segments
