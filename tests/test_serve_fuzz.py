"""Nonsense of every kind over the application: no crash, no way out, nothing injected or told."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from werkzeug.test import EnvironBuilder

from goldimg.kickstart.validate import validate
from goldimg.run import Runner
from goldimg.serve.client import BadRequest, kickstart_ask
from goldimg.serve.openapi import ROUTES
from goldimg.serve.sessions import COOKIE
from goldimg.serve.store import State
from tests.serving import HASH, MAC, OS, Served, served
from tests.support import needs

FAR = "203.0.113.9"
QUICK = settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    database=None,
)
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
        hosts = found.service.site.kickstart / "builds/metal"
        (hosts / "node03.yml").write_text(f"mac: '52:54:00:00:00:0a'\nos: {OS}\n")
        time.sleep(1.1)  # files are looked at once a second
        for name in ("node01", "node02", "node03"):
            found.arm(name)
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


# --- the description, by schemathesis ------------------------------------------------------------


@pytest.fixture(scope="module")
def schema(site: Served) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_wsgi("/openapi.json", site.app, headers=site.bearer)


def operations() -> list[tuple[str, str, str, str]]:
    """Path, method, access and who asks: what is open, only once."""
    return [
        (route.path, route.method, route.access, who)
        for route in ROUTES
        for who in ("admin", "stranger")
        if who == "admin" or route.access != "open"
    ]


@pytest.mark.parametrize(("path", "method", "access", "who"), operations())
def test_every_answer_is_as_the_description_says(
    site: Served, schema: schemathesis.BaseSchema, path: str, method: str, access: str, who: str
) -> None:
    may = who == "admin"
    headers: dict[str, str] = {}
    cookies: dict[str, str] = {}
    if may and access == "page":
        cookies = {COOKIE: site.app.extensions["goldimg"].sessions.issue()}
    elif may:
        headers = site.bearer
    says: list[Any] = [
        checks.not_a_server_error,
        checks.CHECKS.get_one("status_code_conformance"),
        checks.CHECKS.get_one("content_type_conformance"),
        checks.CHECKS.get_one("response_schema_conformance"),
    ]

    @settings(QUICK, max_examples=50)
    @given(case=schema[path][method].as_strategy())
    def run(case: schemathesis.Case[Any]) -> None:
        answer = case.call_and_validate(headers=headers, cookies=cookies, checks=says)
        assert access == "open" or may or answer.status_code in (302, 401, 403, 429)

    run()


# --- what no description allows, by hypothesis ---------------------------------------------------


@QUICK
@given(pairs=st.lists(st.tuples(KEYS, TEXT), max_size=5),
       headers=st.dictionaries(HEADERS, HEADER_TEXT, max_size=4),
       path=st.sampled_from(["/ks", "/ks.php", "/netboot/ipxe", "/", "/login"]),
       method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE"]))  # fmt: skip
def test_parameters_and_headers_of_any_kind(
    site: Served, pairs: list[tuple[str, str]], headers: dict[str, str], path: str, method: str
) -> None:
    query = "&".join(
        f"{quote(key, errors='replace')}={quote(text, errors='replace')}" for key, text in pairs
    )
    check(site, *ask(site, method, f"{path}?{query}", headers=headers))


@QUICK
@given(parts=st.lists(TEXT, max_size=4), headers=st.dictionaries(HEADERS, HEADER_TEXT, max_size=3),
       first=st.sampled_from(["", "ks", "tree", f"tree/{OS}", "netboot/files", "report/metal",
                              "hosts", "builds", "api/v1/hosts", "api/v1/kickstarts", "static"]),
       method=st.sampled_from(["GET", "HEAD", "POST"]))  # fmt: skip
def test_paths_of_any_kind(
    site: Served, first: str, parts: list[str], headers: dict[str, str], method: str
) -> None:
    path = "/" + "/".join([first, *parts]).encode("utf-8", "replace").decode("latin-1")
    check(site, *ask(site, method, path.replace("?", "%3f"), headers=headers))


@QUICK
@given(text=TEXT, where=st.sampled_from(["build", "os", "both"]))
def test_nothing_that_is_sent_gets_into_a_kickstart(site: Served, text: str, where: str) -> None:
    known = {
        ask(site, "GET", f"/ks?build={build}&os={name}")[1]
        for build in ("virtual/aws", "metal/node01")
        for name in (OS, "Debian-12")
    }
    sent = quote(text, safe="/", errors="replace")
    query = {
        "build": f"build={sent}&os={OS}",
        "os": f"build=virtual/aws&os={sent}",
        "both": f"build={sent}&os={sent}",
    }[where]
    status, body, _ = ask(site, "GET", f"/ks.php?{query}")
    if status == 200:
        assert body in known
    else:
        assert re.fullmatch(rb"# goldimg: [ -~]+\n", body)


@QUICK
@given(text=st.text(max_size=60), mac=HEADER_TEXT, serial=HEADER_TEXT)
def test_a_request_is_understood_or_refused_and_never_guessed(
    text: str, mac: str, serial: str
) -> None:
    environ = {
        "QUERY_STRING": quote(text, safe="=&/", errors="replace"),
        "REQUEST_METHOD": "GET",
        "HTTP_X_RHN_PROVISIONING_MAC_0": mac,
        "HTTP_X_SYSTEM_SERIAL_NUMBER": serial,
    }
    try:
        asked = kickstart_ask(environ, "", FAR)
    except BadRequest:
        return
    for word in (asked.build, asked.os, asked.token, *asked.macs):
        assert re.fullmatch(r"[A-Za-z0-9/._:~-]*", word)
        assert ".." not in word.split("/")


@QUICK
@given(body=st.one_of(st.binary(max_size=2000), TEXT.map(lambda it: it.encode("utf-8", "replace"))),
       stage=st.sampled_from(["packages", "post"]))  # fmt: skip
def test_an_installer_may_say_anything(site: Served, body: bytes, stage: str) -> None:
    _, report = site.tokens("node03")
    answer = site.client().post(f"/report/metal/node03/{report}/{stage}", data=body)
    assert answer.status_code == 200
    pages = site.logged_in()
    for path in ("/", "/hosts/node03"):
        page = pages.get(path)
        assert page.status_code == 200
        assert b"<script>alert" not in page.data
        assert b'" onload=' not in page.data
    json = site.client().get("/api/v1/hosts/node03", headers=site.bearer)
    assert json.status_code == 200
    assert all(line.isprintable() for line in json.get_json()["lines"])


def test_the_kickstarts_are_still_valid_and_the_hosts_still_as_they_were(site: Served) -> None:
    """Last in this file, on purpose: after all that was sent."""
    for build in ("virtual/aws", "metal/node01"):
        text = site.client(FAR).get(f"/ks/{build}?os={OS}").text
        assert validate(text, "RHEL7", Runner()) == []
    assert site.service.store.host("node01").state is State.ARMED
    near = {"X-RHN-Provisioning-MAC-0": f"eth0 {MAC}"}
    assert HASH.search(site.client().get("/ks", headers=near).data)
