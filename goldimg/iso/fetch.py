"""The installer ISO of an OS: found here, or fetched once; never used when its digest differs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests

from goldimg.config.models import Settings
from goldimg.config.os_file import SUPPLY
from goldimg.errors import ConfigError, GoldimgError, VerificationFailed
from goldimg.iso.checksums import remember_hash, remembered_hash
from goldimg.iso.download import (
    Download,
    Policy,
    Progress,
    Refused,
    new_session,
    shown,
)
from goldimg.iso.expected import expected_sha256
from goldimg.project import make_directory, waiting_lock
from goldimg.run import Runner


@dataclass(frozen=True, kw_only=True)
class Iso:
    """A verified ISO on this machine."""

    path: Path
    sha256: str  # hex
    source: str  # "local", "cache", or the URL (without secrets) that it came from


def is_fetched(settings: Settings) -> bool:
    """Whether the OS installs from an ISO that is given, and not from one that we assemble."""
    return bool(settings.os.iso or settings.iso_path)


def locate(
    settings: Settings,
    cache: Path,
    *,
    runner: Runner | None = None,
    session: requests.Session | None = None,
    progress: Callable[[Progress], None] | None = None,
    policy: Policy | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Iso:
    """The OS's ISO, verified: the local one, else the cached one, else fetched from its servers.

    `tell` hears of each server that does not have it. An interrupted download is continued by the
    next call. Raises VerificationFailed where the digest differs, ConfigError where the site has
    still to say where the ISO is, GoldimgError where no server has the file or the disk is full.
    """
    finder = _Finder(
        settings=settings,
        directory=make_directory(cache / "iso"),
        session=session or new_session(),
        policy=policy or Policy(),
        progress=progress,
        runner=runner or Runner(),
        tell=tell,
    )
    return finder.find()


@dataclass(frozen=True, kw_only=True)
class _Finder:
    settings: Settings
    directory: Path
    session: requests.Session
    policy: Policy
    progress: Callable[[Progress], None] | None
    runner: Runner
    tell: Callable[[str], None]

    def find(self) -> Iso:
        if missing := self.settings.unsupplied():
            raise ConfigError.of(missing, hint=SUPPLY)
        expected = expected_sha256(self.settings, self.directory, self.session, self.policy)
        if self.settings.iso_path:
            return self._local(self.settings.iso_path, expected)
        target = cached_path(self.settings, self.directory, expected)
        with waiting_lock(self.directory / f".{target.name}.lock", self.runner.check_cancelled):
            if target.is_file():
                found = self._hash(target, target.name)
                if found == expected:
                    return Iso(path=target, sha256=found, source="cache")
                target.unlink()  # damaged since: fetch it anew
            return self._fetch(target, expected)

    def _local(self, path: Path, expected: str) -> Iso:
        try:
            found = self._hash(path, f"local-{path.name}")
        except OSError as error:
            raise GoldimgError(
                f"cannot read the ISO {path}",
                why=(error.strerror or str(error)).lower(),
                hint=f"correct iso_path in {self.settings.os_shown}",
            ) from error
        if found != expected:
            raise _differs(str(path), expected, found, "replace the file, or correct iso_checksum")
        return Iso(path=path, sha256=found, source="local")

    def _hash(self, path: Path, name: str) -> str:
        def report(done: int, total: int) -> None:
            self.runner.check_cancelled()
            if self.progress:
                self.progress(Progress(done=done, total=total, rate=0.0))

        return remembered_hash(path, self._memory(name), progress=report)

    def _memory(self, name: str) -> Path:
        return self.directory / f".{name}.sha256.json"

    def _fetch(self, target: Path, expected: str) -> Iso:
        failures: list[str] = []
        for url in self.settings.iso_urls():
            download = Download(
                session=self.session,
                part=target.with_name(f"{target.name}.part"),
                policy=self.policy,
                cancel=self.runner.cancel,
                check=self.runner.check_cancelled,
                progress=self.progress,
            )
            try:
                found = _matching(download, url, expected)
            except Refused as error:
                failures.append(f"{shown(url)}: {error}")
                self.tell(f"not at {failures[-1]}")
                continue
            if found == expected:
                download.keep(target)
                remember_hash(target, self._memory(target.name), found)
                return Iso(path=target, sha256=found, source=shown(url))
            download.discard()
            failures.append(f"{shown(url)}: another file: its SHA-256 is {found}")
            self.tell(f"not at {failures[-1]}")
        if any(": another file:" in failure for failure in failures):
            raise VerificationFailed(
                f"no server has the ISO that {self.settings.os_shown} describes",
                why=f"iso_checksum says {expected}; what differs was deleted",
                hint="compare iso_checksum with the distribution's list; trust no other copy",
                details=failures,
            )
        raise GoldimgError(
            f"cannot fetch {self.settings.iso_file}",
            why="no server gave it",
            hint=f"add mirrors to {self.settings.os_shown}, or set iso_path to a copy of your own, "
            "or put one into iso_dir",
            details=failures,
        )


def _matching(download: Download, url: str, expected: str) -> str:
    """Fetches `url`; once more from the start where the continued part was of another file."""
    download.fetch(url)
    if download.sha256 != expected and download.was_resumed:
        download.discard()
        download.fetch(url)
    return download.sha256


def cached_path(settings: Settings, directory: Path, sha256: str) -> Path:
    """`<name>-<16 hex digits>.iso`: two ISOs of one name never meet."""
    stem = (settings.iso_file or "installer.iso").removesuffix(".iso")
    return directory / f"{stem}-{sha256[:16]}.iso"


def _differs(name: str, expected: str, found: str, hint: str) -> VerificationFailed:
    return VerificationFailed(
        f"{name} is not the ISO that was asked for",
        hint=hint,
        details=[f"SHA-256 wanted: {expected}", f"SHA-256 found:  {found}"],
    )
