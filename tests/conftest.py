"""How the suite is shared out among processes: `make test` runs one for each core.

A module's tests stay in one process, since they share what its fixtures have built. What takes
longest comes first, so that the short ones fill what is left. `pytest tests/test_x.py` by hand runs
in its own process, in the order of the file.
"""

from __future__ import annotations

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

# Modules without such fixtures, whose tests take minutes each: they may run anywhere.
APART = ("tests/test_pxe.py",)


class ByModule(LoadScopeScheduling):  # type: ignore[misc] # xdist tells no types
    """Gives a process whole modules, and single tests of those APART."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return nodeid if module in APART else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """https://pytest-xdist.readthedocs.io/en/stable/how-to.html"""
    config.option.loadscopereorder = False  # the order of the tests is ours
    return ByModule(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a process of xdist's: whole modules that start machines, single such tests, the rest."""

    def place(item: pytest.Item) -> int:
        if item.get_closest_marker("real") is None:
            return 2
        return int(item.nodeid.partition("::")[0] in APART)

    if hasattr(config, "workerinput"):
        items.sort(key=place)
