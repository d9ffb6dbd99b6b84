"""Runs tasks that depend on one another, as many at once as allowed; one's failure stops no other.

Only what needs a failed task is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from goldimg.errors import BuildFailed, Interrupted


@dataclass(frozen=True, kw_only=True)
class Task:
    """`run` is called once every task named in `needs` has ended well."""

    name: str
    run: Callable[[], None]
    needs: tuple[str, ...] = ()


def run_tasks(
    tasks: Sequence[Task], *, jobs: int, is_cancelled: Callable[[], bool]
) -> dict[str, BaseException | None]:
    """Runs all `tasks`, earlier ones first where there is a choice; returns how each ended.

    After cancelling, nothing new is started, and what runs is waited for: its programs are being
    ended by the runner.
    """
    ended: dict[str, BaseException | None] = {}
    waiting = list(tasks)
    running: dict[Future[None], Task] = {}
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        while waiting or running:
            _give_up(waiting, ended, is_cancelled())
            for task in [t for t in waiting if all(name in ended for name in t.needs)]:
                if len(running) >= jobs:
                    break
                waiting.remove(task)
                running[pool.submit(task.run)] = task
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                ended[running.pop(future).name] = future.exception()
    return ended


def run_groups(
    groups: Sequence[Sequence[Task]],
    *,
    jobs: int,
    is_cancelled: Callable[[], bool],
    before: Callable[[int], None] = lambda number: None,
) -> dict[str, BaseException | None]:
    """Runs groups of tasks one after another; returns how every task ended.

    `before` is called with each group's number, from 0 on; what it raises is how all tasks of that
    group end, and the next group runs all the same.
    """
    ended: dict[str, BaseException | None] = {}
    for number, tasks in enumerate(groups):
        try:
            before(number)
        except Exception as error:
            ended |= dict.fromkeys((task.name for task in tasks), error)
            continue
        ended |= run_tasks(tasks, jobs=jobs, is_cancelled=is_cancelled)
    return ended


def _give_up(
    waiting: list[Task], ended: dict[str, BaseException | None], is_cancelled: bool
) -> None:
    """Ends, without running them, the tasks that can no longer be run."""
    for task in list(waiting):
        failed = [name for name in task.needs if ended.get(name) is not None]
        if is_cancelled:
            ended[task.name] = Interrupted()
        elif failed:
            why = ended[failed[0]]
            ended[task.name] = why or BuildFailed(f"{failed[0]} failed")
        else:
            continue
        waiting.remove(task)
