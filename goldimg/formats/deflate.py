"""Deflate and checksums: ISA-L where its package is installed, otherwise zlib.

Both take the same decisions (block borders, window, what is stored), so that a file differs
between them only inside the deflated blocks.
"""

from __future__ import annotations

import contextlib
import functools
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
LAST = b"\x03\x00"  # a last block that holds nothing, with fixed codes
POLYNOMIAL = 0xEDB88320  # of CRC-32, the lowest power first


def piece(data: bytes | memoryview, window: int = zlib.MAX_WBITS) -> bytes:
    """`data` as deflate blocks that end on a byte border and are not the last of their stream.

    Pieces join to one stream, and with LAST after it each is a stream (RFC 1951): none refers to
    the one before it, so they can be made at once. Matches are inside 2**`window` bytes.
    """
    compressor = _engine.compressobj(LEVEL, zlib.DEFLATED, -window)
    head: bytes = compressor.compress(data)
    tail: bytes = compressor.flush(zlib.Z_SYNC_FLUSH)
    return head + tail


def cluster(data: bytes | memoryview) -> bytes:
    """`data` as a piece that qcow2's readers can inflate."""
    return piece(data, CLUSTER_WINDOW)


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


def crc32_joined(first: int, second: int, length: int) -> int:
    """The CRC-32 of two pieces of data, of theirs and of the `length` in bytes of the second."""
    if combine := getattr(_engine, "crc32_combine", None):
        return int(combine(first, second, length))
    return _product(_zeros(length), first) ^ second


@functools.lru_cache
def _zeros(count: int) -> int:
    """What a CRC is multiplied by when `count` zero bytes follow: x**(8 * count)."""
    result, power = 1 << 31, 1 << 23  # 1, and x**8
    while count:
        if count & 1:
            result = _product(result, power)
        power = _product(power, power)
        count >>= 1
    return result


def _product(one: int, other: int) -> int:
    """Of two polynomials over GF(2), modulo that of CRC-32."""
    result = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            result ^= other
        other = other >> 1 ^ (POLYNOMIAL if other & 1 else 0)
    return result


def adler32(data: bytes | memoryview) -> int:
    """The Adler-32 of RFC 1950, 8.2."""
    return int(_engine.adler32(data))


ERRORS: tuple[type[Exception], ...] = (zlib.error, _engine.__dict__["error"])
