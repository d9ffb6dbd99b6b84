"""Who may see the pages and the API: the admin token, or a cookie that was given for it.

A cookie is a time with a signature, made with a key that follows from the admin token: a new token
ends every session, and the server remembers none.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from goldimg.serve.tokens import same

COOKIE = "goldimg"
LASTS = 12 * 3600  # seconds


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """Sessions under one admin token."""

    admin: str = field(repr=False)
    clock: Callable[[], float] = time.time

    def is_admin(self, token: str) -> bool:
        """Whether this is the admin token."""
        return same(token, self.admin)

    def issue(self) -> str:
        """The value of a new session's cookie."""
        text = f"{int(self.clock())}.{secrets.token_urlsafe(12)}"
        return f"{text}.{self._sign('session', text)}"

    def is_valid(self, cookie: str) -> bool:
        """Whether the cookie is one of ours and not too old."""
        text, _, signature = cookie.rpartition(".")
        if not same(signature, self._sign("session", text)):
            return False
        return self.clock() < int(text.partition(".")[0]) + LASTS

    def form_token(self, cookie: str) -> str:
        """What forms of this session carry, so that no other site's form is taken for ours."""
        return self._sign("form", cookie)

    def _sign(self, purpose: str, text: str) -> str:
        message = f"{purpose}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self.admin.encode(), message, "sha256").hexdigest()
