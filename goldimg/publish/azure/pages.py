"""The pages of a VHD: those that are not zero are sent, listed afterwards, and read back.

Put Page takes at most 4 MiB, from and to whole 512 bytes, and checks an MD5 of its body:
https://learn.microsoft.com/rest/api/storageservices/put-page
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from goldimg.errors import PublishFailed
from goldimg.formats.source import Disk
from goldimg.publish.azure.faults import call, heeding
from goldimg.publish.job import Job, Rejected
from goldimg.publish.transfer import Block, runs_of, send_blocks

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

LONGEST = 4 << 20
NAME = "pages"  # of the upload, in the journal

Ranges = list[tuple[int, int]]  # (first byte, byte behind the last), in order, none adjoining


def blocks_of(disk: Disk) -> list[Block]:
    """What is sent of a VHD: its 64 KiB clusters that are not zero, in runs of at most 4 MiB."""
    return list(runs_of(disk.extents(), LONGEST))


def send(
    job: Job, disk: Disk, blocks: Sequence[Block], client: Callable[[], BlobClient], workers: int
) -> int:
    """Sends the blocks that the journal has not noted; returns the bytes sent.

    `client` gives the client to use for the next block.
    """

    def one(block: Block, data: bytes) -> str:
        heeding(
            job,
            lambda: client().upload_page(
                data, offset=block.offset, length=block.size, validate_content=True
            ),
        )
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    return send_blocks(job, disk, blocks, one, name=NAME, workers=workers)


def ranges(job: Job, client: BlobClient) -> Ranges:
    """The page ranges that have been written.

    https://learn.microsoft.com/rest/api/storageservices/get-page-ranges
    """

    def read() -> list[tuple[int, int]]:
        listed = [it for it in client.list_page_ranges() if not it.cleared]
        return [(int(it.start or 0), int(it.end or 0) + 1) for it in listed]

    return joined(call(job, read, "Get Page Ranges"))


def joined(parts: Iterable[tuple[int, int]]) -> Ranges:
    """The parts in order, those that touch as one."""
    found: Ranges = []
    for start, end in sorted(parts):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def reconcile(
    job: Job, disk: Disk, blocks: Sequence[Block], client: BlobClient, workers: int
) -> None:
    """Makes the journal know of just the blocks that are there.

    Blocks that it has noted and that are not there are forgotten; those there that it does not know
    of (another machine sent them) are read back, and noted where they are right.
    """
    there = ranges(job, client)
    noted = job.journal.blocks(NAME)
    present = _inside(blocks, there)
    gone = [index for index in noted if index not in present]
    if gone:
        job.journal.forget_blocks(NAME)
        for index, note in noted.items():
            if index in present:
                job.journal.block(NAME, index, note)
    unknown = [block for block in blocks if block.index in present and block.index not in noted]
    if not unknown:
        return
    job.phase("comparing what is there")
    for block, is_right in _compared(job, disk, unknown, client, workers):
        if is_right:
            job.journal.block(NAME, block.index, "")


def _inside(blocks: Sequence[Block], there: Ranges) -> set[int]:
    """The indexes of the blocks that lie inside the ranges."""
    found, at = set(), 0
    for block in blocks:  # both are in order
        while at < len(there) and there[at][1] <= block.offset:
            at += 1
        end = block.offset + block.size
        if at < len(there) and there[at][0] <= block.offset and end <= there[at][1]:
            found.add(block.index)
    return found


def check_ranges(job: Job, blocks: Sequence[Block], client: BlobClient) -> None:
    """Proves that the pages there are those that were sent, and no others."""
    there = ranges(job, client)
    sent = joined((block.offset, block.offset + block.size) for block in blocks)
    if there != sent:
        lacking = len([it for it in sent if it not in there])
        raise Rejected(
            "azure: the pages that arrived are not those that were sent",
            why=f"{len(sent)} ranges were sent, {len(there)} are there, {lacking} differ",
        )


def check_content(
    job: Job, disk: Disk, blocks: Sequence[Block], client: BlobClient, workers: int
) -> None:
    """Reads every block back; Rejected where a byte differs."""
    job.phase("reading back")
    done, total = 0, sum(block.size for block in blocks)
    for block, is_right in _compared(job, disk, blocks, client, workers):
        if not is_right:
            raise Rejected(f"azure: the bytes from {block.offset} on are not what was sent")
        done += block.size
        job.progress(done, total)


def _compared(
    job: Job, disk: Disk, blocks: Sequence[Block], client: BlobClient, workers: int
) -> Iterable[tuple[Block, bool]]:
    def one(block: Block) -> tuple[Block, bool]:
        job.check_cancelled()
        wanted = disk.pread(block.offset, block.size)

        def read() -> bytes:
            return bytes(client.download_blob(block.offset, block.size).readall())

        # a second look, since bytes may change on their way here too
        for _ in range(2):
            if call(job, read, "Get Blob") == wanted:
                return block, True
        return block, False

    with ThreadPoolExecutor(workers, "compare") as pool:
        for start in range(0, len(blocks), workers):  # bounded: no more in memory than that
            yield from pool.map(one, blocks[start : start + workers])


def coded(md5: bytes) -> str:
    """An MD5 as Content-MD5 has it."""
    return base64.b64encode(md5).decode()


def check_size(path: Path, size: int, *, least: int, most: int, what: str) -> None:
    """PublishFailed where the VHD is too small or too large for the way it takes."""
    if not least <= size <= most:
        raise PublishFailed(
            f"azure: {path.name} has {size} bytes",
            why=f"{what} takes {least} to {most}",
        )
