"""Waits while a person looks at a VM that `--on-error keep` has left running."""

from __future__ import annotations

import contextlib
import select
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from goldimg.events import Bus
from goldimg.run import Runner


@dataclass
class Holder:
    """Called with a failed build's name and how to reach its VM; returns when the VM may go.

    That is after Enter, where there is a terminal to press it on, or Ctrl-C. Several VMs are let go
    one Enter at a time; Ctrl-C ends all.
    """

    events: Bus
    runner: Runner
    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, build: str, lines: Sequence[str]) -> None:
        ending = "Enter or Ctrl-C" if self._has_terminal() else "Ctrl-C"
        text = [lines[0], *(f"  {line}" for line in lines[1:])]
        text.append(f"  the VM is left running; {ending} ends it")
        self.events.emit(build, "warning", "\n".join(text))
        while not self.runner.cancel.is_set() and not self._is_let_go():
            time.sleep(0.2)

    def _has_terminal(self) -> bool:
        with contextlib.suppress(ValueError, AttributeError):  # closed, or none at all
            return self.stdin.isatty()
        return False

    def _is_let_go(self) -> bool:
        if not self._has_terminal():
            return False
        with self._turn:
            ready, _, _ = select.select([self.stdin], [], [], 0)
            return bool(ready) and self.stdin.readline() != ""
