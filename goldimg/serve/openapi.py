"""The description of every route, as OpenAPI 3.0 (https://spec.openapis.org/oas/v3.0.3).

Written as a table, so that a route costs three lines. A test compares it with the application's own
routes, and schemathesis its answers with what is said here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from goldimg.kickstart.reports import STAGES
from goldimg.serve.store import State

SHORTEST_EXPIRY, LONGEST_EXPIRY = 60, 30 * 86_400  # seconds
Schema = dict[str, Any]
PNG = "image/png"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"
NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}
FREE: Schema = {"type": "string"}


@dataclass(frozen=True)
class Route:
    """One operation. `says` maps a status to its media type and what it means."""

    path: str
    method: str
    summary: str
    says: dict[int, tuple[str, str]]
    query: dict[str, Schema] = field(default_factory=dict)
    needed: tuple[str, ...] = ()  # of the query
    headers: tuple[str, ...] = ()
    body: tuple[str, Schema] | None = None
    answer: Schema | None = None  # of 200
    access: str = "open"  # or "page" (a session's cookie), "api" (the admin token), "read" (either)


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "nullable": True}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TIME = _or_null({"type": "string", "format": "date-time"})
_HOST = {
    "name": FREE,
    "state": {"type": "string", "enum": [str(it) for it in State]},
    "since": _TIME,
    "os": _or_null(FREE),
    "fqdn": _or_null(FREE),
    "mac": _list(FREE),
    "serial": _or_null(FREE),
    "stage": _or_null(FREE),
    "message": _or_null(FREE),
    "address": _or_null(FREE),
    "armed": _TIME,
    "expires": _TIME,
    "fetched": _TIME,
    "problems": _list(FREE),
}
_STEP = _object(time=FREE, state=FREE, text=FREE, seconds=_or_null({"type": "number"}))
_INTEGER = _or_null({"type": "integer"})
SCHEMAS: dict[str, Schema] = {
    "Host": _object(**_HOST),
    "HostDetails": _object(
        **_HOST, boot_line=_or_null(FREE), history=_list(_STEP), lines=_list(FREE)
    ),
    "Build": _object(name=FREE, state=FREE, since=FREE, started=FREE, text=FREE),
    "Problem": _object(
        file=FREE, line=_INTEGER, column=_INTEGER, key=FREE, message=FREE, text=FREE
    ),
    "Error": _object(
        error={
            "type": "object",
            "required": ["message"],
            "properties": {"message": FREE, "hint": FREE, "problems": _list(FREE)},
        }
    ),
    "Install": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "os": FREE,
            "expires": {
                "type": "integer",
                "minimum": SHORTEST_EXPIRY,
                "maximum": LONGEST_EXPIRY,
                "description": "seconds until an install that has not begun is called off",
            },
        },
    },
}

_OS_QUERY: Schema = {"type": "string", "description": "operating system, as Debian-12"}
_TOKEN: Schema = {"type": "string", "description": "opens what is secret in the kickstart"}
_KS_SAYS = {
    200: (TEXT, "the kickstart"),
    400: (TEXT, "what was asked cannot be meant"),
    403: (TEXT, "a token is needed, or is wrong, used or expired; or the host is not armed"),
    404: (TEXT, "no such build, host or operating system"),
    409: (TEXT, "the definition is wrong, or the host is armed for another operating system"),
}
_MAC_HEADERS = ("X-RHN-Provisioning-MAC-0", "X-System-Serial-Number")
_PAGE = {200: (HTML, "the page"), 302: (HTML, "to the login page, without a session")}
_NO_HOST = {404: (HTML, "no such host")}
_FORM = {403: (HTML, "the form is not of this session")}
_API = {401: (JSON, "the admin token is missing or wrong")}
_FORM_TOKEN = {"form": FREE}

ROUTES = (
    Route("/ks.php", "get", "A kickstart, as the original's URL", _KS_SAYS,
          query={"build": FREE, "os": _OS_QUERY, "token": _TOKEN}, headers=_MAC_HEADERS),
    Route("/ks", "get", "A kickstart; without a build, that of the machine which asks", _KS_SAYS,
          query={"build": FREE, "os": _OS_QUERY, "token": _TOKEN}, headers=_MAC_HEADERS),
    Route("/ks/{type}/{name}", "get", "The kickstart of a build or host", _KS_SAYS,
          query={"os": _OS_QUERY, "token": _TOKEN}, headers=_MAC_HEADERS),
    Route("/report/metal/{name}/{token}/{stage}", "post", "An install says how far it is",
          {200: (TEXT, "heard"), 404: (TEXT, "no such install or stage"),
           413: (TEXT, "more than 64 KiB")}, body=(TEXT, FREE)),
    Route("/boot.ipxe", "get", "The first script of machines with iPXE",
          {200: (TEXT, "the script"), 409: (TEXT, "the server's URL cannot be used by iPXE")}),
    Route("/netboot/ipxe", "get", "What one machine with iPXE is to do",
          {200: (TEXT, "the script"), 409: (TEXT, "the server's URL cannot be used by iPXE")},
          query=dict.fromkeys(("mac", "uuid", "serial", "platform", "buildarch"), FREE)),
    Route("/netboot/files/{name}", "get", "A boot loader",
          {200: (BYTES, "the loader"), 404: (TEXT, "no such loader")}),
    Route("/tree/{os_name}/{path}", "get", "A file of an operating system's ISO",
          {200: (BYTES, "the file"), 206: (BYTES, "a part of it"), 404: (TEXT, "no such file"),
           416: (TEXT, "the part is beyond its end"), 503: (TEXT, "the ISO cannot be read")},
          headers=("Range", "If-Range")),
    Route("/healthz", "get", "Whether the server can answer",
          {200: (TEXT, "ok"), 503: (TEXT, "its state cannot be read")}),
    Route("/", "get", "The status page", _PAGE, query={"state": FREE, "q": FREE}, access="page"),
    Route("/hosts/{name}", "get", "One host", {**_PAGE, **_NO_HOST}, access="page"),
    Route("/hosts/{name}/install", "get", "What an install would wipe", {**_PAGE, **_NO_HOST},
          access="page"),
    Route("/hosts/{name}/install", "post", "Arms the host",
          {303: (HTML, "armed"), 302: _PAGE[302], **_FORM, **_NO_HOST, 409: (HTML, "why not")},
          body=("application/x-www-form-urlencoded", _object(**_FORM_TOKEN, os=FREE, expires=FREE)),
          access="page"),
    Route("/hosts/{name}/cancel", "get", "Asks whether to disarm", {**_PAGE, **_NO_HOST},
          access="page"),
    Route("/hosts/{name}/cancel", "post", "Disarms the host",
          {303: (HTML, "disarmed"), 302: _PAGE[302], **_FORM, **_NO_HOST},
          body=("application/x-www-form-urlencoded", _object(**_FORM_TOKEN)), access="page"),
    Route("/builds/{name}/picture.png", "get", "The screen of a build's machine",
          {200: (PNG, "the last picture"), 302: _PAGE[302], 404: (HTML, "there is none")},
          access="page"),
    Route("/builds/{name}", "get", "One build of images",
          {**_PAGE, 404: (HTML, "no such build")}, access="page"),
    Route("/login", "get", "Where the admin token is given",
          {200: (HTML, "the form"), 302: (HTML, "already in")}, query={"next": FREE}),
    Route("/login", "post", "Begins a session",
          {302: (HTML, "to the page that was asked for"), 403: (HTML, "a wrong token")},
          body=("application/x-www-form-urlencoded", _object(token=FREE, next=FREE))),
    Route("/logout", "post", "Ends a session", {302: (HTML, "to the login page"), **_FORM},
          body=("application/x-www-form-urlencoded", _object(**_FORM_TOKEN)), access="page"),
    Route("/static/{name}", "get", "Style and script of the pages",
          {200: (BYTES, "the file"), 304: (BYTES, "unchanged"), 404: (HTML, "no such file")}),
    Route("/api/v1/hosts", "get", "Every host, those that need a person first",
          {200: (JSON, "the hosts"), **_API}, answer=_object(hosts=_list(_ref("Host"))),
          access="read"),
    Route("/api/v1/hosts/{name}", "get", "One host, its history and the end of its log",
          {200: (JSON, "the host"), **_API, 404: (JSON, "no such host")},
          answer=_ref("HostDetails"), access="read"),
    Route("/api/v1/hosts/{name}/install", "post", "Arms a host: it is installed when it asks, once",
          {200: (JSON, "armed"), **_API, 400: (JSON, "the body is wrong"),
           404: (JSON, "no such host"), 409: (JSON, "why it cannot be installed"),
           413: (JSON, "more than 64 KiB")},
          body=(JSON, _ref("Install")), answer=_ref("Host"), access="api"),
    Route("/api/v1/hosts/{name}/cancel", "post", "Disarms a host",
          {200: (JSON, "disarmed"), **_API, 404: (JSON, "no such host")}, answer=_ref("Host"),
          access="api"),
    Route("/api/v1/builds", "get", "The builds of images, the latest first",
          {200: (JSON, "the builds"), **_API}, answer=_object(builds=_list(_ref("Build"))),
          access="read"),
    Route("/api/v1/problems", "get", "What is wrong in the site's files",
          {200: (JSON, "the problems"), **_API}, answer=_object(problems=_list(_ref("Problem"))),
          access="read"),
    Route("/api/v1/kickstarts/{kind}/{name}", "get", "A kickstart as it would be, without secrets",
          {200: (JSON, "the kickstart"), **_API, 400: (JSON, "no operating system"),
           404: (JSON, "no such build or operating system"), 409: (JSON, "why there is none")},
          query={"os": _OS_QUERY}, needed=("os",),
          answer=_object(build=FREE, os=FREE, kickstart=FREE), access="read"),
    Route("/metrics", "get", "Counts for Prometheus",
          {200: ("text/plain; version=0.0.4; charset=utf-8", "the counts"), **_API}, access="read"),
    Route("/openapi.json", "get", "This description",
          {200: (JSON, "OpenAPI 3.0"), **_API}, answer={"type": "object"}, access="read"),
)  # fmt: skip

_PATH_SCHEMAS: dict[str, Schema] = {
    "type": {"type": "string", "enum": ["virtual", "metal"]},
    "kind": {"type": "string", "enum": ["virtual", "metal"]},
    "stage": {"type": "string", "enum": list(STAGES)},
    "name": NAME,
    "os_name": NAME,
}
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "open": [],
    "page": [{"session": []}],
    "api": [{"token": []}],
    "read": [{"token": []}, {"session": []}],
}


def description() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operations = paths.setdefault(route.path, {})
        operations[route.method] = _operation(route)
        if route.method == "get":
            operations["head"] = _operation(route, is_head=True)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "goldimg",
            "version": "1",
            "description": "The site's kickstart server. Any route may also answer 429.",
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "goldimg"},
            },
        },
    }


def _operation(route: Route, *, is_head: bool = False) -> dict[str, Any]:
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS.get(name, FREE)}
        for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "required": name in route.needed, "schema": schema}
        for name, schema in route.query.items()
    ]
    parameters += [{"name": name, "in": "header", "schema": FREE} for name in route.headers]
    responses = {
        str(status): _response(route, status, media, words, is_head)
        for status, (media, words) in route.says.items()
    }
    responses["429"] = _too_many(is_head)
    found: dict[str, Any] = {
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
        "security": _SECURITY[route.access],
    }
    if route.body is not None:
        media, schema = route.body
        found["requestBody"] = {"content": {media.partition(";")[0]: {"schema": schema}}}
    return found


def _response(route: Route, status: int, media: str, words: str, is_head: bool) -> dict[str, Any]:
    if is_head:
        return {"description": words}
    schema = FREE
    if media == JSON:
        schema = route.answer if status == 200 and route.answer else _ref("Error")
    if media == BYTES:
        return {"description": words, "content": {"*/*": {"schema": {"format": "binary", **FREE}}}}
    return {"description": words, "content": {media: {"schema": schema}}}


def _too_many(is_head: bool) -> dict[str, Any]:
    """The limit's own answer is a text; that for wrong tokens is of the route's kind."""
    found: dict[str, Any] = {"description": "too many requests, or wrong tokens; see Retry-After"}
    if not is_head:
        schemas = {TEXT: FREE, HTML: FREE, JSON: _ref("Error")}
        found["content"] = {media: {"schema": schema} for media, schema in schemas.items()}
    return found
