"""The EBS direct API: snapshots written and read block by block.

https://docs.aws.amazon.com/ebs/latest/APIReference/Welcome.html
https://docs.aws.amazon.com/ebs/latest/userguide/writesnapshots.html
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from tests.clouds.aws_server.protocol import Refusal
from tests.clouds.aws_server.state import ACCOUNT, BLOCK, Region, Snapshot, World

PAGE = 1000  # blocks; AWS may give fewer than were asked for
KEY = r"arn:aws[a-z-]*:kms:.*:\d{12}:key/.*"
NO_TOKEN = "a client token was used with other parameters"


def operation_of(method: str, path: str) -> str:
    """The operation that a request asks for."""
    for operation, wanted, pattern in (
        ("StartSnapshot", "POST", r"/snapshots"),
        ("CompleteSnapshot", "POST", r"/snapshots/completion/[^/]+"),
        ("PutSnapshotBlock", "PUT", r"/snapshots/[^/]+/blocks/\d+"),
        ("GetSnapshotBlock", "GET", r"/snapshots/[^/]+/blocks/\d+"),
        ("ListSnapshotBlocks", "GET", r"/snapshots/[^/]+/blocks"),
    ):
        if method == wanted and re.fullmatch(pattern, path):
            return operation
    return "Unknown"


class Ebs:
    """Answers requests to one region."""

    def __init__(self, world: World, region: Region) -> None:
        self.world, self.region = world, region

    def answer(
        self,
        operation: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        spoil: bool,
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body); with `spoil` what is stored differs from what was sent."""
        words = path.strip("/").split("/")
        if operation == "StartSnapshot":
            return 201, {}, json.dumps(self.start(json.loads(body))).encode()
        if operation == "CompleteSnapshot":
            return 202, {}, json.dumps(self.complete(words[2], headers)).encode()
        if operation == "PutSnapshotBlock":
            return 201, self.put(words[1], int(words[3]), headers, body, spoil), b""
        if operation == "GetSnapshotBlock":
            return self.get(words[1], int(words[3]), query)
        if operation == "ListSnapshotBlocks":
            return 200, {}, json.dumps(self.list(words[1], query)).encode()
        raise Refusal("UnknownOperationException", path, 404)

    def start(self, given: dict[str, Any]) -> dict[str, Any]:
        token = given.get("ClientToken", "")
        size = given.get("VolumeSize", 0)
        if not 1 <= size <= 65536:
            raise invalid("VolumeSize must be between 1 and 65536", "INVALID_VOLUME_SIZE")
        if not 10 <= given.get("Timeout", 60) <= 4320:
            raise invalid("Timeout must be between 10 and 4320")
        key = given.get("KmsKeyArn")
        if key and not (given.get("Encrypted") and re.fullmatch(KEY, key)):
            raise invalid("KmsKeyArn must be an ARN, and needs Encrypted")
        with self.world.lock:
            if token and token in self.region.tokens:
                before, id_ = self.region.tokens[token]
                if before != given:
                    raise Refusal("ConflictException", NO_TOKEN, 409)
                snapshot = self.region.snapshots.get(id_)
                if snapshot is None:
                    raise Refusal("ConflictException", NO_TOKEN, 409)
            else:
                tags = {tag["Key"]: tag["Value"] for tag in given.get("Tags", ())}
                snapshot = self.world.new_snapshot(
                    self.region,
                    size,
                    description=given.get("Description", ""),
                    encrypted=given.get("Encrypted", False),
                    kms_key=given.get("KmsKeyArn", ""),
                    tags=tags,
                )
                if token:
                    self.region.tokens[token] = (given, snapshot.id)
        return {
            "SnapshotId": snapshot.id,
            "OwnerId": ACCOUNT,
            "Status": snapshot.state,
            "StartTime": snapshot.started.timestamp(),
            "VolumeSize": snapshot.size,
            "BlockSize": BLOCK,
            "Description": snapshot.description,
        }

    def _snapshot(self, id_: str) -> Snapshot:
        if id_ not in self.region.snapshots:
            text = f"The snapshot '{id_}' does not exist."
            raise Refusal("ResourceNotFoundException", text, 404, "SNAPSHOT_NOT_FOUND")
        return self.region.snapshots[id_]

    def _open(self, id_: str) -> Snapshot:
        snapshot = self._snapshot(id_)
        if snapshot.is_sealed or snapshot.state != "pending":
            raise invalid(f"{id_} is not being written", "INVALID_SNAPSHOT_ID")
        return snapshot

    def put(
        self, id_: str, index: int, headers: Mapping[str, str], body: bytes, spoil: bool
    ) -> dict[str, str]:
        snapshot = self._open(id_)
        if not 0 <= index < (snapshot.size << 30) // BLOCK:
            raise invalid(f"block {index} is outside the volume", "INVALID_BLOCK")
        if headers.get("X-Amz-Data-Length") != str(BLOCK) or len(body) != BLOCK:
            raise invalid(f"a block has {BLOCK} bytes, this one {len(body)}", "INVALID_BLOCK")
        if headers.get("X-Amz-Checksum-Algorithm") != "SHA256":
            raise invalid("the checksum algorithm must be SHA256")
        digest = hashlib.sha256(body).digest()
        if headers.get("X-Amz-Checksum") != base64.b64encode(digest).decode():
            raise invalid("the checksum is not that of the data", "INVALID_BLOCK")
        with snapshot.lock:
            file = os.open(snapshot.path, os.O_WRONLY)
            try:
                os.pwrite(file, bytes([body[0] ^ 1]) + body[1:] if spoil else body, index * BLOCK)
            finally:
                os.close(file)
            snapshot.digests[index] = digest
        return {"x-amz-Checksum": headers["X-Amz-Checksum"], "x-amz-Checksum-Algorithm": "SHA256"}

    def complete(self, id_: str, headers: Mapping[str, str]) -> dict[str, str]:
        snapshot = self._open(id_)
        if headers.get("X-Amz-Changedblockscount") != str(len(snapshot.digests)):
            raise invalid(f"{len(snapshot.digests)} blocks were written")
        linear = hashlib.sha256(b"".join(it for _, it in sorted(snapshot.digests.items()))).digest()
        if given := headers.get("X-Amz-Checksum"):
            if headers.get("X-Amz-Checksum-Aggregation-Method") != "LINEAR":
                raise invalid("the aggregation method must be LINEAR")
            if given != base64.b64encode(linear).decode():
                raise invalid("the checksum is not that of the blocks")
        self.world.seal(snapshot)
        return {"Status": snapshot.state}

    def _readable(self, id_: str) -> Snapshot:
        snapshot = self._snapshot(id_)
        if snapshot.state != "completed":
            raise invalid(f"{id_} is not completed", "INVALID_SNAPSHOT_ID")
        return snapshot

    def list(self, id_: str, query: Mapping[str, str]) -> dict[str, Any]:
        snapshot = self._readable(id_)
        wanted = int(query.get("maxResults", PAGE))
        if not 100 <= wanted <= 10000:
            raise invalid("MaxResults must be between 100 and 10000")
        count = min(wanted, PAGE)
        token = query.get("pageToken")
        start = int(base64.b64decode(token)) if token else int(query.get("startingBlockIndex", 0))
        found = [index for index in sorted(snapshot.digests) if index >= start]
        more = found[count : count + 1]
        return {
            "Blocks": [{"BlockIndex": it, "BlockToken": token_of(id_, it)} for it in found[:count]],
            "VolumeSize": snapshot.size,
            "BlockSize": BLOCK,
            "ExpiryTime": time.time() + 7 * 86400,
            **({"NextToken": base64.b64encode(str(more[0]).encode()).decode()} if more else {}),
        }

    def get(
        self, id_: str, index: int, query: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        snapshot = self._readable(id_)
        if query.get("blockToken") != token_of(id_, index):
            raise invalid("the block token is not valid", "INVALID_BLOCK_TOKEN")
        file = os.open(snapshot.path, os.O_RDONLY)
        try:
            data = os.pread(file, BLOCK, index * BLOCK)
        finally:
            os.close(file)
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        headers = {
            "x-amz-Data-Length": str(len(data)),
            "x-amz-Checksum": checksum,
            "x-amz-Checksum-Algorithm": "SHA256",
            "Content-Type": "application/octet-stream",
        }
        return 200, headers, data


def invalid(message: str, reason: str = "INVALID_PARAMETER_VALUE") -> Refusal:
    return Refusal("ValidationException", message, 400, reason)


def token_of(id_: str, index: int) -> str:
    return base64.b64encode(hashlib.sha256(f"{id_}/{index}".encode()).digest()[:18]).decode()
