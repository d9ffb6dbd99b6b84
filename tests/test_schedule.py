"""Builds run side by side, in the order of their needs; one's failure stops no other."""

from __future__ import annotations

import threading
import time

from goldimg.errors import BuildFailed, Interrupted
from goldimg.schedule import Task, run_tasks


def never() -> bool:
    return False


def test_a_failure_stops_only_what_needs_it() -> None:
    done: list[str] = []

    def fail() -> None:
        raise BuildFailed("no SSH")

    ended = run_tasks(
        [
            Task(name="base a", run=fail),
            Task(name="base b", run=lambda: done.append("base b")),
            Task(name="aws", run=lambda: done.append("aws"), needs=("base a",)),
            Task(name="gcp", run=lambda: done.append("gcp"), needs=("base b",)),
        ],
        jobs=2,
        is_cancelled=never,
    )
    assert done == ["base b", "gcp"]
    assert str(ended["aws"]) == "no SSH"
    assert ended["gcp"] is None


def test_no_more_than_jobs_run_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1

    tasks = [Task(name=str(number), run=work) for number in range(6)]
    run_tasks(tasks, jobs=2, is_cancelled=never)
    assert most == 2


def test_after_cancelling_nothing_new_starts() -> None:
    cancelled = threading.Event()
    started: list[str] = []

    def first() -> None:
        started.append("first")
        cancelled.set()

    ended = run_tasks(
        [Task(name="first", run=first), Task(name="second", run=lambda: started.append("second"))],
        jobs=1,
        is_cancelled=cancelled.is_set,
    )
    assert started == ["first"]
    assert ended["first"] is None
    assert isinstance(ended["second"], Interrupted)
