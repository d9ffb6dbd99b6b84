"""The stream that `docker load` takes: layer, configuration and manifest in one tar.

Unlike `docker import` it carries labels, platform and time as they are, the engine itself checks
the layer against its digest, and the image's id is known beforehand.
https://github.com/moby/moby/blob/master/image/spec/v1.2.md (combined image JSON + filesystem)
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from goldimg.formats import rootfs
from goldimg.formats.stream import sha256_of
from goldimg.publish.body import Body
from goldimg.publish.docker.content import Content
from goldimg.publish.job import Job

LAYER = "layer.tar"  # compressed: engines look at the bytes, not at the name


class Archive:
    """What requests takes as `data`: of known length, and from the start at each iteration."""

    def __init__(self, job: Job, content: Content) -> None:
        self._layer = Body(job, content.layer, ())
        config = f"{content.id.removeprefix('sha256:')}.json"
        listed = [{"Config": config, "RepoTags": None, "Layers": [LAYER]}]
        manifest = json.dumps(listed).encode()
        size = content.layer.size
        self._head = _header(LAYER, size)
        self._tail = b"".join(
            (
                bytes(-size % tarfile.BLOCKSIZE),
                _member(config, content.config_bytes),
                _member("manifest.json", manifest),
                bytes(2 * tarfile.BLOCKSIZE),
            )
        )

    def __len__(self) -> int:
        return len(self._head) + len(self._layer) + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        yield from self._layer
        yield self._tail


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)


def _member(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


@dataclass(frozen=True, kw_only=True)
class Digests:
    """Of a tar.gz: SHA-256 of the file in hex, and the digest of the tar in it."""

    compressed: str
    content: str


def digests(job: Job, path: Path) -> Digests:
    """Reads a tar.gz and checks it; VerificationFailed where it breaks a rule.

    It is inflated once, for check and digest, while its own digest is worked out in a thread.
    """
    inner = hashlib.sha256()
    with ThreadPoolExecutor(1, "sha256") as pool:
        outer = pool.submit(sha256_of, path, job.check_cancelled)
        rootfs.check(path, job.check_cancelled, inner.update)
        return Digests(compressed=outer.result().hex(), content=f"sha256:{inner.hexdigest()}")
