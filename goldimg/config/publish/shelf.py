"""`publish.virtualbox` and `publish.vmware` of site.yml: files that are put somewhere."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from goldimg.config.fields import Url
from goldimg.config.publish.common import Section

FORMS = "an absolute directory, or s3://bucket/…, gs://bucket/…, azure://account/container/… or https://…"


def _place(value: str) -> str:
    parts = urlsplit(value)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not hold a name, password or query: credentials have other places")
    rest = parts.path.strip("/")
    fine = {
        "": value.startswith(("/", "~")),
        "file": parts.netloc in ("", "localhost") and value.startswith("file:///"),
        "s3": bool(parts.netloc),
        "gs": bool(parts.netloc),
        "azure": bool(parts.netloc) and bool(rest),
        "http": bool(parts.netloc),
        "https": bool(parts.netloc),
    }
    if not fine.get(parts.scheme, False) or re.search(r"[\x00-\x20\x7f]", value):
        raise ValueError(f"must be {FORMS}")
    return value.rstrip("/") or "/"


Place = Annotated[str, AfterValidator(_place)]


class _Shelf(Section):
    to: Place | None = None
    url: Url | None = None  # where readers find it, if not there
    create: bool = False


class VirtualboxPublish(_Shelf):
    """Boxes and the catalog that lists them; the appliance where wanted."""

    ova: bool = False


class VmwarePublish(_Shelf):
    """OVA files are copied there."""
