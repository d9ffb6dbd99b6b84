"""Which packages, in which versions, an installer is made of: resolved by apt, verified by apt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.iso.debian.mirror import Mirrors
from goldimg.project import make_directory, write_text
from goldimg.run import Runner

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# 'URI' file size SHA256:hash, as `apt-get --print-uris` prints it
URI_LINE = re.compile(
    r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})"
)
# not Debian's own recommendation, but what an image is minimal by
RECOMMENDS = "false"


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package file; size in bytes."""

    file: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.file.split("_")[0]


def sources_list(suite: str, mirrors: Mirrors, components: tuple[str, ...], option: str) -> str:
    """One-line sources of the suite, its updates and its security fixes."""
    parts = " ".join(components)
    lines = [
        f"deb {option}{mirrors.main} {suite} {parts}",
        f"deb {option}{mirrors.main} {suite}-updates {parts}",
    ]
    if mirrors.security:
        lines.append(f"deb {option}{mirrors.security} {suite}-security {parts}")
    return "\n".join(lines) + "\n"


def resolve(
    suite: str,
    mirrors: Mirrors,
    components: tuple[str, ...],
    packages: tuple[str, ...],
    *,
    state: Path,
    runner: Runner,
) -> list[Package]:
    """Everything that installing `packages` on nothing would fetch now, sorted by file name.

    apt keeps its lists in `state`, away from the host's. Raises GoldimgError where the mirror does
    not answer, a signature is wrong or a package does not exist.
    """
    for name in ("lists/partial", "cache/archives/partial", "etc"):
        make_directory(state / name)
    write_text(state / "status", "")
    option = f"[arch=amd64 signed-by={KEYRING}] "
    write_text(state / "etc/sources.list", sources_list(suite, mirrors, components, option))
    write_text(state / "apt.conf", _configuration(state))
    apt: list[str | Path] = ["apt-get", "-q", "-c", state / "apt.conf"]
    # the default is to go on with old lists where a mirror fails
    runner.run([*apt, "-o", "APT::Update::Error-Mode=any", "update"], timeout=600)
    wanted = ["?essential", "apt", "usr-is-merged", *packages]
    said = runner.run([*apt, "-y", "--print-uris", "install", *wanted], timeout=120).stdout
    found = [
        Package(file=match["file"], size=int(match["size"]), sha256=match["sha256"])
        for match in URI_LINE.finditer(said)
    ]
    if not found:
        raise GoldimgError(f"apt found no packages for {suite}", hint="check repo_server")
    return sorted(found, key=lambda package: package.file)


def _configuration(state: Path) -> str:
    settings = {
        "Dir::Etc::SourceList": state / "etc/sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::Status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Architecture": "amd64",
        "APT::Install-Recommends": RECOMMENDS,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::ForceHash": "SHA256",
        "Acquire::Retries": "3",
        "Acquire::http::Timeout": "30",
    }
    lines = [f'{name} "{value}";' for name, value in settings.items()]
    return "\n".join([*lines, "#clear APT::Architectures;", 'APT::Architectures { "amd64"; };', ""])
