"""Packer's `-machine-readable` output as values.

Format: https://developer.hashicorp.com/packer/docs/commands#format-for-machine-readable-output
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ESCAPES = {"%!(PACKER_COMMA)": ",", "\\n": "\n", "\\r": "\r"}
UI_PREFIX = re.compile(r"^(?:==> |    )(?P<build>[\w.-]+)(?: \([^)]*\))?: ?(?P<text>.*)$")
TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.+?)\]")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line that Packer said: `kind` is ui, error, artifact, …"""

    kind: str
    text: str


def parse(raw: str) -> list[Line]:
    """The lines in one raw line; text that is not machine readable comes back as it is."""
    parts = raw.split(",", 3)
    if len(parts) < 4 or not parts[0].isdigit():
        return [Line(kind="raw", text=raw)]
    _, _, kind, data = parts
    for escape, plain in ESCAPES.items():
        data = data.replace(escape, plain)
    if kind == "ui":
        _, _, data = data.partition(",")
    return [Line(kind=kind, text=text) for text in data.split("\n")]


def spoken(line: Line) -> str:
    """What the line says, without the build's name before it."""
    match = UI_PREFIX.match(line.text)
    return match["text"] if match else line.text


def task_of(text: str) -> str | None:
    """The name of the Ansible task that starts with this line."""
    match = TASK.match(text)
    return match["name"].split(" : ")[-1] if match else None
