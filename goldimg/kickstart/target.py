"""The target of a kickstart: what is installed, from where, and who may log in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace

from goldimg.config.models import Settings
from goldimg.config.os_file import SUPPLY
from goldimg.errors import ConfigError, GoldimgError, Problem
from goldimg.iso.debian.mirror import Mirrors, host_mirrors
from goldimg.kickstart.fields import LABEL, SSH_KEY, is_clean
from goldimg.kickstart.syntax import SYNTAXES, Family
from goldimg.run import Runner

HOST_NAME = "localhost.localdomain"  # an image's, until its cloud names the machine
# crypt(5): sha256, sha512 or yescrypt with a salt and a digest of that method's length.
CRYPT = re.compile(
    r"\$5\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43}"
    r"|\$6\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}"
    r"|\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}"
)
_HOST = rf"({LABEL}(\.{LABEL})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?"
_CHECKS = {
    "build": re.compile(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9._-]*"),
    "os_name": re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*"),
    "os_version": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"),
    "family": re.compile(r"el|debian"),
    "syntax": re.compile("|".join(SYNTAXES)),
    "repo_url": re.compile(r"(https?|ftp|nfs|file)://[!-~]+"),
    "lang": re.compile(r"[A-Za-z][A-Za-z0-9_.@-]*"),
    "keyboard": re.compile(r"[A-Za-z0-9][A-Za-z0-9_()-]*"),
    "timezone": re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*"),
    "hostname": re.compile(rf"{LABEL}(\.{LABEL})*|"),
    "root_hash": CRYPT,
    # Plain enough to stand unquoted in a comment and in a shell's word.
    "report_url": re.compile(rf"https?://{_HOST}(/[A-Za-z0-9._~-]+)*"),
    # For a comment and a kernel's command line; `&` and `?` of a query are fine in both.
    "ks_url": re.compile(rf"https?://{_HOST}(/[A-Za-z0-9._~-]+)*/?(\?[A-Za-z0-9._~/=&%+-]*)?"),
}
_REPO_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is installed, from where, and who may log in. ConfigError for a value of no use.

    `build` names the build in messages and never enters the text, so that builds with the same
    options share an install. `root_hash` is in crypt(5) form; None locks root's password.
    `report_url` is where stages are POSTed to, as `<report_url>/<stage>`. `ks_url`, without a
    token, is what a machine's boot line names; the kickstart shows that line.
    """

    build: str
    os_name: str
    os_version: str
    family: Family
    syntax: str
    repo_url: str
    extra_repos: tuple[tuple[str, str], ...] = ()
    lang: str = "en_US.UTF-8"
    keyboard: str = "us"
    timezone: str = "UTC"
    hostname: str = ""
    root_hash: str | None = field(default=None, repr=False)
    ssh_keys: tuple[str, ...] = ()
    report_url: str | None = field(default=None, repr=False)
    ks_url: str | None = None

    def __post_init__(self) -> None:
        values = {it.name: getattr(self, it.name) for it in fields(self)}
        wrong = [
            name
            for name, check in _CHECKS.items()
            if values[name] is not None
            and not (is_clean(values[name]) and check.fullmatch(values[name]))
        ]
        for name, url in self.extra_repos:
            if not _REPO_NAME.fullmatch(name) or not _CHECKS["repo_url"].fullmatch(url):
                wrong.append("extra_repos")
        if not all(is_clean(key) and SSH_KEY.fullmatch(key) for key in self.ssh_keys):
            wrong.append("ssh_keys")
        if wrong:
            # Never the value: it may be the hash.
            raise ConfigError.of(
                Problem(
                    file=self.build if is_clean(self.build) else "kickstart",
                    line=None,
                    column=None,
                    key=name,
                    message=_wanted(name),
                )
                for name in wrong
            )


def _wanted(name: str) -> str:
    return f"must be one of {', '.join(SYNTAXES)}" if name == "syntax" else "is not valid"


def make_target(
    settings: Settings,
    build: str,
    *,
    mirrors: Mirrors | None,
    ssh_keys: tuple[str, ...],
    root_hash: str | None = None,
    report_url: str | None = None,
    ks_url: str | None = None,
) -> Target:
    """The target of `build` for the OS of `settings`; root's password is locked without a hash.

    Raises GoldimgError where neither the OS file nor `mirrors` says where its packages are.
    """
    repo_url = settings.repo_url() or (mirrors.main if mirrors else None)
    if repo_url is None:
        if missing := settings.unsupplied():
            raise ConfigError.of(missing, hint=SUPPLY)
        raise GoldimgError(
            f"{settings.name} has no package repository",
            hint=f"set repo_server in {settings.os_shown}",
        )
    return Target(
        build=build,
        os_name=settings.os.os_name,
        os_version=settings.os.os_version,
        family=settings.os.kickstart.family,
        syntax=settings.os.kickstart.syntax,
        repo_url=repo_url,
        extra_repos=settings.extra_repos(),
        lang=settings.site.lang,
        keyboard=settings.site.keyboard,
        timezone=settings.site.timezone,
        hostname=_host_name(build),
        root_hash=root_hash,
        ssh_keys=ssh_keys,
        report_url=report_url,
        ks_url=ks_url,
    )


def _host_name(build: str) -> str:
    """What a machine is called that has no `fqdn`: as its file is, where that is a host name."""
    kind, _, name = build.partition("/")
    is_name = kind == "metal" and _CHECKS["hostname"].fullmatch(name)
    return name if name and is_name else HOST_NAME


def find_mirrors(settings: Settings, runner: Runner) -> Mirrors | None:
    """A Debian's package mirrors: its file's, or those of the host's apt; None for other OSes."""
    installer = settings.os.installer
    if installer.kind == "anaconda":
        return None
    if settings.os.repo_server:
        return Mirrors(main=settings.os.repo_server, security=installer.security_server)
    found = host_mirrors(runner, installer.suite or "")
    if installer.security_server:
        return replace(found, security=installer.security_server)
    return found
