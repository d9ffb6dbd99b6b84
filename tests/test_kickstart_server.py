"""The kickstart server over real HTTP, as an installer and as a stranger meet it."""

from __future__ import annotations

import http.client
import logging
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from goldimg.errors import GoldimgError
from goldimg.kickstart.model import load_options
from goldimg.kickstart.render import render
from goldimg.kickstart.reports import BODY, STAGES
from goldimg.kickstart.server import KickstartServer
from goldimg.run import Runner
from tests.support import needs
from tests.test_kickstart import ROOT, make_target

TEXT = "# a kickstart\nrootpw --iscrypted '$6$salt$secrethash'\n"
Event = tuple[str, str, dict[str, str]]


class Heard(list[Event]):
    def __call__(self, build: str, kind: str, data: Mapping[str, str]) -> None:
        self.append((build, kind, dict(data)))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def server(heard: Heard) -> Iterator[KickstartServer]:
    with KickstartServer(heard, advertise="10.0.2.2") as running:
        yield running


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


def ask(
    server: KickstartServer,
    path: str,
    method: str = "GET",
    body: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        return Answer(connection.getresponse())
    finally:
        connection.close()


def add_reporting(server: KickstartServer, build: str = "debian") -> tuple[str, str]:
    """Paths to fetch the kickstart and to report to."""
    told: list[str] = []

    def text(report_url: str) -> str:
        told.append(report_url)
        return f"# goldimg-report: {report_url}\n"

    path = server.add(build, text)
    (url,) = told
    prefix = f"http://10.0.2.2:{server.port}"
    assert re.fullmatch(re.escape(prefix) + r"/report/[A-Za-z0-9_-]{32}", url)
    return path, url.removeprefix(prefix)


def test_an_installer_may_fetch_again_while_its_build_runs(
    server: KickstartServer, heard: Heard
) -> None:
    path = server.add("aws", TEXT)
    assert re.fullmatch(r"/ks/[A-Za-z0-9_-]{32}", path)
    for _ in range(2):
        answer = ask(server, path, headers={"User-Agent": "anaconda/1\x9b2J"})
        assert (answer.status, answer.body.decode()) == (200, TEXT)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.headers["Content-Length"] == str(len(TEXT))
    event = ("aws", "fetched", {"address": "127.0.0.1", "agent": "anaconda/1 2J"})
    assert heard == [event, event]
    server.remove("aws")
    assert ask(server, path).status == 404


def test_head_tells_the_length_and_is_no_fetch(server: KickstartServer, heard: Heard) -> None:
    answer = ask(server, server.add("aws", TEXT), "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(TEXT))
    assert heard == []


def test_every_build_has_its_own_tokens(server: KickstartServer) -> None:
    paths = {server.add(build, TEXT) for build in ("a", "b", "a")}
    assert len(paths) == 3
    server.remove("a")
    assert sorted(ask(server, path).status for path in paths) == [200, 404, 404]


def test_stages_become_events(server: KickstartServer, heard: Heard) -> None:
    _, report = add_reporting(server)
    for stage in STAGES:
        assert ask(server, f"{report}/{stage}", "POST", b"why\nlast line\n").status == 200
    assert [event[:2] for event in heard] == [
        *[("debian", "stage")] * (len(STAGES) - 1),
        ("debian", "failed"),
    ]
    assert [event[2].get("stage") for event in heard] == [*STAGES[:-1], None]
    assert {event[2]["message"] for event in heard} == {"why\nlast line"}


def test_a_report_cannot_drive_the_terminal_that_shows_it(
    server: KickstartServer, heard: Heard
) -> None:
    _, report = add_reporting(server)
    ask(server, f"{report}/failed", "POST", b"no disk\r\n\x1b[2J\x07\xff\xe2\x80\xa8end\n")
    assert heard[0][2]["message"] == "no disk\n [2J \N{REPLACEMENT CHARACTER} end"


def test_a_long_report_keeps_its_reason_and_its_end(server: KickstartServer, heard: Heard) -> None:
    _, report = add_reporting(server)
    lines = [b"no disk", *(b"log line %d" % number for number in range(3000))]
    assert ask(server, f"{report}/failed", "POST", b"\n".join(lines)).status == 200
    message = heard[0][2]["message"].splitlines()
    assert (message[0], message[-1]) == ("no disk", "log line 2999")
    assert len(heard[0][2]["message"]) < 10_000


def test_a_report_too_large_is_refused(server: KickstartServer, heard: Heard) -> None:
    _, report = add_reporting(server)
    assert ask(server, f"{report}/post", "POST", b"x" * (BODY + 1)).status == 413
    chunks = (b"x" * 1024 for _ in range(BODY // 1024 + 2))
    assert ask(server, f"{report}/post", "POST", chunks).status == 413
    assert heard == []
    assert ask(server, f"{report}/post", "POST", b"x" * BODY).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/ks/", 404),
        ("GET", "/ks/unknown", 404),
        ("GET", "/ks/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/ks/../../etc/passwd", 404),
        ("GET", "//ks//unknown", 404),
        ("GET", "/static/x", 404),
        ("GET", "/ks/%00", 404),
        ("GET", "/ks/%ff", 404),
        ("POST", "/report/unknown/done", 404),
        ("POST", "/ks/unknown", 405),
        ("GET", "/report/unknown/done", 405),
    ],
)
def test_a_stranger_gets_one_comment_line(
    server: KickstartServer, heard: Heard, method: str, path: str, status: int
) -> None:
    server.add("aws", TEXT)
    answer = ask(server, path, method)
    assert answer.status == status
    assert re.fullmatch(rb"# goldimg: [a-z ,:]+\n", answer.body)
    assert heard == []


def test_the_token_to_fetch_does_not_report_nor_the_other_way_round(
    server: KickstartServer, heard: Heard
) -> None:
    path, report = add_reporting(server)
    fetch_token, report_token = path.split("/")[2], report.split("/")[2]
    assert ask(server, f"/report/{fetch_token}/done", "POST").status == 404
    assert ask(server, f"/ks/{report_token}").status == 404
    assert ask(server, f"/report/{report_token}/nosuch", "POST").status == 404
    assert heard == []


def test_no_header_chooses_a_url(server: KickstartServer) -> None:
    path, report = add_reporting(server)
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    body = ask(server, path, headers=headers).body.decode()
    assert body == f"# goldimg-report: http://10.0.2.2:{server.port}{report}\n"
    told: list[str] = []
    server.add("vmware", lambda url: told.append(url) or "", advertise="192.168.1.2")  # type: ignore[func-returns-value]
    assert told[0].startswith(f"http://192.168.1.2:{server.port}/report/")


def test_health(server: KickstartServer) -> None:
    answer = ask(server, "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


def test_a_broken_listener_breaks_no_install(caplog: pytest.LogCaptureFixture) -> None:
    def broken(build: str, kind: str, data: Mapping[str, str]) -> None:
        raise RuntimeError("no terminal")

    with KickstartServer(broken) as server:
        assert ask(server, server.add("aws", TEXT)).status == 200
    assert "an event of aws was lost" in caplog.text


def test_neither_tokens_nor_texts_are_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with KickstartServer(advertise="10.0.2.2") as server:
        path = server.add("aws", TEXT)
        _, report = add_reporting(server)
        ask(server, path)
        ask(server, f"{report}/done", "POST", b"x")
        ask(server, f"{report}/nosuch", "POST", b"x")
        ask(server, f"{report}/done", "POST", b"x" * (BODY + 1))
    said = caplog.text + "".join(capfd.readouterr())
    for secret in (path.split("/")[2], report.split("/")[2], "secrethash"):
        assert secret not in said


def test_anacondas_scripts_report_and_never_fail(
    server: KickstartServer, heard: Heard, tmp_path: Path
) -> None:
    needs("curl")

    def run(report_url: str) -> None:
        target = make_target("RHEL9", report_url=report_url)
        text = render(ROOT, load_options(ROOT, "virtual/aws", {}), target)
        for number, found in enumerate(
            re.finditer(r"^%(pre|post|onerror).*\n((?s:.*?))^%end", text, re.M)
        ):
            script = tmp_path / f"{number}.sh"
            script.write_text(found[2].replace("/tmp/", f"{tmp_path}/"))
            Runner().run(["sh", "-e", script])

    _, report = add_reporting(server)
    run(f"http://127.0.0.1:{server.port}{report}")
    assert [event[2].get("stage", "failed") for event in heard] == [
        *("started", "pre", "partitioning", "packages", "post", "done", "failed")
    ]
    assert heard[-1][1] == "failed"
    assert heard[-1][2]["message"].startswith("anaconda stopped")
    server.remove("debian")
    run(f"http://127.0.0.1:{server.port}{report}")
    assert len(heard) == 7


def test_many_installers_at_once(server: KickstartServer, heard: Heard) -> None:
    paths = [add_reporting(server, f"build{number}") for number in range(20)]
    start = threading.Barrier(20)

    def install(paths: tuple[str, str]) -> list[int]:
        start.wait()
        fetched = ask(server, paths[0]).status
        return [fetched, *(ask(server, f"{paths[1]}/{it}", "POST").status for it in STAGES)]

    with ThreadPoolExecutor(20) as pool:
        statuses = [status for each in pool.map(install, paths) for status in each]
    assert statuses == [200] * 20 * (1 + len(STAGES))
    assert len(heard) == len(statuses)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GoldimgError, match=f"127.0.0.1:{port}: the port is taken") as caught:
            KickstartServer(port=port).__enter__()
        assert str(port) in caught.value.hint


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(GoldimgError, match=r"cannot listen on 192\.0\.2\.1:0"):
        KickstartServer(host="192.0.2.1").__enter__()


def test_nothing_is_left_behind_and_the_port_is_free_again() -> None:
    before = threading.active_count()
    with KickstartServer() as server:
        port = server.port
        idle = socket.create_connection(("127.0.0.1", port), timeout=5)
        path = server.add("aws", TEXT)
        assert ask(server, path).status == 200
    assert idle.recv(1) == b""
    idle.close()
    assert threading.active_count() == before
    with KickstartServer(port=port) as again:
        assert ask(again, path).status == 404
