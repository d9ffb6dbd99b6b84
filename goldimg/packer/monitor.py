"""Watches one VM while Packer runs it: a picture every few seconds, a word when it stalls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from goldimg.packer.console import NoScreen, Screen
from goldimg.packer.story import Story
from goldimg.packer.watchdog import IO_ERROR, Scene, Watchdog
from goldimg.project import free_bytes

EVERY = 5.0  # seconds between two pictures
LOOKS = 2.0  # seconds between two looks at what the build says
ENOUGH = 256 << 20  # free bytes with which a guest that was stopped may go on
PICTURE = "screen.png"
FAILURE = "failure.png"


@dataclass
class Monitor:
    """A thread that looks at the VM of `story` between `with` and its end.

    `picture` is the last one taken; it is removed at the end, unless `keep` has moved it.
    """

    story: Story
    watchdog: Watchdog
    console: Path
    picture: Path
    screen: Screen = field(default_factory=NoScreen)
    kickstart: str = ""
    clock: Callable[[], float] = time.monotonic
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Monitor:
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=15)
        self.picture.unlink(missing_ok=True)

    def shoot(self) -> None:
        """Takes a picture now, if the VM's hypervisor answers."""
        self.screen.shoot(self.picture)

    def keep(self, target: Path) -> None:
        """Makes the last picture `target`, if there is one; an older `target` goes."""
        target.unlink(missing_ok=True)
        if self.picture.exists():
            self.picture.replace(target)

    def _run(self) -> None:
        news, last_picture = self.story.news, 0.0
        while not self._stop.wait(LOOKS):
            if self.story.news != news:
                news = self.story.news
                self.watchdog.progressed()
            if self.story.phase:
                self.watchdog.look(self.scene())
                if self.clock() - last_picture >= EVERY:
                    last_picture = self.clock()
                    self.shoot()
                    self._resume()

    def _resume(self) -> None:
        """A guest that was stopped because the disk was full goes on where it no longer is."""
        if self.screen.state == IO_ERROR and free_bytes(self.picture.parent) > ENOUGH:
            self.screen.go_on()
            self.watchdog.forget(IO_ERROR)

    def scene(self) -> Scene:
        """The build as it is now."""
        story = self.story
        return Scene(
            phase=story.phase,
            silent=self.clock() - story.news,
            is_install=story.is_install,
            is_fetched=story.is_fetched,
            console=self.console,
            screen=self.screen,
            address=(story.ssh_host, story.ssh_port) if story.ssh_port else None,
            kickstart=self.kickstart,
            task=story.task,
        )
