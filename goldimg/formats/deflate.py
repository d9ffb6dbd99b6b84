"""Deflate and checksums: ISA-L where its package is installed, otherwise zlib.

Both take the same decisions (block borders, window, what is stored), so that a file differs
between them only inside the deflated blocks.
"""

from __future__ import annotations

import contextlib
import importlib
import zlib
from types import ModuleType
from typing import Any

_engine: ModuleType = zlib
with contextlib.suppress(ImportError):  # a platform without wheels
    _engine = importlib.import_module("isal.isal_zlib")

# ISA-L's levels 1 and 2 are faster and as small, but not reproducible: measured with isal 1.9, one
# 64 KiB block in ten thousand becomes another, equally valid stream when another thread does it.
LEVEL = 3
# The window that qcow2 readers inflate with: QEMU's docs/interop/qcow2.txt, "Compressed Clusters".
CLUSTER_WINDOW = 12
STORED_MAX = 0xFFFF  # bytes in one stored block: RFC 1951, 3.2.4
STREAM_END = b"\x01\x00\x00\xff\xff"  # a last stored block that holds nothing


def raw(data: bytes | memoryview, window: int = CLUSTER_WINDOW) -> bytes:
    """`data` as a complete raw deflate stream (RFC 1951) with matches inside 2**`window` bytes."""
    deflated: bytes = _engine.compress(data, LEVEL, -window)
    return deflated


def piece(data: bytes | memoryview) -> bytes:
    """`data` as deflate blocks that end on a byte border and are not the last of their stream.

    Pieces join to one stream; none refers to the one before it, so they can be made at once.
    """
    compressor = _engine.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    head: bytes = compressor.compress(data)
    tail: bytes = compressor.flush(zlib.Z_SYNC_FLUSH)
    return head + tail


def stored_piece(data: bytes | memoryview) -> bytes:
    """`data` in stored blocks: what is already compressed gains nothing from another round."""
    parts: list[bytes | memoryview] = []
    for start in range(0, len(data), STORED_MAX):
        part = data[start : start + STORED_MAX]
        size = len(part)
        parts.append(b"\0" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little"))
        parts.append(part)
    return b"".join(parts)


def inflater(window: int) -> Any:
    """A decompressobj; negative `window` for raw deflate, 15 for zlib, 31 for gzip."""
    return _engine.decompressobj(window)


def crc32(data: bytes | memoryview, value: int = 0) -> int:
    """The CRC-32 of RFC 1952, 8, carried on from `value`."""
    return int(_engine.crc32(data, value))


def adler32(data: bytes | memoryview) -> int:
    """The Adler-32 of RFC 1950, 8.2."""
    return int(_engine.adler32(data))


ERRORS: tuple[type[Exception], ...] = (zlib.error, _engine.__dict__["error"])
