"""Starting machines over the network: what they are told, and by which files and daemons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["local", "install", "menu"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One installer that can be started. `kernel` and `initrd` are paths in the OS's tree.

    `arguments` may hold a token, so an Entry is as secret as its host's kickstart.
    """

    title: str
    os: str
    kernel: str
    initrd: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What one machine is told: to start its disk, to install at once, or to show a menu."""

    action: Action
    note: str = ""  # why, for the screen of the machine; never with a secret
    entries: tuple[Entry, ...] = ()


LOCAL = Boot(action="local")
