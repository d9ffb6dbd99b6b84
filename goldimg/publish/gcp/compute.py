"""Compute Engine images: made of an archive in a bucket, found, shared, deprecated, removed.

Operations are polled by the operations client that is made here: the one inside the images client
asks the public endpoint, whichever endpoint the images client was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.api_core import exceptions as api
from google.cloud import compute_v1

from goldimg.errors import PublishFailed
from goldimg.publish.job import Job, Rejected, Session

TIMEOUT = 60.0  # seconds of one call
USER = "roles/compute.imageUser"
# What a service says of a fault that the same bytes will meet again.
FINAL = ("INVALID", "UNSUPPORTED", "IMAGE_NOT", "BAD_IMAGE", "RAW_DISK")


class Images:
    """The images of one project."""

    def __init__(self, project: str, credentials: Any, endpoint: str | None) -> None:
        options: dict[str, str] = {"api_endpoint": endpoint} if endpoint else {}
        given: dict[str, Any] = {"credentials": credentials, "client_options": options}
        self.project = project
        self._images = compute_v1.ImagesClient(**given)
        self._operations = compute_v1.GlobalOperationsClient(**given)
        self._disks = compute_v1.DisksClient(**given)

    def close(self) -> None:
        """Ends the connections."""
        for client in (self._images, self._operations, self._disks):
            transport: Any = client.transport
            transport.close()

    def get(self, session: Session, name: str) -> compute_v1.Image | None:
        """The image, or None where there is none."""

        def ask() -> compute_v1.Image | None:
            try:
                return self._images.get(
                    project=self.project, image=name, timeout=TIMEOUT, retry=None
                )
            except api.NotFound:
                return None

        return session.call(ask, what="images.get")

    def disks_of(self, session: Session, name: str) -> list[str]:
        """Disks of the project that were made of the image, as `zone/name`.

        https://cloud.google.com/compute/docs/reference/rest/v1/disks/aggregatedList
        """
        wanted = f"projects/{self.project}/global/images/{name}"
        request = compute_v1.AggregatedListDisksRequest(
            project=self.project, filter=f'sourceImage eq ".*/images/{name}"'
        )
        found = session.call(
            lambda: list(self._disks.aggregated_list(request=request, timeout=TIMEOUT, retry=None)),
            what="disks.aggregatedList",
        )
        return [
            f"{zone.rpartition('/')[2]}/{disk.name}"
            for zone, scope in found
            for disk in scope.disks
            if disk.source_image.endswith(f"/{wanted}")
        ]

    def list(self, session: Session, condition: str) -> list[compute_v1.Image]:
        """Images that fulfil the filter, the newest last."""
        request = compute_v1.ListImagesRequest(project=self.project, filter=condition)
        found = session.call(
            lambda: list(self._images.list(request=request, timeout=TIMEOUT, retry=None)),
            what="images.list",
        )
        return sorted(found, key=lambda image: str(image.creation_timestamp))

    def insert(self, job: Job, image: compute_v1.Image, *, timeout: float) -> None:
        """Makes the image, and waits until it is ready."""
        operation = job.call(
            lambda: self._images.insert_unary(
                project=self.project, image_resource=image, timeout=TIMEOUT, retry=None
            ),
            what="images.insert",
        )
        self.wait(job, operation.name, what="the import", timeout=timeout)

    def wait(self, session: Session, operation: str, *, what: str, timeout: float = 300) -> None:
        """Waits for a global operation; PublishFailed with all that it says went wrong."""

        def poll() -> compute_v1.Operation | None:
            found = self._operations.get(
                project=self.project, operation=operation, timeout=TIMEOUT, retry=None
            )
            return found if found.status == compute_v1.Operation.Status.DONE else None

        done = session.wait(poll, what=what, timeout=timeout, interval=3.0)
        for warning in done.warnings:
            session.warn(f"{what}: {warning.message}")
        errors = list(done.error.errors) if done.error else []
        if errors:
            said = "; ".join(f"{it.code}: {it.message}" for it in errors)
            is_final = any(it.code.startswith(FINAL) for it in errors)
            raise (Rejected if is_final else PublishFailed)(f"gcp: {what} failed", why=said)

    def settle(self, job: Job, name: str, *, timeout: float) -> compute_v1.Image | None:
        """The image once it is neither pending nor being deleted; None where it has failed.

        https://cloud.google.com/compute/docs/reference/rest/v1/images: PENDING, READY, FAILED,
        DELETING.
        """

        def poll() -> tuple[compute_v1.Image | None] | None:
            image = self.get(job, name)
            if image is None or image.status in ("READY", "FAILED"):
                return (image,)
            return None

        (image,) = job.wait(poll, what=f"image {name}", timeout=timeout, interval=3.0)
        return None if image is None or image.status == "FAILED" else image

    def delete(self, session: Session, name: str) -> None:
        """Removes the image; one that is not there is no error."""

        def ask() -> compute_v1.Operation | None:
            try:
                return self._images.delete_unary(
                    project=self.project, image=name, timeout=TIMEOUT, retry=None
                )
            except api.NotFound:
                return None

        if operation := session.call(ask, what="images.delete"):
            self.wait(session, operation.name, what=f"removing image {name}")

    def relabel(self, job: Session, image: compute_v1.Image, labels: dict[str, str]) -> None:
        """Replaces the image's labels."""
        request = compute_v1.GlobalSetLabelsRequest(
            labels=labels, label_fingerprint=image.label_fingerprint
        )
        operation = job.call(
            lambda: self._images.set_labels_unary(
                project=self.project,
                resource=image.name,
                global_set_labels_request_resource=request,
                timeout=TIMEOUT,
                retry=None,
            ),
            what="images.setLabels",
        )
        self.wait(job, operation.name, what="labelling")

    def _policy(self, job: Job, name: str) -> compute_v1.Policy:
        return job.call(
            lambda: self._images.get_iam_policy(
                project=self.project, resource=name, timeout=TIMEOUT, retry=None
            ),
            what="images.getIamPolicy",
        )

    def is_shared(self, job: Job, name: str, members: Sequence[str]) -> bool:
        """Whether all `members` have the image user role on the image."""
        return not members or _users(self._policy(job, name)) >= set(members)

    def share(self, job: Job, name: str, members: Sequence[str]) -> None:
        """Gives `members` the image user role, beside whoever has it."""
        policy = self._policy(job, name)
        have = _users(policy)
        if have >= set(members):
            return
        others = [binding for binding in policy.bindings if binding.role != USER]
        binding = compute_v1.Binding(role=USER, members=sorted(have | set(members)))
        request = compute_v1.GlobalSetPolicyRequest(
            policy=compute_v1.Policy(bindings=[*others, binding], etag=policy.etag)
        )
        job.call(
            lambda: self._images.set_iam_policy(
                project=self.project,
                resource=name,
                global_set_policy_request_resource=request,
                timeout=TIMEOUT,
                retry=None,
            ),
            what="images.setIamPolicy",
        )

    def deprecate(self, job: Session, name: str, state: str, replacement: str) -> None:
        """Marks the image as DEPRECATED or OBSOLETE, in favour of `replacement` (a link).

        ACTIVE, without a replacement, takes that back.
        """
        status = compute_v1.DeprecationStatus(state=state.upper())
        if replacement:
            status.replacement = replacement
        operation = job.call(
            lambda: self._images.deprecate_unary(
                project=self.project,
                image=name,
                deprecation_status_resource=status,
                timeout=TIMEOUT,
                retry=None,
            ),
            what="images.deprecate",
        )
        self.wait(job, operation.name, what=f"deprecating {name}")


def _users(policy: compute_v1.Policy) -> set[str]:
    return {it for binding in policy.bindings if binding.role == USER for it in binding.members}
