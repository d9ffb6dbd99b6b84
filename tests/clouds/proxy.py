"""A proxy before a service of the tests that fails the way networks and clouds do, when told to.

It is HTTP/1.1 and passes everything through but what a Fault names: answers of its own, late ones,
connections cut in the middle of a body, bytes that change on the way. It does not prove how a real
service phrases its refusals: such answers here are written by hand after its documentation.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO

from tests.clouds.handler import Handler

CHUNK = 1 << 18
HOP = {"connection", "keep-alive", "transfer-encoding", "proxy-authenticate", "te", "upgrade"}


@dataclass(kw_only=True)
class Fault:
    """What to do with the next `times` requests that match, after letting `skip` of them pass.

    `status`: answer so instead of the service, with `body` and `headers`. `delay`: seconds before
    anything. `cut`: the connection ends after so many bytes of the request's body (-1: after the
    service has answered, before anybody hears of it). `corrupt`: the request body's byte at this
    offset is changed. `corrupt_answer`: that of the answer. `then` is called before all else.
    """

    method: str = "[A-Z]+"
    path: str = ".*"
    times: int = 1
    skip: int = 0
    status: int | None = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None
    corrupt: int | None = None
    corrupt_answer: int | None = None
    then: Callable[[], object] | None = None
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether it is this one's turn; counts the request."""
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        self.hits += 1
        return self.skip < self.hits <= self.skip + self.times


@dataclass(kw_only=True)
class Proxy:
    """A running proxy: `url` to talk to, `log` of the requests (method, path, status, sent).

    `rate`: bytes a second that one connection may send, as far networks have it; 0: any. A service
    that takes one request at a time hears of a body when it is here.
    """

    url: str
    port: int
    faults: list[Fault] = field(default_factory=list)
    log: list[tuple[str, str, int, int]] = field(default_factory=list)
    rate: int = 0

    def fail(self, method: str, path: str, **how: object) -> Fault:
        """From now on requests that match fail so."""
        fault = Fault(method=method, path=path, **how)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Every fault ends, and the log starts anew."""
        self.faults.clear()
        self.log.clear()

    def count(self, method: str, path: str) -> int:
        """How many requests matched, whatever their answer."""
        return sum(1 for it in self.log if re.fullmatch(method, it[0]) and re.search(path, it[1]))

    def sent(self, method: str, path: str) -> int:
        """Bytes of the bodies of matching requests that arrived here."""
        return sum(
            it[3] for it in self.log if re.fullmatch(method, it[0]) and re.search(path, it[1])
        )


class _Cut(Exception):
    """The connection ends here."""


@contextlib.contextmanager
def proxied(target: int | Path) -> Iterator[Proxy]:
    """A proxy on a free port of 127.0.0.1 before another port there, or a UNIX socket."""

    class Here(_Handler):
        behind = target

    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    server.daemon_threads = True
    port = server.server_address[1]
    Here.proxy = proxy = Proxy(url=f"http://127.0.0.1:{port}", port=port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(300)
        self.sock.connect(str(self._path))


class _Handler(Handler):
    proxy: Proxy
    behind: int | Path

    def _handle(self) -> None:
        fault = next(
            (it for it in self.proxy.faults if it.takes(self.command, self.path)), Fault(times=0)
        )
        if fault.then:
            fault.then()
        if fault.delay:
            time.sleep(fault.delay)
        counted = [0]
        status = 0
        try:
            if fault.status is not None:
                status = fault.status
                self._refuse(fault, counted)
            else:
                status = self._pass_on(fault, counted)
        except _Cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        except (ConnectionError, http.client.HTTPException):
            self.close_connection = True
        finally:
            self.proxy.log.append((self.command, self.path, status, counted[0]))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _refuse(self, fault: Fault, counted: list[int]) -> None:
        for part in self._body():
            counted[0] += len(part)
        self.send_response(fault.status or 500)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(fault.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(fault.body)

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield _exactly(self.rfile, size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            part = self.rfile.read1(min(left, CHUNK))
            if not part:
                raise ConnectionError("the client went away")
            left -= len(part)
            if self.proxy.rate:
                time.sleep(len(part) / self.proxy.rate)
            yield part

    def _connect(self) -> http.client.HTTPConnection:
        if isinstance(self.behind, Path):
            return _UnixConnection(self.behind)
        return http.client.HTTPConnection("127.0.0.1", self.behind, timeout=300)

    def _pass_on(self, fault: Fault, counted: list[int]) -> int:
        if not self.proxy.rate:
            return self._pass(fault, counted, self._body())
        with tempfile.SpooledTemporaryFile(32 << 20) as kept:
            for part in self._body():
                kept.write(part)
            kept.seek(0)
            return self._pass(fault, counted, iter(lambda: kept.read(CHUNK), b""))

    def _pass(self, fault: Fault, counted: list[int], body: Iterator[bytes]) -> int:
        connection = self._connect()
        try:
            is_chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in HOP:
                    connection.putheader(name, value)
            if is_chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._send(connection, fault, counted, body, is_chunked)
            return self._answer(connection, fault)
        finally:
            connection.close()

    def _send(
        self,
        connection: http.client.HTTPConnection,
        fault: Fault,
        counted: list[int],
        body: Iterator[bytes],
        is_chunked: bool,
    ) -> None:
        for part in body:
            if fault.cut is not None and 0 <= fault.cut <= counted[0] + len(part):
                raise _Cut
            sent = _changed(part, fault.corrupt, counted[0])
            counted[0] += len(part)
            connection.send(b"%x\r\n%s\r\n" % (len(sent), sent) if is_chunked else sent)
        if is_chunked:
            connection.send(b"0\r\n\r\n")

    def _answer(self, connection: http.client.HTTPConnection, fault: Fault) -> int:
        answer = connection.getresponse()
        if fault.cut == -1:
            answer.read()
            raise _Cut
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        has_length = answer.getheader("Content-Length") is not None
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        if has_body and not has_length:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        done = 0
        while has_body and (part := answer.read1(CHUNK)):
            sent = _changed(part, fault.corrupt_answer, done)
            done += len(part)
            self.wfile.write(sent if has_length else b"%x\r\n%s\r\n" % (len(sent), sent))
            self.wfile.flush()
        if has_body and not has_length:
            self.wfile.write(b"0\r\n\r\n")
        return answer.status


def _exactly(stream: BinaryIO | BufferedIOBase, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ConnectionError("the client went away")
    return data


def _changed(part: bytes, at: int | None, offset: int) -> bytes:
    if at is None or not offset <= at < offset + len(part):
        return part
    place = at - offset
    return part[:place] + bytes((part[place] ^ 0xFF,)) + part[place + 1 :]
