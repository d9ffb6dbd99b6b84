"""What becomes of a VM whose build has failed: ended and removed, ended, or left running."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

OnError = Literal["cleanup", "abort", "keep"]
Hold = Callable[[str, Sequence[str]], None]
WillRetry = Callable[[BaseException], bool]  # whether an error is followed by another try


def at_once(build: str, lines: Sequence[str]) -> None:
    """Keeps nothing."""


def never(_: BaseException) -> bool:
    """No error is followed by another try."""
    return False


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`cleanup` removes what a failed build leaves, `abort` leaves its files, `keep` its VM too.

    With `keep`, `hold(build, lines)` is called with how to reach the VM, which lives until it
    returns. `usual` are the seconds that the phases of installs (True) and layers (False) took in
    earlier builds.
    """

    on_error: OnError = "cleanup"
    hold: Hold = at_once
    usual: Mapping[bool, Mapping[str, float]] = field(default_factory=dict)

    @property
    def packer_words(self) -> list[str]:
        """Options of `packer build`: its own clean-up ends the VM and removes its disk."""
        return [] if self.on_error == "cleanup" else ["-on-error=abort"]


def ways_in(
    *,
    key: Path,
    host: str,
    port: int,
    vnc: str,
    picture: Path,
    console: Path,
    pids: Sequence[int],
    vnc_password: str = "",
) -> list[str]:
    """How to reach a VM that was kept, a line each."""
    lines = []
    if port:
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        words = f"ssh -i {shlex.quote(str(key))} -p {port} {options} root@{host}"
        lines.append(f"log in:  {words}")
    if vnc:
        by = f" (password {vnc_password})" if vnc_password else ""
        lines.append(f"screen:  vnc://{vnc}{by}")
    if picture.exists():
        lines.append(f"picture: {picture}")
    lines.append(f"console: {console}")
    if pids:
        lines.append(f"process: {', '.join(str(pid) for pid in pids)}")
    return lines
