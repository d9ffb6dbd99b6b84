"""A part of a file into S3: in parts, each with its SHA-256, gone on with after a failure.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from __future__ import annotations

import base64
import hashlib
import os
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from botocore.exceptions import ClientError

from goldimg.formats import Region, round_up
from goldimg.publish.aws.clients import Work
from goldimg.publish.aws.errors import GONE, code_of
from goldimg.publish.job import Rejected
from goldimg.publish.journal import Resource
from goldimg.publish.publisher import UNFINISHED
from goldimg.publish.transfer import Block, blocks_of, send_blocks

MIB = 1 << 20
PART = 5 * MIB  # bytes, unless there would be too many: as few as S3 allows but for the last
MOST_PARTS = 10_000
UNDER_WAY = 60 * MIB  # bytes in memory: 12 connections, where the SDK's own upload_file has 10


class Part:
    """The bytes of a region of a file."""

    def __init__(self, region: Region) -> None:
        self._offset, self.size = region.offset, region.size
        self._file = os.open(region.path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        os.close(self._file)

    def pread(self, offset: int, length: int, /) -> bytes:
        return os.pread(self._file, min(length, self.size - offset), self._offset + offset)


def key_of(work: Work, extension: str) -> str:
    """The object's name: the image's, and enough of its digest to tell it from another."""
    digest = work.job.journal.image[:12]
    return f"{work.options.prefix}{work.job.image.name}-{digest}.{extension}"


def put(work: Work, region: Region, extension: str) -> str:
    """The key of an object that holds these bytes, proven by its checksum; found or sent."""
    job, bucket = work.job, str(work.options.bucket)
    key = key_of(work, extension)
    step = part_size(region.size)
    parts = f"s3-{step // MIB}"  # of the journal; those of another size are none of these
    if _is_there(work, key, region.size):
        job.created("object", f"{bucket}/{key}", work.region, is_resumable=True, is_temporary=True)
        return key
    job.phase("uploading")
    upload = _open(work, key, parts)
    client = work.clients.get("s3", work.region)

    def send(block: Block, data: bytes) -> str:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = client.upload_part(
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            PartNumber=block.index + 1,
            Body=data,
            ChecksumSHA256=digest,
        )
        return f"{answer['ETag']} {digest}"

    with Part(region) as source:
        blocks = blocks_of([(0, region.size)], region.size, step)
        workers = max(1, min(work.options.workers, UNDER_WAY // step))
        send_blocks(job, source, blocks, send, name=parts, workers=workers)
    _complete(work, key, upload, parts)
    return key


def part_size(size: int) -> int:
    """Bytes of each part of an upload of `size` bytes: whole MiB."""
    return max(PART, round_up(-(-size // MOST_PARTS), MIB))


def _resource(bucket: str, key: str, upload: str) -> tuple[str, str]:
    return "upload", f"{bucket}/{key}#{upload}"


def _open(work: Work, key: str, parts: str) -> str:
    """The multipart upload to go on with; others of the same object are aborted."""
    job, bucket = work.job, str(work.options.bucket)
    known = job.journal.find("upload", work.region)
    running = uploads_of(work, bucket, key)
    upload = known.id.rpartition("#")[2] if known else ""
    if known and upload not in running:
        job.say("the unfinished upload is gone: it starts again")
        _forget(work, known, parts)
        upload = ""
    if not upload:
        made = work.call(
            "s3",
            "create_multipart_upload",
            Bucket=bucket,
            Key=key,
            ChecksumAlgorithm="SHA256",
            ContentType="application/octet-stream",
            Tagging=urlencode({**object_tags(work.tags), **UNFINISHED}),
        )
        upload = str(made["UploadId"])
        kind, id_ = _resource(bucket, key, upload)
        job.created(kind, id_, work.region, is_resumable=True, is_temporary=True)
        running = uploads_of(work, bucket, key)  # one whose answer was lost is among them
    for other in running:
        if other != upload:
            work.call("s3", "abort_multipart_upload", Bucket=bucket, Key=key, UploadId=other)
    return upload


def object_tags(tags: dict[str, str]) -> dict[str, str]:
    """The tags of an object, which takes ten at most: goldimg's own."""
    return {key: value for key, value in tags.items() if key.startswith("goldimg-")}


def _forget(work: Work, upload: Resource, parts: str) -> None:
    work.job.journal.remove(upload)
    work.job.journal.forget_blocks(parts)


def uploads_of(work: Work, bucket: str, key: str) -> list[str]:
    """The ids of all multipart uploads of the object."""
    found = work.call("s3", "list_multipart_uploads", Bucket=bucket, Prefix=key)
    return [str(it["UploadId"]) for it in found.get("Uploads", ()) if it["Key"] == key]


def _checksums(work: Work, parts: str) -> list[tuple[int, str, str]]:
    """(number, ETag, SHA-256 in base64) of each part that has arrived."""
    found = []
    for index, note in sorted(work.job.journal.blocks(parts).items()):
        tag, digest = note.split()
        found.append((index + 1, tag, digest))
    return found


def composite(digests: list[str]) -> str:
    """S3's checksum of an object made of parts: the digest of their digests, and their number."""
    joined = b"".join(base64.b64decode(it) for it in digests)
    return f"{base64.b64encode(hashlib.sha256(joined).digest()).decode()}-{len(digests)}"


def _complete(work: Work, key: str, upload: str, name: str) -> None:
    job, bucket = work.job, str(work.options.bucket)
    parts = _checksums(work, name)
    # Known before it exists, for the case that the answer is lost.
    job.created("object", f"{bucket}/{key}", work.region, is_resumable=True, is_temporary=True)
    expected = composite([digest for _, _, digest in parts])
    listed = [
        {"PartNumber": number, "ETag": tag, "ChecksumSHA256": digest}
        for number, tag, digest in parts
    ]
    try:
        work.call(
            "s3",
            "complete_multipart_upload",
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            MultipartUpload={"Parts": listed},
        )
    except ClientError as error:
        # NoSuchUpload: an attempt whose answer was lost may have completed it.
        if code_of(error) not in GONE or _head(work, key) is None:
            raise
    job.note("object", expected)
    if known := job.journal.find("upload", work.region):
        _forget(work, known, name)
    found = (_head(work, key) or {}).get("ChecksumSHA256")
    if not is_same(found, expected):
        raise Rejected(
            f"aws: the object {key} has the checksum {found or 'none'}, not {expected}",
            hint="the same command sends it again",
        )


def _is_there(work: Work, key: str, size: int) -> bool:
    """Whether an earlier run has sent the object whole, and it is still the same."""
    expected = work.job.journal.get("object")
    if not expected:
        return False
    found = _head(work, key)
    return bool(
        found
        and found["ContentLength"] == size
        and is_same(found.get("ChecksumSHA256"), str(expected))
    )


def is_same(found: str | None, expected: str) -> bool:
    """Whether a checksum is the expected one; some services leave the number of parts out."""
    return found in (expected, expected.rpartition("-")[0])


def _head(work: Work, key: str) -> dict[str, Any] | None:
    bucket = work.options.bucket
    try:
        found: dict[str, Any] = work.call(
            "s3", "head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED"
        )
    except ClientError as error:
        if code_of(error) in GONE:
            return None
        raise
    return found
