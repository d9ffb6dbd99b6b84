"""What every request goes through, before and after what it asks for: limits, a log line, counts.

Kickstarts are answered here, without Flask: thousands of machines may ask for theirs in the same
minute, and this is twice as fast. Log lines hold routes and never paths or queries, which have
tokens in them.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goldimg.serve.client import BadRequest, Networks, address_of, kickstart_ask
from goldimg.serve.limits import Buckets, Counters
from goldimg.serve.service import Service
from goldimg.serve.sessions import Sessions
from goldimg.serve.trees import Trees

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("goldimg.requests")
_SLASHES = re.compile(r"/{2,}")
KS_ROUTES = ("/ks.php", "/ks", "/ks/{type}/{name}")
OTHER = "other"
STATUSES = tuple(
    str(it) for it in (200, 206, 302, 304, 400, 401, 403, 404, 405, 409, 413, 416, 429, 500, 503)
)
# Never counted against an address: one machine loads hundreds of packages and files.
UNLIMITED = ("/tree/", "/netboot/files/")
LOGINS = 10  # wrong tokens a minute of one address
TEXT_HEADERS = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, kw_only=True)
class Web:
    """What the routes share."""

    service: Service
    sessions: Sessions
    requests: Buckets
    logins: Buckets
    counters: Counters
    trusted: Networks
    trees: Trees


def make_web(service: Service, routes: Iterable[str]) -> Web:
    """The shared parts for one service. Before workers are forked: its tables are theirs too."""
    serve = service.serve
    return Web(
        service=service,
        sessions=Sessions(admin=service.admin),
        requests=Buckets(serve.rate),
        logins=Buckets(LOGINS),
        counters=Counters([*routes, OTHER], [*STATUSES, OTHER]),
        trusted=tuple(ip_network(it) for it in serve.trusted_proxies),
        trees=Trees(service),
    )


@dataclass(frozen=True)
class Front:
    """The WSGI application around `inner`, which finds its client at `goldimg.address`.

    `inner` may set `goldimg.route` and `goldimg.host` for the log line.
    """

    web: Web
    inner: WSGIApplication
    say: Callable[[str], None] = field(default=log.info)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = time.perf_counter()
        address = address_of(environ, self.web.trusted)
        environ["goldimg.address"] = address
        path = environ.get("PATH_INFO", "")
        if "//" in path:  # shim asks for //grubx64.efi, and firmware follows no redirect
            path = environ["PATH_INFO"] = _SLASHES.sub("/", path)

        def ended(status: str) -> None:
            route = environ.get("goldimg.route", OTHER)
            self.web.counters.add(route, status)
            if log.isEnabledFor(logging.INFO):
                spent = (time.perf_counter() - begun) * 1000
                self.say(
                    f"{address or '-'} {_method(environ)} {route} "
                    f"{environ.get('goldimg.host') or '-'} {status} {spent:.1f} ms"
                )

        if not path.startswith(UNLIMITED) and (wait := self.web.requests.take(address)):
            environ["goldimg.route"] = OTHER
            ended("429")
            retry = ("Retry-After", str(int(wait) + 1))
            return reply(start_response, environ, 429, "too many requests from this address", retry)
        if path.startswith("/ks") and (build := _build_of(path)) is not None:
            try:
                status, body, extra = self._kickstart(environ, build, address)
            finally:
                self.web.service.store.rest()
            ended(str(status))
            return reply(start_response, environ, status, body, *extra)

        def watched(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            ended(status[:3])
            return start_response(status, headers, *rest)

        try:
            return self.inner(environ, watched)
        finally:
            self.web.service.store.rest()  # no body of ours is made any later

    def _kickstart(
        self, environ: WSGIEnvironment, build: str, address: str
    ) -> tuple[int, bytes | str, tuple[tuple[str, str], ...]]:
        environ["goldimg.route"] = KS_ROUTES[2] if build else environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return 405, "a kickstart is got, with GET", (("Allow", "GET, HEAD"),)
        try:
            ask = kickstart_ask(environ, build, address)
            environ["goldimg.host"] = ask.build
            answer = self.web.service.desk.kickstart(ask)
        except BadRequest as error:
            return 400, str(error), ()
        except Exception as error:
            log_failure(error)
            return 500, "internal error", ()
        return answer.status, answer.text, ()


def log_failure(error: Exception) -> None:
    """Says what failed and where. Not by Flask's handler: it logs paths, and with them tokens."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    log.error("a request failed: %s at %s", type(error).__name__, where)


def _build_of(path: str) -> str | None:
    """The build that a kickstart's path names; empty: the query does. None: no kickstart's path."""
    if path in ("/ks", "/ks.php"):
        return ""
    if path.startswith("/ks/"):
        return path[4:] or None
    return None


def _method(environ: WSGIEnvironment) -> str:
    method = str(environ.get("REQUEST_METHOD", ""))
    return method if method.isascii() and method.isalpha() and len(method) < 10 else "?"


def reply(
    start: StartResponse,
    environ: WSGIEnvironment,
    status: int,
    body: bytes | str,
    *extra: tuple[str, str],
) -> Iterable[bytes]:
    """A text for machines: what is no kickstart is one comment line, so that none is installed."""
    data = body if isinstance(body, bytes) else f"# goldimg: {body}\n".encode()
    headers = [*TEXT_HEADERS, ("Content-Length", str(len(data))), *extra]
    start(_STATUS_LINES[status], headers)
    return [data] if environ["REQUEST_METHOD"] != "HEAD" else []


_STATUS_LINES = {it.value: f"{it.value} {it.phrase}" for it in HTTPStatus}
