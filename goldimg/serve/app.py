"""The web application of one site: its routes, their headers, and what is answered for errors."""

from __future__ import annotations

import re
from http import HTTPStatus
from importlib import resources
from pathlib import Path

import jinja2
from flask import Flask, Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException

from goldimg.errors import GoldimgError
from goldimg.kickstart.reports import BODY
from goldimg.serve.api import api_error, api_routes
from goldimg.serve.front import Front, Web, log_failure, make_web
from goldimg.serve.guard import session_of
from goldimg.serve.machines import comment, machine_routes
from goldimg.serve.openapi import ROUTES
from goldimg.serve.pages import filters, page_routes
from goldimg.serve.service import Service

# Nothing from elsewhere, nothing inline, in no other site's frame.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
WORDS = {
    404: "there is nothing at this address",
    405: "this address takes no such request",
    413: "that is more than 64 KiB",
    500: "something went wrong here; the server's log has the time",
}


def create_app(service: Service) -> Flask:
    """The application of one site, for any WSGI server. It is `front`, with Flask behind it."""
    here = Path(str(resources.files("goldimg.serve")))
    app = Flask(__name__, static_folder=None, template_folder=str(here / "templates"))
    app.url_map.merge_slashes = False  # shim asks for //grubx64.efi, and follows no redirect
    app.url_map.strict_slashes = False
    app.config.update(MAX_CONTENT_LENGTH=BODY, MAX_FORM_MEMORY_SIZE=BODY, MAX_FORM_PARTS=20)
    app.jinja_env.undefined = jinja2.StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(filters())
    web = make_web(service, dict.fromkeys(route.path for route in ROUTES))
    app.register_blueprint(machine_routes(web))
    app.register_blueprint(page_routes(web))
    app.register_blueprint(api_routes(web))
    app.register_error_handler(Exception, lambda error: _failed(web, error))
    app.after_request(_headers)
    app.extensions["goldimg"] = web
    app.wsgi_app = Front(web, app.wsgi_app)  # type: ignore[method-assign]
    return app


def route_of(rule: str) -> str:
    """A rule of Flask's as the API's description writes it: `/hosts/{name}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _headers(response: Response) -> Response:
    if request.url_rule is not None:
        request.environ["goldimg.route"] = route_of(request.url_rule.rule)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.mimetype == "text/html":
        response.headers.update(PAGE_HEADERS)
        # Werkzeug's redirects have a page that repeats the address; ours needs none.
        if response.location:
            response.set_data(b"")
    return response


def _failed(web: Web, error: Exception) -> Response:
    """What is answered for an error: a line for machines, JSON for the API, a page for people."""
    status, words, headers = 500, WORDS[500], {}
    if isinstance(error, HTTPException):
        status = error.code or 500
        is_ours = error.description and error.description != type(error).description
        words = str(error.description) if is_ours else WORDS.get(status, _phrase(status))
        if error.get_response().location:  # a redirect of Werkzeug's own
            status, words = 404, WORDS[404]
        headers = {
            name: value
            for name, value in error.get_response().headers.items()
            if name in ("Allow", "Retry-After")
        }
    elif isinstance(error, GoldimgError):
        status, words = 409, error.what.partition("\n")[0]
    else:
        log_failure(error)
    response = _worded(web, error, status, words)
    response.headers.update(headers)
    return response


def _worded(web: Web, error: Exception, status: int, words: str) -> Response:
    path = request.path
    if path.startswith("/api/") or path in ("/metrics", "/openapi.json"):
        if isinstance(error, GoldimgError):
            return api_error(error, status)
        answer = jsonify(error={"message": words})
        answer.status_code = status
        if status == 401:
            answer.headers["WWW-Authenticate"] = 'Bearer realm="goldimg"'
        return answer
    if path == "/" or path.startswith(("/hosts", "/builds", "/log", "/static")):
        cookie = session_of(web)
        text = render_template(
            "error.html",
            status=status,
            words=words,
            is_in=cookie is not None,
            form=web.sessions.form_token(cookie) if cookie else "",
            site_name="",
            now=0,
        )
        return make_response(text, status)
    if isinstance(error, GoldimgError):
        words = "what the site's files say is wrong: see the server's page"
    return comment(words, status)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return "error"
