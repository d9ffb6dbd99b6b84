"""What the site's files say at this moment: hosts, operating systems, rendered kickstarts.

Files are read again when they have changed, and looked at once a second at most, so that a request
costs no reading. A wrong file hides nothing but what it describes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from goldimg.config.models import Settings, SiteFile
from goldimg.config.secrets import crypt_hash
from goldimg.config.settings import list_oses, load_settings, load_site
from goldimg.errors import ConfigError, GoldimgError, Problem
from goldimg.inputs import public_key_of
from goldimg.kickstart.answer import check_answer, render_answer
from goldimg.kickstart.model import Options, builds, load_options
from goldimg.kickstart.target import Target, find_mirrors, make_target
from goldimg.project import Site
from goldimg.run import Runner
from goldimg.serve.hosts import Host, Kept, load_hosts

LOOK_AGAIN = 1.0  # seconds
T = TypeVar("T")


@dataclass(kw_only=True)
class View:
    """The site's files as they were at one moment; what is asked for again is kept."""

    site: Site
    site_file: SiteFile
    hosts: Mapping[str, Host]
    builds: tuple[str, ...]
    oses: tuple[str, ...]
    problems: tuple[Problem, ...]
    runner: Runner
    variables: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _kept: dict[tuple[str, ...], object] = field(default_factory=dict, repr=False)

    def all_problems(self) -> list[Problem]:
        """What is wrong in the site's files, hosts included."""
        return [*self.problems, *(it for host in self.hosts.values() for it in host.problems)]

    def settings(self, os_name: str) -> Settings:
        """The settings of one OS; ConfigError or UsageError for one that cannot be used."""

        def load() -> Settings:
            return load_settings(self.site, os_name, variables=self.variables, environ=self.environ)

        return self._keep(("settings", os_name), load)

    def options(self, build: str, os_name: str) -> Options:
        """The options of a build for one OS."""
        settings = self.settings(os_name)
        return load_options(
            self.site.kickstart,
            build,
            settings.os.kickstart.options,
            os_file=settings.os_shown,
        )

    def target(self, build: str, os_name: str, **secrets: str | None) -> Target:
        """What is rendered for, with `root_hash`, `report_url` and `ks_url` where given."""
        settings = self.settings(os_name)
        mirrors = self._keep(("mirrors", os_name), lambda: find_mirrors(settings, self.runner))
        return make_target(
            settings, build, mirrors=mirrors, ssh_keys=(public_key_of(self.site),), **secrets
        )

    def render(self, build: str, os_name: str, target: Target) -> str:
        """The answer file of a build, in the form that the OS's installer reads."""
        return render_answer(
            self.site.kickstart, self.settings(os_name), self.options(build, os_name), target
        )

    def plain(self, build: str, os_name: str, ks_url: str) -> bytes:
        """The kickstart without anything secret, valid for its release; kept once it was made."""

        def make() -> bytes:
            text = self.render(build, os_name, self.target(build, os_name, ks_url=ks_url))
            self.check(text, build, os_name)
            return text.encode()

        return self._keep(("plain", build, os_name), make)

    def check(self, text: str, build: str, os_name: str) -> None:
        """Raises ConfigError with what the validators of the OS's installer have against `text`."""
        settings = self.settings(os_name)
        problems = check_answer(text, settings, self.runner)
        if problems:
            named = [
                Problem(f"kickstart {build}", it.line, it.column, it.key, it.message)
                for it in problems
            ]
            raise ConfigError.of(
                named, hint=f"it was checked as {settings.os.kickstart.syntax} for {os_name}"
            )

    def root_hash(self, os_name: str) -> str | None:
        """The site's root password as a hash, the same until files change; None without one."""
        settings = self.settings(os_name)
        if settings.root_pass is None:
            return None
        password, salt = settings.root_pass, settings.site.root_salt
        return self._keep(("root_hash",), lambda: crypt_hash(password, salt))

    def keep_text(self, key: tuple[str, ...], make: Callable[[], str]) -> bytes:
        """The text that belongs to `key`, made on the first call."""
        return self._keep(("text", *key), lambda: make().encode())

    def _keep(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._kept:
                try:
                    self._kept[key] = make()
                except GoldimgError as error:
                    self._kept[key] = error
            found = self._kept[key]
        if isinstance(found, GoldimgError):
            raise found.with_traceback(None)  # else it would grow with each request
        return found  # type: ignore[return-value]


def read_view(
    site: Site,
    environ: Mapping[str, str],
    runner: Runner,
    variables: Sequence[str] = (),
    kept: Kept | None = None,
) -> View:
    """The site as it is now. ConfigError where the site file itself is wrong.

    `kept` holds the hosts of the last reading, for those whose files have not changed.
    """
    site_file, _ = load_site(site, variables=variables)
    problems: list[Problem] = []
    oses = list_oses(site)
    loaded: dict[tuple[str, ...], object] = {}
    for name in oses:
        # All at once: a file that turns wrong later must not touch what is served now.
        try:
            loaded["settings", name] = load_settings(
                site, name, variables=variables, environ=environ
            )
        except ConfigError as error:
            loaded["settings", name] = error
            problems.extend(error.problems)
    return View(
        site=site,
        site_file=site_file,
        hosts=load_hosts(site, kept),
        builds=builds(site.kickstart),
        oses=tuple(oses),
        problems=tuple(dict.fromkeys(problems)),
        runner=runner,
        variables=tuple(variables),
        environ=environ,
        _kept=loaded,
    )


class Catalogue:
    """The current View. Where the site file turns wrong while serving, the last good one stays."""

    def __init__(
        self,
        site: Site,
        environ: Mapping[str, str],
        runner: Runner,
        *,
        variables: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.site, self._environ, self._runner, self._clock = site, environ, runner, clock
        self._variables = tuple(variables)
        self._lock = threading.Lock()
        self._marks = self._look()
        self._kept: Kept = {}
        self._view = self._read()
        self._own = self._view.problems
        self._next = clock() + LOOK_AGAIN

    def view(self) -> View:
        """The site's files as they were a second ago at most.

        While one thread reads what has changed, the others are given what was before.
        """
        if self._clock() >= self._next and self._lock.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._lock.release()
        return self._view

    def _refresh(self) -> None:
        if self._clock() < self._next:
            return
        self._next = self._clock() + LOOK_AGAIN
        marks = self._look()
        if marks == self._marks:
            return
        self._marks = marks
        try:
            self._view = self._read()
            self._own = self._view.problems
        except ConfigError as error:
            self._view.problems = tuple(dict.fromkeys((*error.problems, *self._own)))

    def _read(self) -> View:
        return read_view(self.site, self._environ, self._runner, self._variables, self._kept)

    def _look(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for top in (self.site.templates, self.site.kickstart):
            for path in top.rglob("*"):
                if path.suffix in (".yml", ".json", ".j2", ".sh"):
                    with contextlib.suppress(FileNotFoundError):  # just removed
                        stat = path.stat()
                        found.append((str(path), stat.st_mtime_ns, stat.st_size))
        key = self.site.keys / "packer.pub"
        if key.exists():
            found.append((str(key), key.stat().st_mtime_ns, key.stat().st_size))
        return tuple(sorted(found))
