"""A container engine with Docker's API: Docker itself, or Podman's service. Found by DOCKER_HOST.

https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from docker import APIClient, errors, utils

from goldimg.publish.docker.archive import Archive
from goldimg.publish.docker.content import LABEL
from goldimg.publish.job import Rejected

READ = 600.0  # seconds without a word; a load says nothing while it unpacks
Json = Mapping[str, Any]


def address() -> str:
    """Where the engine is, in words that stay the same."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


class Engine:
    """One engine. Connects with the first call."""

    def __init__(self) -> None:
        self._api: Any = None

    @property
    def api(self) -> Any:
        """The SDK's client; it raises what the SDK raises for an engine that is not there."""
        if self._api is None:
            self._api = APIClient(**utils.kwargs_from_env(), version="auto", timeout=READ)
        return self._api

    def close(self) -> None:
        """Ends the connections."""
        if self._api is not None:
            self._api.close()

    def account(self) -> str:
        """Which engine it is, for people."""
        found = self.api.version()
        name = (found.get("Platform") or {}).get("Name") or "engine"
        parts = [str(it.get("Name")) for it in found.get("Components") or []]
        kind = "Podman" if any("Podman" in part for part in parts) else name
        return f"{kind} {found.get('Version', '')}, {found.get('Os')}/{found.get('Arch')}".strip()

    def inspect(self, name: str) -> Json | None:
        """An image by name or id, None where there is none."""
        try:
            found: Json = self.api.inspect_image(name)
        except errors.NotFound:
            return None
        return found

    def labelled(self, sha256: str | None = None) -> list[Json]:
        """Images of goldimg's; of this artifact only, where `sha256` is given."""
        label = f"{LABEL}={sha256}" if sha256 else LABEL
        found: list[Json] = self.api.images(filters={"label": [label]})
        return found

    def load(self, archive: Archive) -> None:
        """Loads an image; Refused where the engine finds fault with what arrived."""
        try:
            for line in self.api.load_image(archive, quiet=False):
                if "error" in line:
                    raise _refused(str(line["error"]))
        except errors.APIError as error:
            # Podman's word for everything: a wrong digest, a full disk, an archive cut short
            if getattr(error.response, "status_code", None) == 500:
                raise _refused(str(error.explanation or error)) from error
            raise

    def tag(self, id_: str, repository: str, tag: str) -> None:
        """Makes `repository:tag` name the image."""
        self.api.tag(id_, repository, tag)

    def remove(self, name: str) -> None:
        """Removes a name, or an image that has no other; one that is gone is no error."""
        try:
            self.api.remove_image(name, noprune=False)
        except errors.NotFound:
            return


class Refused(Rejected):
    """The engine finds fault with an image."""


class Interruption(Exception):
    """The engine got less than was sent: the connection broke."""


def _refused(said: str) -> Exception:
    if "unexpected EOF" in said:
        return Interruption(said)
    return Refused("docker: the engine refuses the image", why=said[:500])


def names_of(image: Json) -> list[str]:
    """An image's names; engines write none in several ways."""
    return [it for it in image.get("RepoTags") or [] if it and not it.startswith("<none>")]
