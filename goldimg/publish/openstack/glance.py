"""Glance's API, spoken through the SDK's connection: its clouds, its authentication, our calls.

The SDK's own image calls are not used: they create a second image of the same name, lose errors of
imports, and send changes that nobody asked for. https://docs.openstack.org/api-ref/image/v2/
"""

from __future__ import annotations

import html
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from goldimg import __version__
from goldimg.config.publish.openstack import OpenstackPublish
from goldimg.publish.body import Body
from goldimg.publish.retry import PASSING

if TYPE_CHECKING:
    import openstack.connection
    import requests

CONNECT = 10.0  # seconds
READ = 120.0  # seconds without a byte; Glance answers an upload only when it has stored it
STORED = 1800.0
PATCH = "application/openstack-images-v2.1-json-patch"

Json = dict[str, Any]


class GlanceError(Exception):
    """What Glance answered: its status and what it said."""

    def __init__(self, status: int, said: str, call: str) -> None:
        super().__init__(f"{call}: {said or 'no reason given'} (HTTP {status})")
        self.status, self.said, self.call = status, said, call


class Glance:
    """One cloud's image service. Connects with the first call."""

    def __init__(self, options: OpenstackPublish) -> None:
        self._options = options
        self._connection: openstack.connection.Connection | None = None

    @property
    def connection(self) -> openstack.connection.Connection:
        """The SDK's connection; it raises what the SDK raises for a cloud that it does not know."""
        if self._connection is None:
            import openstack
            from openstack.warnings import OpenStackDeprecationWarning

            # of what the SDK does in itself: nothing that anybody here could mend
            warnings.filterwarnings("ignore", category=OpenStackDeprecationWarning)
            warnings.filterwarnings("ignore", module=r"openstack\.")
            self._connection = openstack.connect(
                cloud=self._options.cloud,
                region_name=self._options.region,
                app_name="goldimg",
                app_version=__version__,
                api_timeout=READ,
            )
        return self._connection

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()

    @property
    def project(self) -> str | None:
        """The id of the project that images will belong to; None where the token does not tell."""
        return self.connection.session.get_project_id()

    def account(self) -> str:
        """Who we are there, for people."""
        session = self.connection.session
        access = getattr(session.auth, "get_access", None)
        if access is None:
            return f"project {self.project}" if self.project else "a token of its own"
        found = access(session)
        return f"{found.username} in project {found.project_name} ({found.project_id})"

    def url(self, path: str) -> str:
        """The full address of a path below the API's version 2.

        Some ways of authentication give the endpoint as it was written, without a version.
        """
        endpoint = (self.connection.image.get_endpoint() or "").rstrip("/")
        versioned = re.search(r"/v2(\.[0-9]+)?$", endpoint)
        return endpoint + ("" if versioned else "/v2") + path

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        data: Body | None = None,
        content_type: str = "application/json",
        read: float = READ,
    ) -> requests.Response:
        """One call, not retried; GlanceError for an answer that is no success."""
        headers = {"Accept": "application/json"}
        sent: object = data
        if data is not None:
            headers["Content-Type"] = "application/octet-stream"
        elif body is not None:
            headers["Content-Type"] = content_type
            sent = json.dumps(body).encode()
        answer: requests.Response = self.connection.image.request(
            self.url(path),
            method,
            data=sent,
            headers=headers,
            raise_exc=False,
            connect_retries=0,
            status_code_retries=0,
            log=False,
            timeout=(CONNECT, read),
        )
        if answer.status_code >= 400:
            raise GlanceError(answer.status_code, said(answer), f"{method} {path}")
        return answer

    def get(self, path: str) -> Json:
        """What GET answers."""
        found: Json = self.request("GET", path).json()
        return found

    def image(self, id_: str) -> Json | None:
        """An image, None where there is none of this id."""
        try:
            return self.get(f"/images/{id_}")
        except GlanceError as error:
            if error.status == 404:
                return None
            raise

    def images(self, **wanted: str) -> list[Json]:
        """Our project's images that match, hidden ones too, in the order they were created."""
        found: dict[str, Json] = {}
        owner = {"owner": self.project} if self.project else {}
        for hidden in ("false", "true"):
            query = {"visibility": "all", "os_hidden": hidden, "sort": "created_at:asc"}
            for image in self._pages({**query, **owner, **wanted}):
                found[str(image["id"])] = image
        return list(found.values())

    def _pages(self, query: Mapping[str, str]) -> Iterator[Json]:
        path = f"/images?{urlencode({'limit': '100', **query})}"
        while path:
            page = self.get(path)
            yield from page["images"]
            path = str(page.get("next", "")).removeprefix("/v2")

    def create(self, description: Mapping[str, object]) -> None:
        """Makes a queued image, under the id in its description."""
        self.request("POST", "/images", body=dict(description))

    def change(self, id_: str, changes: Sequence[Json]) -> None:
        """Changes an image by JSON patch (RFC 6902, as Glance takes it)."""
        if changes:
            self.request("PATCH", f"/images/{id_}", body=list(changes), content_type=PATCH)

    def members(self, id_: str) -> set[str]:
        """The projects that a shared image is offered to."""
        return {str(it["member_id"]) for it in self.get(f"/images/{id_}/members")["members"]}

    def delete(self, id_: str) -> None:
        """Removes an image, protected or not; one that is gone is no error."""
        image = self.image(id_)
        if image is None:
            return
        if image.get("protected"):
            self.change(id_, [{"op": "replace", "path": "/protected", "value": False}])
        try:
            self.request("DELETE", f"/images/{id_}")
        except GlanceError as error:
            if error.status != 404:
                raise

    def import_methods(self) -> tuple[str, ...]:
        """The ways of importing that the cloud offers; none where it does not tell."""
        try:
            found = self.get("/info/import")
        except GlanceError as error:
            if error.status == 404:
                return ()
            raise
        return tuple(found.get("import-methods", {}).get("value", ()))

    def usage(self) -> Mapping[str, Mapping[str, int]]:
        """Quotas, as limit and usage by name (sizes in MiB); empty where the cloud tells none."""
        try:
            found: Mapping[str, Mapping[str, int]] = self.get("/info/usage").get("usage", {})
        except GlanceError as error:
            if error.status in (403, 404):
                return {}
            raise
        return found

    def servers(self, image: str) -> list[str] | None:
        """Names of the project's servers that were made of the image; None without a Nova.

        https://docs.openstack.org/api-ref/compute/#list-servers
        """
        endpoint = self._nova()
        if endpoint is None:
            return None
        answer = self.connection.session.request(
            f"{endpoint.rstrip('/')}/servers?{urlencode({'image': image})}",
            "GET",
            raise_exc=False,
            connect_retries=0,
            status_code_retries=0,
            log=False,
            timeout=(CONNECT, READ),
        )
        if answer.status_code in (300, 404):  # some other service is at this address
            return None
        if answer.status_code >= 400:
            raise GlanceError(answer.status_code, said(answer), "GET /servers")
        return [str(it.get("name") or it["id"]) for it in answer.json()["servers"]]

    def _nova(self) -> str | None:
        """Where the cloud's Nova is: as clouds.yaml says, or the catalogue."""
        from keystoneauth1.exceptions import CatalogException

        config = self.connection.config
        told = config.get_endpoint("compute")
        try:
            found = told or self.connection.session.get_endpoint(
                service_type="compute",
                interface=config.get_interface("compute"),
                region_name=config.get_region_name("compute"),
            )
        except CatalogException:  # no such service, or not in this region
            return None
        return str(found) if found else None

    def tasks(self, id_: str) -> list[Json]:
        """The import tasks of an image, the newest last; none where the cloud is too old."""
        try:
            found: list[Json] = self.get(f"/images/{id_}/tasks")["tasks"]
        except GlanceError as error:
            if error.status == 404:
                return []
            raise
        return sorted(found, key=lambda task: str(task.get("created_at", "")))


def said(answer: requests.Response) -> str:
    """What an error says, without the markup that Glance puts around it."""
    text = re.sub(r"<title>.*?</title>|<h1>.*?</h1>", "", answer.text, flags=re.DOTALL)
    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
    return text[:500] or str(answer.reason)


def is_transient(error: BaseException) -> bool:
    """Whether a call that raised this may do better later."""
    import requests
    from keystoneauth1 import exceptions

    if isinstance(error, GlanceError):
        return error.status in PASSING
    if isinstance(error, exceptions.HttpError):
        return error.http_status in PASSING
    if isinstance(error, exceptions.SSLError | requests.exceptions.SSLError):
        return False
    return isinstance(
        error,
        exceptions.ConnectionError
        | requests.exceptions.ConnectionError
        | requests.exceptions.Timeout
        | requests.exceptions.ChunkedEncodingError,
    )
