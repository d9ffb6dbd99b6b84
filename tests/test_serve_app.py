"""The site's web application: what each route gives to whom, and what it answers to nonsense."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from werkzeug.test import TestResponse

from goldimg.kickstart.reports import BODY
from goldimg.serve.app import route_of
from goldimg.serve.client import address_of
from goldimg.serve.front import KS_ROUTES
from goldimg.serve.limits import Buckets, Counters
from goldimg.serve.openapi import ROUTES
from goldimg.serve.sessions import COOKIE, LASTS, Sessions
from goldimg.serve.shown import STUCK, ago, redacted, span
from goldimg.serve.store import State
from tests.serving import FILES, HASH, MAC, OS, Running, Served, gunicorn, served
from tests.support import needs

FAR = "203.0.113.9"  # outside the site's networks


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    needs("xorriso", "ksvalidator")
    with served(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A site that no test changes."""
    needs("xorriso", "ksvalidator")
    with served(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    needs("xorriso", "ksvalidator")
    with gunicorn(tmp_path_factory.mktemp("gunicorn"), workers=2) as found:
        yield found


def is_one_comment(answer: TestResponse) -> bool:
    """Whether an installer that takes this for a kickstart reads nothing in it."""
    return bool(re.fullmatch(rb"# goldimg: [^\r\n]+\n", answer.data))


# --- kickstarts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        f"/ks.php?build=virtual/aws&os={OS}",
        f"/ks?build=virtual/aws&os={OS}",
        f"/ks.php?build=aws&os={OS}",
        f"/ks/virtual/aws?os={OS}",
        f"//ks.php?build=virtual%2Faws&os={OS}",
        f"/ks/virtual/aws?os={OS}&token=",
    ],
)
def test_the_original_s_urls_and_ours_give_the_same_kickstart(shared: Served, path: str) -> None:
    answer = shared.get_raw(path)
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert b"\nurl --url=http://vault.centos.org/7.2.1511/os/x86_64\n" in answer.data
    assert b"rootpw --lock" in answer.data
    assert answer.data == shared.client().get(f"/ks/virtual/aws?os={OS}").data


ODDITIES = {
    "no build": ("/ks.php", 400),
    "no build, an os": (f"/ks.php?os={OS}", 400),
    "no os": ("/ks.php?build=virtual/aws", 400),
    "empty os": ("/ks.php?build=virtual/aws&os=", 400),
    "unknown build": (f"/ks.php?build=virtual/nosuch&os={OS}", 404),
    "unknown type": (f"/ks.php?build=cloud/aws&os={OS}", 404),
    "unknown host": (f"/ks.php?build=metal/node99&os={OS}", 404),
    "a type alone": (f"/ks.php?build=metal&os={OS}", 404),
    "a type and a slash": (f"/ks.php?build=metal/&os={OS}", 400),
    "unknown os": ("/ks.php?build=virtual/aws&os=CentOS-9.9", 404),
    "build as array": (f"/ks.php?build[]=virtual/aws&os={OS}", 400),
    "build as coded array": (f"/ks.php?build%5B%5D=virtual/aws&os={OS}", 400),
    "os as array": ("/ks.php?build=virtual/aws&os[0]=x", 400),
    "build twice": (f"/ks.php?build=virtual/aws&build=metal/node01&os={OS}", 400),
    "build in path and query": (f"/ks/virtual/aws?build=metal/node01&os={OS}", 400),
    "traversal to a host": (f"/ks.php?build=virtual/../metal/node01&os={OS}", 400),
    "traversal to a section": (f"/ks.php?build=virtual/../../ks/main.ks.j2&os={OS}", 400),
    "traversal in os": ("/ks.php?build=virtual/aws&os=../site", 400),
    "traversal in the path": (f"/ks/virtual/..%2f..%2fsite?os={OS}", 400),
    "dots only": (f"/ks.php?build=virtual/..&os={OS}", 400),
    "defaults are no build": (f"/ks.php?build=virtual/defaults&os={OS}", 404),
    "newline and %pre in build": (f"/ks.php?build=aws%0A%25pre%0Areboot&os={OS}", 400),
    "newline and %pre in os": (f"/ks.php?build=virtual/aws&os={OS}%0A%25pre", 400),
    "NUL": (f"/ks.php?build=virtual/aws%00&os={OS}", 400),
    "quotes": (f"/ks.php?build=virtual/aws%22'&os={OS}", 400),
    "command": (f"/ks.php?build=virtual/$(reboot)&os={OS}", 400),
    "template": (f"/ks.php?build={{{{7*7}}}}&os={OS}", 400),
    "not UTF-8": (f"/ks.php?build=%ff%fe&os={OS}", 400),
    "other digits": ("/ks.php?build=virtual/aws&os=CentOS-\u0667", 400),
    "too long": (f"/ks.php?build=virtual/{'a' * 300}&os={OS}", 400),
    "far too long": (f"/ks.php?build={'a' * 4000}", 400),
    "unknown parameter": (f"/ks.php?build=virtual/aws&os={OS}&tokn=x", 400),
    "wrong token": (f"/ks.php?build=virtual/aws&os={OS}&token=guess", 403),
    "token of another form": (f"/ks.php?build=virtual/aws&os={OS}&token=a%0Ab", 400),
    "not armed": (f"/ks.php?build=metal/node01&os={OS}", 403),
    "wrong definition": (f"/ks.php?build=metal/broken&os={OS}", 409),
    "site.json": ("/builds/packer/site.json", 302),  # the login page: there is no such build
    "an include": ("/includes/header.php", 404),
    "a section": ("/kickstart/ks/main.ks.j2", 404),
    "the state": ("/.state/admin-token", 404),
    "a file by its path": ("/../../etc/passwd", 404),
    "static traversal": ("/static/..%2fapp.py", 404),
}


@pytest.mark.parametrize(("path", "status"), ODDITIES.values(), ids=ODDITIES)
def test_every_oddity_of_the_original_has_one_answer(
    shared: Served, path: str, status: int
) -> None:
    answer = shared.client().get(path)
    assert answer.status_code == status
    if answer.mimetype == "text/plain":
        assert is_one_comment(answer)
    for sent in (b"%pre", b"reboot", b"nosuch", b"{{", b"node99", b"guess", b"aaaa"):
        assert sent not in answer.data


def test_no_header_chooses_a_url(site: Served) -> None:
    evil = {
        "Host": "evil.example.com",
        "X-Forwarded-Host": "evil.example.com",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "10.66.66.66",
        "Forwarded": "host=evil.example.com",
    }
    site.arm()
    fetch, _ = site.tokens()
    for path in (
        f"/ks/metal/node01?os={OS}&token={fetch}",
        "/boot.ipxe",
        "/netboot/ipxe?mac=52-54-00-00-00-01",
        f"/ks/virtual/aws?os={OS}",
        "/login",
        "/hosts/node01",
    ):
        answer = site.client().get(path, headers=evil)
        assert answer.status_code in (200, 302)
        assert b"evil" not in answer.data
        assert "evil" not in str(answer.headers)


def test_an_armed_host_has_its_secrets_with_its_token_and_only_so(site: Served) -> None:
    record = site.arm()
    fetch, report = site.tokens()
    away = site.client(FAR)
    path = f"/ks/metal/node01?os={OS}"
    good = away.get(f"{path}&token={fetch}")
    assert good.status_code == 200
    assert record.root_hash
    assert record.root_hash.encode() in good.data
    assert f"/report/metal/node01/{report}".encode() in good.data
    assert fetch.encode() not in good.data
    # A wrong token is refused, even on a network where none is needed.
    near = {"X-RHN-Provisioning-MAC-0": f"eth0 {MAC}"}
    for address in (FAR, "127.0.0.1"):
        for wrong in ("x", report, fetch[:-1] + "-", fetch + "A"):
            answer = site.client(address).get(f"{path}&token={wrong}", headers=near)
            assert answer.status_code == 403
            assert is_one_comment(answer)
    without = away.get(path)
    assert without.status_code == 200
    assert b"rootpw --lock" in without.data
    assert not HASH.search(without.data)


def test_an_armed_machine_is_known_by_its_mac_on_the_site_s_networks(site: Served) -> None:
    site.arm()
    headers = {"X-RHN-Provisioning-MAC-1": f"em1 {MAC.upper()}"}
    near = site.client().get("/ks", headers=headers)
    assert near.status_code == 200
    assert HASH.search(near.data)
    far = site.client(FAR).get("/ks", headers=headers)
    assert far.status_code == 200
    assert not HASH.search(far.data)
    other = site.client().get("/ks", headers={"X-RHN-Provisioning-MAC-0": "eth0 52:54:00:99:99:99"})
    assert other.status_code == 400
    serial = site.client().get("/ks", headers={"X-System-Serial-Number": "ABC123"})
    assert serial.status_code == 403  # node02, which nobody has armed


def test_asking_for_the_length_changes_nothing(site: Served) -> None:
    site.arm()
    fetch, _ = site.tokens()
    path = f"/ks/metal/node01?os={OS}&token={fetch}"
    head = site.client().head(path)
    assert (head.status_code, head.data) == (200, b"")
    assert site.client().head("/netboot/ipxe?mac=52-54-00-00-00-01").status_code == 200
    assert site.service.store.host("node01").state is State.ARMED
    got = site.client().get(path)
    assert len(got.data) == int(head.headers["Content-Length"])
    assert site.service.store.host("node01").state is State.FETCHED


def test_an_install_is_followed_to_its_end_and_across_a_restart(site: Served) -> None:
    site.arm()
    fetch, report = site.tokens()
    client = site.client()
    script = client.get("/netboot/ipxe?mac=52-54-00-00-00-01&uuid=&serial=&platform=pcbios").data
    assert f"token={fetch}".encode() in script
    assert b"/images/pxeboot/vmlinuz" in script
    assert client.get(f"/ks/metal/node01?os={OS}&token={fetch}").status_code == 200
    site.restart()
    client = site.client()
    for stage in ("started", "pre", "partitioning", "packages", "post"):
        assert client.post(f"/report/metal/node01/{report}/{stage}", data=b"").status_code == 200
    assert site.service.store.host("node01").state is State.INSTALLING
    assert client.post(f"/report/metal/node01/{report}/done").status_code == 200
    assert site.service.store.host("node01").state is State.INSTALLED
    again = client.get("/netboot/ipxe?mac=52-54-00-00-00-01").data
    assert again.endswith(b"exit 1\n")
    assert b"token" not in again
    assert client.get(f"/ks/metal/node01?os={OS}&token={fetch}").status_code == 403
    site.restart()
    answer = site.client().get("/api/v1/hosts/node01", headers=site.bearer).get_json()
    assert answer["state"] == "installed"
    assert [it["state"] for it in answer["history"]][:3] == [
        "armed",
        "booting",
        "kickstart fetched",
    ]


def test_a_report_is_kept_as_plain_text_without_secrets(site: Served) -> None:
    record = site.arm()
    fetch, report = site.tokens()
    said = (
        f"boot: \x1b[31mred\x1b[0m {record.root_hash}\r\n"
        f"GET /ks/metal/node01?os={OS}&token={fetch}\n"
        f"curl http://10.0.0.1/report/metal/node01/{report}/post\x00\n"
    )
    path = f"/report/metal/node01/{report}/packages"
    assert site.client().post(path, data=said.encode()).status_code == 200
    kept = "\n".join(site.service.store.lines("node01"))
    assert "\x1b" not in kept
    assert "packages" not in kept
    for secret in site.secrets():
        assert secret.decode() not in kept
    raw = site.service.store.path.read_bytes() + Path(f"{site.service.store.path}-wal").read_bytes()
    assert fetch.encode() not in raw
    assert report.encode() not in raw


@pytest.mark.parametrize(
    "path",
    ["node01/wrong/post", "node99/{report}/post", "node02/{report}/post", "node01/{report}/nosuch",
     "node01/{fetch}/done", "..%2fnode01/{report}/done"],
)  # fmt: skip
def test_a_report_of_nobody_changes_nothing(site: Served, path: str) -> None:
    site.arm()
    fetch, report = site.tokens()
    answer = site.client().post(f"/report/metal/{path.format(fetch=fetch, report=report)}")
    assert answer.status_code == 404
    assert is_one_comment(answer)
    assert site.service.store.host("node01").state is State.ARMED


def test_a_report_can_be_no_larger_than_it_may(site: Served) -> None:
    site.arm()
    _, report = site.tokens()
    path = f"/report/metal/node01/{report}/post"
    assert site.client().post(path, data=b"x" * BODY).status_code == 200
    answer = site.client().post(path, data=b"x" * (BODY + 1))
    assert answer.status_code == 413
    assert is_one_comment(answer)


# --- what machines boot ------------------------------------------------------------------------


def test_files_come_out_of_the_iso_whole_and_in_parts(shared: Served) -> None:
    client = shared.client()
    data = FILES["images/pxeboot/initrd.img"]
    path = f"/tree/{OS}/images/pxeboot/initrd.img"
    got = client.get(path)
    assert got.data == data
    head = client.head(path)
    assert int(head.headers["Content-Length"]) == len(data)
    part = client.get(path, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.data) == (206, data[1000:2000])
    assert client.get(path, headers={"Range": "bytes=99999999-"}).status_code == 416


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/tree/{OS}/EFI/BOOT//grubx64.efi", 200),
        (f"//tree/{OS}/.treeinfo", 200),
        (f"/tree/{OS}/EFI/BOOT/../../.treeinfo", 404),
        (f"/tree/{OS}/EFI", 404),
        (f"/tree/{OS}/nosuch", 404),
        (f"/tree/{OS}/..%2f..%2fetc/passwd", 404),
        ("/tree/Debian-12/isolinux/vmlinuz", 404),
        ("/tree/nosuch/vmlinuz", 404),
        ("/tree/../keys/packer", 404),
        ("//grubx64.efi", 404),
        ("/netboot/files/nosuch.efi", 404),
        ("/netboot/files/..%2f..%2fetc/passwd", 404),
    ],
)
def test_trees_have_what_is_in_them_and_nothing_else(
    shared: Served, path: str, status: int
) -> None:
    answer = shared.get_raw(path)
    assert answer.status_code == status  # and never a redirect, which firmware does not follow


def test_a_machine_of_nobody_starts_its_disk(site: Served) -> None:
    site.arm()
    for query in ("", "mac=52-54-00-99-99-99", "mac=nonsense", "mac=52-54-00-00-00-02",
                  "mac=%0Aboot", "serial=0", "mac[]=x"):  # fmt: skip
        answer = site.client().get(f"/netboot/ipxe?{query}")
        assert answer.status_code == 200
        assert answer.data.endswith(b"exit 1\n")
        assert b"kernel" not in answer.data
    far = site.client(FAR).get("/netboot/ipxe?mac=52-54-00-00-00-01")
    assert far.data.endswith(b"exit 1\n")
    assert b"token" not in far.data
    assert site.service.store.host("node01").state is State.ARMED


# --- nothing leaks -----------------------------------------------------------------------------


def _all_gets(site: Served) -> list[str]:
    """A URL for every route that can be got."""
    values = {
        "type": "metal",
        "kind": "metal",
        "name": "node01",
        "os_name": OS,
        "path": ".treeinfo",
    }
    found = [
        re.sub(r"{(\w+)}", lambda it: values[it[1]], route.path)
        for route in ROUTES
        if route.method == "get"
    ]
    found += [f"{path}?os={OS}" for path in found]
    found += [f"/ks?build=metal/node01&os={OS}", f"/ks.php?build=virtual/aws&os={OS}"]
    found += ["/netboot/ipxe?mac=52-54-00-00-00-01", f"/api/v1/kickstarts/virtual/aws?os={OS}"]
    return found


@pytest.mark.parametrize("state", ["armed", "installing", "failed"])
def test_no_route_tells_a_stranger_a_secret(site: Served, state: str) -> None:
    site.arm()
    fetch, report = site.tokens()
    secrets = site.secrets()
    if state != "armed":
        site.client().get(f"/ks/metal/node01?os={OS}&token={fetch}")
        stage = "failed" if state == "failed" else "packages"
        site.client().post(f"/report/metal/node01/{report}/{stage}", data=f"tail {report}")
    macs = {"X-RHN-Provisioning-MAC-0": f"eth0 {MAC}"}
    for path in _all_gets(site):
        for headers in ({}, macs, {"X-Forwarded-For": "127.0.0.1", **macs}):
            answer = site.client(FAR).get(path, headers=headers)
            assert answer.status_code < 500
            assert not HASH.search(answer.data), path
            for secret in secrets:
                assert secret not in answer.data, path
                assert secret.decode() not in str(answer.headers), path


def test_not_even_an_administrator_is_shown_hashes_and_tokens(site: Served) -> None:
    site.arm()
    _, report = site.tokens()
    site.client().post(f"/report/metal/node01/{report}/packages", data=f"curl {report} x\n")
    site.service.store.log(
        "node01", [f"POST /report/metal/node01/{report}/post", "$6$ab$" + "c" * 86]
    )
    pages = site.logged_in()
    for path in _all_gets(site):
        if path.startswith(("/ks", "/netboot")):
            continue  # on the site's network: the machine's own
        for answer in (pages.get(path), site.client(FAR).get(path, headers=site.bearer)):
            assert not HASH.search(answer.data), path
            for secret in site.secrets():
                assert secret not in answer.data, path


def test_a_kickstart_can_be_refused_to_strangers_altogether(tmp_path: Path) -> None:
    needs("xorriso", "ksvalidator")
    with served(tmp_path, anonymous="refuse") as site:
        assert site.client().get(f"/ks/virtual/aws?os={OS}").status_code == 403
        token = site.service.desk.new_token("virtual/aws", OS, 60)
        answer = site.client().get(f"/ks/virtual/aws?os={OS}&token={token}")
        assert answer.status_code == 200
        assert HASH.search(answer.data)
        assert site.client().get(f"/ks/virtual/gcp?os={OS}&token={token}").status_code == 403


# --- pages and API -----------------------------------------------------------------------------


def test_pages_and_api_are_closed_to_strangers(shared: Served) -> None:
    pages = {route_of_path(it.path) for it in ROUTES if it.access == "page" and it.method == "get"}
    apis = {route_of_path(it.path) for it in ROUTES if it.access in ("api", "read")}
    assert len(pages) >= 5
    assert len(apis) >= 8
    for path in pages:
        answer = shared.client().get(path)
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/login")
        assert answer.data == b""
    for path in apis:
        for headers in (
            {},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic " + shared.service.admin},
            {"Authorization": shared.service.admin},
            {"Cookie": f"{COOKIE}=1.a.b"},
        ):
            for method in ("GET", "POST"):
                answer = shared.client(f"192.0.2.{hash(path) % 250}").open(
                    path, method=method, headers=headers
                )
                assert answer.status_code in (401, 405, 429)
                assert "hosts" not in (answer.get_json() or {})


def route_of_path(path: str) -> str:
    return path.replace("{kind}", "virtual").replace("{name}", "node01")


def test_the_description_has_every_route_and_no_other(shared: Served) -> None:
    own = {
        (route_of(rule.rule), method.lower())
        for rule in shared.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    own |= {(path, "get") for path in KS_ROUTES}
    assert {(it.path, it.method) for it in ROUTES} == own


def test_a_session_is_a_cookie_that_no_script_and_no_other_site_can_use(shared: Served) -> None:
    client = shared.client()
    answer = client.post("/login", data={"token": shared.service.admin, "next": "/hosts/node01"})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/hosts/node01")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert shared.service.admin not in cookie
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert b"<script>" not in page.data
    assert b" style=" not in page.data
    assert b" onclick" not in page.data


def test_with_tls_the_cookie_goes_over_nothing_else(tmp_path: Path) -> None:
    needs("xorriso", "ksvalidator")
    url = "https://ks.example.com"
    with served(tmp_path, url=url, trusted_proxies=["127.0.0.1/32"]) as site:
        answer = site.client().post("/login", data={"token": site.service.admin})
        assert "; Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "wanted", ["//evil.example.com", "https://evil.example.com", "/\\evil", "javascript:alert(1)"]
)
def test_a_login_leads_nowhere_else(shared: Served, wanted: str) -> None:
    data = {"token": shared.service.admin, "next": wanted}
    assert shared.client().post("/login", data=data).headers["Location"] == "/"
    assert b"evil" not in shared.client().get(f"/login?next={quote(wanted)}").data


def test_guessing_the_admin_token_is_slow(tmp_path: Path) -> None:
    needs("xorriso", "ksvalidator")
    with served(tmp_path) as site:
        client = site.client("192.0.2.77")
        statuses = [client.post("/login", data={"token": "guess"}).status_code for _ in range(12)]
        assert statuses == [403] * 10 + [429] * 2
        answer = client.get("/api/v1/hosts", headers={"Authorization": "Bearer guess"})
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert site.client("192.0.2.78").post("/login", data={"token": "x"}).status_code == 403


def test_a_form_of_another_site_does_nothing(site: Served) -> None:
    site.arm()
    client = site.logged_in()
    for path in ("/hosts/node01/cancel", "/hosts/node02/install", "/logout"):
        for form in ({}, {"form": "wrong"}, {"form": ""}):
            assert client.post(path, data=form).status_code == 403
    # Nor does a cookie alone open what changes something in the API.
    assert client.post("/api/v1/hosts/node01/cancel").status_code == 401
    assert site.service.store.host("node01").state is State.ARMED
    assert site.service.store.host("node02").state is State.KNOWN


def test_a_session_ends(shared: Served) -> None:
    now = [1000.0]
    sessions = Sessions(admin=shared.service.admin, clock=lambda: now[0])
    cookie = sessions.issue()
    assert sessions.is_valid(cookie)
    assert not sessions.is_valid(cookie[:-1] + ("0" if cookie[-1] != "0" else "1"))
    assert not sessions.is_valid("9" + cookie)
    assert not Sessions(admin="another" * 8, clock=lambda: now[0]).is_valid(cookie)
    now[0] += LASTS
    assert not sessions.is_valid(cookie)


def test_a_host_is_armed_and_disarmed_over_the_api(site: Served) -> None:
    client = site.client(FAR)
    armed = client.post(
        "/api/v1/hosts/node01/install", headers=site.bearer, json={"expires": 3600}
    ).get_json()
    assert (armed["state"], armed["os"], armed["mac"]) == ("armed", OS, [MAC])
    record = site.service.store.host("node01")
    assert record.expires - record.armed == pytest.approx(3600, abs=2)
    again = client.post("/api/v1/hosts/node01/cancel", headers=site.bearer).get_json()
    assert again["state"] == "known"
    history = client.get("/api/v1/hosts/node01", headers=site.bearer).get_json()["history"]
    assert [it["state"] for it in history] == ["armed", "known"]


@pytest.mark.parametrize(
    ("host", "body", "status", "says"),
    [
        ("node99", b"", 404, "no such host"),
        ("broken", b"", 409, "ipadr: unknown key"),
        ("node01", b'{"os": "nosuch"}', 400, "unknown operating system"),
        ("node01", b'{"os": "../site"}', 400, "unknown operating system"),
        ("node01", b'{"os": 12}', 400, "os must be a text"),
        ("node01", b'{"expires": 1}', 400, "expires must be"),
        ("node01", b'{"expires": true}', 400, "expires must be"),
        ("node01", b'{"expires": 1e99}', 400, "expires must be"),
        ("node01", b'{"force": true}', 400, "the body is an object"),
        ("node01", b"[]", 400, "the body is an object"),
        ("node01", b"{", 400, "bad request"),
        ("node01", b'{"os": "Debian-12"}', 409, "ISO of Debian-12 is not here"),
        ("node01", b"x" * (BODY + 1), 413, "64 KiB"),
    ],
)
def test_what_cannot_be_armed_says_why(
    site: Served, host: str, body: bytes, status: int, says: str
) -> None:
    answer = site.client().post(f"/api/v1/hosts/{host}/install", data=body, headers=site.bearer)
    assert answer.status_code == status
    assert says in answer.get_json()["error"]["message"]
    assert not site.service.store.host(host).armed


def test_the_api_names_problems_with_their_place(shared: Served) -> None:
    answer = shared.client().get("/api/v1/problems", headers=shared.bearer).get_json()
    (problem,) = answer["problems"]
    assert (problem["file"], problem["line"], problem["column"], problem["key"]) == (
        "kickstart/builds/metal/broken.yml", 3, 1, "ipadr"
    )  # fmt: skip


def test_a_preview_has_no_secrets_and_needs_no_arming(shared: Served) -> None:
    path = f"/api/v1/kickstarts/metal/node01?os={OS}"
    answer = shared.client().get(path, headers=shared.bearer).get_json()
    assert "--ip=192.0.2.11" in answer["kickstart"]
    assert "rootpw --lock" in answer["kickstart"]
    assert (
        shared.client().get("/api/v1/kickstarts/metal/node01", headers=shared.bearer).status_code
        == 400
    )
    wrong = shared.client().get(f"/api/v1/kickstarts/virtual/x?os={OS}", headers=shared.bearer)
    assert wrong.status_code == 404


def test_an_install_that_has_gone_silent_is_pointed_out(site: Served) -> None:
    site.arm()
    fetch, report = site.tokens()
    site.client().get(f"/ks/metal/node01?os={OS}&token={fetch}")
    site.client().post(f"/report/metal/node01/{report}/packages", data=b"package 7 of 300")
    pages = site.logged_in()
    assert "package 7 of 300" in pages.get("/").text
    assert "last word" not in pages.get("/").text
    store = site.service.store
    store.clock = lambda: time.time() + STUCK + 60
    assert "last word" in pages.get("/").text
    assert "has said nothing since" in pages.get("/hosts/node01").text
    site.client().post(f"/report/metal/node01/{report}/post", data=b"")
    assert "last word" not in pages.get("/").text


def test_a_page_finds_hosts_by_what_is_known_of_them(shared: Served) -> None:
    client = shared.logged_in()
    for query, found in (
        ("q=00:00:01", "node01"),
        ("q=LAB.example", "node01"),
        ("q=node02", "node02"),
    ):
        page = client.get(f"/?{query}").text
        assert [it for it in ("node01", "node02", "broken") if f'id="host-{it}"' in page] == [found]
    assert "No host is like that" in client.get("/?q=nothing").text
    assert 'id="host-node01"' not in client.get("/?state=failed").text
    assert "&lt;b&gt;" in client.get("/?q=<b>").text


def test_metrics_count_hosts_and_requests(site: Served) -> None:
    site.client().get(f"/ks.php?build=virtual/aws&os={OS}")
    site.client().get("/ks.php?build[]=x")
    site.client().get("/nothing/here")
    text = site.client().get("/metrics", headers=site.bearer).text
    assert 'goldimg_hosts{state="known"} 3\n' in text
    assert 'goldimg_requests_total{route="/ks.php",status="200"} 1\n' in text
    assert 'goldimg_requests_total{route="/ks.php",status="400"} 1\n' in text
    assert 'goldimg_requests_total{route="other",status="404"} 1\n' in text
    assert "goldimg_problems 1\n" in text


# --- limits ------------------------------------------------------------------------------------


def test_one_address_cannot_take_the_server_from_the_others(tmp_path: Path) -> None:
    needs("xorriso", "ksvalidator")
    with served(tmp_path, rate=60) as site:
        client = site.client("192.0.2.1")
        statuses = [client.get("/boot.ipxe").status_code for _ in range(70)]
        assert statuses[:60] == [200] * 60
        assert set(statuses[62:]) == {429}
        refused = client.get(f"/ks/virtual/aws?os={OS}")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert is_one_comment(refused)
        # An installer loads hundreds of files, and that is no abuse.
        assert client.get(f"/tree/{OS}/.treeinfo").status_code == 200
        assert site.client("192.0.2.2").get("/boot.ipxe").status_code == 200


def test_a_bucket_fills_again_and_the_table_never_grows() -> None:
    now = [100.0]
    buckets = Buckets(60, burst=2, slots=64, clock=lambda: now[0])
    assert [buckets.take("10.0.0.1") > 0 for _ in range(3)] == [False, False, True]
    assert buckets.take("10.0.0.1") == pytest.approx(1.0)
    now[0] += 1
    assert buckets.take("10.0.0.1") == 0
    for number in range(10_000):
        buckets.take(f"10.1.{number >> 8}.{number & 255}")
    # IPv6: whoever has one address of a /64 has all of them.
    assert [buckets.take(f"2001:db8::{it}") > 0 for it in range(3)] == [False, False, True]
    assert buckets.take("2001:db8:1::1") == 0


def test_workers_share_one_limit_and_one_count() -> None:
    buckets, counters = Buckets(60, burst=3), Counters(["/a", "other"], ["200", "other"])
    for number in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
            child = os.fork()
        if not child:
            counters.begin(number)
            buckets.take("10.0.0.1")
            counters.add("/a", "200")
            counters.add("/nosuch", "799")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert buckets.take("10.0.0.1") == 0
    assert buckets.take("10.0.0.1") > 0
    assert sorted(counters.totals()) == [("/a", "200", 2), ("other", "other", 2)]


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("10.0.0.9", "198.51.100.1", "10.0.0.9"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "10.77.0.5, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "10.77.0.5, 198.51.100.1, 127.0.0.1", "198.51.100.1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("::ffff:127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.9", "", "10.0.0.9"),
    ],
)
def test_only_a_trusted_proxy_says_who_asks(remote: str, forwarded: str, address: str) -> None:
    environ = {"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded}
    assert address_of(environ, (ip_network("127.0.0.0/8"),)) == address


def test_times_are_told_as_people_tell_them() -> None:
    assert [span(it) for it in (0, 8, 65, 3600, 90061, 200000)] == [
        "0 s", "8 s", "1 min 5 s", "1 h", "1 d 1 h", "2 d 7 h"
    ]  # fmt: skip
    assert (ago(0, 10), ago(10, 10), ago(5, 10), ago(70, 10)) == ("", "now", "5 s ago", "in 1 min")
    assert redacted("$6$salt$" + "x" * 86 + " a") == "(hash) a"


def test_a_fault_of_ours_is_logged_with_its_place_and_without_the_request(
    site: Served, caplog: pytest.LogCaptureFixture
) -> None:
    site.service.store.close()
    site.service.store.path.write_bytes(b"no database" * 1000)
    for path in (
        f"/ks/metal/node01?os={OS}&token=t0psecret",
        "/api/v1/hosts/t0psecret",
        "/healthz",
    ):
        answer = site.client().get(path, headers=site.bearer)
        assert answer.status_code in (500, 503)
        assert b"Traceback" not in answer.data
        assert b"sqlite" not in answer.data.lower()
    assert re.search(r"a request failed: DatabaseError at \w+\.py:\d+", caplog.text)
    assert "t0psecret" not in caplog.text


# --- gunicorn ----------------------------------------------------------------------------------


def test_gunicorn_serves_the_site_and_its_log_has_no_secrets(running: Running) -> None:
    token = "t0psecret" * 3
    assert running.get(f"/ks.php?build=virtual/aws&os={OS}").status_code == 200
    assert running.get(f"/ks.php?build=virtual/aws&os={OS}&token={token}").status_code == 403
    assert running.post(f"/report/metal/node01/{token}/post").status_code == 404
    assert running.get(f"/{token}").status_code == 404
    answer = running.get("/api/v1/hosts", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert running.get("/api/v1/hosts", headers=running.bearer).status_code == 200
    where = urlsplit(running.url)
    with socket.create_connection((str(where.hostname), where.port or 0), timeout=10) as raw:
        raw.sendall(f"GET /{token} HTTP/1.1 {token}\r\nX {token}\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    text = running.log.read_text()
    assert re.search(
        r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ 127\.0\.0\.1 GET /ks\.php virtual/aws 200 [\d.]+ ms$",
        text,
        re.MULTILINE,
    )
    assert re.search(r" POST /report/metal/\{name\}/\{token\}/\{stage\} - 404 ", text)
    assert token not in text
    assert running.admin not in text
    assert "Traceback" not in text


def test_slow_machines_and_silent_ones_keep_nobody_waiting(running: Running) -> None:
    where = urlsplit(running.url)
    address = (str(where.hostname), where.port or 0)
    slow = []
    for number in range(60):
        raw = socket.create_connection(address, timeout=10)
        if number % 2:  # wants a file, and reads none of it
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(
                f"GET /tree/{OS}/images/pxeboot/initrd.img HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
        else:  # never ends its request
            raw.sendall(b"GET /ks HTTP/1.1\r\n")
        slow.append(raw)
    begun = time.monotonic()
    for _ in range(20):
        assert running.get(f"/ks.php?build=virtual/aws&os={OS}").status_code == 200
    assert time.monotonic() - begun < 5
    for raw in slow:
        raw.close()


def test_many_machines_at_once_get_what_they_ask_for(running: Running) -> None:
    paths = [
        (f"/ks.php?build=virtual/{name}&os={OS}", None) for name in ("aws", "azure", "gcp")
    ] + [(f"/tree/{OS}/images/pxeboot/initrd.img", FILES["images/pxeboot/initrd.img"])]
    expected = {path: data or running.get(path).content for path, data in paths}
    assert all(expected.values())
    wrong: list[str] = []

    def machine(number: int) -> None:
        path = paths[number % len(paths)][0]
        if running.get(path).content != expected[path]:
            wrong.append(path)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(machine, range(200)))
    assert wrong == []


def test_a_connection_is_kept_for_the_next_request(running: Running) -> None:
    where = urlsplit(running.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=10)
    ports = set()
    for path in ("/healthz", f"/ks/virtual/aws?os={OS}", f"/tree/{OS}/.treeinfo", "/nothing"):
        connection.request("GET", path)
        connection.getresponse().read()
        ports.add(connection.sock.getsockname() if connection.sock else None)
    assert len(ports) == 1
    connection.close()


def test_counts_are_those_of_all_workers(running: Running) -> None:
    def count() -> int:
        text = running.get("/metrics", headers=running.bearer).text
        found = re.search(r'route="/boot.ipxe",status="200"} (\d+)', text)
        return int(found[1]) if found else 0

    before = count()
    threads = [threading.Thread(target=running.get, args=("/boot.ipxe",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count() == before + 20


def test_a_site_with_a_certificate_is_served_over_tls(tmp_path: Path) -> None:
    needs("xorriso", "ksvalidator", "openssl")
    key, certificate = tmp_path / "site.key", tmp_path / "site.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-keyout", key, "-out", certificate, *subject],
        check=True, capture_output=True,
    )  # fmt: skip
    files: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key}
    with gunicorn(tmp_path / "site", ca=certificate, workers=1, **files) as running:
        assert running.url.startswith("https://")
        answer = running.get(f"/ks.php?build=virtual/aws&os={OS}")
        assert answer.status_code == 200
        initrd = running.get(f"/tree/{OS}/images/pxeboot/initrd.img").content
        assert initrd == FILES["images/pxeboot/initrd.img"]
        page = running.post("/login", data={"token": running.admin}, allow_redirects=False)
        assert "; Secure" in page.headers["Set-Cookie"]
        assert b"https://127.0.0.1" in running.get("/boot.ipxe").content
