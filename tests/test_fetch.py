"""ISOs over real HTTP: whole, resumed, cut off, moved, wrong; and what a user reads then."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from goldimg.config import Settings, load_settings
from goldimg.errors import ConfigError, GoldimgError, Interrupted, VerificationFailed
from goldimg.iso.checksums import parse_list
from goldimg.iso.download import READ, Policy, Progress
from goldimg.iso.fetch import Iso, locate
from goldimg.iso.reach import preflight
from goldimg.project import Site
from goldimg.run import Runner

BODY = random.Random(2).randbytes(3_000_000)  # noqa: S311 - any bytes that do not repeat
SHA256 = hashlib.sha256(BODY).hexdigest()
CUT = len(BODY) // 3 // READ * READ  # what is kept of a transfer that ends after a third
QUICK = Policy(connect=2, read=2, failures=3, wait=0.01)


@dataclass
class Mirror:
    """What the server has and how it behaves; faults are used up one request each."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    has_ranges: bool = True
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    url: str = ""

    def paths(self, method: str = "GET") -> list[str]:
        return [path for how, path, _ in self.requests if how == method]

    def ranges(self) -> list[str]:
        return [wanted for how, _, wanted in self.requests if how == "GET"]


def _handler(mirror: Mirror) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(has_body=False)

        def do_GET(self) -> None:
            self.answer(has_body=True)

        def answer(self, *, has_body: bool) -> None:
            wanted = self.headers.get("Range", "")
            mirror.requests.append((self.command, self.path, wanted))
            fault = mirror.faults.pop(0) if mirror.faults and has_body else ""
            body = mirror.files.get(self.path)
            if fault.isdigit() or body is None:
                self.send_response(int(fault or 404))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            tag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
            if wanted and mirror.has_ranges and self.headers.get("If-Range", tag) == tag:
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("ETag", tag)
            length = 1 << 60 if fault == "huge" else len(body) - start
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if has_body:
                # "cut": the connection closes after a third of what was asked for.
                end = start + (len(body) - start) // 3 if fault == "cut" else len(body)
                self.wfile.write(body[start:end])

    return Handler


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    yield from _serve()


@pytest.fixture
def other() -> Iterator[Mirror]:
    yield from _serve()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what some tests are about."""


def _serve() -> Iterator[Mirror]:
    mirror = Mirror()
    server = _Server(("127.0.0.1", 0), _handler(mirror))
    mirror.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield mirror
    server.shutdown()
    thread.join()
    server.server_close()


PATH = "/7.2.1511/isos/x86_64/CentOS-7.iso"


def settings(tmp_path: Path, mirror: Mirror, **keys: str) -> Settings:
    site = Site(root=tmp_path)
    site.os_dir.mkdir(parents=True, exist_ok=True)
    (site.templates / "site.yml").write_text("version: 1.0.0\n")
    lines = {
        "os_name": "CentOS",
        "os_version": "7.2.1511",
        "iso": "CentOS-7",
        "iso_checksum": SHA256,
        "iso_server": mirror.url,
    } | keys
    text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value)
    (site.os_dir / "CentOS-7.yml").write_text(text)
    return load_settings(site, "CentOS-7", environ={})


def fetch(tmp_path: Path, wanted: Settings, runner: Runner | None = None) -> Iso:
    return locate(wanted, tmp_path / "cache", policy=QUICK, runner=runner)


def test_an_iso_is_fetched_once_and_verified(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = BODY
    wanted = settings(tmp_path, mirror)
    seen: list[Progress] = []
    first = locate(wanted, tmp_path / "cache", policy=QUICK, progress=seen.append)
    assert first.path.read_bytes() == BODY
    assert first.sha256 == SHA256
    assert first.source == mirror.url + PATH
    assert (seen[-1].done, seen[-1].total) == (len(BODY), len(BODY))
    assert seen[-1].rate > 0

    again = fetch(tmp_path, wanted)
    assert (again.path, again.source) == (first.path, "cache")
    assert mirror.paths() == [PATH]


def test_a_cached_iso_that_was_damaged_is_fetched_anew(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = BODY
    wanted = settings(tmp_path, mirror)
    iso = fetch(tmp_path, wanted)
    iso.path.write_bytes(b"\0" + BODY[1:])
    assert fetch(tmp_path, wanted).path.read_bytes() == BODY
    assert mirror.paths() == [PATH, PATH]


def test_a_transfer_that_is_cut_off_continues_where_it_stopped(
    tmp_path: Path, mirror: Mirror
) -> None:
    mirror.files[PATH] = BODY
    mirror.faults = ["cut"] * 4  # more than the failures allowed, but each brings some bytes
    assert fetch(tmp_path, settings(tmp_path, mirror)).path.read_bytes() == BODY
    starts = [int(wanted[6:-1]) for wanted in mirror.ranges() if wanted]
    assert len(starts) == 4
    assert starts == sorted(set(starts))
    assert starts[0] == CUT


def test_an_interrupted_download_is_continued_by_the_next_run(
    tmp_path: Path, mirror: Mirror
) -> None:
    mirror.files[PATH] = BODY
    wanted = settings(tmp_path, mirror)
    runner = Runner()

    def stop(progress: Progress) -> None:
        if progress.done >= 1 << 20:
            runner.cancel.set()

    with pytest.raises(Interrupted):
        locate(wanted, tmp_path / "cache", policy=QUICK, runner=runner, progress=stop)
    assert not list((tmp_path / "cache/iso").glob("*.iso"))
    assert fetch(tmp_path, wanted).path.read_bytes() == BODY
    assert mirror.ranges()[1] >= f"bytes={1 << 20}-"
    assert not list((tmp_path / "cache/iso").glob("*.part*"))


def test_a_server_without_ranges_sends_it_all_again(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = BODY
    mirror.has_ranges = False
    mirror.faults = ["cut"]
    assert fetch(tmp_path, settings(tmp_path, mirror)).path.read_bytes() == BODY


def test_a_part_of_another_file_is_thrown_away(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = BODY
    wanted = settings(tmp_path, mirror)
    part = tmp_path / "cache/iso" / f"CentOS-7-{SHA256[:16]}.iso.part"
    part.parent.mkdir(parents=True)
    for stale in (b"\0" * 1000, b"\0" * (len(BODY) + 5), BODY):
        part.write_bytes(stale)
        iso = fetch(tmp_path, wanted)
        assert iso.path.read_bytes() == BODY
        iso.path.unlink()


def test_the_file_changed_on_the_server_meanwhile(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = b"old" * 1_000_000
    mirror.faults = ["cut", "404"]
    wanted = settings(tmp_path, mirror)
    with pytest.raises(GoldimgError, match=r"cannot fetch CentOS-7\.iso"):
        fetch(tmp_path, wanted)
    mirror.files[PATH] = BODY  # If-Range fails: the server sends the whole new file
    assert fetch(tmp_path, wanted).sha256 == SHA256
    assert len(mirror.requests) == 3


def test_mirrors_are_tried_in_order(tmp_path: Path, mirror: Mirror, other: Mirror) -> None:
    other.files[PATH] = BODY
    wanted = settings(tmp_path, mirror, mirrors=f"[http://127.0.0.1:9, {other.url}]")
    assert preflight(wanted, tmp_path / "cache", policy=QUICK) == []
    iso = fetch(tmp_path, wanted)
    assert iso.source == other.url + PATH
    assert mirror.paths() == [PATH]  # a 404 is not asked twice


def test_a_download_goes_on_from_another_mirror(
    tmp_path: Path, mirror: Mirror, other: Mirror
) -> None:
    mirror.files[PATH] = other.files[PATH] = BODY
    mirror.faults = ["cut", "410"]
    iso = fetch(tmp_path, settings(tmp_path, mirror, mirrors=f"[{other.url}]"))
    assert iso.sha256 == SHA256
    assert other.ranges() == [f"bytes={CUT}-"]


def test_errors_that_pass_are_retried_and_others_are_not(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = BODY
    mirror.faults = ["500", "503"]
    assert fetch(tmp_path, settings(tmp_path, mirror)).sha256 == SHA256
    assert len(mirror.requests) == 3


def test_retries_end(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = BODY
    mirror.faults = ["500"] * 9
    with pytest.raises(GoldimgError) as caught:
        fetch(tmp_path, settings(tmp_path, mirror))
    assert caught.value.details == (f"{mirror.url}{PATH}: HTTP 500 (3 attempts in a row)",)
    assert "set iso_path" in caught.value.hint
    assert len(mirror.requests) == QUICK.failures


def test_a_wrong_file_is_never_used(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = b"malware"
    found = hashlib.sha256(b"malware").hexdigest()
    with pytest.raises(VerificationFailed) as caught:
        fetch(tmp_path, settings(tmp_path, mirror))
    assert SHA256 in str(caught.value)
    assert found in caught.value.details[0]
    assert caught.value.code == 5
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert all(b"malware" not in path.read_bytes() for path in left)


def test_a_wrong_mirror_does_not_spoil_the_right_one(
    tmp_path: Path, mirror: Mirror, other: Mirror
) -> None:
    mirror.files[PATH], other.files[PATH] = b"captive portal", BODY
    iso = fetch(tmp_path, settings(tmp_path, mirror, mirrors=f"[{other.url}]"))
    assert iso.path.read_bytes() == BODY


def test_a_local_iso_wins(tmp_path: Path, mirror: Mirror) -> None:
    local = tmp_path / "isos" / "mine.iso"
    local.parent.mkdir()
    local.write_bytes(BODY)
    wanted = settings(tmp_path, mirror, iso_path="isos/mine.iso")
    assert preflight(wanted, tmp_path / "cache", policy=QUICK) == []
    assert fetch(tmp_path, wanted) == Iso(path=local, sha256=SHA256, source="local")
    assert not mirror.requests

    local.write_bytes(BODY + b"x")
    with pytest.raises(VerificationFailed) as caught:
        fetch(tmp_path, wanted)
    assert local.exists()  # it is the user's
    assert [line.split()[-1] for line in caught.value.details] == [
        SHA256,
        hashlib.sha256(BODY + b"x").hexdigest(),
    ]
    local.unlink()
    assert preflight(wanted, tmp_path / "cache") == [f"iso_path: {local} is not a readable file"]
    with pytest.raises(GoldimgError, match="no such file"):
        fetch(tmp_path, wanted)


@pytest.mark.parametrize(
    "text",
    [
        f"{'0' * 64}  other.iso\n{SHA256}  CentOS-7.iso\n",
        f"{SHA256.upper()} *./isos/CentOS-7.iso\r\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# CentOS-7.iso: 3000000 bytes\n"
        f"SHA256 (CentOS-7.iso) = {SHA256}\n-----BEGIN PGP SIGNATURE-----\n",
    ],
    ids=["coreutils", "binary", "bsd"],
)
def test_the_checksum_comes_from_the_distributions_list(
    tmp_path: Path, mirror: Mirror, text: str
) -> None:
    mirror.files |= {PATH: BODY, "/SUMS": text.encode()}
    wanted = settings(tmp_path, mirror, iso_checksum=f"file:{mirror.url}/SUMS")
    assert preflight(wanted, tmp_path / "cache", policy=QUICK) == []
    assert fetch(tmp_path, wanted).sha256 == SHA256
    mirror.files.clear()  # offline, what was fetched before still serves
    assert fetch(tmp_path, wanted).source == "cache"


def test_the_list_may_be_a_local_file(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = BODY
    (tmp_path / "SUMS").write_text(f"{SHA256}  CentOS-7.iso\n")
    assert fetch(tmp_path, settings(tmp_path, mirror, iso_checksum="file:SUMS")).sha256 == SHA256


def test_a_list_without_the_iso_says_what_it_has(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files["/SUMS"] = f"{SHA256}  CentOS-8.iso\n".encode()
    wanted = settings(tmp_path, mirror, iso_checksum=f"file:{mirror.url}/SUMS")
    with pytest.raises(GoldimgError, match=r"no SHA-256 of CentOS-7.iso \(did you mean 'CentOS-8"):
        fetch(tmp_path, wanted)
    problem, *listed = preflight(wanted, tmp_path / "cache", policy=QUICK)
    assert "did you mean 'CentOS-8.iso'?" in problem
    assert listed == ["CentOS-8.iso"]


def test_a_list_of_other_digests_is_not_mistaken() -> None:
    assert parse_list(f"{'a' * 128}  x.iso\n{'b' * 32}  x.iso\nSHA512 (x.iso) = {'c' * 128}") == {}


def test_preflight_names_every_server_and_why(
    tmp_path: Path, mirror: Mirror, other: Mirror
) -> None:
    wanted = settings(tmp_path, mirror, mirrors=f"[{other.url}, 'http://u:secret@127.0.0.1:9']")
    problems = preflight(wanted, tmp_path / "cache", policy=QUICK)
    assert problems == [
        f"{mirror.url}{PATH}: HTTP 404",
        f"{other.url}{PATH}: HTTP 404",
        f"http://127.0.0.1:9{PATH}: connection refused",
    ]
    assert not mirror.paths("GET")
    with pytest.raises(GoldimgError) as caught:
        fetch(tmp_path, wanted)
    assert "secret" not in str(caught.value) + "".join(caught.value.details)


def test_a_full_disk_is_said_before_the_download(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files[PATH] = BODY
    mirror.faults = ["huge"]
    with pytest.raises(GoldimgError) as caught:
        fetch(tmp_path, settings(tmp_path, mirror))
    assert str(caught.value).startswith("no space left for CentOS-7-")
    assert "MiB are free" in caught.value.why
    assert "cache_dir" in caught.value.hint


def test_a_full_url_and_a_file_name_with_suffix_work(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files |= {"/a/b.iso": BODY, "/7.2.1511/isos/x86_64/c.iso": BODY}
    wanted = settings(tmp_path, mirror, iso=f"{mirror.url}/a/b.iso", iso_server="")
    assert fetch(tmp_path, wanted).source == f"{mirror.url}/a/b.iso"
    assert fetch(tmp_path / "2", settings(tmp_path, mirror, iso="c.iso")).sha256 == SHA256


@pytest.mark.parametrize("checksum", ["", "md5:abc", "none", "f00", f"sha512:{'a' * 128}"])
def test_without_a_sha256_nothing_is_fetched(tmp_path: Path, mirror: Mirror, checksum: str) -> None:
    with pytest.raises(ConfigError, match="iso_checksum"):
        settings(tmp_path, mirror, iso_checksum=checksum)
