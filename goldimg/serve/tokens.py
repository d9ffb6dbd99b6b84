"""Tokens of the kickstart server: bound to one arming of one host, or to one build, and expiring.

A host's tokens follow from the site's secret, its name and the time of its arming, so none is kept
anywhere, and arming a host again, or ending its install, makes earlier ones worthless.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Literal

from goldimg.errors import GoldimgError
from goldimg.project import write_text

Kind = Literal["fetch", "report"]
BYTES = 24


def site_secret(directory: Path) -> bytes:
    """The secret in `directory`, made on the first call."""
    return bytes.fromhex(_kept(directory / "secret"))


def admin_token(directory: Path) -> str:
    """What opens the status page and the API, made on the first call; `admin-token` holds it."""
    return _kept(directory / "admin-token")


def _kept(path: Path) -> str:
    if not path.exists():
        # Two servers may start at once: whoever links first wins.
        mine = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        write_text(mine, secrets.token_hex(32) + "\n", mode=0o600)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(mine)
        mine.unlink()
    text = path.read_text(encoding="ascii").strip()
    if len(text) < 32 or not text.isalnum():
        raise GoldimgError(f"{path} holds no secret", hint="remove it: a new one is made")
    return text


def host_token(secret: bytes, name: str, armed: float, kind: Kind) -> str:
    """The token of a host that was armed at that time, to fetch its kickstart or to report with."""
    return _mac(secret, "host", name, repr(armed), kind)


def build_token(secret: bytes, build: str, os_name: str, expires: int) -> str:
    """A new token for one kickstart of a build, valid until `expires` (seconds of the epoch)."""
    nonce = secrets.token_urlsafe(9)
    return f"{expires:x}~{nonce}~{_mac(secret, 'build', build, os_name, f'{expires:x}', nonce)}"


def check_build_token(secret: bytes, token: str, build: str, os_name: str, now: float) -> bool:
    """Whether `token` was made for this build and OS and has not expired."""
    expires, _, rest = token.partition("~")
    nonce, _, mac = rest.partition("~")
    is_right = same(mac, _mac(secret, "build", build, os_name, expires, nonce))
    return is_right and now < int(expires, 16)


def same(one: str, other: str) -> bool:
    """Whether two tokens are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def digest_of(token: str) -> str:
    """What may be kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _mac(secret: bytes, *words: str) -> str:
    found = hmac.new(secret, "\0".join(words).encode(), "sha256").digest()
    return base64.urlsafe_b64encode(found[:BYTES]).decode().rstrip("=")
