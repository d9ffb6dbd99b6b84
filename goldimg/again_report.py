"""Images that were built twice, as text for people and as JSON for machines. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from goldimg.again import Compared
from goldimg.formats.tree import Different
from goldimg.inventory.report import MANY, SIGNS


def compared_text(title: str, compared: Sequence[Compared], *, is_verbose: bool) -> list[str]:
    """What the two builds of each image have not in common; `title` is the OS and its version."""
    return [
        line for it in compared for line in _image_text(f"{title} {it.provider}", it, is_verbose)
    ]


def _image_text(title: str, compared: Compared, is_verbose: bool) -> list[str]:
    if compared.is_identical:
        return [
            f"{title}: identical artifact",
            *(f"  {name}  sha256 {digest}" for name, (digest, _) in compared.artifacts.items()),
        ]
    if compared.files is None:
        lines = [f"{title}: another artifact", *_packages(compared)]
        return [*lines, f"  its files were not compared: {compared.fault}"]
    told = [it for it in compared.files if is_verbose or not it.is_time]
    heading = "the same files, another artifact" if compared.is_same else "other files"
    lines = [f"{title}: {heading}"]
    if compared.is_same:
        lines.append("  where a file system puts its files, and the times that it notes, differ")
    lines += _packages(compared)
    shown = told if is_verbose else told[:MANY]
    lines += [f"  {SIGNS[it.kind]} {it.path}{_how(it)}" for it in shown]
    if len(shown) < len(told):
        lines.append(f"  … {len(told) - len(shown)} more: goldimg -v build, or --json")
    times = sum(it.is_time for it in compared.files)
    counts = Counter[str](it.kind for it in compared.files if not it.is_time)
    said = ", ".join(f"{counts[kind]} {kind}" for kind in SIGNS if counts[kind])
    lines.append(f"  files: {said or 'the same'}; {times} differ in nothing but their times")
    return lines


def _packages(compared: Compared) -> list[str]:
    return [
        f"  {SIGNS[it.kind]} package {it.name}  "
        + " => ".join(value for value in (it.before, it.after) if value is not None)
        for it in compared.packages
    ]


def _how(it: Different) -> str:
    if not it.what:
        return f"  {sum(it.sizes)} bytes"
    before, after = it.sizes
    sizes = f" ({before} => {after} bytes)" if before != after else ""
    return f"  {', '.join(it.what)}{sizes}"


def compared_json(compared: Sequence[Compared]) -> str:
    """The same as JSON: a list of images."""
    return json.dumps([_image_json(it) for it in compared], indent=2, ensure_ascii=False)


def _image_json(it: Compared) -> dict[str, Any]:
    return {
        "provider": it.provider,
        "identical": it.is_identical,
        "same_files": it.is_same,
        "artifacts": {
            name: {"first": first, "second": second}
            for name, (first, second) in it.artifacts.items()
        },
        "packages": [vars(change) for change in it.packages],
        "files": None if it.files is None else [_file_json(file) for file in it.files],
        "error": it.fault or None,
    }


def _file_json(it: Different) -> dict[str, Any]:
    return {"path": it.path, "kind": it.kind, "differs_in": list(it.what), "sizes": list(it.sizes)}
