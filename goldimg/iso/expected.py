"""The SHA-256 that an OS's ISO must have: written in the OS file, or in the distribution's list."""

import contextlib
import hashlib
from pathlib import Path

import requests

from goldimg.config.document import closest
from goldimg.config.models import Settings
from goldimg.errors import GoldimgError
from goldimg.iso.checksums import parse_list
from goldimg.iso.download import NETWORK, PASSING, Policy, reason, shown
from goldimg.project import write_text

MAX_LIST = 4 << 20  # bytes


def expected_sha256(
    settings: Settings, directory: Path, session: requests.Session, policy: Policy
) -> str:
    """The ISO's SHA-256 in hex.

    A checksum list is asked for each time, since it moves with the ISO. Where its server does not
    answer, the copy in `directory` from last time serves, so a fetched ISO works offline.
    GoldimgError where no list can be had, or it does not name the ISO.
    """
    if settings.checksum_list is None:
        if settings.os.iso_checksum is None:
            raise GoldimgError(f"{settings.os_shown} gives no iso_checksum")
        return settings.os.iso_checksum
    if isinstance(settings.checksum_list, Path):
        source, text = str(settings.checksum_list), _read(settings.checksum_list)
    else:
        source = shown(settings.checksum_list)
        text = _fetched(settings.checksum_list, directory, session, policy)
    return _look_up(text, settings, source)


def _look_up(text: str, settings: Settings, source: str) -> str:
    name = settings.iso_file or ""
    digests = parse_list(text)
    if name in digests:
        return digests[name]
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


def _fetched(url: str, directory: Path, session: requests.Session, policy: Policy) -> str:
    copy = directory / f"checksums-{hashlib.sha256(url.encode()).hexdigest()[:16]}.txt"
    failure = ""
    for _ in range(3):
        try:
            text = fetch_text(url, session, policy)
        except NETWORK as error:
            failure = reason(error)
            answer = getattr(error, "response", None)
            if answer is not None and answer.status_code not in PASSING:
                break
            continue
        write_text(copy, text)
        return text
    with contextlib.suppress(OSError):
        return copy.read_text(encoding="utf-8")
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
