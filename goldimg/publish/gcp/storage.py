"""The archive into Cloud Storage: parts side by side, composed into one object, CRC32C proven.

A resumable session's URL would let anybody write, so it may not stand in a journal; finished parts
are objects of their own, and a later run simply counts them. At most 32 components go into one
compose call, so there are two levels: https://cloud.google.com/storage/docs/composite-objects
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import isqrt
from pathlib import Path
from typing import Any

import google_crc32c
from google.api_core import exceptions as api
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
ALONE = 8  # parts that are composed at once
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
    joiner = Joiner(job, bucket, folder, [f"{folder}{block.index:04d}" for block in blocks], meta)

    def put(block: Block, data: bytes) -> str:
        blob = bucket.blob(f"{folder}{block.index:04d}")
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
        joiner.arrived(block.index)
        return str(blob.crc32c)

    with joiner, Disk(path) as source:  # which reads any file as such
        send_blocks(job, source, blocks, put, name=folder, workers=WORKERS)
        job.phase("composing")
        job.created(KIND, key, str(bucket.name), is_resumable=True, is_temporary=is_temporary)
        blob = joiner.join(key)
    expected = encoded(bytes.fromhex(job.proven()[CRC32C]))
    if blob.crc32c != expected or blob.size != size:
        joiner.forget()
        raise PublishFailed(
            f"gcp: {key} did not arrive whole",
            why=f"its CRC32C is {blob.crc32c}, not {expected}",
            hint="the same command sends it again",
        )
    return str(blob.generation)


class Joiner:
    """Composes parts: a group as soon as it has arrived, beside the sending; then the groups.

    A context manager. Groups that an earlier run composed are kept.
    """

    def __init__(
        self, job: Job, bucket: Bucket, folder: str, names: Sequence[str], meta: dict[str, str]
    ) -> None:
        self._job, self._bucket, self._folder, self._meta = job, bucket, folder, meta
        self._names = names
        # as many groups as each has parts: neither step joins more than it must
        self._step = isqrt(len(names) - 1) + 1 if len(names) > ALONE else len(names)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, "compose")
        self._composed: list[Future[None]] = []
        self._left = [set(group) for group in self._groups()]

    def _groups(self) -> list[range]:
        """The indexes of the parts of each group."""
        count = len(self._names)
        return [range(at, min(count, at + self._step)) for at in range(0, count, self._step)]

    def _name(self, group: range) -> str:
        return f"{self._folder}{group[0]:04d}-{group[-1]:04d}"

    def __enter__(self) -> Joiner:
        """Notes what will be made, and takes up what an earlier run did."""
        is_known = set(self._job.journal.created)
        grouped = [self._name(it) for it in self._groups()] if len(self._left) > 1 else []
        for name in (*self._names, *grouped):
            where = str(self._bucket.name)
            found = Resource(kind=KIND, id=name, where=where, is_resumable=True, is_temporary=True)
            if found not in is_known:
                self._job.journal.add(found)
        for index in self._job.journal.blocks(self._folder):
            self.arrived(index)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def arrived(self, index: int) -> None:
        """Part `index` is there; the last of a group has it composed."""
        number, _ = divmod(index, self._step)
        with self._lock:
            left = self._left[number]
            is_last = left == {index} and len(self._left) > 1
            left.discard(index)
        if is_last:
            self._composed.append(self._pool.submit(self._compose_group, self._groups()[number]))

    def _compose_group(self, group: range) -> None:
        name = self._name(group)
        if not self._job.journal.get(name):
            self._compose(name, [self._names[index] for index in group])
            self._job.note(name, True)

    def join(self, key: str) -> Blob:
        """The object `key`, of all parts, which have arrived."""
        for future in self._composed:
            future.result()
        groups = self._groups()
        names = [self._name(it) for it in groups] if len(groups) > 1 else self._names
        return self._compose(key, names)

    def _compose(self, key: str, names: Sequence[str]) -> Blob:
        blob = self._bucket.blob(key)
        blob.metadata = self._meta
        blob.content_type = "application/gzip"
        parts = [self._bucket.blob(name) for name in names]
        try:
            self._job.call(lambda: blob.compose(parts, timeout=TIMEOUT, retry=None), what="compose")
        except api.NotFound as error:
            self.forget()
            raise PublishFailed(
                "gcp: parts that were sent are gone from the bucket",
                why=str(error.message),
                hint="the same command sends them again",
            ) from error
        self._job.call(lambda: blob.reload(timeout=TIMEOUT, retry=None), what="get object")
        return blob

    def forget(self) -> None:
        """Has the next run send everything anew."""
        self._job.journal.forget_blocks(self._folder)
        for group in self._groups():
            self._job.note(self._name(group), False)


def finish(job: Job, bucket: Bucket, key: str) -> None:
    """Marks the object as whole."""
    blob = bucket.blob(key)
    # A key with the value None is removed; the rest stays.
    metadata: dict[str, Any] = dict.fromkeys(UNFINISHED)
    blob.metadata = metadata
    job.call(lambda: blob.patch(timeout=TIMEOUT, retry=None), what="patch object")
