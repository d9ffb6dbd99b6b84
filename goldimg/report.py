"""Results and errors as text for people and as JSON for machines. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from goldimg.display import clock_text
from goldimg.errors import ConfigError, GoldimgError
from goldimg.words import size_text

if TYPE_CHECKING:
    from goldimg.build import Outcome
    from goldimg.catalog.local import Local
    from goldimg.config.models import Settings
    from goldimg.doctor import Finding
    from goldimg.host import Host
    from goldimg.plan import Install, Plan
    from goldimg.project import Site
    from goldimg.space import Estimate


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of text; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def outcome_table(site: Site, outcomes: Sequence[Outcome]) -> str:
    """The table that ends a build."""
    rows = [("provider", "status", "time", "size", "path")]
    for item in outcomes:
        is_there = item.status in ("built", "up to date")
        rows.append(
            (
                item.provider,
                item.status,
                clock_text(item.seconds) if item.seconds else "-",
                size_text(item.size) if is_there else "-",
                site.shown(item.directory) if is_there else "-",
            )
        )
    return table(rows)


def outcome_json(outcomes: Sequence[Outcome]) -> str:
    """The same as JSON: a list of objects."""
    return json.dumps(
        [
            {
                "provider": item.provider,
                "status": item.status,
                "seconds": round(item.seconds, 1),
                "size": item.size,
                "path": str(item.directory),
                "error": str(item.error) if item.error else None,
            }
            for item in outcomes
        ],
        indent=2,
    )


def catalog_table(site: Site, catalogs: Sequence[Local]) -> str:
    """The boxes that the catalogs list, newest version first."""
    from goldimg.catalog.merge import providers_of

    rows = [("box", "version", "status", "provider", "catalog")]
    for local in catalogs:
        for version in (it for it in local.catalog["versions"] if isinstance(it, dict)):
            providers = [str(it.get("name")) for it in providers_of(version)]
            number, status = (str(version.get(key, "-")) for key in ("version", "status"))
            shown = site.shown(local.path)
            rows.append((local.name, number, status, ",".join(providers) or "-", shown))
    return table(rows)


def failures_text(site: Site, outcomes: Sequence[Outcome]) -> list[str]:
    """Each different error once, with where to look and what to do."""
    lines: list[str] = []
    seen: set[int] = set()
    for item in outcomes:
        if item.error is None or item.status == "interrupted" or id(item.error) in seen:
            continue
        seen.add(id(item.error))
        if isinstance(item.error, GoldimgError):
            lines += error_text(item.error, site)
        else:
            kind = type(item.error).__name__
            lines.append(f"error: {item.provider}: {kind}: {item.error} (a fault of goldimg's)")
    if any(item.status == "interrupted" for item in outcomes):
        lines.append("interrupted; the same command goes on where it can")
    return lines


def error_text(error: GoldimgError, site: Site | None = None) -> list[str]:
    """An error in the form of every error: what; why, details, log, hint."""
    if isinstance(error, ConfigError) and error.problems:
        lines = [f"error: {problem}" for problem in error.problems]
    else:
        lines = [f"error: {error}"]
    lines += [f"  {detail}" for detail in error.details]
    if error.screen:
        lines.append(f"  screen: {site.shown(error.screen) if site else error.screen}")
    if error.log:
        lines.append(f"  log: {site.shown(error.log) if site else error.log}")
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return lines


def plan_text(site: Site, settings: Settings, plan: Plan, host: Host, needs: Estimate) -> str:
    """What a build would do, for people."""
    facts = (
        f"{host.cores} cores, {host.memory_mib} MiB of memory free, "
        f"{host.accelerator.name} ({host.accelerator.reason})"
    )
    iso = settings.iso_path or settings.iso_file or "assembled from Debian packages"
    lines = [
        f"{plan.os_name} {plan.version}",
        f"host    {facts}",
        f"iso     {iso}",
        f"disk    {plan.disk_mib} MiB",
        f"start   {plan.firmware.upper()} firmware",
        f"jobs    {plan.jobs} at once",
        f"needs   {needs_text(needs)}",
    ]
    for number, group in enumerate(plan.groups, 1):
        lines.append(f"group {number} {group.name}: {', '.join(group.providers)} ({group.reason})")
    for number, install in enumerate(plan.installs, 1):
        lines += ["", f"install {number} ({_sharing(install)})"]
        lines += [f"  {volume}" for volume in install.volumes]
        for layer in install.layers:
            where = site.shown(site.artifact_dir(plan.version, plan.os_name, layer.provider))
            lines.append(f"  {layer.provider}: {layer.choice.builder} ({layer.choice.reason})")
            lines += [f"    {where}/{name}" for name in (*layer.artifacts, *layer.boxes)]
    return "\n".join(lines)


def _sharing(install: Install) -> str:
    if install.is_native:
        return f"{install.providers[0]} alone, by {install.builder}"
    return f"shared by {', '.join(install.providers)}"


def needs_text(needs: Estimate) -> str:
    """What a build takes, as far as earlier ones tell."""
    time = f"some {clock_text(needs.seconds)}" if needs.seconds else "a time that nobody knows yet"
    return f"{size_text(needs.mib << 20)} of disk, {time}, if nothing is cached"


def plan_json(plan: Plan, host: Host, needs: Estimate) -> str:
    """The plan as JSON, kickstart texts included."""
    facts = {
        "cores": host.cores,
        "memory_mib": host.memory_mib,
        "accelerator": asdict(host.accelerator),
    }
    whole = {**asdict(plan), "host": facts, "needs": asdict(needs)}
    return json.dumps(whole, indent=2)


def doctor_text(findings: Sequence[Finding]) -> str:
    """One line a tool."""
    rows = [("tool", "state", "needed to", "version or remedy")]
    for finding in findings:
        state = "ok" if finding.is_there else ("missing" if finding.is_required else "absent")
        rows.append((finding.name, state, finding.reason, finding.detail))
    return table(rows)


def doctor_json(findings: Sequence[Finding], problems: Sequence[str] = ()) -> str:
    """The same as JSON, with the problems of the site's files."""
    tools = [asdict(finding) for finding in findings]
    return json.dumps({"tools": tools, "problems": list(problems)}, indent=2)
