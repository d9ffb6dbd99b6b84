"""Which errors of AWS pass by themselves, and what to do about the others.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
https://docs.aws.amazon.com/ebs/latest/userguide/error-retries.html
"""

from __future__ import annotations

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectionError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from goldimg.errors import GoldimgError, PublishFailed
from goldimg.publish.job import brief
from goldimg.publish.retry import PASSING

PASSING_CODES = frozenset(
    {
        "ConcurrentLimitExceededException",
        "InternalError",
        "InternalFailure",
        "InternalServerException",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "Unavailable",
    }
)
# What arrived is not what was sent, so it is sent again. EBS has no code of its own for it.
DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"})
DAMAGED_BLOCK = frozenset({"INVALID_BLOCK", "INVALID_CONTENT_ENCODING", "WRITE_REQUEST_TIMEOUT"})
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403"}
)
UNKNOWN_CALLER = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
FULL = frozenset(
    {
        "AMIQuotaExceeded",
        "PendingSnapshotLimitExceeded",
        "ResourceCountExceeded",
        "ResourceLimitExceeded",
        "ServiceQuotaExceededException",
        "SnapshotLimitExceeded",
        "TagLimitExceeded",
    }
)
GONE = frozenset(
    {
        "InvalidAMIID.NotFound",
        "InvalidAMIID.Unavailable",
        "InvalidSnapshot.NotFound",
        "NoSuchBucket",
        "NoSuchKey",
        "NoSuchUpload",
        "ParameterNotFound",
        "ResourceNotFoundException",
        "404",
    }
)
_NETWORK = (
    ConnectionError,
    ConnectionClosedError,
    ConnectTimeoutError,
    ReadTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    ResponseParserError,  # an HTML page of something on the way
)


class NotYet(Exception):
    """The service has not caught up with itself; the same call does better soon."""


def code_of(error: BaseException) -> str:
    """The code of a service's error; empty for any other."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def reason_of(error: BaseException) -> str:
    """The reason that EBS gives beside a code."""
    return str(error.response.get("Reason", "")) if isinstance(error, ClientError) else ""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may do better later."""
    if isinstance(error, NotYet):
        return True
    if isinstance(error, SSLError):
        return False
    if isinstance(error, ClientError):
        code = code_of(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        is_damaged = code in DAMAGED or reason_of(error) in DAMAGED_BLOCK
        return code in PASSING_CODES or is_damaged or (status in PASSING and code not in FULL)
    return isinstance(error, _NETWORK)


def explained(error: BaseException) -> GoldimgError:
    """The error for people: what the service said, and what to do about it."""
    if isinstance(error, GoldimgError):
        return error
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return PublishFailed(
            "aws: no credentials",
            why=brief(error),
            hint="'aws sso login', a profile (publish.aws.profile) or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        )
    if not isinstance(error, ClientError):
        return PublishFailed(f"aws: {brief(error)}")
    code, message = code_of(error), str(error.response.get("Error", {}).get("Message", ""))
    return PublishFailed(
        f"aws: {error.operation_name}: {code}",
        why=" ".join(message.split())[:400],
        hint=_hint(code),
    )


def _hint(code: str) -> str:
    if code in DENIED:
        return "docs/upload-aws.md has the policy that publishing needs"
    if code in UNKNOWN_CALLER:
        return "check the credentials: aws sts get-caller-identity"
    if code in FULL:
        return "remove what is no longer used, or ask for a higher quota; then the same command"
    if code == "InvalidAMIName.Duplicate":
        return "--force replaces the other image"
    return ""
