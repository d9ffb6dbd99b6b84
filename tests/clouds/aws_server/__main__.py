"""The server: EC2 and EBS by our own rules, everything else by moto; tests steer it by /-/ paths.

POST /-/reset   forgets everything
POST /-/set     {"polls", "end_as", "faults", "denied", "regions"}: how it behaves from now on
GET  /-/calls   what was called, with the bytes of each body; POST forgets it
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.datastructures import EnvironHeaders
from werkzeug.serving import WSGIRequestHandler, run_simple

from tests.clouds.aws_server import ebs, s3
from tests.clouds.aws_server.ec2 import Ec2
from tests.clouds.aws_server.protocol import Refusal, read_request, write_answer
from tests.clouds.aws_server.state import World

KEYS = ("testing", "AKIAGOLDIMGTESTS")  # access keys that are known
Environ = dict[str, Any]
Start = Callable[..., Any]
DENIED = "You are not authorized to perform this operation."


class Server:
    """The WSGI application."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        moto_api_backend.reset()
        self.world = World(directory=self.directory)
        self.faults: list[dict[str, Any]] = []
        self.denied: set[str] = set()
        self.calls: list[tuple[str, str, int]] = []

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size) if size else b""
        if path.startswith("/-/"):
            return self.control(path, environ["REQUEST_METHOD"], body, start)
        environ["wsgi.input"] = io.BytesIO(body)
        key, region, service = _signer(environ)
        operation = f"{service}:{_operation(service, environ, body)}"
        is_dry = service == "ec2" and b"DryRun=true" in body
        told = f"{operation} (dry run)" if is_dry else operation
        with self.lock:
            self.calls.append((told, region, size))
        fault = self.fault(told, region)
        kind = fault.get("kind", "")
        if kind == "slow":
            time.sleep(fault["seconds"])
        if kind == "cut":
            return _cut(environ)
        if kind == "corrupt" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
            environ["wsgi.input"] = io.BytesIO(body)
        try:
            if kind == "error":
                message = fault.get("message", "injected")
                status = fault.get("status", 400)
                raise Refusal(fault["code"], message, status, fault.get("reason", ""))
            if key not in KEYS:
                raise Refusal(NO_KEY.get(service, "AuthFailure"), "The key is not known", 403)
            if operation in self.denied:
                raise Refusal(NO_RIGHT.get(service, "AccessDenied"), DENIED, 403)
            answer = self.answer(service, operation, region, environ, body, kind == "spoil", start)
        except Refusal as refusal:
            answer = _refused(service, refusal, start)
        return _cut(environ) if kind == "lose" else answer

    def fault(self, operation: str, region: str) -> dict[str, Any]:
        """The first fault that is due for this call; each counts its own calls."""
        with self.lock:
            for fault in self.faults:
                if fault["on"] != operation or fault.get("region", region) != region:
                    continue
                fault["seen"] = fault.get("seen", 0) + 1
                number = fault["seen"] - fault.get("after", 0)
                if 1 <= number <= fault.get("times", 1):
                    return fault
        return {}

    def answer(
        self,
        service: str,
        operation: str,
        region: str,
        environ: Environ,
        body: bytes,
        spoil: bool,
        start: Start,
    ) -> Iterable[bytes]:
        name = operation.partition(":")[2]
        if service == "ec2":
            given = read_request(name, dict(parse_qsl(body.decode(), keep_blank_values=True)))
            result = Ec2(self.world, self.world.region(region)).answer(name, given)
            return _send(start, 200, write_answer(name, result), "text/xml")
        if service == "ebs":
            query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
            status, headers, data = ebs.Ebs(self.world, self.world.region(region)).answer(
                name, environ["PATH_INFO"], query, dict(EnvironHeaders(environ)), body, spoil
            )
            kind = headers.pop("Content-Type", "application/json")
            return _send(start, status, data, kind, headers)
        if service == "servicequotas":
            code = json.loads(body)["QuotaCode"]
            value = self.world.region(region).quotas.get(code, 50000.0)
            quota = {"ServiceCode": "ec2", "QuotaCode": code, "Value": value}
            data = json.dumps({"Quota": quota}).encode()
            return _send(start, 200, data, "application/x-amz-json-1.1")
        if service == "s3":
            s3.check(environ, body)
        return list(self.moto(environ, start))

    def control(self, path: str, method: str, body: bytes, start: Start) -> Iterable[bytes]:
        result: object = {}
        if path == "/-/reset":
            self.clear()
        elif path == "/-/set":
            given = json.loads(body)
            with self.lock:
                self.faults = given.get("faults", self.faults)
                self.denied = set(given.get("denied", self.denied))
                self.world.polls = given.get("polls", self.world.polls)
                self.world.end_as = {
                    key: tuple(value) for key, value in given.get("end_as", {}).items()
                }
                for name, settings in given.get("regions", {}).items():
                    for key, value in settings.items():
                        setattr(self.world.region(name), key, value)
        elif path == "/-/calls":
            with self.lock:
                result = list(self.calls)
                if method == "POST":
                    self.calls.clear()
        return _send(start, 200, json.dumps(result).encode(), "application/json")


NO_KEY = {
    "sts": "InvalidClientTokenId",
    "iam": "InvalidClientTokenId",
    "s3": "InvalidAccessKeyId",
    "ebs": "UnrecognizedClientException",
    "ssm": "UnrecognizedClientException",
}
NO_RIGHT = {"ec2": "UnauthorizedOperation", "ebs": "AccessDeniedException"}


def _signer(environ: Environ) -> tuple[str, str, str]:
    """(access key, region, service) of the credential that signed a request."""
    text = environ.get("HTTP_AUTHORIZATION", "")
    scope = text.partition("Credential=")[2].partition(",")[0].split("/")
    return (scope[0], scope[2], scope[3]) if len(scope) == 5 else ("", "us-east-1", "s3")


def _operation(service: str, environ: Environ, body: bytes) -> str:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if service == "ebs":
        return ebs.operation_of(method, path)
    if service == "s3":
        return s3.operation_of(method, path, environ.get("QUERY_STRING", ""))
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    return dict(parse_qsl(body.decode("utf-8", "replace"))).get("Action", "Unknown")


def _send(
    start: Start, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None
) -> Iterable[bytes]:
    given = {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}
    start(f"{status} answer", list(given.items()))
    return [data]


def _refused(service: str, error: Refusal, start: Start) -> Iterable[bytes]:
    code, message = escape(error.code), escape(error.message)
    if service in ("ebs", "ssm", "servicequotas"):
        body = {"__type": error.code, "message": error.message, "Message": error.message}
        if error.reason:
            body["Reason"] = error.reason
        headers = {"x-amzn-ErrorType": error.code}
        return _send(start, error.status, json.dumps(body).encode(), "application/json", headers)
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    if service == "ec2":
        text = f"<Response><Errors>{text}</Errors><RequestID>goldimg-test</RequestID></Response>"
    elif service != "s3":
        text = f"<ErrorResponse>{text}<RequestId>goldimg-test</RequestId></ErrorResponse>"
    return _send(start, error.status, text.encode(), "text/xml")


def _cut(environ: Environ) -> Iterable[bytes]:
    connection: socket.socket = environ["werkzeug.socket"]
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


class Handler(WSGIRequestHandler):
    """Quiet, and with connections that stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # answers in two pieces would wait 40 ms for each other

    def log(self, type: str, message: str, *args: Any) -> None:
        if type == "error":
            super().log(type, message, *args)


if __name__ == "__main__":
    run_simple(
        "127.0.0.1",
        int(sys.argv[1]),
        Server(Path(sys.argv[2])),
        threaded=True,
        request_handler=Handler,
    )
