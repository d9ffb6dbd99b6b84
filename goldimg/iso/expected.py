"""The SHA-256 that an OS's ISO must have: written in the OS file, or in the distribution's list."""

import contextlib
import hashlib
import re
from pathlib import Path

import requests

from goldimg.config.document import closest
from goldimg.config.models import Settings
from goldimg.errors import GoldimgError
from goldimg.iso.checksums import parse_list
from goldimg.iso.download import NETWORK, PASSING, Policy, reason, shown
from goldimg.project import write_text

MAX_LIST = 4 << 20  # bytes
ATTEMPTS = 3
# What distributions, and people, call the lists: of one ISO, and of all in a directory.
SUFFIXES = (".sha256", ".sha256sum", ".SHA256SUM", ".CHECKSUM")
LISTS = ("SHA256SUMS", "SHA256SUM", "CHECKSUM", "sha256sum.txt")


def expected_sha256(
    settings: Settings, directory: Path, session: requests.Session, policy: Policy
) -> str:
    """The ISO's SHA-256 in hex.

    A list beside an ISO that is here wins. Lists of servers are asked for each time, since they
    move with the ISO, in the order of the servers. Where none answers, the copy in `directory` from
    last time serves, so a fetched ISO works offline. GoldimgError where no list can be had, or none
    names the ISO.
    """
    if not (settings.os.iso_checksum or "").startswith("file:"):
        if settings.os.iso_checksum is None:
            raise GoldimgError(f"{settings.os_shown} gives no iso_checksum")
        return settings.os.iso_checksum
    if settings.checksum_file:
        text = _read(settings.checksum_file)
        return _look_up(text, settings, str(settings.checksum_file))
    return _beside(settings) or _from_servers(settings, directory, session, policy)


def _beside(settings: Settings) -> str | None:
    """The digest that a list beside the local ISO gives for it."""
    if settings.iso_path is None:
        return None
    name = settings.iso_path.name
    for suffix in SUFFIXES:
        path = settings.iso_path.with_name(f"{name}{suffix}")
        if path.is_file() and (found := digest_in(_read(path), name, path.name)):
            return found
    for listing in LISTS:
        path = settings.iso_path.with_name(listing)
        if path.is_file() and (found := digest_in(_read(path), name, listing)):
            return found
    return None


def _from_servers(
    settings: Settings, directory: Path, session: requests.Session, policy: Policy
) -> str:
    failures: list[GoldimgError] = []
    urls = settings.checksum_lists()
    for url in urls:
        try:
            text = _fetched(url, session, policy)
            found = _look_up(text, settings, shown(url))
        except GoldimgError as error:
            failures.append(error)
            continue
        write_text(_copy(directory, url), text)
        return found
    for url in urls:
        with contextlib.suppress(OSError, GoldimgError):
            text = _copy(directory, url).read_text(encoding="utf-8")
            return _look_up(text, settings, shown(url))
    if len(failures) == 1:
        raise failures[0]
    raise GoldimgError(
        f"no checksum list of {settings.iso_file} can be had",
        why="" if urls else "no server is named, and no list lies beside an ISO that is here",
        hint=f"check iso_checksum in {settings.os_shown}, or give the SHA-256 itself",
        details=[str(error) for error in failures],
    )


def digest_in(text: str, name: str, listing: str) -> str | None:
    """The digest of the file `name` in a list called `listing`.

    A list that is called after one file, such as `<name>.CHECKSUM`, is of that file, though it
    may say the name that "latest" stands for.
    """
    digests = parse_list(text)
    is_own = listing.startswith(name) and len(digests) == 1
    bare = re.fullmatch(r"\s*([0-9A-Fa-f]{64})\s*", text)
    if bare and listing.startswith(name):
        return bare[1].lower()
    return digests.get(name) or (next(iter(digests.values())) if is_own else None)


def _look_up(text: str, settings: Settings, source: str) -> str:
    name = settings.iso_file or ""
    if found := digest_in(text, name, source.rpartition("/")[2]):
        return found
    digests = parse_list(text)
    isos = [listed for listed in digests if listed.endswith(".iso")]
    meant = closest(name, isos)
    raise GoldimgError(
        f"{source} has no SHA-256 of {name}" + (f" (did you mean '{meant}'?)" if meant else ""),
        why=f"it lists {len(isos)} ISOs; point releases move" if isos else "it lists no ISO",
        hint=f"correct iso and iso_checksum in {settings.os_shown}",
        details=sorted(isos)[:10],
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_LIST).decode("utf-8", "replace")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise GoldimgError(f"cannot read the checksum list {path}", why=why) from error


def _copy(directory: Path, url: str) -> Path:
    return directory / f"checksums-{hashlib.sha256(url.encode()).hexdigest()[:16]}.txt"


def _fetched(url: str, session: requests.Session, policy: Policy) -> str:
    failure = ""
    for _ in range(ATTEMPTS):
        try:
            return fetch_text(url, session, policy)
        except NETWORK as error:
            failure = reason(error)
            answer = getattr(error, "response", None)
            if answer is not None and answer.status_code not in PASSING:
                break
    raise GoldimgError(
        f"cannot fetch the checksum list {shown(url)}",
        why=failure,
        hint="check iso_checksum, or give the SHA-256 itself",
    )


def fetch_text(url: str, session: requests.Session, policy: Policy) -> str:
    """A small text; requests' exceptions where it cannot be had."""
    limits = (policy.connect, policy.read)
    with session.get(url, stream=True, timeout=limits) as response:
        response.raise_for_status()
        body = b""
        for chunk in response.iter_content(1 << 16):
            body += chunk
            if len(body) > MAX_LIST:
                raise requests.exceptions.ContentDecodingError("longer than a checksum list")
        return body.decode("utf-8", "replace")
