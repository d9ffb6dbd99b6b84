"""What moto's S3 does not check: that the data of a part is what its checksum says."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs

from tests.clouds.aws_server.protocol import Refusal

SMALLEST_PART = 5 << 20


def operation_of(method: str, path: str, query_string: str) -> str:
    """The operation that a request asks for, of those that goldimg uses."""
    query = parse_qs(query_string, keep_blank_values=True)
    has_key = "/" in path.strip("/")
    if not has_key:
        if method == "GET" and "uploads" in query:
            return "ListMultipartUploads"
        names = {"HEAD": "HeadBucket", "PUT": "CreateBucket", "GET": "ListObjectsV2"}
        return names.get(method, method)
    if "uploadId" in query:
        names = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "GET": "ListParts",
                 "DELETE": "AbortMultipartUpload"}  # fmt: skip
    elif "uploads" in query:
        names = {"POST": "CreateMultipartUpload"}
    else:
        names = {"PUT": "PutObject", "HEAD": "HeadObject", "GET": "GetObject",
                 "DELETE": "DeleteObject"}  # fmt: skip
    return names.get(method, method)


def check(environ: dict[str, Any], body: bytes) -> None:
    """Refuses data that is not what the request's SHA-256 says."""
    given = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
    if environ["REQUEST_METHOD"] != "PUT" or not given:
        return
    if base64.b64encode(hashlib.sha256(body).digest()).decode() != given:
        raise Refusal("BadDigest", "The SHA256 you specified did not match the calculated one.")
