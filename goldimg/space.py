"""What a build will take, by what earlier builds took; and whether that fits on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldimg.artifacts import MANIFEST
from goldimg.errors import GoldimgError
from goldimg.plan import Plan
from goldimg.project import Site, free_bytes

# What a base takes on disk, and what a layer and its artifacts do, where no build has told yet.
BASE_MIB = 1500
LAYER_MIB = 2500


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Disk in MiB at the fullest moment, and time in seconds; None where nobody knows."""

    mib: int
    seconds: float | None


def estimate(site: Site, plan: Plan, wanted: Sequence[str]) -> Estimate:
    """What building `wanted` takes, by each provider's latest finished build of the same OS.

    As if no base were cached, and as if the plan's jobs were always busy.
    """
    mib, seconds, longest, is_known = 0, 0.0, 0.0, True
    for install in plan.installs:
        layers = [_latest(site, plan.os_name, name) for name in install.providers if name in wanted]
        if not layers:
            continue
        base = 0.0
        for told in layers:
            spent = told.get("seconds", {})
            base = max(base, sum(spent.get("base", {}).values()))
            layer = sum(spent.get("layer", {}).values())
            seconds += layer
            longest = max(longest, base + layer)
            is_known &= bool(layer)
            mib += told.get("space_mib", {}).get("layer", LAYER_MIB)
        seconds += base
        bases = [told.get("space_mib", {}).get("base", BASE_MIB) for told in layers]
        mib += 0 if install.is_native else max(bases)
    whole = max(longest, seconds / max(1, plan.jobs))
    return Estimate(mib=mib, seconds=whole if is_known and whole else None)


def _latest(site: Site, os_name: str, provider: str) -> dict[str, Any]:
    """The manifest of the provider's latest finished build; empty where there is none."""
    found = sorted(
        site.artifacts.glob(f"*/{os_name}/{provider}/{MANIFEST}"),
        key=lambda path: path.stat().st_mtime,
    )
    try:
        told = json.loads(found[-1].read_text(encoding="utf-8")) if found else {}
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def space_taken(base: Path | None, layer: Path, artifacts: Iterable[Path]) -> Mapping[str, int]:
    """What a manifest says of a build's space, in MiB.

    A conversion reads base and layer where they are, so it has the layer and the artifacts at once.
    """
    under, over = _allocated(base) if base else 0, _allocated(layer)
    made = sum(_allocated(path) for path in artifacts)
    return {"base": under >> 20, "layer": (over + made) >> 20}


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def check_space(site: Site, plan: Plan, wanted: Sequence[str]) -> None:
    """Raises GoldimgError where building `wanted` cannot fit, and says by how much."""
    need = estimate(site, plan, wanted).mib
    for where in (site.cache, site.artifacts):
        free = free_bytes(where) >> 20
        if free < need:
            raise GoldimgError(
                f"not enough disk space in {site.shown(where)}",
                why=f"the build takes about {need} MiB, {free} MiB are free: "
                f"{need - free} MiB are missing",
                hint="free some space, set cache_dir, or build fewer providers with --only",
            )
