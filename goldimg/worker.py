"""`python -m goldimg.worker FD`: converts what `workers` orders, in a process of its own."""

from __future__ import annotations

import contextlib
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

from goldimg.formats import Written
from goldimg.formats.store import Store
from goldimg.run import Runner
from goldimg.workers import Advance, Failure, Order, make

TELLING = 0.1  # seconds between two words of progress


class Serving:
    """Makes what is ordered until the socket ends or a signal comes."""

    def __init__(self, link: Connection[Any, Any]) -> None:
        self._link, self._runner = link, Runner()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._told = 0.0

    def serve(self) -> None:
        """Returns when nothing more can come."""
        threading.Thread(target=self._listen, daemon=True).start()
        with closing(Store()) as store:
            while (order := self._orders.get()) is not None:
                answer = self._made(order, store)
                with self._lock, contextlib.suppress(OSError):
                    self._link.send(answer)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._orders.put(self._link.recv())
        self.stop()

    def stop(self) -> None:
        """Ends what is under way, and `serve`."""
        self._runner.cancel.set()
        self._orders.put(None)

    def _made(self, order: Order, store: Store) -> list[Written] | Failure:
        try:
            return make(order, self._runner, self._progress, store)
        except Exception as error:
            return Failure(error=_sendable(error), trace=traceback.format_exc())

    def _progress(self, done: int, total: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            if done == total or time.monotonic() - self._told >= TELLING:
                self._link.send(Advance(done=done, total=total))
                self._told = time.monotonic()


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same where the other end could not put it together."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    serving = Serving(Connection(int(sys.argv[1])))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: serving.stop())
    serving.serve()
