"""Compute Engine images: made of an archive in a bucket, found, shared, deprecated, removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.api_core import exceptions as api
from google.auth.credentials import Credentials

from goldimg.errors import PublishFailed
from goldimg.publish.gcp.rest import Compute, Image, Json
from goldimg.publish.job import Job, Rejected, Session

USER = "roles/compute.imageUser"
# What a service says of a fault that the same bytes will meet again.
FINAL = ("INVALID", "UNSUPPORTED", "IMAGE_NOT", "BAD_IMAGE", "RAW_DISK")


class Images:
    """The images of one project."""

    def __init__(self, project: str, credentials: Credentials, endpoint: str | None) -> None:
        self.project = project
        self._api = Compute(project, credentials, endpoint)

    def close(self) -> None:
        """Ends the connections."""
        self._api.close()

    def get(self, session: Session, name: str) -> Image | None:
        """The image, or None where there is none."""

        def ask() -> Image | None:
            try:
                return Image.of(self._api.call("GET", f"global/images/{name}"))
            except api.NotFound:
                return None

        return session.call(ask, what="images.get")

    def disks_of(self, session: Session, name: str) -> list[str]:
        """Disks of the project that were made of the image, as `zone/name`.

        https://cloud.google.com/compute/docs/reference/rest/v1/disks/aggregatedList
        """
        wanted = f"/projects/{self.project}/global/images/{name}"
        condition = f'sourceImage eq ".*/images/{name}"'

        def ask() -> list[tuple[str, Json]]:
            pages = self._api.pages("aggregated/disks", {"filter": condition})
            return [it for page in pages for it in page.get("items", {}).items()]

        return [
            f"{zone.rpartition('/')[2]}/{disk['name']}"
            for zone, scope in session.call(ask, what="disks.aggregatedList")
            for disk in scope.get("disks", ())
            if str(disk.get("sourceImage", "")).endswith(wanted)
        ]

    def list(self, session: Session, condition: str) -> list[Image]:
        """Images that fulfil the filter, the newest last."""

        def ask() -> list[Image]:
            pages = self._api.pages("global/images", {"filter": condition})
            return [Image.of(it) for page in pages for it in page.get("items", ())]

        return sorted(session.call(ask, what="images.list"), key=lambda image: image.made)

    def insert(self, job: Job, image: Json, *, timeout: float) -> None:
        """Makes the image, and waits until it is ready."""
        operation = job.call(
            lambda: self._api.call("POST", "global/images", image), what="images.insert"
        )
        self.wait(job, operation, what="the import", timeout=timeout)

    def wait(self, session: Session, operation: Json, *, what: str, timeout: float = 300) -> None:
        """Waits for a global operation; PublishFailed with all that it says went wrong.

        https://cloud.google.com/compute/docs/reference/rest/v1/globalOperations
        """
        path = f"global/operations/{operation['name']}"

        def poll() -> Json | None:
            found = self._api.call("GET", path)
            return found if found.get("status") == "DONE" else None

        done = session.wait(poll, what=what, timeout=timeout, interval=3.0)
        for warning in done.get("warnings", ()):
            session.warn(f"{what}: {warning.get('message', '')}")
        if errors := done.get("error", {}).get("errors", ()):
            said = "; ".join(f"{it.get('code', '')}: {it.get('message', '')}" for it in errors)
            is_final = any(str(it.get("code", "")).startswith(FINAL) for it in errors)
            raise (Rejected if is_final else PublishFailed)(f"gcp: {what} failed", why=said)

    def settle(self, job: Job, name: str, *, timeout: float) -> Image | None:
        """The image once it is neither pending nor being deleted; None where it has failed."""

        def poll() -> tuple[Image | None] | None:
            image = self.get(job, name)
            if image is None or image.status in ("READY", "FAILED"):
                return (image,)
            return None

        (image,) = job.wait(poll, what=f"image {name}", timeout=timeout, interval=3.0)
        return None if image is None or image.status == "FAILED" else image

    def delete(self, session: Session, name: str) -> None:
        """Removes the image; one that is not there is no error."""

        def ask() -> Json | None:
            try:
                return self._api.call("DELETE", f"global/images/{name}")
            except api.NotFound:
                return None

        if operation := session.call(ask, what="images.delete"):
            self.wait(session, operation, what=f"removing image {name}")

    def _change(self, session: Session, name: str, verb: str, body: Json, what: str) -> None:
        """A POST on an image that starts an operation, which is waited for."""
        path = f"global/images/{name}/{verb}"
        operation = session.call(lambda: self._api.call("POST", path, body), what=f"images.{verb}")
        self.wait(session, operation, what=what)

    def relabel(self, session: Session, image: Image, labels: Mapping[str, str]) -> None:
        """Replaces the image's labels."""
        body = {"labels": dict(labels), "labelFingerprint": image.fingerprint}
        self._change(session, image.name, "setLabels", body, "labelling")

    def _policy(self, job: Job, name: str) -> Json:
        path = f"global/images/{name}/getIamPolicy"
        return job.call(lambda: self._api.call("GET", path), what="images.getIamPolicy")

    def is_shared(self, job: Job, name: str, members: Sequence[str]) -> bool:
        """Whether all `members` have the image user role on the image."""
        return not members or _users(self._policy(job, name)) >= set(members)

    def share(self, job: Job, name: str, members: Sequence[str]) -> None:
        """Gives `members` the image user role, beside whoever has it."""
        policy = self._policy(job, name)
        have = _users(policy)
        if have >= set(members):
            return
        others = [it for it in policy.get("bindings", ()) if it.get("role") != USER]
        binding = {"role": USER, "members": sorted(have | set(members))}
        body = {"policy": {**policy, "bindings": [*others, binding]}}
        path = f"global/images/{name}/setIamPolicy"
        job.call(lambda: self._api.call("POST", path, body), what="images.setIamPolicy")

    def deprecate(self, session: Session, name: str, state: str, replacement: str) -> None:
        """Marks the image as DEPRECATED or OBSOLETE, in favour of `replacement` (a link).

        ACTIVE, without a replacement, takes that back.
        """
        body = {"state": state.upper(), **({"replacement": replacement} if replacement else {})}
        self._change(session, name, "deprecate", body, f"deprecating {name}")


def _users(policy: Json) -> set[str]:
    bindings = policy.get("bindings", ())
    return {it for found in bindings if found.get("role") == USER for it in found["members"]}
