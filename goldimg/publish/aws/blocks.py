"""The disk straight into a snapshot: the EBS direct API, without S3 and VM Import.

Blocks of 512 KiB, each with its SHA-256, those that are zero left out; the snapshot is completed
with the digest of all digests, which the service checks against what it holds.
https://docs.aws.amazon.com/ebs/latest/userguide/writesnapshots.html
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from goldimg.errors import PublishFailed
from goldimg.formats.vmdk_read import VmdkDisk
from goldimg.publish.aws.clients import STATE, Work, as_tags, from_tags, interval
from goldimg.publish.aws.errors import GONE, NotYet, code_of
from goldimg.publish.job import Rejected
from goldimg.publish.publisher import UNFINISHED
from goldimg.publish.transfer import Block, blocks_of, send_blocks

GIB = 1 << 30
BLOCK = 524288  # bytes; what the service says is used, and has always been this
UPLOAD = "ebs"  # of the journal
# Minutes without a block after which AWS gives an unfinished snapshot up: as long as it allows.
PATIENCE = 4320
VISIBLE = 180.0  # seconds until a new snapshot is known everywhere
SAMPLES = 32  # blocks that are read back


def write_snapshot(work: Work, disk: VmdkDisk) -> str:
    """The completed snapshot of the disk, gone on with where an earlier run was."""
    job = work.job
    snapshot, size = _open(work, disk)
    if job.journal.get("sealed") != snapshot:
        job.phase("uploading")
        _send(work, disk, snapshot, size)
        _complete(work, snapshot)
    job.phase("completing")
    wait_completed(work, snapshot)
    return snapshot


def _open(work: Work, disk: VmdkDisk) -> tuple[str, int]:
    """The snapshot to write to, and the size of its blocks."""
    job, journal = work.job, work.job.journal
    known = journal.find("snapshot", work.region)
    if known:
        state = state_of(work, known.id)
        if state in ("pending", "completed") and journal.get("block size"):
            return known.id, int(journal.get("block size"))
        job.say(f"{known} is {state}: the upload starts again")
        journal.remove(known)
        journal.forget_blocks(UPLOAD)
        journal.set("request", None)
    # Noted before the call: if its answer is lost, the same token finds the same snapshot.
    request = journal.get("request") or _request(work, disk)
    journal.set("request", request)
    promise = job.created(
        "snapshot request", request["ClientToken"], work.region, is_resumable=True
    )
    try:
        made = work.call("ebs", "start_snapshot", **request)
    except ClientError as error:
        if code_of(error) == "ConflictException":  # its snapshot is gone
            journal.set("request", None)
        raise
    snapshot = str(made["SnapshotId"])
    job.created("snapshot", snapshot, work.region, is_resumable=True)
    journal.remove(promise)
    journal.set("block size", int(made["BlockSize"]))
    return snapshot, int(made["BlockSize"])


def _request(work: Work, disk: VmdkDisk) -> dict[str, Any]:
    token = secrets.token_hex(16)
    options = work.options
    tags = {**work.tags, **UNFINISHED, "goldimg-token": token}
    request: dict[str, Any] = {
        "VolumeSize": -(-disk.size // GIB),
        "ClientToken": token,
        "Timeout": PATIENCE,
        "Description": options.description or work.job.image.name,
        "Tags": as_tags(tags),
    }
    if options.encrypted:
        request["Encrypted"] = True
    if options.kms_key:
        request["KmsKeyArn"] = work.key(work.region)
    return request


def _send(work: Work, disk: VmdkDisk, snapshot: str, size: int) -> None:
    job = work.job
    client = work.clients.get("ebs", work.region)

    end = job.clock() + VISIBLE

    def send(block: Block, data: bytes) -> str:
        data = data.ljust(size, b"\0")
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        while True:
            try:
                client.put_snapshot_block(
                    SnapshotId=snapshot,
                    BlockIndex=block.index,
                    BlockData=data,
                    DataLength=size,
                    Checksum=digest,
                    ChecksumAlgorithm="SHA256",
                )
            except ClientError as error:
                # A new snapshot can be unknown to the servers for two minutes.
                if code_of(error) not in GONE or job.clock() > end:
                    raise
                job.pause(min(2.0, work.options.poll))
            else:
                return digest

    blocks = blocks_of(disk.extents(), disk.size, size)
    send_blocks(job, disk, blocks, send, name=UPLOAD, workers=work.options.workers)


def _complete(work: Work, snapshot: str) -> None:
    digests = work.job.journal.blocks(UPLOAD)
    linear = hashlib.sha256(b"".join(base64.b64decode(it) for _, it in sorted(digests.items())))
    attempts = 0

    def complete() -> None:
        nonlocal attempts
        attempts += 1
        try:
            work.clients.get("ebs", work.region).complete_snapshot(
                SnapshotId=snapshot,
                ChangedBlocksCount=len(digests),
                Checksum=base64.b64encode(linear.digest()).decode(),
                ChecksumAlgorithm="SHA256",
                ChecksumAggregationMethod="LINEAR",
            )
        except ClientError as error:
            if code_of(error) != "ValidationException":
                raise
            # An attempt whose answer was lost may have completed it; reading back tells.
            if attempts == 1 and state_of(work, snapshot) != "completed":
                raise Rejected(
                    "aws: EBS refuses to complete the snapshot",
                    why=str(error.response.get("Error", {}).get("Message", "")),
                    hint="what arrived is not what was sent; the same command sends it again",
                ) from error

    work.job.call(complete, what="complete_snapshot")
    work.job.note("sealed", snapshot)


def state_of(work: Work, snapshot: str) -> str:
    """A snapshot's state in the service's words; `gone` where there is none."""
    try:
        found = work.call("ec2", "describe_snapshots", SnapshotIds=[snapshot])["Snapshots"]
    except ClientError as error:
        if code_of(error) in GONE:
            return "gone"
        raise
    return str(found[0]["State"]) if found else "gone"


def wait_completed(work: Work, snapshot: str) -> None:
    """Waits for `completed`; Rejected for any state that does not lead there."""

    def poll() -> bool | None:
        found = _described(work, snapshot)
        state = found.get("State", "gone")
        if state == "completed":
            return True
        if state == "pending":
            return None
        raise Rejected(
            f"aws: snapshot {snapshot} is in state {state}",
            why=str(found.get("StateMessage", "")),
            hint="the same command sends the disk again",
        )

    work.job.wait(
        poll, what=f"snapshot {snapshot}", timeout=work.options.timeout, interval=interval(work)
    )


def _described(work: Work, snapshot: str) -> dict[str, Any]:
    client = work.clients.get("ec2", work.region)
    try:
        found: list[dict[str, Any]] = client.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    except ClientError as error:
        if code_of(error) in GONE:
            raise NotYet(f"{snapshot} is not known yet") from error
        raise
    return found[0] if found else {}


def find_snapshot(work: Work) -> str | None:
    """A snapshot of this very image that an unfinished run completed and no journal knows of."""
    filters = [
        {"Name": "tag:goldimg-sha256", "Values": [work.job.journal.image]},
        {"Name": f"tag:{STATE}", "Values": [UNFINISHED[STATE]]},
        {"Name": "status", "Values": ["completed"]},
    ]
    answer = work.call("ec2", "describe_snapshots", OwnerIds=["self"], Filters=filters)
    found = answer["Snapshots"]
    ours = [it for it in found if from_tags(it).get("goldimg-os") == work.job.image.os_name]
    return str(ours[0]["SnapshotId"]) if ours else None


def verify(work: Work, snapshot: str, disk: VmdkDisk, *, is_exact: bool) -> str:
    """Reads back what the snapshot holds; Rejected where it is not the disk. Says what was proven.

    The list of blocks is compared with the disk's; where it is not `is_exact` (VM Import may list
    more), only that none is missing. Of the blocks themselves a sample is read, or all.
    """
    job = work.job
    job.phase("verifying")
    tokens, size = _listed(work, snapshot)
    wanted = [block.index for block in blocks_of(disk.extents(), disk.size, size)]
    missing = [index for index in wanted if index not in tokens]
    if missing or (is_exact and len(tokens) != len(wanted)):
        raise Rejected(
            f"aws: snapshot {snapshot} holds {len(tokens)} blocks, not the disk's {len(wanted)}",
            hint="the same command sends the disk again",
        )
    chosen = wanted if work.options.verify == "all" else sample(wanted, SAMPLES)
    source = _Remote(work, snapshot, tokens, size)

    def compare(block: Block, data: bytes) -> str:
        if source.read(block.index) != data.ljust(size, b"\0"):
            raise Rejected(
                f"aws: block {block.index} of snapshot {snapshot} is not what was sent",
                hint="the same command sends the disk again",
            )
        return ""

    blocks = [Block(index=it, offset=it * size, size=size) for it in chosen]
    send_blocks(job, disk, blocks, compare, name="verify", workers=8, is_resumable=False)
    return f"{len(wanted)} blocks listed, {len(chosen)} of them read back and equal"


def sample(wanted: list[int], count: int) -> list[int]:
    """At most `count` of the blocks, evenly spread, the first and the last among them."""
    if len(wanted) <= count:
        return wanted
    return [wanted[at * (len(wanted) - 1) // (count - 1)] for at in range(count)]


class _Remote:
    """The blocks of a completed snapshot."""

    def __init__(self, work: Work, snapshot: str, tokens: dict[int, str], size: int) -> None:
        self._client = work.clients.get("ebs", work.region)
        self._snapshot, self._tokens, self._size = snapshot, tokens, size

    def read(self, index: int) -> bytes:
        answer = self._client.get_snapshot_block(
            SnapshotId=self._snapshot, BlockIndex=index, BlockToken=self._tokens[index]
        )
        data: bytes = answer["BlockData"].read()
        if base64.b64encode(hashlib.sha256(data).digest()).decode() != answer["Checksum"]:
            raise NotYet(f"block {index} was damaged on the way back")
        return data


def _listed(work: Work, snapshot: str) -> tuple[dict[int, str], int]:
    """The token of each block that the snapshot holds, and the size of its blocks."""
    tokens: dict[int, str] = {}
    size = BLOCK
    for page in _pages(work, snapshot):
        size = int(page.get("BlockSize", size))
        tokens |= {it["BlockIndex"]: it["BlockToken"] for it in page.get("Blocks", ())}
    return tokens, size


def _pages(work: Work, snapshot: str) -> Iterator[dict[str, Any]]:
    given: dict[str, Any] = {"SnapshotId": snapshot, "MaxResults": 10000}
    for _ in range(100_000):
        page = work.call("ebs", "list_snapshot_blocks", **given)
        yield page
        if not page.get("NextToken"):
            return
        given["NextToken"] = page["NextToken"]
    raise PublishFailed(f"aws: the list of blocks of {snapshot} has no end")
