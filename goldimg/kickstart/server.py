"""Serves the kickstarts of running builds, and hears how far their installs are.

A URL holds a random token that lives as long as its build: installers fetch a kickstart twice and
more (one time for each network device), so a token that works only once would break installs. The
token to fetch is not the token to report, because the latter ends up in the installed system's
logs. Nothing in a request names a file, and neither tokens nor texts are logged.
"""

from __future__ import annotations

import errno
import functools
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from flask import Flask, Response, request
from waitress import create_server, wasyncore
from werkzeug.exceptions import HTTPException

from goldimg.errors import GoldimgError
from goldimg.kickstart.reports import BODY, STAGES, plain, shortened

TOKEN = 24  # bytes

OnEvent = Callable[[str, str, Mapping[str, str]], None]
Text = str | Callable[[str], str]
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Window:
    """What one build may use while it runs: a token to fetch and another to report."""

    build: str
    fetch: str
    report: str


class Kickstarts:
    """The texts being served, by token. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[str, tuple[str, bytes]] = {}
        self._reports: dict[str, str] = {}

    def open(self, build: str, text: Text, report_base: str) -> Window:
        """Serves `text` from now on; a callable is given the URL to report to."""
        window = Window(
            build=build, fetch=secrets.token_urlsafe(TOKEN), report=secrets.token_urlsafe(TOKEN)
        )
        body = text(report_base + window.report) if callable(text) else text
        with self._lock:
            self._texts[window.fetch] = (build, body.encode())
            self._reports[window.report] = build
        return window

    def close(self, build: str) -> None:
        """From now on the tokens of `build` are unknown."""
        with self._lock:
            self._texts = {key: it for key, it in self._texts.items() if it[0] != build}
            self._reports = {key: it for key, it in self._reports.items() if it != build}

    def text(self, token: str) -> tuple[str, bytes] | None:
        """Build and kickstart of a fetch token, or None."""
        with self._lock:
            return self._texts.get(token)

    def reporter(self, token: str) -> str | None:
        """The build that a report token belongs to, or None."""
        with self._lock:
            return self._reports.get(token)


def create_app(store: Kickstarts, on_event: OnEvent) -> Flask:
    """The application: `/ks/<token>`, `/report/<token>/<stage>`, `/healthz`, nothing else.

    `on_event(build, kind, data)` is called for kind `fetched` (data: address, agent), `stage`
    (stage, message) and `failed` (message), from the server's threads.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # a redirect helps no installer
    app.config["MAX_CONTENT_LENGTH"] = BODY
    app.register_error_handler(Exception, _failed)
    tell = functools.partial(_tell, on_event)

    @app.get("/ks/<token>")
    def kickstart(token: str) -> Response:
        found = store.text(token)
        if found is None:
            return _comment("no such kickstart: its build has ended, or never was", 404)
        build, body = found
        if request.method == "GET":
            agent = request.headers.get("User-Agent", "")
            tell(build, "fetched", address=request.remote_addr or "", agent=plain(agent)[:200])
        return _text(body)

    @app.post("/report/<token>/<stage>")
    def report(token: str, stage: str) -> Response:
        build = store.reporter(token)
        if build is None or stage not in STAGES:
            return _comment("no such build or stage", 404)
        message = shortened(plain(request.get_data(cache=False).decode("utf-8", "replace")))
        if stage == "failed":
            tell(build, "failed", message=message)
        else:
            tell(build, "stage", stage=stage, message=message)
        return _text(b"ok\n")

    @app.get("/healthz")
    def healthz() -> Response:
        return _text(b"ok\n")

    return app


def _tell(on_event: OnEvent, build: str, kind: str, **data: str) -> None:
    try:
        on_event(build, kind, data)
    except Exception:
        # Whatever hears of an install must not be able to break it.
        log.exception("an event of %s was lost", build)


def _failed(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _comment((error.name or "error").lower(), error.code or 500)
    # Not by Flask's own handler: it would log the path, and with it the token.
    log.error("a request failed: %s", type(error).__name__)
    return _comment("internal error", 500)


def _text(body: bytes, status: int = 200) -> Response:
    response = Response(body, status=status, content_type="text/plain; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _comment(words: str, status: int) -> Response:
    return _text(f"# goldimg: {words}\n".encode(), status)


class KickstartServer:
    """Serves over HTTP, in a thread of its own, between `with` and its end.

    `port` 0 takes a free one. `advertise` is the host name or address by which guests reach this
    server; without it, `host`. It goes into report URLs; a request's headers never do. Raises
    GoldimgError where the address or port cannot be had.
    """

    def __init__(
        self,
        on_event: OnEvent = lambda build, kind, data: None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        advertise: str | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.advertise = advertise or host
        self._store = Kickstarts()
        self._app = create_app(self._store, on_event)
        self._map: dict[int, object] = {}
        self._stop = threading.Event()

    def __enter__(self) -> KickstartServer:
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listening = socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise self._refused(error) from None
        self._server = create_server(
            self._app,
            map=self._map,
            sockets=[listening],
            threads=4,
            ident=None,
            max_request_body_size=BODY + 1,  # what is larger, the application refuses
            channel_timeout=60,
        )
        self.port = int(self._server.effective_port)
        self._thread = threading.Thread(target=self._serve, name="kickstart-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._server.pull_trigger()
        self._thread.join(timeout=10)
        # Closed here and not by the thread: the trigger's descriptor must live until it is pulled.
        self._server.task_dispatcher.shutdown(timeout=2)
        wasyncore.close_all(self._map, ignore_all=True)

    def add(self, build: str, text: Text, *, advertise: str | None = None) -> str:
        """Serves `text` for `build` and returns the URL's path, which is a secret.

        A callable is called once, with the URL that the install reports its stages to.
        `advertise` overrides the server's for guests that reach it by another name.
        """
        return f"/ks/{self._store.open(build, text, self.url('/report/', advertise)).fetch}"

    def remove(self, build: str) -> None:
        """Ends the window of `build`: its URLs answer 404."""
        self._store.close(build)

    def url(self, path: str, advertise: str | None = None) -> str:
        """The URL under which guests reach `path`."""
        return f"http://{advertise or self.advertise}:{self.port}{path}"

    def _serve(self) -> None:
        # Not server.run(): nothing but an exception in this thread would end it.
        while not self._stop.is_set():
            # select(2), its default, ends where a process has more than 1024 files open
            wasyncore.loop(use_poll=True, timeout=1.0, map=self._map, count=1)

    def _refused(self, error: OSError) -> GoldimgError:
        where = f"{self.host}:{self.port}"
        if error.errno == errno.EADDRINUSE:
            return GoldimgError(
                f"the kickstart server cannot listen on {where}: the port is taken",
                hint=f"'ss -ltnp sport = :{self.port}' says by whom; ks_port: 0 takes a free port",
            )
        reason = (error.strerror or str(error)).lower()
        return GoldimgError(
            f"the kickstart server cannot listen on {where}: {reason}",
            hint="give an address of this machine, and a port that its user may open",
        )
