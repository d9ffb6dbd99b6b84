"""Numbers as people read them."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes in the unit that suits them: 8.2 GiB, 379 MiB, 4.1 MiB, 12 KiB."""
    if size >= 1 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    if size >= 10 << 20 or not size:
        return f"{size / (1 << 20):.0f} MiB"
    if size >= 1 << 20:
        return f"{size / (1 << 20):.1f} MiB"
    return f"{-(-size // 1024):.0f} KiB"
