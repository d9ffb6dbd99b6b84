"""Where Debian's packages come from: the mirror that this host's own apt uses."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from goldimg.errors import GoldimgError
from goldimg.run import Runner, has_program

# man apt-get, "indextargets"; apt's doc/acquire-additional-files.md lists the fields
FORMAT = "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)"
HINT = "set repo_server in templates/os/<OS>.yml, or --var repo_server=http://…"


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """Base URLs of the main archive and, if any, of the security archive."""

    main: str
    security: str | None


def host_mirrors(runner: Runner, suite: str) -> Mirrors:
    """The mirrors of `suite` in this host's apt configuration, one-line or deb822.

    Another suite's mirror serves too where the host runs another release: a mirror holds them all.
    Only http and https without a login count, since guests fetch from them and images keep them.
    GoldimgError where the host has none.
    """
    if not has_program("apt-get"):
        raise GoldimgError("this host has no apt, so it has no Debian mirror", hint=HINT)
    said = runner.run(["apt-get", "indextargets", "--format", FORMAT]).stdout
    found = parse_targets(said, suite)
    if found is None:
        raise GoldimgError(
            f"the host's apt has no http mirror of Debian's {suite}",
            why="guests can use neither file:, cdrom: nor sources with a login",
            hint=HINT,
        )
    return found


def parse_targets(text: str, suite: str) -> Mirrors | None:
    """The mirrors in the output of `apt-get indextargets` by FORMAT, or None."""
    main: list[tuple[int, str]] = []
    security: list[tuple[int, str]] = []
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != 5 or fields[0] != "Packages" or fields[4] != "main":
            continue
        url, release = fields[1].rstrip("/"), fields[2]
        if not _is_usable(url):
            continue
        if release.endswith("-security"):
            security.append((release != f"{suite}-security", url))
        elif _serves_debian(url):
            main.append((suite not in (release, fields[3]), url))
    if not main:
        return None
    return Mirrors(main=min(main)[1], security=min(security)[1] if security else None)


def _is_usable(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username


def _serves_debian(url: str) -> bool:
    """By convention a mirror's path ends in /debian; other vendors' archives have other names."""
    return urlsplit(url).path.rstrip("/").endswith("/debian")
