"""Programs that run beside the caller until they are stopped: a machine, a connection to it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from goldimg.errors import GoldimgError, Interrupted
from goldimg.run import Completed, Runner


class _Stopped(Exception):
    """It was asked to stop."""


class Background:
    """Runs `argv` in a thread, between `with` and its end: then it is gone, whatever happened."""

    def __init__(self, runner: Runner, argv: Sequence[str | Path], *, reason: str = "") -> None:
        self.completed: Completed | None = None
        self.error: BaseException | None = None
        self._runner, self._argv, self._reason = runner, list(argv), reason
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends it, and waits for that."""
        self._stop.set()
        self._thread.join()

    def wait(self, seconds: float) -> bool:
        """Waits for it to end by itself; whether it has. Interrupted once goldimg is stopped."""
        self._thread.join(seconds)
        self._runner.check_cancelled()
        return not self._thread.is_alive()

    def said(self) -> str:
        """Its last words, where it has ended by itself."""
        if self.completed:
            return (self.completed.stderr.strip() or self.completed.stdout.strip())[-500:]
        if isinstance(self.error, GoldimgError) and not isinstance(self.error, Interrupted):
            return str(self.error)
        return ""

    def _run(self) -> None:
        try:
            self.completed = self._runner.run(
                self._argv,
                reason=self._reason,
                check=False,
                abort=lambda: _Stopped() if self._stop.is_set() else None,
            )
        except _Stopped:
            pass
        except BaseException as error:
            self.error = error
