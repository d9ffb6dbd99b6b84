"""The server: HTTP, tokens, failures on demand, and operations that take their time."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.clouds.handler import Handler

Body = dict[str, Any]


class Refusal(Exception):
    """An error answer, in the shape of every Azure Resource Manager error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def as_json(self) -> Body:
        return {"error": {"code": self.code, "message": self.message}}


@dataclass(kw_only=True)
class Fault:
    """What to do with `times` requests that match, after `skip` of them.

    `status`, `code`: the answer. `delay`: seconds before it. `cut`: no answer; "before" the request
    is carried out or "after".
    """

    method: str
    path: str
    times: int = 1
    skip: int = 0
    status: int | None = None
    code: str = "InternalServerError"
    message: str = "told to fail"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: str = ""
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        if not re.fullmatch(self.method, method) or not re.search(self.path, path, re.I):
            return False
        self.hits += 1
        return self.skip < self.hits <= self.skip + self.times


@dataclass(kw_only=True)
class Operation:
    """A long-running operation: it ends by itself `seconds` after it began."""

    ready: float
    finish: Callable[[], None]
    error: tuple[str, str] | None = None
    is_done: bool = False
    result: Any = None
    location: bool = False  # polled by Location (202, then 200) instead of Azure-AsyncOperation


@dataclass(kw_only=True)
class Answer:
    status: int
    body: Any = None
    operation: str = ""


@dataclass(kw_only=True)
class Asked:
    """A request to a route: `parts` are the groups of its pattern, names in lower case."""

    method: str
    path: str
    parts: dict[str, str]
    body: Body


Route = tuple[str, Callable[[Asked], Answer]]


class Manager:
    """The state of one subscription, its routes, and how a test steers it."""

    def __init__(self) -> None:
        self.url = ""
        self.lock = threading.RLock()
        self.routes: list[Route] = []
        self.resources: dict[str, Body] = {}  # by id in lower case
        self.operations: dict[str, Operation] = {}
        self.tokens: set[str] = set()  # that are good here
        self.make_token: Callable[[str], str] = lambda audience: audience
        self.faults: list[Fault] = []
        self.denied: list[str] = []  # patterns of "METHOD path" that this identity may not do
        self.broken: dict[str, tuple[str, str]] = {}  # type -> how operations on it end
        self.seconds = 0.01
        self.log: list[tuple[str, str, int]] = []

    def fail(self, method: str, path: str, **how: Any) -> Fault:
        """From now on requests that match fail so."""
        fault = Fault(method=method, path=path, **how)
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Ends every failure, and forgets what was asked."""
        self.faults.clear()
        self.denied.clear()
        self.broken.clear()
        self.log.clear()
        self.seconds = 0.01

    def count(self, method: str, path: str) -> int:
        """How many requests matched."""
        return sum(1 for it in self.log if it[0] == method and re.search(path, it[1], re.I))

    # What routes use

    def get(self, path: str) -> Body:
        """The resource; 404 as Azure answers it."""
        self.settle()
        found = self.resources.get(path.lower())
        if found is None:
            what = path.split("/providers/")[-1]
            if what == path:
                raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{path}' not found.")
            raise Refusal(404, "ResourceNotFound", f"The Resource '{what}' was not found.")
        return found

    def under(self, prefix: str, type_: str = "") -> list[Body]:
        """Resources below an id, of a type."""
        self.settle()
        return [
            it
            for key, it in self.resources.items()
            if key.startswith(prefix.lower() + "/")
            and (not type_ or str(it["type"]).lower() == type_.lower())
        ]

    def begin(
        self,
        finish: Callable[[], None],
        *,
        type_: str = "",
        fails: Callable[[], None] | None = None,
        location: bool = False,
    ) -> str:
        """Starts an operation; `broken` may let it fail, which calls `fails`."""
        name = f"op{len(self.operations)}"
        error = self.broken.get(type_)

        def end() -> None:
            if error and fails:
                fails()
            elif not error:
                finish()

        self.operations[name] = Operation(
            ready=time.monotonic() + self.seconds, finish=end, error=error, location=location
        )
        return name

    def settle(self) -> None:
        """Ends the operations whose time has come."""
        for operation in self.operations.values():
            if not operation.is_done and time.monotonic() >= operation.ready:
                operation.is_done = True
                try:
                    operation.finish()
                except Refusal as refusal:
                    operation.error = (refusal.code, refusal.message)

    def answer(self, method: str, path: str, body: Body) -> Answer:
        """Carries a request out."""
        with self.lock:
            self.settle()
            if path.startswith("/operations/"):
                return self._poll(path.rpartition("/")[2])
            for pattern, act in self.routes:
                if found := re.fullmatch(pattern, path, re.I):
                    parts = {name: (text or "") for name, text in found.groupdict().items()}
                    return act(Asked(method=method, path=path, parts=parts, body=body))
        raise Refusal(404, "InvalidResourceType", f"no route for {method} {path}")

    def _poll(self, name: str) -> Answer:
        operation = self.operations[name]
        if operation.location:
            if not operation.is_done:
                return Answer(status=202, operation=name)
            if operation.error:
                raise Refusal(409, *operation.error)
            return Answer(status=200 if operation.result else 204, body=operation.result)
        if not operation.is_done:
            return Answer(status=200, body={"name": name, "status": "InProgress"}, operation="-")
        if operation.error:
            code, message = operation.error
            error = {"code": code, "message": message}
            return Answer(status=200, body={"name": name, "status": "Failed", "error": error})
        return Answer(status=200, body={"name": name, "status": "Succeeded"})


class _Cut(Exception):
    """The connection ends here."""


class _Handler(Handler):
    manager: Manager

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        manager, status = self.manager, 0
        fault = next((it for it in manager.faults if it.takes(self.command, self.path)), None)
        try:
            if fault and fault.delay:
                time.sleep(fault.delay)
            if fault and fault.cut == "before":
                raise _Cut
            answer, headers = self._answer(parts.path, parts.query, raw, fault)
            if fault and fault.cut == "after":
                raise _Cut
            status = answer.status
            self._send(answer, headers)
        except _Cut:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)
        finally:
            manager.log.append((self.command, self.path, status))

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = _handle

    def _answer(
        self, path: str, query: str, raw: bytes, fault: Fault | None
    ) -> tuple[Answer, dict[str, str]]:
        headers: dict[str, str] = {}
        try:
            if path == "/msi/token":
                return Answer(status=200, body=self._token()), headers
            if fault and fault.status:
                headers = fault.headers
                raise Refusal(fault.status, fault.code, fault.message)
            self._authorize(path)
            if "api-version" not in parse_qs(query) and not path.startswith("/operations/"):
                raise Refusal(400, "MissingApiVersionParameter", "api-version is required")
            answer = self.manager.answer(self.command, path, json.loads(raw) if raw else {})
        except Refusal as refusal:
            answer = Answer(status=refusal.status, body=refusal.as_json())
        return answer, headers

    def _token(self) -> Body:
        """https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference"""
        resource = parse_qs(urlsplit(self.path).query)["resource"][0]
        token = self.manager.make_token(resource)
        return {
            "access_token": token,
            "expires_on": str(int(time.time()) + 3600),
            "resource": resource,
            "token_type": "Bearer",
        }

    def _authorize(self, path: str) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.manager.tokens:
            raise Refusal(401, "InvalidAuthenticationToken", "The access token is invalid.")
        asked = f"{self.command} {path}"
        if any(re.search(pattern, asked, re.I) for pattern in self.manager.denied):
            raise Refusal(
                403, "AuthorizationFailed", f"The client does not have authorization: {asked}"
            )

    def _send(self, answer: Answer, headers: dict[str, str]) -> None:
        body = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        if answer.operation:
            self.send_header("Retry-After", "0")
        if answer.operation not in ("", "-"):
            operation = self.manager.operations[answer.operation]
            name = "Location" if operation.location else "Azure-AsyncOperation"
            url = f"{self.manager.url}/operations/{answer.operation}?api-version=1"
            self.send_header(name, url)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class TlsServer(ThreadingHTTPServer):
    """A server whose handshakes happen in the threads of its connections."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


@contextlib.contextmanager
def listening(handler: type[Handler], context: ssl.SSLContext | None) -> Iterator[int]:
    """The port of 127.0.0.1 on which `handler` answers, over TLS where there is a `context`."""
    server = TlsServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serving(manager: Manager, context: ssl.SSLContext) -> Iterator[str]:
    """The manager's https URL, and the http URL of its tokens beside it."""

    class Here(_Handler):
        pass

    Here.manager = manager
    with listening(Here, context) as port, listening(Here, None) as plain:
        manager.url = f"https://127.0.0.1:{port}"
        yield f"http://127.0.0.1:{plain}/msi/token"
