"""The operating systems of a site, as `goldimg os` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from goldimg.config.document import closest
from goldimg.config.models import Settings
from goldimg.config.settings import list_oses, load_settings, load_site
from goldimg.errors import ConfigError, GoldimgError, Problem
from goldimg.iso.download import Policy, shown
from goldimg.iso.fetch import is_fetched
from goldimg.iso.reach import QUICK, missing_repositories, preflight
from goldimg.kickstart.target import find_mirrors
from goldimg.project import Site
from goldimg.run import Runner

WORKERS = 8  # servers that are asked at once


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One OS file. `settings` is None where it is wrong; `problems` say why.

    `missing` says what the site has still to give, `unreachable` what cannot be had, which is None
    where nobody asked.
    """

    name: str
    settings: Settings | None
    problems: tuple[Problem, ...] = ()
    missing: tuple[str, ...] = ()
    unreachable: tuple[str, ...] | None = None


def read_entries(
    site: Site, environ: Mapping[str, str], names: Iterable[str] | None = None
) -> list[Entry]:
    """Every OS of the site, or those called `names`, in the order of their names."""
    return [_read(site, environ, name) for name in names or list_oses(site)]


def _read(site: Site, environ: Mapping[str, str], name: str) -> Entry:
    try:
        settings = load_settings(site, name, environ=environ)
    except ConfigError as error:
        return Entry(name=name, settings=None, problems=error.problems)
    missing = tuple(str(problem) for problem in settings.unsupplied())
    return Entry(name=name, settings=settings, missing=missing)


def ask(
    entries: Iterable[Entry], cache: Path, runner: Runner, policy: Policy = QUICK
) -> list[Entry]:
    """The entries with what of their ISOs and repositories cannot be had; servers side by side."""

    def one(entry: Entry) -> Entry:
        settings = entry.settings
        if settings is None or entry.missing:
            return entry
        try:
            found = [
                *preflight(settings, settings.cache_dir or cache, policy=policy),
                *missing_repositories(settings, find_mirrors(settings, runner), policy=policy),
            ]
        except GoldimgError as error:
            found = [str(error)]
        return Entry(name=entry.name, settings=settings, unreachable=tuple(found))

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, entries))


def unused_mirrors(site: Site, entries: Iterable[Entry]) -> list[str]:
    """A remark for each of the site's os_mirrors that is no system's: a wrong name helps nobody."""
    known = {
        name
        for entry in entries
        if entry.settings
        for name in (entry.name, entry.settings.os.os_name)
    }
    remarks = []
    for name in load_site(site)[0].os_mirrors:
        if name not in known:
            meant = closest(name, known)
            suffix = f" (did you mean '{meant}'?)" if meant else ""
            remarks.append(f"os_mirrors.{name} is of no operating system here{suffix}")
    return remarks


def described(entry: Entry) -> dict[str, object]:
    """The entry as `--json` prints it, and as `os show` lists it; URLs without secrets."""
    settings = entry.settings
    if settings is None:
        return {"name": entry.name, "problems": [str(it) for it in entry.problems]}
    os = settings.os
    url = settings.repo_url()
    facts: dict[str, object] = {
        "name": entry.name,
        "os": f"{os.os_name} {os.os_version}",
        "installer": os.installer.kind,
        "answer_file": "preseed" if os.installer.kind == "debian-installer" else "kickstart",
        "syntax": os.kickstart.syntax,
        "iso": settings.iso_file or f"out of packages of {os.installer.suite}",
        "iso_from": source_of(settings),
        "iso_urls": [shown(it) for it in settings.iso_urls()],
        "checksum": _checksum(settings),
        "repository": shown(url) if url else _unset(settings),
        "extra_repositories": {name: shown(it) for name, it in settings.extra_repos()},
        "firmware": settings.firmware,
        "cpu": os.cpu or "x86-64",
        "memory_mib": settings.memory_mib,
        "package_manager": os.package_manager,
        "python": os.python,
        "sftp_server": os.sftp_server,
        "guest_os": dict(os.guest_os),
        "boot_bios": os.boot.bios,
        "boot_efi": os.boot.efi,
        "netboot": os.netboot.model_dump(exclude_none=True) if settings.netboot_files and os.netboot
        else None,
        "missing": list(entry.missing),
    }  # fmt: skip
    if entry.unreachable is not None:
        facts["unreachable"] = list(entry.unreachable)
    return facts


def source_of(settings: Settings) -> str:
    """Where the ISO comes from, in a word: local, packages, site, or its first server's name."""
    if settings.iso_path:
        return "local"
    if not is_fetched(settings):
        return "packages"
    urls = settings.iso_urls()
    return shown(urls[0]).split("/")[2] if urls else "site"


def _checksum(settings: Settings) -> str | list[str] | None:
    if settings.checksum_file:
        return str(settings.checksum_file)
    return [shown(url) for url in settings.checksum_lists()] or settings.os.iso_checksum


def _unset(settings: Settings) -> str:
    is_debian = settings.os.kickstart.family == "debian"
    return "the mirror of this machine's apt" if is_debian else "not set"
