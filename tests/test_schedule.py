"""Builds run side by side, in the order of their needs; one's failure stops no other."""

from __future__ import annotations

import threading
import time

from goldimg.errors import BuildFailed, Interrupted
from goldimg.schedule import Task, run_groups, run_tasks


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


def test_groups_follow_one_another_whatever_fails() -> None:
    done: list[str] = []
    running: set[str] = set()

    def work(name: str) -> None:
        running.add(name[0])
        assert len(running) == 1, "two groups at once"
        time.sleep(0.02)
        done.append(name)
        if name == "a2":
            raise BuildFailed("no SSH")
        if len([other for other in done if other[0] == name[0]]) == 3:
            running.clear()

    def before(number: int) -> None:
        running.clear()
        if number == 1:
            raise BuildFailed("somebody holds the CPU")

    groups = [
        [Task(name=f"{group}{at}", run=lambda name=f"{group}{at}": work(name)) for at in range(3)]  # type: ignore[misc]
        for group in "abc"
    ]
    ended = run_groups(groups, jobs=3, is_cancelled=never, before=before)
    assert {name[0] for name in done[:3]} == {"a"}
    assert {name[0] for name in done[3:]} == {"c"}
    assert len(done) == 6
    assert {name: str(error) for name, error in ended.items() if error} == {
        "a2": "no SSH",
        **{f"b{at}": "somebody holds the CPU" for at in range(3)},
    }
