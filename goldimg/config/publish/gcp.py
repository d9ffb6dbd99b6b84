"""`publish.gcp` of site.yml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from goldimg.config.fields import Text, Url, Words, matching
from goldimg.config.publish.common import Section, Tags

# https://cloud.google.com/resource-manager/docs/creating-managing-projects: 6 to 30 characters,
# older ones with the domain they belong to in front.
Project = Annotated[
    str, matching(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "must be a project's id")
]
# https://cloud.google.com/storage/docs/buckets#naming
Bucket = Annotated[
    str, matching(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "must be a bucket's name, without gs://")
]
# https://cloud.google.com/compute/docs/naming-resources
Family = Annotated[
    str, matching(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", "must be lower-case letters, digits and -")
]
Prefix = Annotated[str, matching(r"[A-Za-z0-9._/-]*", "must be letters, digits and . _ / -")]


def _listed(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _member(value: tuple[str, ...]) -> tuple[str, ...]:
    kinds = ("user:", "group:", "serviceAccount:", "domain:", "principal://", "principalSet://")
    if not all(it.startswith(kinds) and len(it) > len("user:") for it in value):
        raise ValueError("must be members such as group:images@example.com")
    return value


# https://cloud.google.com/compute/docs/images/managing-access-custom-images
Members = Annotated[tuple[Text, ...], BeforeValidator(_listed), AfterValidator(_member)]
Licenses = Annotated[tuple[Text, ...], BeforeValidator(_listed)]


class GcpPublish(Section):
    """Compute Engine images, by way of a Cloud Storage bucket."""

    project: Project | None = None  # by default that of the credentials
    bucket: Bucket | None = None
    prefix: Prefix = "goldimg/"  # of objects in the bucket
    location: Text | None = None  # of a bucket that --create makes, such as EU
    create: bool = False
    family: Family | None = None  # by default the OS in lower case
    features: Words | None = None  # guest OS features; by default what the firmware needs
    licenses: Licenses = ()
    storage_location: Text | None = None  # of the image, such as eu
    share: Members = ()
    public: bool = False  # to everybody with a Google account
    previous: Literal["keep", "deprecated", "obsolete"] = "keep"  # images of the family so far
    keep_object: bool = False  # the archive in the bucket, once the image is made
    timeout: int = Field(default=1800, ge=60, le=86_400)  # seconds that an import may take
    storage_endpoint: Url | None = None  # such as those of Private Service Connect
    compute_endpoint: Url | None = None
    tags: Tags = {}  # labels, beside goldimg's
