"""The calls of a publication, told before any is made."""

from __future__ import annotations

from collections.abc import Callable

from goldimg.formats import ova
from goldimg.formats.vmdk_read import VmdkDisk
from goldimg.publish.aws import bucket, images, sharing
from goldimg.publish.aws.blocks import BLOCK
from goldimg.publish.aws.clients import Work
from goldimg.publish.image import File
from goldimg.publish.publisher import Call
from goldimg.publish.transfer import blocks_of


def planned(work: Work, regions: tuple[str, ...]) -> list[Call]:
    """The calls of a publication from nothing, in order."""
    options, image = work.options, work.job.image
    file = image.file("ova")
    ways: dict[str, Callable[[], list[Call]]] = {
        "ebs": lambda: _by_blocks(file),
        "s3": lambda: _by_bucket(work, ova.disk_region(file.path).size, "vmdk", "ImportSnapshot"),
        "import-image": lambda: _by_bucket(work, file.size, "ova", "ImportImage"),
    }
    calls = ways[options.via]()
    mode = images.boot_mode(options, image)
    calls.append(Call(operation="RegisterImage", detail=f"{image.name}, {mode}"))
    calls += [Call(operation="CopyImage", detail=region) for region in regions[1:]]
    if who := sharing.permissions(options):
        shared = ", ".join(next(iter(it.values())) for it in who)
        calls.append(Call(operation="ModifyImageAttribute", detail=f"for {shared}"))
        calls.append(Call(operation="ModifySnapshotAttribute", detail=f"for {shared}"))
    if options.deprecate_at or options.deprecate_after:
        after = f"in {options.deprecate_after} days"
        detail = str(options.deprecate_at or after)
        calls.append(Call(operation="EnableImageDeprecation", detail=detail))
    if name := sharing.parameter_name(work):
        calls.append(Call(operation="PutParameter", detail=name))
    calls.append(Call(operation="DeleteTags", detail="the mark of the unfinished"))
    return calls


def _by_blocks(file: File) -> list[Call]:
    with VmdkDisk(ova.disk_region(file.path)) as disk:
        sizes = [block.size for block in blocks_of(disk.extents(), disk.size, BLOCK)]
    count = f"{len(sizes)} blocks"
    return [
        Call(operation="StartSnapshot", detail=f"{-(-(file.virtual_size or 0) // (1 << 30))} GiB"),
        Call(operation="PutSnapshotBlock", detail=count, size=len(sizes) * BLOCK),
        Call(operation="CompleteSnapshot", detail="with the digest of all digests"),
        Call(operation="GetSnapshotBlock", detail="a sample is read back"),
    ]


def _by_bucket(work: Work, size: int, extension: str, operation: str) -> list[Call]:
    key = f"s3://{work.options.bucket}/{bucket.key_of(work, extension)}"
    parts = -(-size // bucket.part_size(size))
    return [
        Call(operation="CreateMultipartUpload", detail=key),
        Call(operation="UploadPart", detail=f"{parts} parts", size=size),
        Call(operation="CompleteMultipartUpload", detail="with the SHA-256 of each part"),
        Call(operation=operation, detail=f"by the role {work.options.role}"),
        Call(operation="DeleteObject", detail=key),
    ]
