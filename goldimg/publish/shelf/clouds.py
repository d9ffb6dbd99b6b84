"""Where files are put: a bucket of S3 or Cloud Storage, a container of Azure.

Each file carries its SHA-256 as metadata, so that a second run knows it without reading it.
Credentials come from each SDK's own chain.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from goldimg.errors import GoldimgError, PublishFailed
from goldimg.publish.job import Job, brief
from goldimg.publish.retry import PASSING
from goldimg.publish.shelf.stores import TIMEOUT, Changed, Counted, Progress, Store, Stored

DIGEST = "goldimgsha256"  # servers drop headers with "_", Azure refuses names with "-"
LARGEST_PUT = 5 << 30  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html


class S3(Store):
    """A bucket of S3, or of a service that speaks its language (AWS_ENDPOINT_URL)."""

    proof = "SHA-256, checked by S3 as it arrived"

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=TIMEOUT[0],
            read_timeout=TIMEOUT[1],
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        self._s3: Any = boto3.client("s3", config=config)
        self._bucket, self._prefix = bucket, prefix

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{key}"}

    def check(self, *, create: bool) -> str | None:
        try:
            self._s3.head_bucket(Bucket=self._bucket)
        except Exception as error:
            if _status(error) != 404:
                raise
            if not create:
                raise PublishFailed(
                    f"there is no bucket {self._bucket}", hint="make it, or say --create"
                ) from error
            return f"s3://{self._bucket}"
        return None

    def prepare(self) -> None:
        region = self._s3.meta.region_name
        more: dict[str, Any] = {}
        if region != "us-east-1":
            more = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self._s3.create_bucket(Bucket=self._bucket, **more)

    def stat(self, key: str) -> Stored | None:
        try:
            found = self._s3.head_object(**self._at(key))
        except Exception as error:
            if _status(error) == 404:
                return None
            raise
        digest = found["Metadata"].get(DIGEST)
        return Stored(size=found["ContentLength"], sha256=digest, mark=found["ETag"])

    def put(self, job: Job, key: str, path: Path, sha256: str, progress: Progress) -> None:
        if path.stat().st_size > LARGEST_PUT:
            raise PublishFailed(f"{path.name} is larger than the 5 GiB that one PUT may have")
        with path.open("rb") as stream:
            self._s3.put_object(
                **self._at(key),
                Body=stream,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                Metadata={DIGEST: sha256},
            )
        progress(path.stat().st_size)

    def read(self, key: str) -> tuple[bytes, str] | None:
        try:
            found = self._s3.get_object(**self._at(key))
        except Exception as error:
            if _status(error) == 404:
                return None
            raise
        data: bytes = found["Body"].read()
        return data, found["ETag"]

    def write(self, key: str, data: bytes, mark: str | None) -> None:
        condition = {"IfMatch": mark} if mark else {"IfNoneMatch": "*"}
        digest = hashlib.sha256(data)
        try:
            self._s3.put_object(
                **self._at(key),
                Body=data,
                ContentType="application/json",
                ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
                Metadata={DIGEST: digest.hexdigest()},
                **condition,
            )
        except Exception as error:
            if _status(error) in (409, 412):
                raise Changed from error
            raise

    def delete(self, key: str) -> None:
        self._s3.delete_object(**self._at(key))

    def is_transient(self, error: BaseException) -> bool:
        from botocore.exceptions import ConnectionError as Unreachable
        from botocore.exceptions import HTTPClientError

        return isinstance(error, Unreachable | HTTPClientError) or _status(error) in PASSING

    def explain(self, error: BaseException) -> GoldimgError | None:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, ClientError | BotoCoreError):
            return PublishFailed(f"s3://{self._bucket}: {brief(error)}")
        return None


def _status(error: BaseException) -> int:
    """The HTTP status in one of boto's errors."""
    answer = getattr(error, "response", None)
    metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    return int(metadata.get("HTTPStatusCode", 0))


class Gcs(Store):
    """A bucket of Cloud Storage."""

    proof = "CRC32C, checked by Cloud Storage as it arrived"

    def __init__(self, bucket: str, prefix: str) -> None:
        from google.cloud.storage import Client

        self._client: Any = Client()
        self._bucket: Any = self._client.bucket(bucket)
        self._prefix = prefix
        self._limits: dict[str, Any] = {"timeout": TIMEOUT, "retry": None}

    def _at(self, key: str) -> Any:
        return self._bucket.blob(f"{self._prefix}{key}")

    def check(self, *, create: bool) -> str | None:
        if self._bucket.exists(**self._limits):
            return None
        if not create:
            raise PublishFailed(
                f"there is no bucket {self._bucket.name}", hint="make it, or say --create"
            )
        return f"gs://{self._bucket.name}"

    def prepare(self) -> None:
        self._bucket.create(**self._limits)

    def stat(self, key: str) -> Stored | None:
        blob = self._bucket.get_blob(f"{self._prefix}{key}", **self._limits)
        if blob is None:
            return None
        digest = (blob.metadata or {}).get(DIGEST)
        return Stored(size=blob.size, sha256=digest, mark=str(blob.generation))

    def put(self, job: Job, key: str, path: Path, sha256: str, progress: Progress) -> None:
        blob = self._at(key)
        blob.metadata = {DIGEST: sha256}
        blob.chunk_size = 16 << 20
        size = path.stat().st_size
        with path.open("rb") as stream:
            blob.upload_from_file(
                _Whole(stream, size, job, progress), size=size, checksum="crc32c", **self._limits
            )

    def read(self, key: str) -> tuple[bytes, str] | None:
        from google.api_core.exceptions import NotFound

        blob = self._at(key)
        try:
            data: bytes = blob.download_as_bytes(**self._limits)
            blob.reload(**self._limits)
        except NotFound:
            return None
        return data, str(blob.generation)

    def write(self, key: str, data: bytes, mark: str | None) -> None:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._at(key)
        blob.metadata = {DIGEST: hashlib.sha256(data).hexdigest()}
        try:
            blob.upload_from_string(
                data,
                content_type="application/json",
                checksum="crc32c",
                if_generation_match=int(mark or 0),
                **self._limits,
            )
        except PreconditionFailed as error:
            raise Changed from error

    def delete(self, key: str) -> None:
        from google.api_core.exceptions import NotFound

        with contextlib.suppress(NotFound):
            self._at(key).delete(**self._limits)

    def is_transient(self, error: BaseException) -> bool:
        from goldimg.publish.gcp.names import is_transient

        return is_transient(error)

    def explain(self, error: BaseException) -> GoldimgError | None:
        from goldimg.publish.gcp.names import explained

        return explained(error)


class _Whole(Counted):
    """As Counted, with the position that resumable uploads ask for."""

    def tell(self) -> int:
        return int(self._stream.tell())  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))  # type: ignore[attr-defined]


class AzureContainer(Store):
    """A container of an Azure storage account."""

    proof = "the MD5 of each block, checked by Azure as it arrived"

    def __init__(self, account: str, path: str) -> None:
        """`path` begins with the container's name and ends in a slash."""
        import os

        from azure.storage.blob import ContainerClient

        container, _, prefix = path.partition("/")
        given = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
        limits: dict[str, Any] = {
            "connection_timeout": int(TIMEOUT[0]),
            "read_timeout": int(TIMEOUT[1]),
            "retry_total": 0,
        }
        self._client: Any
        if given:
            self._client = ContainerClient.from_connection_string(given, container, **limits)
        else:
            from azure.identity import DefaultAzureCredential

            credential = os.environ.get("AZURE_STORAGE_SAS_TOKEN") or DefaultAzureCredential()
            url = f"https://{account}.blob.core.windows.net"
            self._client = ContainerClient(url, container, credential=credential, **limits)
        self._name, self._prefix = f"{account}/{container}", prefix

    def _at(self, key: str) -> Any:
        return self._client.get_blob_client(f"{self._prefix}{key}")

    def check(self, *, create: bool) -> str | None:
        if self._client.exists():
            return None
        if not create:
            raise PublishFailed(
                f"there is no container {self._name}", hint="make it, or say --create"
            )
        return f"azure://{self._name}"

    def prepare(self) -> None:
        self._client.create_container()

    def stat(self, key: str) -> Stored | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            found = self._at(key).get_blob_properties()
        except ResourceNotFoundError:
            return None
        return Stored(size=found.size, sha256=found.metadata.get(DIGEST), mark=found.etag)

    def put(self, job: Job, key: str, path: Path, sha256: str, progress: Progress) -> None:
        told = [0]

        def tell(done: int, _total: int | None) -> None:
            job.check_cancelled()
            progress(done - told[0])
            told[0] = done

        with path.open("rb") as stream:
            self._at(key).upload_blob(
                stream,
                length=path.stat().st_size,
                overwrite=True,
                validate_content=True,
                metadata={DIGEST: sha256},
                progress_hook=tell,
            )

    def read(self, key: str) -> tuple[bytes, str] | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            found = self._at(key).download_blob()
        except ResourceNotFoundError:
            return None
        return found.readall(), found.properties.etag

    def write(self, key: str, data: bytes, mark: str | None) -> None:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError

        condition: dict[str, Any] = (
            {"etag": mark, "match_condition": MatchConditions.IfNotModified}
            if mark
            else {"match_condition": MatchConditions.IfMissing}
        )
        try:
            self._at(key).upload_blob(
                data,
                overwrite=bool(mark),
                metadata={DIGEST: hashlib.sha256(data).hexdigest()},
                **(condition if mark else {}),
            )
        except (ResourceModifiedError, ResourceExistsError) as error:
            raise Changed from error

    def delete(self, key: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        with contextlib.suppress(ResourceNotFoundError):
            self._at(key).delete_blob()

    def is_transient(self, error: BaseException) -> bool:
        from azure.core.exceptions import (
            HttpResponseError,
            ServiceRequestError,
            ServiceResponseError,
        )

        if isinstance(error, HttpResponseError):
            return error.status_code in PASSING
        return isinstance(error, ServiceRequestError | ServiceResponseError)

    def explain(self, error: BaseException) -> GoldimgError | None:
        from azure.core.exceptions import AzureError, ClientAuthenticationError

        if isinstance(error, ClientAuthenticationError):
            return PublishFailed(
                f"azure://{self._name}: the credentials were refused",
                hint="az login, or set AZURE_STORAGE_SAS_TOKEN",
            )
        if isinstance(error, AzureError):
            return PublishFailed(f"azure://{self._name}: {brief(error)}")
        return None


# By the scheme of a place; each is made with what comes after it, up to the first slash and then.
CLOUDS: dict[str, Callable[[str, str], Store]] = {"s3": S3, "gs": Gcs, "azure": AzureContainer}
