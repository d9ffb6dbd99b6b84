"""A container's checks. What they look at was asked before: `facts`, by the names in facts.sh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, str]
Image = Mapping[str, Any]


def test_the_command_starts(host: Any, image: Image) -> None:
    command = image["command"]
    assert host.run("test -x %s", command[0]).rc == 0, f"{command[0]} cannot be run"
    done = host.run("%s </dev/null", command[0])
    assert done.rc == 0, done.stderr


def test_it_has_no_identity(facts: Facts) -> None:
    """Neither host keys nor a machine-id, which all containers of the image would share."""
    own = [line for line in facts["identity"].splitlines() if "No such file" not in line]
    assert [line for line in own if int(line.split()[1]) >= 33] == []


def test_the_build_left_nothing(facts: Facts) -> None:
    assert not facts["leftovers"], ", ".join(facts["leftovers"].splitlines())


def test_the_package_manager_works(facts: Facts) -> None:
    assert facts["packages"].splitlines()[-1:] == ["fine"], facts["packages"]
