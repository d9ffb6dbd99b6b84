"""A registry's API, by itself: an image gets there without an engine, as the bytes that were built.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md and, for tokens,
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from goldimg import __version__
from goldimg.publish.docker.content import MANIFEST_TYPE, digest

CONNECT, READ = 10.0, 120.0  # seconds
CERTIFICATES = Path("/etc/docker/certs.d")  # where engines look for a registry's own CA, too
HUB = "docker.io"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCTETS = "application/octet-stream"


class RegistryError(Exception):
    """What a registry answered: its status, the code of its error, and what it said."""

    def __init__(self, status: int, code: str, said: str, call: str) -> None:
        super().__init__(f"{call}: {said or code or 'no reason given'} (HTTP {status})")
        self.status, self.code, self.said, self.call = status, code, said, call


class Registry:
    """One repository of a registry. `credentials` are a user and a password, or none."""

    def __init__(
        self,
        host: str,
        repository: str,
        *,
        plain_http: bool = False,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        self.host, self.repository = host, repository
        place = "registry-1.docker.io" if host == HUB else host
        scheme = "http" if plain_http or _is_loopback(host) else "https"
        self._base = f"{scheme}://{place}/v2/"
        self._credentials = credentials
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"goldimg/{__version__}"
        authority = CERTIFICATES / host / "ca.crt"
        if authority.exists():
            self._session.verify = str(authority)
        self._authorization = ""

    def close(self) -> None:
        """Ends the connections."""
        self._session.close()

    def url(self, path: str) -> str:
        """The address of a path below the repository; one that is an address already stays it."""
        return urljoin(f"{self._base}{self.repository}/", path)

    def request(
        self,
        method: str,
        path: str,
        *,
        data: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> requests.Response:
        """One call, not retried; RegistryError for an answer that is no success.

        A registry that asks who is there is told once, and asked again.
        """
        for attempt in (1, 2):
            url = self.url(path)
            answer = self._session.request(
                method,
                url,
                data=data,
                params=params,
                headers=headers,
                auth=self._authorize,
                timeout=(CONNECT, READ),
                allow_redirects=method in ("GET", "HEAD"),
            )
            if answer.status_code == 401 and attempt == 1:
                self._authenticate(answer)
                continue
            break
        if answer.status_code >= 300:
            raise _error(answer, f"{method} {urlsplit(url).path}")
        return answer

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Where to send an upload may be another host, which must not get our credentials.
        is_ours = urlsplit(request.url or "").netloc == urlsplit(self._base).netloc
        if self._authorization and is_ours:
            request.headers["Authorization"] = self._authorization
        return request

    def _authenticate(self, answer: requests.Response) -> None:
        """Gets what the registry's challenge asks for; RegistryError where it cannot."""
        kind, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if kind.lower() == "basic" and self._credentials:
            request = requests.Request("GET", self._base, auth=self._credentials).prepare()
            self._authorization = str(request.headers["Authorization"])
            return
        if kind.lower() != "bearer" or "realm" not in asked:
            raise _error(answer, "authentication")
        actions = {"pull", "push", *asked.get("scope", "").rpartition(":")[2].split(",")} - {""}
        query = {"scope": f"repository:{self.repository}:{','.join(sorted(actions))}"}
        if "service" in asked:
            query["service"] = asked["service"]
        token = self._session.get(
            asked["realm"],
            params=query,
            auth=self._credentials or _nobody,
            timeout=(CONNECT, READ),
        )
        if token.status_code != 200:
            raise _error(token, "authentication")
        found = token.json()
        self._authorization = f"Bearer {found.get('token') or found.get('access_token')}"

    def manifest(self, reference: str) -> bytes | None:
        """The manifest of a tag or digest, None where there is none; its digest is checked."""
        accept = {"Accept": f"{MANIFEST_TYPE}, {DOCKER_MANIFEST}, */*;q=0.1"}
        try:
            answer = self.request("GET", f"manifests/{reference}", headers=accept)
        except RegistryError as error:
            if error.status == 404:
                return None
            raise
        told = answer.headers.get("Docker-Content-Digest", "")
        if told.startswith("sha256:") and told != digest(answer.content):
            raise requests.exceptions.ContentDecodingError(
                f"the manifest {reference} arrived damaged"
            )
        return answer.content

    def config(self, manifest: bytes) -> dict[str, Any] | None:
        """The configuration that a manifest names; None where it names no image's."""
        try:
            found = json.loads(manifest)["config"]["digest"]
        except (ValueError, KeyError, TypeError):
            return None
        answer = self.request("GET", f"blobs/{found}")
        if digest(answer.content) != found:
            raise requests.exceptions.ContentDecodingError(f"blob {found} arrived damaged")
        config: dict[str, Any] = answer.json()
        return config

    def size_of(self, blob: str) -> int | None:
        """The size of a blob, None where the repository has none of this digest."""
        try:
            answer = self.request("HEAD", f"blobs/{blob}")
        except RegistryError as error:
            if error.status == 404:
                return None
            raise
        return int(answer.headers.get("Content-Length", -1))

    def start(self) -> str:
        """Begins an upload; its address."""
        answer = self.request("POST", "blobs/uploads/", headers={"Content-Length": "0"})
        return self._next(answer)

    def resume(self, upload: str) -> tuple[str, int] | None:
        """An upload's address and how many bytes of it have arrived; None where it is gone."""
        try:
            answer = self.request("GET", upload)
        except RegistryError as error:
            if error.status in (400, 404, 416):
                return None
            raise
        _, _, last = answer.headers.get("Range", "0-0").partition("-")
        arrived = int(last or 0)
        return self._next(answer), arrived + 1 if arrived else 0

    def send(self, upload: str, offset: int, size: int, data: bytes | Iterable[bytes]) -> str:
        """Sends `size` bytes that begin at `offset`; the address for what follows."""
        headers = {
            "Content-Type": OCTETS,
            "Content-Range": f"{offset}-{offset + size - 1}",
        }
        return self._next(self.request("PATCH", upload, data=data, headers=headers))

    def finish(self, upload: str, blob: str) -> None:
        """Ends an upload; the registry checks that it has the digest `blob`."""
        headers = {"Content-Type": OCTETS, "Content-Length": "0"}
        self.request("PUT", upload, params={"digest": blob}, headers=headers)

    def abandon(self, upload: str) -> None:
        """Ends an upload that nobody goes on with, as far as the registry lets us.

        Registries purge what stays: https://distribution.github.io/distribution/about/configuration/
        """
        with contextlib.suppress(RegistryError, requests.RequestException):
            self.request("DELETE", upload)

    def put_manifest(self, reference: str, manifest: bytes) -> None:
        """Stores a manifest under a tag."""
        headers = {"Content-Type": MANIFEST_TYPE}
        self.request("PUT", f"manifests/{reference}", data=manifest, headers=headers)

    def delete_manifest(self, reference: str) -> None:
        """Removes a manifest by its digest, and with it its tags; gone already is no error."""
        try:
            self.request("DELETE", f"manifests/{reference}")
        except RegistryError as error:
            if error.status != 404:
                raise

    def _next(self, answer: requests.Response) -> str:
        return urljoin(answer.url, answer.headers["Location"])


def credentials_of(host: str) -> tuple[str, str] | None:
    """What `docker login` has stored for a registry, helpers included; None where nothing is."""
    from docker import auth

    found = auth.load_config().resolve_authconfig(None if host == HUB else host) or {}
    user = found.get("username") or found.get("Username")
    password = found.get("password") or found.get("Password")
    return (str(user), str(password)) if user and password else None


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No credentials, not even those of a .netrc."""
    return request


def _is_loopback(host: str) -> bool:
    """Whether engines, too, speak to it without TLS."""
    name = host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _error(answer: requests.Response, call: str) -> RegistryError:
    try:
        first = answer.json()["errors"][0]
        code, said = str(first.get("code", "")), str(first.get("message", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        code, said = "", " ".join(answer.text.split())[:300]
    return RegistryError(answer.status_code, code, said or str(answer.reason), call)
