"""What a publisher works with: calls that are retried, waiting, progress, the journal, tags."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from goldimg.errors import Interrupted, PublishFailed
from goldimg.events import Bus
from goldimg.publish.image import Image
from goldimg.publish.journal import Journal, Resource
from goldimg.publish.proof import Proof
from goldimg.publish.retry import Policy, retried
from goldimg.run import Runner
from goldimg.words import size_text

T = TypeVar("T")
FIRST_POLL = 0.2  # seconds: much that a service calls long-running is done at once


class Rejected(PublishFailed):
    """The service has judged what was sent and refuses it: going on later cannot help.

    Nothing of the run is kept, not even what is resumable.
    """


class Meter:
    """Bytes over time, as text: `712.0 MiB of 1.7 GiB, 45.1 MiB/s, 0:22 left`."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._lock = threading.Lock()

    def text(self, done: int, total: int, now: float) -> str:
        """What to show at `now`; the rate is that since the first call."""
        with self._lock:
            if self._start is None or done < self._start[1]:
                self._start = (now, done)
            seconds, sent = now - self._start[0], done - self._start[1]
        text = f"{size_text(done)} of {size_text(total)}"
        if seconds < 1 or not sent:
            return text
        rate = sent / seconds
        left = int((total - done) / rate)
        return f"{text}, {size_text(rate)}/s, {left // 60}:{left % 60:02d} left"


@dataclass(kw_only=True)
class Session:
    """One provider's part of one command, with or without an image."""

    provider: str
    runner: Runner
    events: Bus
    policy: Policy = field(default_factory=Policy)
    is_transient: Callable[[BaseException], bool] = lambda _: False
    clock: Callable[[], float] = time.monotonic
    is_undoing: bool = False  # then Ctrl-C stops nothing any more, only a second one does

    def say(self, text: str) -> None:
        """Tells the user something worth a line."""
        self.events.emit(self.provider, "note", text)

    def warn(self, text: str) -> None:
        """Tells the user what is not as it should be."""
        self.events.emit(self.provider, "warning", text)

    def phase(self, text: str) -> None:
        """From now on the provider is doing this: `uploading`, `importing` …"""
        self.events.emit(self.provider, "phase", text, phase=text)

    def check_cancelled(self) -> None:
        """Raises Interrupted once the user has asked to stop."""
        if not self.is_undoing:
            self.runner.check_cancelled()
        elif self.runner.hurry.is_set():
            raise Interrupted

    def pause(self, seconds: float) -> None:
        """Sleeps, but not longer than until the user asks to stop, which raises Interrupted."""
        (self.runner.hurry if self.is_undoing else self.runner.cancel).wait(seconds)
        self.check_cancelled()

    def call(self, function: Callable[[], T], *, what: str) -> T:
        """What `function` returns, by the one retry policy; its own exception in the end.

        `what` names the call for people, such as `register_image`.
        """
        self.check_cancelled()

        def tell(error: BaseException, attempt: int, seconds: float) -> None:
            self.say(f"{what}: {brief(error)}; attempt {attempt + 1} in {seconds:.0f} s")

        policy = Policy(
            attempts=self.policy.attempts,
            budget=self.policy.budget,
            first=self.policy.first,
            longest=self.policy.longest,
            sleep=self.pause,
        )
        return retried(function, policy=policy, is_transient=self.is_transient, on_retry=tell)

    def wait(
        self,
        poll: Callable[[], T | None],
        *,
        what: str,
        timeout: float,
        interval: float = 5.0,
    ) -> T:
        """Asks `poll` until it returns something else than None, soon at first, then every
        `interval` seconds.

        Each poll is retried as calls are. PublishFailed after `timeout` seconds; `poll` raises for
        a state that no waiting will end.
        """
        end, pause = self.clock() + timeout, min(FIRST_POLL, self.policy.first)
        while True:
            found = self.call(poll, what=what)
            if found is not None:
                return found
            if self.clock() >= end:
                raise PublishFailed(
                    f"{self.provider}: {what} did not end within {timeout / 60:.0f} min",
                    hint="the same command waits on; what was sent is kept",
                )
            self.pause(min(pause, interval, max(0.0, end - self.clock())))
            pause *= 1.5


@dataclass(kw_only=True)
class Job(Session):
    """The publishing of one image to one target."""

    image: Image
    journal: Journal
    run_id: str
    force: bool = False  # replace another image of the same name
    environment: str = ""  # that it is published to
    proof: Proof | None = None  # of the artifact, worked out beside the sending
    _meter: Meter = field(default_factory=Meter)

    @property
    def tags(self) -> dict[str, str]:
        """What every remote object is tagged with, as far as its service has tags.

        Keys and values are plain ASCII; publishers change only what their service's grammar does
        not allow.
        """
        return {
            "goldimg-os": self.image.os_name,
            "goldimg-version": self.image.version,
            "goldimg-sha256": self.journal.image,
            "goldimg-builder": self.image.builder,
            "goldimg-run": self.run_id,
        }

    def created(
        self,
        kind: str,
        id_: str,
        where: str = "",
        *,
        is_resumable: bool = False,
        is_temporary: bool = False,
    ) -> Resource:
        """Notes in the journal what this run made, or is about to make under a name of its own."""
        resource = Resource(
            kind=kind, id=id_, where=where, is_resumable=is_resumable, is_temporary=is_temporary
        )
        self.journal.add(resource)
        return resource

    def check_cancelled(self) -> None:
        """Raises Interrupted, or what is wrong with the artifact as soon as that is known."""
        super().check_cancelled()
        if self.proof:
            self.proof.raise_fault()

    def proven(self) -> Mapping[str, str]:
        """The artifact's digests in hex, once it is known to be what its manifest and format say.

        VerificationFailed otherwise, which is final: nothing that was sent is kept.
        """
        if self.proof is None:
            return {}
        while not self.proof.is_done:
            self.pause(0.05)
        return self.proof.digests

    def progress(self, done: int, total: int) -> None:
        """Tells how many bytes have arrived; rate and time left are worked out here."""
        fraction = done / total if total else 1.0
        text = self._meter.text(done, total, self.clock())
        self.events.emit(self.provider, "progress", text, fraction=fraction)

    def note(self, key: str, value: Any) -> None:
        """Keeps a value in the journal, for the run that goes on from here."""
        self.journal.set(key, value)


def brief(error: BaseException) -> str:
    """An exception in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
