"""What Azure's errors mean: which pass by themselves, and what a person can do about the others."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from azure.core.exceptions import (
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from goldimg.errors import GoldimgError, PublishFailed
from goldimg.publish.job import Rejected, Session, brief
from goldimg.publish.retry import PASSING

T = TypeVar("T")

# https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes, and
# https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
PASSING_CODES = frozenset(
    {"Md5Mismatch", "RetryableError", "AnotherOperationInProgress", "ServerBusy", "InternalError"}
)
# The service has read the VHD and does not take it.
REFUSED_CODES = frozenset({"InvalidVhd", "InvalidVhdFooter", "StorageErrorBlobNotPageBlob"})
# https://learn.microsoft.com/rest/api/storageservices/create-service-sas
_SIGNATURE = re.compile(r"(\bsig=)[^&\s'\")]+")
LONGEST_RETRY_AFTER = 120.0  # seconds
HINTS = {
    "AuthorizationFailed": "the identity needs the role in docs/upload-azure.md, or more",
    "AuthorizationPermissionMismatch": "the identity needs 'Storage Blob Data Contributor' on the "
    "storage account (a new assignment takes some minutes)",
    "AuthenticationFailed": "check the key or SAS in the environment, and this machine's clock",
    "MissingSubscriptionRegistration": "az provider register --namespace Microsoft.Compute",
    "StorageAccountAlreadyTaken": "names of storage accounts are Azure-wide: choose another",
}

DAMAGED = (DecodeError, UnicodeDecodeError)  # an answer that was changed on its way
UNHEARD = (
    (DAMAGED, "its answers arrive damaged"),
    ((ServiceRequestError, ServiceResponseError), "no answer"),
)


def code_of(error: BaseException) -> str:
    """The service's code of an error, such as ResourceNotFound; empty where it gives none."""
    found = getattr(error, "error_code", None)  # of storage
    if found:
        return str(getattr(found, "value", found))
    of_arm = getattr(error, "error", None)
    return str(getattr(of_arm, "code", "") or "")


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, DAMAGED):
        return True
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    if isinstance(error, HttpResponseError):
        return error.status_code in PASSING or code_of(error) in PASSING_CODES
    return False


def heeding(session: Session, function: Callable[[], T]) -> T:
    """Calls `function`; where Azure says when to ask again, waits so long before it raises.

    Errors of the connection name its URL: a signature in it is taken out before anybody sees it.
    https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling
    """
    try:
        return function()
    except HttpResponseError as error:
        if is_transient(error) and (seconds := retry_after(error)):
            session.pause(min(seconds, LONGEST_RETRY_AFTER))
        raise
    except (ServiceRequestError, ServiceResponseError) as error:
        raise type(error)(_SIGNATURE.sub(r"\1…", str(error))) from None


def retry_after(error: HttpResponseError) -> float:
    """The seconds in its Retry-After, 0 where it has none."""
    headers = getattr(error.response, "headers", None) or {}
    told = str(headers.get("Retry-After", ""))
    return float(told) if told.isdecimal() else 0.0


def call(session: Session, function: Callable[[], T], what: str) -> T:
    """`session.call` with respect for Retry-After."""
    return session.call(lambda: heeding(session, function), what=what)


def find(session: Session, function: Callable[[], T], what: str) -> T | None:
    """What `function` returns; None where Azure answers 404."""
    try:
        return call(session, function, what)
    except HttpResponseError as error:
        if error.status_code == 404:
            return None
        raise


def explained(error: BaseException) -> GoldimgError:
    """The error for people."""
    if isinstance(error, GoldimgError):
        return error
    if isinstance(error, HttpResponseError) and code_of(error):
        code = code_of(error)
        told = getattr(getattr(error, "error", None), "message", None) or error.message
        kind = Rejected if code in REFUSED_CODES else PublishFailed
        hint = HINTS.get(code, "")
        if "quota" in str(told).lower():
            hint = "ask for more quota, or remove what is no longer needed"
        return kind(f"azure: {code}", why=_first_line(str(told)), hint=hint)
    if isinstance(error, ClientAuthenticationError):
        return PublishFailed(
            "azure: no credentials that Azure takes",
            why=_first_line(str(error.message)),
            hint="'az login', or set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
        )
    for kinds, what in UNHEARD:
        if isinstance(error, kinds):
            return PublishFailed(
                f"azure: {what}", why=brief(error), hint="the same command goes on from here"
            )
    return PublishFailed(f"azure: {brief(error)}")


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 300 else line[:299] + "…"
