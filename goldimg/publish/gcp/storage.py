"""The archive into Cloud Storage: parts side by side, composed into one object, CRC32C proven.

A resumable session's URL would let anybody write, so it may not stand in a journal; finished parts
are objects of their own, and a later run simply counts them. At most 32 components go into one
compose call, so there may be two levels: https://cloud.google.com/storage/docs/composite-objects
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
from google.cloud.storage import Blob, Bucket

from goldimg.errors import PublishFailed
from goldimg.formats.source import Disk
from goldimg.publish.job import Job
from goldimg.publish.journal import Resource
from goldimg.publish.proof import CRC32C
from goldimg.publish.publisher import UNFINISHED
from goldimg.publish.transfer import Block, blocks_of, send_blocks

MIB = 1 << 20
PART = 9 * MIB  # bytes, unless there would be too many: up to 8 the SDK copies them once more
WORKERS = 4
COMPONENTS = 32  # of one compose call
LARGEST = COMPONENTS * COMPONENTS * 8 * PART
TIMEOUT = (10.0, 120.0)  # seconds to connect, and between two reads
PARTS = ".goldimg-parts/"  # where parts stand, under the prefix
KIND = "object"


def encoded(crc32c: bytes) -> str:
    """A CRC32C as the API writes it: base64 of four bytes, big-endian."""
    return base64.b64encode(crc32c).decode()


def part_size(size: int) -> int:
    """Bytes of each part of a file: whole MiB, and so many that two compose calls join them."""
    return max(PART, -(-size // (COMPONENTS * COMPONENTS * MIB)) * MIB)


def send(job: Job, bucket: Bucket, key: str, path: Path, prefix: str, *, is_temporary: bool) -> str:
    """Sends the file to the object `key` and returns its generation.

    Parts of an earlier run are kept. `is_temporary`: the object too goes when all is done.
    PublishFailed where what has arrived has another checksum.
    """
    size = path.stat().st_size
    step = part_size(size)
    # Parts of another size, which another release of goldimg may have sent, are none of these.
    folder = f"{prefix}{PARTS}{job.journal.image[:16]}-{step // MIB}/"
    blocks = list(blocks_of([(0, size)], size, step))
    meta = {**job.tags, **UNFINISHED}

    def put(block: Block, data: bytes) -> str:
        name = f"{folder}{block.index:04d}"
        blob = bucket.blob(name)
        blob.metadata = meta
        # The checksum goes with the data: what was changed on the way is refused.
        blob.upload_from_string(
            data,
            content_type="application/octet-stream",
            checksum="crc32c",
            timeout=TIMEOUT,
            retry=None,
        )
        if blob.crc32c != encoded(google_crc32c.Checksum(data).digest()):
            raise ConnectionError(f"part {block.index} was changed on the way")
        return str(blob.crc32c)

    names = [f"{folder}{block.index:04d}" for block in blocks]
    for name in names:
        resource = Resource(
            kind=KIND, id=name, where=str(bucket.name), is_resumable=True, is_temporary=True
        )
        if resource not in job.journal.created:
            job.journal.add(resource)
    with Disk(path) as source:  # which reads any file as such
        send_blocks(job, source, blocks, put, name=folder, workers=WORKERS)
    job.created(KIND, key, str(bucket.name), is_resumable=True, is_temporary=is_temporary)
    job.phase("composing")
    blob = _compose(job, bucket, key, names, folder, meta)
    expected = encoded(bytes.fromhex(job.proven()[CRC32C]))
    if blob.crc32c != expected or blob.size != size:
        job.journal.forget_blocks(folder)
        raise PublishFailed(
            f"gcp: {key} did not arrive whole",
            why=f"its CRC32C is {blob.crc32c}, not {expected}",
            hint="the same command sends it again",
        )
    return str(blob.generation)


def _compose(
    job: Job,
    bucket: Bucket,
    key: str,
    names: Sequence[str],
    folder: str,
    meta: dict[str, str],
) -> Blob:
    """The object `key` out of the parts, by way of groups where there are more than 32."""
    groups = [names[at : at + COMPONENTS] for at in range(0, len(names), COMPONENTS)]
    if len(groups) > 1:
        joined = []
        for number, group in enumerate(groups):
            name = f"{folder}group-{number:02d}"
            job.created(KIND, name, str(bucket.name), is_resumable=True, is_temporary=True)
            _compose_one(job, bucket, name, group, meta)
            joined.append(name)
        names = joined
    return _compose_one(job, bucket, key, names, meta)


def _compose_one(
    job: Job, bucket: Bucket, key: str, names: Sequence[str], meta: dict[str, str]
) -> Blob:
    blob = bucket.blob(key)
    blob.metadata = meta
    blob.content_type = "application/gzip"
    parts = [bucket.blob(name) for name in names]
    job.call(lambda: blob.compose(parts, timeout=TIMEOUT, retry=None), what="compose")
    job.call(lambda: blob.reload(timeout=TIMEOUT, retry=None), what="get object")
    return blob


def finish(job: Job, bucket: Bucket, key: str) -> None:
    """Marks the object as whole."""
    blob = bucket.blob(key)
    # A key with the value None is removed; the rest stays.
    metadata: dict[str, Any] = dict.fromkeys(UNFINISHED)
    blob.metadata = metadata
    job.call(lambda: blob.patch(timeout=TIMEOUT, retry=None), what="patch object")
