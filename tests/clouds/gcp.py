"""Google Cloud for the tests: gcp-storage-emulator, and a small Compute Engine of our own.

The Compute Engine parses requests with the message classes of Google's SDK, which refuse what the
API does not know, and keeps the documented rules: names, families and labels by their grammar, one
image a name, fingerprints and etags that must match, operations that end later, an archive that
must be a gzip of one `disk.raw` of a whole number of GiB. It does not prove permissions, quota by
the real service's arithmetic, billing, how long an import takes, or that a machine starts from the
image. The emulator ignores preconditions, and tells no permissions.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from google.cloud import compute_v1
from google.protobuf.json_format import ParseError
from isal import igzip as gzip

from tests.clouds.handler import Handler
from tests.clouds.proxy import Proxy, proxied
from tests.clouds.services import environment, started

EMULATOR = ("gcp-storage-emulator==2026.7.19",)
PROJECT = "demo-project"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"[a-z0-9_-]{0,63}")
GIB = 1 << 30
POLLS = 2  # of an operation until it is done
BEGAN = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-8)))
PAGE = 1  # items in one answer to a list


@dataclass(kw_only=True)
class Google:
    """Both services behind proxies that can be told to fail, and credentials for them."""

    storage: Proxy
    compute: Proxy
    engine: Engine
    key: Path  # a service account's

    @property
    def env(self) -> dict[str, str]:
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(self.key)}

    @property
    def variables(self) -> dict[str, str]:
        """Settings that lead to them."""
        return {
            "project": PROJECT,
            "bucket": "images",
            "storage_endpoint": self.storage.url,
            "compute_endpoint": self.compute.url,
        }

    def objects(self, bucket: str = "images") -> list[str]:
        found = requests.get(f"{self.storage.url}/storage/v1/b/{bucket}/o", timeout=10).json()
        return sorted(item["name"] for item in found.get("items", []))

    def clear(self) -> None:
        """No image, no object, no fault."""
        self.storage.heal()
        self.compute.heal()
        self.engine.clear()
        for name in self.objects():
            quoted = requests.utils.quote(name, safe="")  # type: ignore[attr-defined]
            requests.delete(f"{self.storage.url}/storage/v1/b/images/o/{quoted}", timeout=10)


@dataclass(kw_only=True)
class Engine:
    """The images, policies and operations of one project."""

    storage: str  # URL
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    disks: dict[str, str] = field(default_factory=dict)  # names of images by zone/name
    contents: dict[str, bytes] = field(default_factory=dict)  # archives as they were imported
    refuse_login: bool = False
    fail_import: tuple[str, str] | None = None  # code and message of the next import's error
    before_done: Callable[[str], None] = lambda _: None  # called as an operation ends
    lock: threading.RLock = field(default_factory=threading.RLock)
    count: int = 0

    def clear(self) -> None:
        with self.lock:
            for store in (self.images, self.policies, self.operations, self.contents,
                          self.disks):  # fmt: skip
                store.clear()
            self.refuse_login, self.fail_import = False, None
            self.before_done = lambda _: None

    # --- operations ---------------------------------------------------------------------------

    def start(self, kind: str, done: Callable[[], None]) -> dict[str, Any]:
        self.count += 1
        name = f"operation-{self.count}"
        self.operations[name] = {"kind": kind, "left": POLLS, "done": done, "error": None}
        return {"name": name, "operationType": kind, "status": "PENDING"}

    def poll(self, name: str) -> dict[str, Any]:
        found = self.operations.get(name)
        if found is None:
            raise Refusal(404, f"The resource '{name}' was not found")
        if found["left"]:
            found["left"] -= 1
            return {"name": name, "operationType": found["kind"], "status": "RUNNING"}
        if found["done"]:
            done, found["done"] = found["done"], None
            self.before_done(found["kind"])
            try:
                done()
            except Refusal as refusal:
                code = refusal.reason or "INVALID"
                found["error"] = {"errors": [{"code": code, "message": refusal.message}]}
        answer = {"name": name, "operationType": found["kind"], "status": "DONE"}
        if found["error"]:
            answer |= {"error": found["error"], "httpErrorStatusCode": 400}
        return answer

    # --- images -------------------------------------------------------------------------------

    def insert(self, body: dict[str, Any]) -> dict[str, Any]:
        check_image(body)
        name = body["name"]
        if name in self.images:
            link = f"projects/{PROJECT}/global/images/{name}"
            raise Refusal(409, f"The resource '{link}' already exists", "alreadyExists")
        self.count += 1
        image = {
            **body,
            "id": str(1000 + self.count),
            "status": "PENDING",
            "creationTimestamp": (BEGAN + timedelta(seconds=self.count)).isoformat(
                "T", "milliseconds"
            ),
            "labelFingerprint": f"f{self.count}",
            "selfLink": f"{self.storage}/compute/v1/projects/{PROJECT}/global/images/{name}",
        }
        self.images[name] = image

        def done() -> None:
            if self.fail_import:
                (code, message), self.fail_import = self.fail_import, None
                image["status"] = "FAILED"
                raise Refusal(400, message, code)
            try:
                data = self.archive(body["rawDisk"]["source"])
                image["diskSizeGb"] = str(disk_size(data) // GIB)
            except Refusal:
                image["status"] = "FAILED"
                raise
            self.contents[name] = data
            image["status"] = "READY"

        return self.start("insert", done)

    def archive(self, source: str) -> bytes:
        bucket, _, key = source.removeprefix("gs://").partition("/")
        quoted = requests.utils.quote(key, safe="")  # type: ignore[attr-defined]
        answer = requests.get(
            f"{self.storage}/storage/v1/b/{bucket}/o/{quoted}?alt=media", timeout=60
        )
        if answer.status_code != 200:
            raise Refusal(400, f"The object {source} does not exist", "RESOURCE_NOT_FOUND")
        return answer.content

    def get(self, name: str) -> dict[str, Any]:
        for operation in list(self.operations):  # they go on whether or not anybody asks
            self.poll(operation)
        if name not in self.images:
            raise Refusal(404, f"The resource 'global/images/{name}' was not found", "notFound")
        return self.images[name]

    def list(self, condition: str, page: str) -> dict[str, Any]:
        """A page; the last has no token. The real service's pages are larger."""
        found = list(self.images.values())
        if condition:
            key, _, wanted = condition.partition("=")
            found = [image for image in found if str(value_at(image, key)) == wanted]
        start = int(page or 0)
        answer: dict[str, Any] = {"items": found[start : start + PAGE]}
        if start + PAGE < len(found):
            answer["nextPageToken"] = str(start + PAGE)
        return answer

    def delete(self, name: str) -> dict[str, Any]:
        self.get(name)
        self.images[name]["status"] = "DELETING"
        return self.start("delete", lambda: self._gone(name))

    def _gone(self, name: str) -> None:
        del self.images[name]
        self.policies.pop(name, None)

    def set_labels(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        image = self.get(name)
        parse(compute_v1.GlobalSetLabelsRequest, body)
        if body.get("labelFingerprint") != image["labelFingerprint"]:
            raise Refusal(412, "Labels fingerprint either invalid or resource labels have changed")
        check_labels(body.get("labels", {}))

        def done() -> None:
            image["labels"] = body.get("labels", {})
            image["labelFingerprint"] += "x"

        return self.start("setLabels", done)

    def deprecate(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        image = self.get(name)
        parse(compute_v1.DeprecationStatus, body)
        if body.get("state") not in ("DEPRECATED", "OBSOLETE", "DELETED", "ACTIVE"):
            raise Refusal(400, "Invalid value for field 'resource.state'")
        return self.start("deprecate", lambda: image.update(deprecated=body))

    def aggregated_disks(self) -> dict[str, Any]:
        """https://cloud.google.com/compute/docs/reference/rest/v1/disks/aggregatedList"""
        items: dict[str, Any] = {
            "zones/europe-west1-b": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}
        }
        start = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/global/images"
        for place, image in self.disks.items():
            zone, _, name = place.partition("/")
            scope = items.setdefault(f"zones/{zone}", {"disks": []})
            scope["disks"].append({"name": name, "sourceImage": f"{start}/{image}"})
        return {"items": items}

    def policy(self, name: str) -> dict[str, Any]:
        self.get(name)
        return self.policies.setdefault(name, {"etag": "ACAB", "bindings": []})

    def set_policy(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        parse(compute_v1.GlobalSetPolicyRequest, body)
        new = body["policy"]
        if new.get("etag") != self.policy(name)["etag"]:
            raise Refusal(412, "Supplied fingerprint does not match current metadata fingerprint.")
        for binding in new.get("bindings", []):
            for member in binding["members"]:
                if member == "allUsers":
                    raise Refusal(400, "allUsers is not allowed for images")
                if ":" not in member and member != "allAuthenticatedUsers":
                    raise Refusal(400, f"Invalid member {member}")
        self.policies[name] = {**new, "etag": new["etag"] + "B"}
        return self.policies[name]


def is_known(authorization: str) -> bool:
    """A token of ours, or one that the account signed itself, as the SDK may choose to do."""
    kind, _, token = authorization.partition(" ")
    if kind == "Bearer" and token.count(".") == 2:
        claims = jwt.decode(token, verify=False)  # type: ignore[no-untyped-call]
        return bool(claims["iss"] == f"images@{PROJECT}.iam.gserviceaccount.com")
    return (kind, token) == ("Bearer", "a-token")


class Refusal(Exception):
    """What a service answers instead: HTTP status, message, reason."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason


def value_at(image: dict[str, Any], key: str) -> Any:
    found: Any = image
    for part in key.split("."):
        found = found.get(part, "") if isinstance(found, dict) else ""
    return found


def check_labels(labels: dict[str, str]) -> None:
    if len(labels) > 64:
        raise Refusal(400, "Too many labels")
    for key, value in labels.items():
        if not NAME.fullmatch(key.replace("_", "-")) or not LABEL.fullmatch(value):
            raise Refusal(400, f"Invalid value for field 'resource.labels': '{key}={value}'")


def parse(message: Any, body: dict[str, Any]) -> None:
    """Refuses fields and names of enumerations that the API does not know."""
    try:
        message.from_json(json.dumps(body))
    except ParseError as error:
        raise Refusal(400, f"Invalid JSON payload received. {error}") from error


def check_image(body: dict[str, Any]) -> None:
    parse(compute_v1.Image, body)
    for key in ("name", "family"):
        if not NAME.fullmatch(str(body.get(key, "a"))):
            raise Refusal(400, f"Invalid value for field 'resource.{key}': '{body[key]}'")
    if "name" not in body:
        raise Refusal(400, "Required field 'resource.name' not specified")
    check_labels(body.get("labels", {}))
    if not str(body.get("rawDisk", {}).get("source", "")).startswith("gs://"):
        raise Refusal(400, "Invalid value for field 'resource.rawDisk.source'")


def disk_size(data: bytes) -> int:
    """https://cloud.google.com/compute/docs/import/import-existing-image#requirements_for_the_image_file

    The archive is inflated once, to its end, so that one which is damaged anywhere is refused.
    """
    try:
        with (
            gzip.open(io.BytesIO(data), "rb") as stream,  # type: ignore[no-untyped-call]
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            members = archive.getmembers()
            while stream.read(1 << 20):
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise Refusal(400, "The tar archive is not valid", "INVALID_IMAGE") from error
    if [it.name for it in members] != ["disk.raw"] or members[0].size % GIB:
        raise Refusal(
            400, "The archive must hold disk.raw of a whole number of GB", "INVALID_IMAGE"
        )
    return members[0].size


class _Handler(Handler):
    engine: Engine

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        try:
            with self.engine.lock:
                status, answer = 200, self._route(raw)
        except Refusal as refusal:
            error = {
                "code": refusal.status,
                "message": refusal.message,
                "errors": [{"message": refusal.message, "reason": refusal.reason or "invalid"}],
            }
            status, answer = refusal.status, {"error": error}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PATCH = _handle

    def _route(self, raw: bytes) -> dict[str, Any]:
        url, engine = urlsplit(self.path), self.engine
        if url.path == "/token":
            if engine.refuse_login:
                raise Refusal(400, "Invalid JWT Signature.", "invalid_grant")
            return {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
        if engine.refuse_login or not is_known(self.headers.get("Authorization", "")):
            raise Refusal(401, "Request had invalid authentication credentials.", "required")
        body = json.loads(raw) if raw else {}
        place = re.fullmatch(
            rf"/compute/v1/projects/{PROJECT}/(?:global|aggregated)/(images|operations|disks)(?:/([^/]+))?(?:/(\w+))?",
            url.path,
        )
        if place is None:
            raise Refusal(404, f"The resource '{url.path}' was not found")
        kind, name, verb = place.groups()
        if kind == "disks":
            return engine.aggregated_disks()
        if kind == "operations":
            return engine.poll(name)
        query = parse_qs(url.query)
        asked = (query.get(key, [""])[0] for key in ("filter", "pageToken"))
        verbs: dict[tuple[str, str | None], Callable[[], dict[str, Any]]] = {
            ("POST", "deprecate"): lambda: engine.deprecate(name, body),
            ("POST", "setLabels"): lambda: engine.set_labels(name, body),
            ("POST", "setIamPolicy"): lambda: engine.set_policy(name, body),
            ("GET", "getIamPolicy"): lambda: engine.policy(name),
            ("DELETE", None): lambda: engine.delete(name),
            ("GET", None): lambda: engine.get(name) if name else engine.list(*asked),
            ("POST", None): lambda: engine.insert(body),
        }
        return verbs[self.command, verb]()


@contextlib.contextmanager
def google_cloud(directory: Path) -> Iterator[Google]:
    """Both services, running, with the bucket `images`."""
    python = environment("gcs", *EMULATOR) / "bin/python"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = [python, "-m", "gcp_storage_emulator", "start", "--port", port, "--host", "127.0.0.1",
            "--in-memory", "--default-bucket", "images"]  # fmt: skip

    def ready() -> bool:
        answer = requests.get(f"http://127.0.0.1:{port}/storage/v1/b/images", timeout=2)
        return answer.status_code == 200

    with contextlib.ExitStack() as stack:
        stack.enter_context(
            started([str(it) for it in argv], log=directory / "gcs.log", is_ready=ready)
        )
        storage = stack.enter_context(proxied(port))
        engine = Engine(storage=f"http://127.0.0.1:{port}")

        class Here(_Handler):
            pass

        Here.engine = engine
        server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        compute = stack.enter_context(proxied(server.server_address[1]))
        key = write_key(directory / "key.json", compute.url)
        yield Google(storage=storage, compute=compute, engine=engine, key=key)


def write_key(path: Path, url: str) -> Path:
    """A service account's key whose tokens come from our own server."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": f"images@{PROJECT}.iam.gserviceaccount.com",
        "token_uri": f"{url}/token",
    }
    path.write_text(json.dumps(account))
    return path
