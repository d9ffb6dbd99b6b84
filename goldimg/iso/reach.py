"""Are an OS's ISO and packages where its file says? Asked before a VM starts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests

from goldimg.config.models import Settings
from goldimg.errors import BuildFailed, GoldimgError
from goldimg.iso.debian.mirror import Mirrors
from goldimg.iso.download import NETWORK, Policy, new_session, reason, shown
from goldimg.iso.expected import expected_sha256
from goldimg.iso.fetch import cached_path, is_fetched
from goldimg.project import make_directory

QUICK = Policy(connect=10.0, read=20.0)
# By what a repository is known: https://createrepo-c.readthedocs.io and
# https://wiki.debian.org/DebianRepository/Format#A.22Release.22_files
EL_MARK = "repodata/repomd.xml"
# QEMU's and VirtualBox's guests call the host so; nobody else knows the address.
GUESTS_HOST = "10.0.2.2"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository that an installer reads: `mark` is the file that it reads first."""

    name: str
    url: str
    mark: str

    @property
    def probe(self) -> str:
        """The URL to ask for."""
        return f"{self.url.rstrip('/')}/{self.mark}"


def preflight(
    settings: Settings,
    cache: Path,
    *,
    session: requests.Session | None = None,
    policy: Policy | None = None,
) -> list[str]:
    """What would keep `locate` from having the ISO; empty if nothing.

    Servers are asked (HEAD) in order until one has the file; nothing is downloaded but a checksum
    list.
    """
    if not is_fetched(settings):
        return []
    if missing := settings.unsupplied():
        return [str(problem) for problem in missing]
    session, policy = session or new_session(), policy or Policy()
    if settings.iso_path:
        readable = settings.iso_path.is_file() and os.access(settings.iso_path, os.R_OK)
        return [] if readable else [f"iso_path: {settings.iso_path} is not a readable file"]
    directory = make_directory(cache / "iso")
    try:
        expected = expected_sha256(settings, directory, session, policy)
    except GoldimgError as error:
        return [str(error), *error.details]
    if cached_path(settings, directory, expected).is_file():
        return []
    failures = []
    for url in settings.iso_urls():
        failure = unreachable(url, session, policy)
        if failure is None:
            return []
        failures.append(f"{shown(url)}: {failure}")
    return failures


def repositories(settings: Settings, mirrors: Mirrors | None = None) -> tuple[Repository, ...]:
    """What the OS's installer installs from; `mirrors` where its file names no repo_server."""
    url = settings.repo_url() or (mirrors.main if mirrors else None)
    if url is None:
        return ()
    if settings.os.kickstart.family == "debian":
        return (
            Repository(name="main", url=url, mark=f"dists/{settings.os.installer.suite}/Release"),
        )
    pairs = [("base", url), *settings.extra_repos()]
    return tuple(Repository(name=name, url=at, mark=EL_MARK) for name, at in pairs)


def missing_repositories(
    settings: Settings,
    mirrors: Mirrors | None = None,
    *,
    proxy: str | None = None,
    session: requests.Session | None = None,
    policy: Policy | None = None,
) -> list[str]:
    """Why packages cannot be had, a line for each repository that does not answer; empty if all do.

    A mirror of the OS file that has what is missing is named: point releases move to the vault.
    """
    session, policy = session or new_session(), policy or QUICK
    if proxy:
        session.proxies = {"http": proxy, "https": proxy}
    found = repositories(settings, mirrors)
    if not found:
        return [
            f"{settings.name} has no package repository: set repo_server in {settings.os_shown}"
        ]
    failures = [
        f"{shown(it.probe)}: {failure}"
        for it in found
        if (failure := unreachable(it.probe, session, policy)) is not None
    ]
    if failures and settings.os.kickstart.family == "el":
        failures += _elsewhere(settings.repo_candidates(), session, policy)
    return failures


def _elsewhere(
    candidates: Iterable[str], session: requests.Session, policy: Policy
) -> Iterable[str]:
    for url in candidates:
        if unreachable(f"{url}/{EL_MARK}", session, policy) is None:
            return [f"but {shown(url)} is there: set repo_server, or os_mirrors, to its server"]
    return []


def check_repositories(
    settings: Settings, mirrors: Mirrors | None = None, *, proxy: str | None = None
) -> None:
    """Raises BuildFailed, with every reason, where an installation would find no packages."""
    failures = missing_repositories(settings, mirrors, proxy=proxy)
    if failures:
        raise BuildFailed(
            f"{settings.name} cannot be installed: its packages cannot be had",
            details=failures,
            hint=f"point os_mirrors.{settings.os.os_name} in site.yml to a copy that this machine "
            "reaches, or set check_sources to false where only the guests reach it",
        )


def unreachable(url: str, session: requests.Session, policy: Policy) -> str | None:
    """Why the server does not offer the file, or None where it does."""
    limits = (policy.connect, policy.read)
    url = _as_host(url)
    try:
        with session.head(url, allow_redirects=True, timeout=limits) as response:
            code = response.status_code
        if code in (403, 405, 501):  # some servers know GET only
            one = {"Range": "bytes=0-0"}
            with session.get(url, headers=one, stream=True, timeout=limits) as response:
                code = response.status_code
    except NETWORK as error:
        return reason(error)
    return None if code in (200, 206) else f"HTTP {code}"


def _as_host(url: str) -> str:
    """The URL as this machine reaches it, where it is written as guests do."""
    parts = urlsplit(url)
    if parts.hostname != GUESTS_HOST:
        return url
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"127.0.0.1{port}"))
