"""The JSON API. Every answer is an object; an error is one too, with `error.message`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request
from werkzeug.exceptions import BadRequest

from goldimg.errors import ConfigError, GoldimgError, UsageError
from goldimg.serve import guard
from goldimg.serve.arming import arm_host
from goldimg.serve.front import Web
from goldimg.serve.openapi import LONGEST_EXPIRY, SHORTEST_EXPIRY, description
from goldimg.serve.routing import at, routes_of
from goldimg.serve.shown import (
    HostShown,
    boot_line,
    build_json,
    redacted,
    shown_host,
    shown_hosts,
    steps,
)
from goldimg.serve.store import State

LINES = 200


class Api:
    """The views, for one service."""

    def __init__(self, web: Web) -> None:
        self.web, self.service = web, web.service
        self.desk, self.store = web.service.desk, web.service.store

    def allow(self) -> None:
        guard.require_api(self.web)

    def host_or_404(self, name: str) -> HostShown:
        found = shown_host(self.service.catalogue.view(), self.store, name)
        if found is None:
            abort(404, "no such host")
        return found

    @at("/api/v1/hosts")
    def hosts(self) -> Response:
        found = shown_hosts(self.service.catalogue.view(), self.store)
        return jsonify(hosts=[it.as_json() for it in found])

    @at("/api/v1/hosts/<name>")
    def host(self, name: str) -> Response:
        found = self.host_or_404(name)
        view = self.service.catalogue.view()
        line = boot_line(view, self.desk, found.host, found.os) if found.host and found.os else ""
        return jsonify(
            **found.as_json(),
            boot_line=line or None,
            history=[it.as_json() for it in steps(self.store.history(name))],
            lines=[redacted(it) for it in self.store.lines(name, LINES)],
        )

    @at("/api/v1/hosts/<name>/install", "POST")
    def install(self, name: str) -> Response:
        self.host_or_404(name)
        wanted = _install_body()
        try:
            arm_host(self.service, name, os_name=wanted.get("os"), expires=wanted.get("expires"))
        except GoldimgError as error:
            return api_error(error, 400 if isinstance(error, UsageError) else 409)
        return jsonify(self.host_or_404(name).as_json())

    @at("/api/v1/hosts/<name>/cancel", "POST")
    def cancel(self, name: str) -> Response:
        self.host_or_404(name)
        self.store.disarm(name, "cancelled over the API")
        return jsonify(self.host_or_404(name).as_json())

    @at("/api/v1/builds")
    def builds(self) -> Response:
        return jsonify(builds=[build_json(it) for it in self.store.builds()])

    @at("/api/v1/problems")
    def problems(self) -> Response:
        return jsonify(
            problems=[
                {
                    "file": it.file,
                    "line": it.line,
                    "column": it.column,
                    "key": it.key,
                    "message": it.message,
                    "text": str(it),
                }
                for it in self.service.catalogue.view().all_problems()
            ]
        )

    @at("/api/v1/kickstarts/<kind>/<name>")
    def kickstart(self, kind: str, name: str) -> Response:
        view = self.service.catalogue.view()
        build, os_name = f"{kind}/{name}", request.args.get("os", "")
        if not os_name:
            abort(400, "no operating system given: add ?os=...")
        if os_name not in view.oses:
            abort(404, "no such operating system")
        if build not in view.builds:
            abort(404, "no such build")
        try:
            text = view.plain(build, os_name, self.desk.ks_url(build, os_name)).decode()
        except GoldimgError as error:
            return api_error(error, 409)
        return jsonify(build=build, os=os_name, kickstart=redacted(text))

    @at("/metrics")
    def metrics(self) -> Response:
        return Response(_metrics(self.web), content_type="text/plain; version=0.0.4; charset=utf-8")

    @at("/openapi.json")
    def openapi(self) -> Response:
        return jsonify(description())


def api_routes(web: Web) -> Blueprint:
    """The routes, for one service."""
    return routes_of("api", Api(web))


def api_error(error: GoldimgError, status: int) -> Response:
    """An error of ours as JSON."""
    body: dict[str, Any] = {"message": redacted(str(error))}
    if error.hint:
        body["hint"] = error.hint
    if isinstance(error, ConfigError):
        body["problems"] = [str(it) for it in error.problems]
    answer = jsonify(error=body)
    answer.status_code = status
    return answer


def _install_body() -> dict[str, Any]:
    data = request.get_data()
    body = request.get_json(force=True) if data.strip() else {}
    if not isinstance(body, dict) or not set(body) <= {"os", "expires"}:
        raise BadRequest('the body is an object such as {"os": "Debian-12", "expires": 3600}')
    os_name, expires = body.get("os"), body.get("expires")
    if os_name is not None and not isinstance(os_name, str):
        raise BadRequest("os must be a text")
    if expires is not None and (
        isinstance(expires, bool)
        or not isinstance(expires, int)
        or not SHORTEST_EXPIRY <= expires <= LONGEST_EXPIRY
    ):
        raise BadRequest(f"expires must be {SHORTEST_EXPIRY} to {LONGEST_EXPIRY} seconds")
    return body


def _metrics(web: Web) -> str:
    """Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
    service = web.service
    view = service.catalogue.view()
    hosts = shown_hosts(view, service.store)
    states = Counter(it.state for it in hosts)
    lines = ["# HELP goldimg_hosts Hosts by state.", "# TYPE goldimg_hosts gauge"]
    lines += [f'goldimg_hosts{{state="{state}"}} {states[state]}' for state in State]
    lines += [
        "# HELP goldimg_problems Faults in the site's files.",
        "# TYPE goldimg_problems gauge",
        f"goldimg_problems {len(view.all_problems())}",
        "# HELP goldimg_requests_total Requests by route and status.",
        "# TYPE goldimg_requests_total counter",
    ]
    lines += [
        f'goldimg_requests_total{{route="{route}",status="{status}"}} {count}'
        for route, status, count in web.counters.totals()
    ]
    return "\n".join(lines) + "\n"
