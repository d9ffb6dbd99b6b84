"""Compute Engine's REST API, and its images as values.

The SDK's own client is not used: it loads every service of Compute Engine with all its messages,
a hundred megabytes and a second of them, for the dozen calls that publishing makes. google-auth,
which that client stands on, authorizes these calls too.
https://cloud.google.com/compute/docs/reference/rest/v1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from google.api_core.exceptions import from_http_response
from google.auth.credentials import Credentials
from google.auth.transport.requests import AuthorizedSession

TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two reads
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image; `size` in GiB. `deprecation` is empty or DEPRECATED, OBSOLETE, DELETED, ACTIVE.

    https://cloud.google.com/compute/docs/reference/rest/v1/images
    """

    name: str
    id: str
    status: str  # PENDING, READY, FAILED, DELETING
    family: str
    labels: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str  # of the labels
    made: str  # RFC 3339
    link: str
    size: int
    deprecation: str

    @classmethod
    def of(cls, found: Json) -> Image:
        """What the API says of an image."""
        return cls(
            name=str(found["name"]),
            id=str(found.get("id", "")),
            status=str(found.get("status", "")),
            family=str(found.get("family", "")),
            labels=dict(found.get("labels", {})),
            fingerprint=str(found.get("labelFingerprint", "")),
            made=str(found.get("creationTimestamp", "")),
            link=str(found.get("selfLink", "")),
            size=int(found.get("diskSizeGb", 0)),  # 64-bit numbers are strings
            deprecation=str(found.get("deprecated", {}).get("state", "")),
        )


class Compute:
    """The API for one project. Faults are google.api_core's exceptions, as of Google's clients."""

    def __init__(self, project: str, credentials: Credentials, endpoint: str | None) -> None:
        self.project = project
        host = endpoint or f"https://compute.{credentials.universe_domain}"
        self._root = f"{host.rstrip('/')}/compute/v1/projects/{project}"
        make: Any = AuthorizedSession  # which has no types
        self._session = make(credentials)

    def close(self) -> None:
        """Ends the connections."""
        self._session.close()

    def call(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """What the call answers; `path` is that below the project. One attempt."""
        answer = self._session.request(
            method, f"{self._root}/{path}", json=body, params=query, timeout=TIMEOUT
        )
        if not answer.ok:
            error: Exception = from_http_response(answer)  # type: ignore[no-untyped-call]
            raise error
        found: Json = answer.json()
        return found

    def pages(self, path: str, query: Mapping[str, str]) -> Iterator[Json]:
        """Every page of a list.

        https://cloud.google.com/compute/docs/reference/rest/v1/images/list (nextPageToken)
        """
        token: object = None
        while True:
            more = {"pageToken": str(token)} if token else {}
            page = self.call("GET", path, query={**query, **more})
            yield page
            token = page.get("nextPageToken")
            if not token:
                return
