"""Hears an installer's reports and turns them into the phases of its build, or into its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from goldimg.errors import BuildFailed
from goldimg.packer.story import Story

# what the installer reports -> the phase that begins with it
STAGE_PHASES = {
    "started": "installing",
    "pre": "installing",
    "partitioning": "installing",
    "packages": "installing",
    "bootloader": "installing",
    "post": "installing",
    "done": "rebooting",
}
# what the timeline calls a stage; "started" and "done" begin a phase and need no mark
MARKS = {
    "pre": "%pre",
    "partitioning": "partitioning",
    "packages": "packages",
    "bootloader": "boot loader",
    "post": "%post",
}


class KickstartNeverFetched(BuildFailed):
    """The installer did not ask for its kickstart in time; once more may do."""


class InstallListener:
    """Hears an installer's reports and turns them into phases, or into the end of the build."""

    def __init__(
        self,
        name: str,
        story: Story,
        log: Path,
        *,
        patience: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.story, self.log = name, story, log
        self.fetched = 0
        self._clock = clock
        self._deadline = clock() + patience
        self.failure: BuildFailed | None = None

    def hear(self, kind: str, data: Mapping[str, str]) -> None:
        """Takes one event of the kickstart server's."""
        stage = data.get("stage", "")
        if kind == "fetched":
            self.fetched += 1
            self.story.is_fetched = True
            self.story.enter("kickstart fetched")
        elif kind == "failed":
            said = [line for line in data.get("message", "").splitlines() if line.strip()]
            self.failure = BuildFailed(
                f"{self.name}: the installer stopped",
                why=said[0] if said else "it gave no reason",
                details=said[1:][-8:],
                log=self.log,
            )
        elif stage in STAGE_PHASES:
            self.story.enter(STAGE_PHASES[stage])
            if stage in MARKS:
                self.story.mark(MARKS[stage])

    def abort(self) -> BuildFailed | None:
        """What the runner asks ten times a second: an error ends the install.

        Keys that are typed before the boot menu is there are lost, on a busy host now and then;
        nothing would ever come of such an install, so it is not waited for until SSH times out.
        """
        if not self.fetched and self._clock() > self._deadline:
            return KickstartNeverFetched(
                f"{self.name}: the kickstart was never fetched",
                why="the boot menu took no keys, or the guest has no network",
                log=self.log,
                hint="failure.png beside the log is its screen, console.log its serial console; "
                "'goldimg build --on-error keep' leaves it running",
            )
        return self.failure
