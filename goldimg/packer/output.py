"""Packer's `-machine-readable` output as values.

Format: https://developer.hashicorp.com/packer/docs/commands#format-for-machine-readable-output
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

ESCAPES = {"%!(PACKER_COMMA)": ",", "\\n": "\n", "\\r": "\r"}
UI_PREFIX = re.compile(r"^(?:==> |    )(?P<build>[\w.-]+)(?: \([^)]*\))?: ?(?P<text>.*)$")
TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.+?)\]")

LONGEST = 300  # lines of one failure of Ansible's
SHOWN = 6  # of them that an error repeats


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


def task_place(lines: Sequence[str]) -> str:
    """The file and line of the task that failed last, as Ansible says them; empty where unknown."""
    places = [line.partition("task path: ")[2] for line in lines if "task path: " in line]
    return places[-1].strip() if places else ""


def ansible_reason(lines: Sequence[str]) -> list[str]:
    """Why Ansible's last task failed, in a few lines; empty where `lines` hold no failure.

    A failure is one line of JSON that Packer breaks where a string in it has a line's end.
    """
    starts = [at for at, line in enumerate(lines) if line.startswith(("fatal:", "ERROR!"))]
    if not starts:
        return []
    rest = list(lines[starts[-1] :])
    _, _, first = rest[0].partition("=> ")
    for end in range(1, min(len(rest), LONGEST) + 1):
        if rest[end - 1].endswith("}"):
            with contextlib.suppress(ValueError):
                return _said(json.loads("\\n".join([first, *rest[1:end]])), rest[0])
    return [rest[0]]


def _said(result: object, whole: str) -> list[str]:
    """What is of use to a person in a failed task's result."""
    if not isinstance(result, dict):
        return [whole]
    command = result.get("cmd")
    found = [f"command: {' '.join(map(str, command))}"] if isinstance(command, list) else []
    for name in ("msg", "stderr", "stdout"):
        text = str(result.get(name) or "").strip()
        if text and not (name == "stdout" and result.get("stderr")):
            found += [f"{name}: {line}" for line in text.splitlines()[-SHOWN:]]
    return found or [whole]
