"""Whether an image was booted and looked at, as its manifest says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TESTS = "tests"  # of the manifest: {"ok": bool, "artifacts": {file: sha256}, …}


def tested(manifest: Mapping[str, Any]) -> bool | None:
    """True where the image passed, False where it failed, None where it was not tested.

    A result counts only for the very files that were booted: all of them have to be artifacts that
    the manifest lists, by name and digest.
    """
    told = manifest.get(TESTS)
    if not isinstance(told, Mapping):
        return None
    booted = told.get("artifacts")
    listed = {it.get("file"): it.get("sha256") for it in manifest.get("artifacts") or ()}
    if not isinstance(booted, Mapping) or not booted:
        return None
    if any(listed.get(name) != sha256 for name, sha256 in booted.items()):
        return None
    return told.get("ok") is True
