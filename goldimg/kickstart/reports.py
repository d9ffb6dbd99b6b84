"""What installers report: stages, and texts that are made fit to be shown."""

from __future__ import annotations

STAGES = (
    "started",
    "pre",
    "partitioning",
    "packages",
    "bootloader",
    "post",
    "done",
    "failed",
)
BODY = 64 << 10  # bytes of a report that are taken
KEPT = 8 << 10  # characters of it that are handed on


def plain(text: str) -> str:
    """The text without control characters (which could drive a terminal), but with its lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(
        "".join(char if char.isprintable() else " " for char in line).rstrip() for line in lines
    ).strip("\n")


def shortened(message: str) -> str:
    """About KEPT characters of a report at most: its first line (the reason) and its end."""
    if len(message) <= KEPT:
        return message
    return message.partition("\n")[0][:500] + "\n...\n" + message[-KEPT:].partition("\n")[2]
