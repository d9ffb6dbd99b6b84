"""A VHD as page blob: created empty, filled with its pages, marked as whole at the very end.

The metadata tell whose it is: goldimg_sha256, goldimg_run and, until it is whole, goldimg_state.
https://learn.microsoft.com/rest/api/storageservices/put-blob (page blobs),
https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.storage.blob import ContentSettings

from goldimg.errors import PublishFailed
from goldimg.formats.source import Disk
from goldimg.publish.azure import pages
from goldimg.publish.azure.faults import call, code_of, find
from goldimg.publish.image import File
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource
from goldimg.publish.publisher import UNFINISHED

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobProperties

KIND = "blob"
CONTENT_TYPE = "application/octet-stream"
SHA256, RUN, STATE = "goldimg_sha256", "goldimg_run", "goldimg_state"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A VHD that has arrived: `source` is what an image is made of, in the words of its body."""

    resource: Resource
    source: dict[str, Any]
    verified: str
    hashes: dict[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()


def metadata_of(tags: dict[str, str]) -> dict[str, str]:
    """Tags as metadata, whose names are those of C#'s identifiers."""
    return {name.replace("-", "_"): value for name, value in tags.items()}


def look(job: Job, client: BlobClient) -> BlobProperties | None:
    """The blob's properties, None where there is none."""
    return find(job, client.get_blob_properties, "Get Blob Properties")


def is_ours(job: Job, found: BlobProperties) -> bool:
    """Whether the blob is, or is becoming, this very image."""
    size = job.image.file("vhd").size
    return (found.metadata or {}).get(SHA256) == job.journal.image and found.size == size


def is_whole(found: BlobProperties) -> bool:
    """Whether a blob of ours was finished."""
    return STATE not in (found.metadata or {}) and bool(found.content_settings.content_md5)


def check_free(job: Job, found: BlobProperties | None, url: str) -> None:
    """PublishFailed where another image has the blob's name, unless it is to be replaced."""
    if found is None or is_ours(job, found) or job.force:
        return
    is_unfinished = STATE in (found.metadata or {})
    state = "an unfinished upload of another image" if is_unfinished else "another image"
    raise PublishFailed(
        f"azure: {url} is {state}",
        why=f"it was modified on {found.last_modified:%Y-%m-%d %H:%M} UTC",
        hint="--force replaces it",
    )


def upload(
    job: Job, client: BlobClient, *, workers: int, verify: str, is_temporary: bool = False
) -> Sent:
    """The image's VHD as this blob: sent as far as it is not there, proven, marked as whole."""
    file = job.image.file("vhd")
    found = look(job, client)
    check_free(job, found, client.url)
    resource = Resource(kind=KIND, id=plain_url(client))
    if found and is_ours(job, found) and is_whole(found):
        return _sent(resource, file, bytes(found.content_settings.content_md5 or b""), "earlier")
    job.phase("reading the file")
    with Disk(file.path) as disk:
        blocks = pages.blocks_of(disk)
        resource = job.created(KIND, resource.id, is_resumable=True, is_temporary=is_temporary)
        if found and is_ours(job, found):
            pages.reconcile(job, disk, blocks, client, workers)
        else:
            _create(job, client, file, resource, replaces=found is not None)
        job.phase("uploading")
        pages.send(job, disk, blocks, lambda: client, workers)
        job.phase("verifying")
        pages.check_ranges(job, blocks, client)
        if verify == "content":
            pages.check_content(job, disk, blocks, client, workers)
        job.phase("checking the file")
        md5 = bytes.fromhex(job.proven()["md5"])
    _mark(job, client, md5)
    return _sent(Resource(kind=KIND, id=resource.id), file, md5, verify)


def plain_url(client: BlobClient) -> str:
    """The blob's URL without what authorizes for it."""
    return client.url.split("?")[0]


def _create(
    job: Job, client: BlobClient, file: File, resource: Resource, *, replaces: bool
) -> None:
    """An empty blob of the VHD's size; nothing but a --force replaces one."""
    job.journal.forget_blocks(pages.NAME)
    metadata = metadata_of({**job.tags, **UNFINISHED})
    condition: dict[str, Any] = {} if replaces else {"match_condition": MatchConditions.IfMissing}
    try:
        call(
            job,
            lambda: client.create_page_blob(
                file.size,
                content_settings=ContentSettings(content_type=CONTENT_TYPE),
                metadata=metadata,
                **condition,
            ),
            "Put Blob",
        )
    except ResourceExistsError:
        # an answer was lost, and the retry found what the first attempt made
        found = look(job, client)
        if found is None or (found.metadata or {}).get(RUN) != job.run_id:
            job.journal.remove(resource)
            raise
    except HttpResponseError:
        if look(job, client) is None:
            job.journal.remove(resource)
        raise


def _mark(job: Job, client: BlobClient, md5: bytes) -> None:
    """The last steps: the MD5, then metadata that no longer say it is unfinished."""
    settings = ContentSettings(content_type=CONTENT_TYPE, content_md5=bytearray(md5))
    call(job, lambda: client.set_http_headers(settings), "Set Blob Properties")
    metadata = metadata_of(job.tags)
    call(job, lambda: client.set_blob_metadata(metadata), "Set Blob Metadata")


def _sent(resource: Resource, file: File, md5: bytes, how: str) -> Sent:
    ways = {
        "ranges": "an MD5 of each range was checked by Azure, and the page ranges were compared",
        "content": "every page was read back and compared",
        "earlier": "the blob was whole already, by its metadata and MD5",
    }
    return Sent(
        resource=resource,
        source={"blob": resource.id},
        verified=ways[how],
        hashes={"sha256": file.sha256, "content-md5": pages.coded(md5)},
        urls=(resource.id,),
    )


def delete(session: Session, client: BlobClient) -> None:
    """Removes the blob and its snapshots; one that is gone is no error."""
    try:
        call(session, lambda: client.delete_blob(delete_snapshots="include"), "Delete Blob")
    except HttpResponseError as error:
        if error.status_code != 404 and code_of(error) not in ("BlobNotFound", "ContainerNotFound"):
            raise
