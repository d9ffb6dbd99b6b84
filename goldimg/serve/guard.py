"""Who may see a page or use the API, and whose forms are taken."""

from __future__ import annotations

import re

from flask import Response, redirect, request
from werkzeug.exceptions import Forbidden, TooManyRequests, Unauthorized

from goldimg.serve.front import Web
from goldimg.serve.sessions import COOKIE, LASTS
from goldimg.serve.tokens import same

_LOCAL = re.compile(r"/([A-Za-z0-9._-]+/?)*")


def session_of(web: Web) -> str | None:
    """The cookie of a session that may see the pages."""
    cookie = request.cookies.get(COOKIE, "")
    return cookie if cookie and web.sessions.is_valid(cookie) else None


def require_page(web: Web) -> Response | None:
    """None for an administrator, else the way to the login page."""
    if session_of(web):
        return None
    # Only the path, and only one of ours: nothing that is sent here names another place.
    wanted = request.path if request.method == "GET" and request.path != "/" else ""
    return redirect(f"/login?next={wanted}" if _LOCAL.fullmatch(wanted) else "/login")  # type: ignore[return-value]


def require_form(web: Web) -> None:
    """Forbidden where a form was not made for this session."""
    cookie = session_of(web)
    if cookie is None or not same(request.form.get("form", ""), web.sessions.form_token(cookie)):
        raise Forbidden("this form is too old: go back, load the page again and repeat")


def require_api(web: Web) -> None:
    """Unauthorized without the admin token; a session's cookie is enough to read."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and web.sessions.is_admin(token.strip()):
        return
    if kind:
        take_login(web)
    if request.method in ("GET", "HEAD") and not kind and session_of(web):
        return
    raise Unauthorized("give the admin token: Authorization: Bearer TOKEN")


def take_login(web: Web) -> None:
    """Counts an attempt with a wrong token; TooManyRequests after ten in a minute."""
    wait = web.logins.take(request.environ["goldimg.address"])
    if wait:
        raise TooManyRequests("too many wrong tokens", retry_after=int(wait) + 1)


def next_page(text: str) -> str:
    """Where a login leads: a page of ours, or the first one."""
    return text if _LOCAL.fullmatch(text) and not text.startswith("//") else "/"


def begin_session(web: Web, answer: Response) -> None:
    """Gives the session's cookie: for no script, for no other site, over TLS where there is TLS."""
    answer.set_cookie(
        COOKIE,
        web.sessions.issue(),
        max_age=LASTS,
        httponly=True,
        samesite="Strict",
        secure=web.service.desk.url.startswith("https:"),
    )
