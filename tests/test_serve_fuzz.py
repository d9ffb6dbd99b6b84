"""Nonsense of every kind over the application: no crash, no way out, nothing injected, no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from goldimg.kickstart.validate import validate
from goldimg.run import Runner
from goldimg.serve.client import BadRequest, kickstart_ask
from goldimg.serve.openapi import ROUTES, description
from goldimg.serve.store import State
from tests.serving import HASH, MAC, OS, Served, served
from tests.support import needs

FAR = "203.0.113.9"
QUICK = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    database=None,
)
PAGES = {route.path for route in ROUTES if route.access == "page"}
# What was found in attacks on servers of this kind, for hypothesis to mix with its own.
NASTY = [
    "../../../etc/passwd", "..%2f..%2fsite", "virtual/../metal/node01", "aws\n%pre\nreboot\n%end",
    "aws\r\nSet-Cookie: a=b", "$(reboot)", "`id`", "'; reboot; '", '" onload="alert(1)', "{{7*7}}",
    "{% include 'x' %}", "<script>alert(1)</script>", "\0", "a" * 5000, "%00", "%ff", "virtual/aws",
    "metal/node01", "node01", "broken", OS, "Debian-12", MAC, "ABC123", "é", "\u2028%pre", "[]",
]  # fmt: skip
TEXT = st.one_of(st.sampled_from(NASTY), st.text(max_size=40))
KEYS = st.one_of(st.sampled_from(["build", "os", "token", "build[]", "mac", "serial", "q"]), TEXT)
HEADERS = st.sampled_from(
    ["Host", "X-Forwarded-For", "X-Forwarded-Host", "X-RHN-Provisioning-MAC-0", "User-Agent",
     "X-System-Serial-Number", "Authorization", "Cookie", "Range", "If-Range", "Referer",
     "If-None-Match", "Content-Type", "X-HTTP-Method-Override"]
)  # fmt: skip
HEADER_TEXT = TEXT.map(lambda it: re.sub(r"[\x00-\x1f\x7f]", "", it).encode().decode("latin-1"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A site with one host armed and one failed; no fuzzing changes the first one's state."""
    needs("xorriso", "ksvalidator")
    with served(tmp_path_factory.mktemp("site")) as found:
        found.arm("node01")
        found.arm("node02")
        found.service.store.stage("node02", "failed", "it stopped")
        yield found


def ask(
    site: Served, method: str, path: str, address: str = FAR, headers: dict[str, str] | None = None
) -> tuple[int, bytes, str]:
    """Status, body and headers, past the test client: it would refuse what attackers send."""
    builder = EnvironBuilder(method=method, path="/", data=b"")
    environ = builder.get_environ()
    path, _, query = path.partition("?")
    environ.update(PATH_INFO=path, QUERY_STRING=query, REMOTE_ADDR=address)
    for name, text in (headers or {}).items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = text
    said: dict[str, Any] = {}

    def start(status: str, given: list[tuple[str, str]], *rest: object) -> Any:
        said.update(status=int(status[:3]), headers=given)

    body = b"".join(site.app.wsgi_app(environ, start))
    for _, text in said["headers"]:
        assert "\n" not in text
        assert "\r" not in text
    return said["status"], body, str(said["headers"])


def check(site: Served, status: int, body: bytes, headers: str) -> None:
    assert status < 500
    assert b"Traceback" not in body
    assert b"root:x:0:0" not in body
    assert not HASH.search(body)
    for secret in site.secrets():
        assert secret not in body
        assert secret.decode() not in headers


# --- schemathesis ------------------------------------------------------------------------------


def operations() -> list[str]:
    return [f"{route.method.upper()} {route.path}" for route in ROUTES]


@pytest.mark.parametrize("label", operations())
def test_every_answer_is_as_the_description_says(site: Served, label: str) -> None:
    document = description()
    schema = schemathesis.openapi.from_dict(document)
    method, path = label.split(" ")
    operation = schema[path][method]
    is_page = path in PAGES
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.openapi.checks.status_code_conformance,
        schemathesis.openapi.checks.content_type_conformance,
        schemathesis.openapi.checks.response_schema_conformance,
        schemathesis.openapi.checks.response_headers_conformance,
    ]
    client = site.logged_in() if is_page else site.client()

    @QUICK
    @settings(max_examples=25)
    @given(case=operation.as_strategy())
    def run(case: schemathesis.Case) -> None:
        if not is_page:
            case.headers["Authorization"] = site.bearer["Authorization"]
        kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1")
        request = schemathesis.transport.prepare.prepare_request(case, None, config=schema.config.output.sanitization)
        answer = client.open(
            request.url,
            method=request.method,
            data=request.body,
            headers=[(k, v) for k, v in request.headers.items() if k.lower() != "cookie"],
        )
        del kwargs
        response = schemathesis.Response.from_any(answer_of(answer, request))
        case.validate_response(response, checks=checks)

    run()


def answer_of(answer: Any, request: Any) -> Any:
    import requests

    found = requests.Response()
    found.status_code = answer.status_code
    found._content = answer.data
    found.headers.update(dict(answer.headers))
    found.request = request
    found.url = request.url
    return found
