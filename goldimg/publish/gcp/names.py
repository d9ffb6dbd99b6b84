"""Names, labels and faults of Google Cloud, by its rules."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import google.auth.exceptions
import requests
from google.api_core import exceptions as api
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from goldimg.errors import GoldimgError, PublishFailed
from goldimg.publish.job import brief
from goldimg.publish.retry import PASSING

LONGEST = 63  # characters, of names and labels alike
# https://cloud.google.com/compute/docs/reference/rest/v1/images (guestOsFeatures[].type)
FEATURES = frozenset({
    "BARE_METAL_LINUX_COMPATIBLE", "BMSAI_CAPABLE", "CCA_CAPABLE", "GVNIC", "IDPF",
    "MULTI_IP_SUBNET", "SECURE_BOOT", "SEV_CAPABLE", "SEV_LIVE_MIGRATABLE",
    "SEV_LIVE_MIGRATABLE_V2", "SEV_SNP_CAPABLE", "SNP_SVSM_CAPABLE", "SUSPEND_SAFE_FPR",
    "TDX_CAPABLE", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE", "WINDOWS",
})  # fmt: skip


def resource_name(text: str) -> str:
    """`text` as the name of an image: RFC 1035, 1 to 63 characters.

    What does not fit becomes `-`. A name that is too long ends in eight digits of its own digest,
    so that two of them never become one. https://cloud.google.com/compute/docs/naming-resources
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    name = name if name[:1].isalpha() else f"i-{name}"
    if len(name) > LONGEST:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{name[: LONGEST - 9].rstrip('-')}-{digest}"
    return name


def label(text: str) -> str:
    """`text` as a label's value: lower-case letters, digits, `_` and `-`, at most 63 of them.

    https://cloud.google.com/compute/docs/labeling-resources#requirements
    """
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:LONGEST]


def labels(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as labels. A SHA-256 loses its last digit: 63 characters are all that a label holds."""
    return {resource_name(key): label(value) for key, value in tags.items()}


def is_transient(error: BaseException) -> bool:
    """Whether a later attempt may do better: throttling, a tired server, the network, bad bytes.

    https://cloud.google.com/storage/docs/retry-strategy
    """
    if isinstance(error, api.GoogleAPICallError):
        # A part that was changed on the way is refused as a bad request.
        return error.code in PASSING or (error.code == 400 and "CRC32C" in str(error.message))
    if isinstance(error, InvalidResponse):
        return getattr(error.response, "status_code", 0) in PASSING
    passing = (
        DataCorruption,
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        ConnectionError,
        TimeoutError,
    )
    if isinstance(error, google.auth.exceptions.TransportError):
        return True
    return isinstance(error, passing)


def explained(error: BaseException) -> GoldimgError:
    """The error for people, with what to do about it."""
    auth = google.auth.exceptions
    if isinstance(error, GoldimgError):
        return error
    if isinstance(error, auth.DefaultCredentialsError):
        return PublishFailed(
            "gcp: no credentials were found",
            why=brief(error),
            hint="gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
        )
    if isinstance(error, auth.GoogleAuthError):
        return PublishFailed(
            "gcp: the credentials were refused",
            why=brief(error),
            hint="log in again, or check the service account's key",
        )
    if isinstance(error, api.Forbidden | api.Unauthorized):
        return PublishFailed(
            "gcp: permission denied", why=message(error), hint="the roles: docs/upload-gcp.md"
        )
    if isinstance(error, api.GoogleAPICallError):
        return PublishFailed(f"gcp: {message(error)}")
    return PublishFailed(f"gcp: {brief(error)}")


def message(error: api.GoogleAPICallError) -> str:
    """What the service said, without the request's URL before it."""
    text = " ".join(str(error.message).split())
    return brief_text(re.sub(r"^[A-Z]+ https?://\S+: ", "", text)) or type(error).__name__


def brief_text(text: str) -> str:
    """At most 300 characters of what a service said."""
    return text if len(text) <= 300 else f"{text[:299]}…"
