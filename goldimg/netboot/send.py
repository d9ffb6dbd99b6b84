"""HTTP answers out of an ISO: the bytes go from the page cache to the socket, never through us."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from typing import IO, cast

from flask import Response, request
from werkzeug.http import parse_range_header
from werkzeug.wsgi import wrap_file

from goldimg.netboot.tree import Slice, Tree

# What people read in a browser; all else is bytes, whatever its name ends in.
_TEXT = (".treeinfo", ".discinfo", ".txt", ".cfg", ".repo", "/InRelease", "/Release", "/EULA")


def send(
    tree: Tree,
    path: str,
    *,
    method: str = "GET",
    range_header: str | None = None,
    if_range: str | None = None,
) -> Response:
    """The answer for the file at `path` of the tree: 200, 206 for one range, 416, or 404.

    It has its length for HEAD too, which UEFI's HTTP boot asks first. The body is a
    `wsgi.file_wrapper` (PEP 3333): gunicorn sends it by sendfile, waitress in pieces, and neither
    holds more of it in memory than that. To be called within a request. A Range of several pieces
    is answered with the whole file, as RFC 9110, 14.2 allows.
    """
    extent = tree.find(path)
    if extent is None:
        return Response("no such file in this tree\n", 404, content_type="text/plain")
    etag = f'"{tree.etag(path)}"'
    if if_range not in (None, etag):
        range_header = None
    piece, status = _piece(range_header, extent.size)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": formatdate(tree.mtime_ns // 10**9, usegmt=True),
        "X-Content-Type-Options": "nosniff",
    }
    if piece is None:
        headers["Content-Range"] = f"bytes */{extent.size}"
        return Response("", 416, headers, content_type="text/plain")
    first, length = piece
    if status == 206:
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{extent.size}"
    body: Iterable[bytes] = ()
    if method != "HEAD" and length:
        stream = cast(IO[bytes], Slice(tree.iso, extent.offset + first, length))
        body = wrap_file(request.environ, stream, 1 << 16)
    headers["Content-Length"] = str(length)
    kind = "text/plain; charset=utf-8" if f"/{path}".endswith(_TEXT) else "application/octet-stream"
    return Response(body, status, headers, content_type=kind, direct_passthrough=True)


def _piece(header: str | None, size: int) -> tuple[tuple[int, int] | None, int]:
    """What is to be sent, as (first byte, length), and the status; None: the range is beyond."""
    wanted = parse_range_header(header) if header else None
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return (0, size), 200
    found = wanted.range_for_length(size)
    if found is None:
        return None, 416
    return (found[0], found[1] - found[0]), 206
