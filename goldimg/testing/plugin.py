"""pytest's plugin in the process that checks one image: fixtures, limits, and a line a result.

GOLDIMG_TRIAL names a JSON file, the Trial of goldimg.testing.suite. Results go to its `report` as
they come, so that those that are there count even where pytest does not get to its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from goldimg.testing.plugin_names import CHECKS, TRIAL

WHY = 600  # characters of a reason

_trial: dict[str, Any] = {}
_names: dict[str, str] = {}


class TooLong(BaseException):
    """A check takes too long. No handler of the check's own is to take it for an error of its."""


def pytest_configure(config: pytest.Config) -> None:
    """Reads what is checked."""
    _trial.update(json.loads(Path(os.environ[TRIAL]).read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def host() -> Any:
    """testinfra's host: commands run as root in the image."""
    import testinfra

    return testinfra.get_host(_trial["host"], **_trial["options"])


@pytest.fixture(scope="session")
def facts() -> dict[str, str]:
    """What the image said of itself, by the names in facts.sh."""
    return dict(_trial["facts"])


@pytest.fixture(scope="session")
def image() -> dict[str, Any]:
    """What is checked: os, version, provider, artifact, kind, and what its machine was given."""
    return dict(_trial["image"])


def name_of(path: Path, nodeid: str, root: Path) -> str:
    """What people call a check: goldimg's own by what they say, a site's by its file and name."""
    function = nodeid.partition("::")[2]
    if path.is_relative_to(CHECKS):
        return function.removeprefix("test_").replace("_", " ")
    place = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return f"{place}::{function}" if function else place


def pytest_itemcollected(item: pytest.Item) -> None:
    """Remembers the check's name."""
    _names[item.nodeid] = name_of(item.path, item.nodeid, Path(_trial["root"]))


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooLong in the block after `seconds`."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"no end after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fixtures end within the limit."""
    with limited(_trial["seconds"]):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """So does the check."""
    with limited(_trial["seconds"]):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """And what comes after it."""
    with limited(_trial["seconds"]):
        return (yield)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Tells which check begins: should it never end, it is the last one told."""
    _tell({"begins": _names.get(nodeid, nodeid), "time": time.time()})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tells how a check ended, once."""
    if report.when != "call" and report.passed:
        return
    _tell({
        "name": _names.get(report.nodeid, report.nodeid),
        "outcome": report.outcome,
        "why": why_of(report),
        "seconds": round(report.duration, 2),
    })  # fmt: skip


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot even be read is a failed check."""
    if report.failed:
        name = name_of(Path(_trial["root"], report.nodeid), "", Path(_trial["root"]))
        _tell({"name": name, "outcome": "failed", "why": why_of(report), "seconds": 0.0})


def why_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The reason of a failure or a skip, in a few lines; empty where there is none."""
    told = report.longrepr
    if isinstance(told, tuple):
        return str(told[2]).removeprefix("Skipped: ")[:WHY]
    crash = getattr(told, "reprcrash", None)
    text = str(crash.message) if crash else str(told or "")
    lines = text.strip().splitlines()
    # the first line says it; those that explain the expression are in pytest's own words
    if not text.startswith("assert "):
        lines = [it for it in lines if not it.startswith(("assert ", " + "))]
    shown = lines[:3] if crash else [lines[-1].removeprefix("E   ")] if lines else []
    return "\n".join(
        line.removeprefix("AssertionError: ").removeprefix(f"{__name__}.TooLong: ")
        for line in shown
    )[:WHY]


def _tell(line: dict[str, Any]) -> None:
    with Path(_trial["report"]).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
