"""The pages: what an operator wants to know at two in the morning, and two buttons."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import Any

from flask import Blueprint, Response, abort, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from goldimg.errors import GoldimgError
from goldimg.serve import guard
from goldimg.serve.arming import arm_host
from goldimg.serve.front import Web
from goldimg.serve.outputs import artifacts_of, picture_of
from goldimg.serve.routing import at, routes_of
from goldimg.serve.sessions import COOKIE
from goldimg.serve.shown import (
    HostShown,
    ago,
    boot_line,
    redacted,
    shown_host,
    shown_hosts,
    span,
    stamp,
    steps,
    utc,
    what_is_wiped,
)
from goldimg.serve.store import State
from goldimg.words import size_text

ROWS = 200  # hosts and builds on one page
LINES = 60  # of a log
EXPIRES = {"1 hour": 3600, "8 hours": 28800, "1 day": 86400, "1 week": 604800}
STATIC = {
    "goldimg.css": "text/css",
    "goldimg.js": "text/javascript",
    "goldimg.svg": "image/svg+xml",
}
COLOURS = {
    State.FAILED: "bad",
    State.INSTALLED: "good",
    State.KNOWN: "idle",
    State.ARMED: "wait",
    State.BOOTING: "busy",
    State.FETCHED: "busy",
    State.INSTALLING: "busy",
}


@dataclass(frozen=True)
class _Wanted:
    """Which hosts the page is to show."""

    state: str
    words: str

    def fits(self, host: HostShown) -> bool:
        if self.state and host.state != self.state:
            return False
        text = " ".join((host.name, host.fqdn, host.os, *host.macs, host.record.address))
        return self.words.lower() in text.lower()


class Pages:
    """The views, for one service."""

    def __init__(self, web: Web) -> None:
        self.web, self.service = web, web.service
        self.desk, self.store = web.service.desk, web.service.store
        files = resources.files("goldimg.serve").joinpath("static")
        self.static = {name: files.joinpath(name).read_bytes() for name in STATIC}

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        cookie = guard.session_of(self.web)
        values |= {
            "now": self.store.clock(),
            "form": self.web.sessions.form_token(cookie) if cookie else "",
            "is_in": cookie is not None,
            "site_name": self.service.catalogue.view().site_file.namespace,
        }
        return make_response(render_template(template, **values), status)

    def host_or_404(self, name: str) -> HostShown:
        found = shown_host(self.service.catalogue.view(), self.store, name)
        if found is None:
            abort(404, "no such host")
        return found

    def allow(self) -> AnyResponse | None:
        is_open = request.endpoint in ("pages.login", "pages.log_in", "pages.static_file")
        return None if is_open else guard.require_page(self.web)

    @at("/static/<name>")
    def static_file(self, name: str) -> Response:
        if name not in self.static:
            abort(404, "no such file")
        answer = Response(self.static[name], content_type=f"{STATIC[name]}; charset=utf-8")
        answer.add_etag()
        answer.headers["Cache-Control"] = "no-cache"
        answer.make_conditional(request.environ)
        return answer

    @at("/login")
    def login(self) -> AnyResponse:
        wanted = guard.next_page(request.args.get("next", ""))
        return (
            redirect(wanted) if guard.session_of(self.web) else self.page("login.html", next=wanted)
        )

    @at("/login", "POST")
    def log_in(self) -> AnyResponse:
        wanted = guard.next_page(request.form.get("next", ""))
        if not self.web.sessions.is_admin(request.form.get("token", "").strip()):
            guard.take_login(self.web)
            return self.page("login.html", 403, next=wanted, wrong=True)
        answer = redirect(wanted)
        guard.begin_session(self.web, answer)  # type: ignore[arg-type]
        return answer

    @at("/logout", "POST")
    def log_out(self) -> AnyResponse:
        guard.require_form(self.web)
        answer = redirect("/login")
        answer.delete_cookie(COOKIE, httponly=True, samesite="Strict")
        return answer

    @at("/")
    def status(self) -> Response:
        view = self.service.catalogue.view()
        hosts = shown_hosts(view, self.store)
        wanted = _Wanted(request.args.get("state", ""), request.args.get("q", "")[:100])
        shown = [it for it in hosts if wanted.fits(it)]
        counts = Counter(str(it.state) for it in hosts)
        return self.page(
            "status.html",
            hosts=shown[:ROWS],
            hidden=max(0, len(shown) - ROWS),
            total=len(hosts),
            counts=[(str(it), counts[it]) for it in State if counts[it]],
            wanted=wanted,
            builds=self.store.builds()[:ROWS],
            problems=view.all_problems(),
        )

    @at("/hosts/<name>")
    def host(self, name: str) -> Response:
        found = self.host_or_404(name)
        view = self.service.catalogue.view()
        builds = f"{self.service.site.kickstart.name}/builds"
        history = steps(self.store.history(name))
        # The last install by itself: what was before is for who looks for it.
        armed = [number for number, step in enumerate(history) if step.state == State.ARMED]
        begin = armed[-1] if armed else 0
        return self.page(
            "host.html",
            host=found,
            steps=history[begin:],
            earlier=history[:begin],
            lines=[redacted(line) for line in self.store.lines(name, LINES)],
            boot_line=boot_line(view, self.desk, found.host, found.os) if found.host else "",
            file=f"{builds}/{found.host.build}.yml" if found.host else "",
        )

    @at("/hosts/<name>/install", "GET", "POST")
    def install(self, name: str) -> AnyResponse:
        found = self.host_or_404(name)
        error: GoldimgError | None = None
        if request.method == "POST":
            guard.require_form(self.web)
            try:
                seconds = EXPIRES.get(request.form.get("expires", ""))
                arm_host(
                    self.service, name, os_name=request.form.get("os") or None, expires=seconds
                )
                return redirect(f"/hosts/{name}", 303)
            except GoldimgError as caught:
                error = caught
        return self.page(
            "install.html",
            409 if error else 200,
            host=found,
            error=error,
            oses=self.service.catalogue.view().oses,
            chosen=request.form.get("os") or found.os,
            expires=EXPIRES,
            wiped=what_is_wiped(found.host.options if found.host else None),
        )

    @at("/hosts/<name>/cancel", "GET", "POST")
    def cancel(self, name: str) -> AnyResponse:
        found = self.host_or_404(name)
        if request.method == "POST":
            guard.require_form(self.web)
            self.store.disarm(name, "cancelled on the page")
            return redirect(f"/hosts/{name}", 303)
        return self.page("cancel.html", host=found)

    @at("/builds/<path:name>")
    def build(self, name: str) -> Response:
        found = next((it for it in self.store.builds() if it.name == name), None)
        if found is None:
            abort(404, "no such build")
        lines = [redacted(line) for line in self.store.lines(name, LINES)]
        return self.page(
            "build.html",
            build=found,
            steps=steps(self.store.history(name)),
            lines=lines,
            picture=picture_of(self.store.place(name)),
            files=artifacts_of(self.store.place(name)),
        )

    @at("/builds/<name>/picture.png")
    def picture(self, name: str) -> Response:
        found = picture_of(self.store.place(name))
        if found is None:
            abort(404, "no picture of this build's screen")
        return Response(found.data, content_type="image/png")


def page_routes(web: Web) -> Blueprint:
    """The routes, for one service."""
    return routes_of("pages", Pages(web))


def filters() -> dict[str, Any]:
    """What the templates know besides Jinja2's own."""
    return {
        "utc": utc,
        "stamp": stamp,
        "ago": ago,
        "span": span,
        "redacted": redacted,
        "size": size_text,
        "colour": lambda state: COLOURS.get(state, "busy"),
        "build_colour": lambda state: {"failed": "bad", "done": "good", "skipped": "idle"}.get(
            state, "busy"
        ),
    }
