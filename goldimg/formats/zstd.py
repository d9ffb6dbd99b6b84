"""Zstandard, for qcow2 clusters; its package is imported when it is first needed.

Sources: RFC 8878; QEMU's docs/interop/qcow2.txt, "Compression type".
"""

from __future__ import annotations

import importlib
import threading
from types import ModuleType
from typing import Any

from goldimg.errors import MissingTool

LEVEL = 3
_own = threading.local()  # a compressor serves one thread at a time


class Damaged(Exception):
    """What was to be decompressed is no Zstandard frame."""


def _library() -> ModuleType:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise MissingTool(
            "the Python package zstandard is not installed; it is needed for qcow2 with zstd",
            hint="pip install zstandard, or set 'qcow2_compression: zlib' in templates/site.yml",
        ) from error


def compress(data: bytes | memoryview) -> bytes:
    """`data` as one frame."""
    compressor: Any = getattr(_own, "compressor", None)
    if compressor is None:
        compressor = _own.compressor = _library().ZstdCompressor(level=LEVEL)
    packed: bytes = compressor.compress(data)
    return packed


def decompress(data: bytes, most: int) -> bytes:
    """What the first frame of `data` holds, `most` bytes of it at most; Damaged where it cannot."""
    library = _library()
    try:
        unpacked: bytes = library.ZstdDecompressor().stream_reader(data).read(most)
    except library.ZstdError as error:
        raise Damaged(str(error)) from error
    return unpacked
