"""Conversions in processes of their own, one for each base.

Python's lock lets one thread of a process compute at a time, so that conversions in one process
hinder each other, and everything else there. Those of one base share its compressed clusters
(`formats.store`), and so a process.

A worker is `python -m goldimg.worker FD`, with a socket to us: an Order goes there, progress and
what was written, or the error, come back. It ends with the socket, whatever ends that, and what it
was about to write goes with it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from goldimg.errors import BuildFailed
from goldimg.formats import Progress, Written
from goldimg.formats.chain import opened
from goldimg.formats.store import Store
from goldimg.providers import Boxing, Conversion, JobFields, all_providers
from goldimg.run import PACKAGES, Runner

GRACE = 10.0  # seconds that a worker may take to unmount and to remove what is not whole


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be made of the disk in the file `disk`, as `providers.Conversion` has it.

    `scratch`: a directory for copies of images that cannot be read where they are.
    """

    provider: str
    disk: Path
    scratch: Path
    seed: str
    newest: int | None
    fields: JobFields


def make(order: Order, runner: Runner, progress: Progress, store: Store) -> list[Written]:
    """The provider's artifacts, and where the site wants them its boxes, in this process."""
    provider, fields = all_providers()[order.provider], order.fields
    with opened(order.disk, order.scratch, runner, store) as disk:
        job = Conversion(
            disk=disk,
            seed=order.seed,
            newest=order.newest,
            runner=runner,
            progress=progress,
            **fields,
        )
        written = provider.convert(job)
        if fields["site"].boxes:
            boxing = Boxing(
                directory=fields["target"],
                open_disk=lambda: contextlib.nullcontext(disk),
                runner=runner,
                progress=progress,
                **fields,
            )
            written += provider.write_boxes(boxing)
    return written


class Workers:
    """The workers of one build: each is started for the first image of its base, and ended after
    the last. A context manager; for any threads.
    """

    def __init__(self, runner: Runner, images: Mapping[str, int]) -> None:
        """`images`: how many there are of each base. A single one is made in this process."""
        self._runner, self._left = runner, dict(images)
        self._is_alone = sum(images.values()) == 1
        self._lock = threading.Lock()
        self._workers: dict[str, _Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for worker in self._workers.values():
                worker.close()

    def make(self, base: str, order: Order, progress: Progress) -> list[Written]:
        """What `make` makes, after the other images of this base that were ordered before.

        Raises what the conversion raised; BuildFailed where the worker was killed.
        """
        if self._is_alone:
            with closing(Store(is_keeping=False)) as store:
                return make(order, self._runner, progress, store)
        with self._lock:
            worker = self._workers.get(base)
            if worker is None or worker.is_over:
                worker = self._workers[base] = _Worker(self._runner)
        try:
            return worker.make(order, progress)
        finally:
            with self._lock:
                self._left[base] -= 1
                is_last = self._left[base] == 0
            if is_last:
                worker.close()


@dataclass(frozen=True, kw_only=True)
class Advance:
    """What a worker says of an order's progress, in bytes of the disk."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What a worker says of an order that failed."""

    error: Exception
    trace: str


class _Worker:
    """One worker; one order at a time."""

    def __init__(self, runner: Runner) -> None:
        ours, theirs = socket.socketpair()
        self._link = Connection(ours.detach())
        self._turn = threading.Lock()
        self._runner = runner
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(theirs,), name="worker")
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or been killed."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Has it end, and waits for that."""
        self._link.close()
        self._thread.join()

    def _run(self, theirs: socket.socket) -> None:
        try:
            with theirs:
                self._runner.run(
                    [sys.executable, "-P", "-m", "goldimg.worker", str(theirs.fileno())],
                    env={"PYTHONPATH": str(PACKAGES)},
                    pass_fds=[theirs.fileno()],
                    on_start=lambda _: theirs.close(),  # so that its end is the end of the socket
                    grace=GRACE,
                )
        except BaseException as error:
            self._fault = error

    def make(self, order: Order, progress: Progress) -> list[Written]:
        """What it answers; raises what it failed with."""
        with self._turn:
            self._linked(order, lambda: self._link.send(order))
            while isinstance(answer := self._linked(order, self._link.recv), Advance):
                progress(answer.done, answer.total)
        if isinstance(answer, Failure):
            answer.error.add_note(answer.trace)
            raise answer.error
        written: list[Written] = answer
        return written

    def _linked(self, order: Order, call: Callable[[], Any]) -> Any:
        """What `call` returns; BuildFailed where nobody is at the other end any more."""
        try:
            return call()
        except (EOFError, OSError):
            self._thread.join()
            self._runner.check_cancelled()
            raise BuildFailed(
                f"{order.provider}: the process that converts has ended",
                why=str(self._fault or ""),
                details=getattr(self._fault, "details", ()),
                hint="see in the kernel's log whether memory ran out; the same command goes on",
            ) from self._fault
