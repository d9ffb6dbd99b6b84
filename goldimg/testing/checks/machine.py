"""Every machine's checks. What they look at was asked before: `facts`, by the names in facts.sh."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

MIB = 1 << 20
# as cloud-init calls what the machine was given
SOURCES = {"config-drive": "ConfigDrive", "ec2": "Ec2", "nocloud": "NoCloud", "ovf": "OVF"}
Facts = Mapping[str, str]
Image = Mapping[str, Any]


def test_cloud_init_is_done_without_error(facts: Facts, image: Image) -> None:
    if not image["seed"]:
        pytest.skip("the provider's machines get no data")
    assert facts["cloud_init"].startswith("{"), "cloud-init has not run to its end"
    told = json.loads(facts["cloud_init"])["v1"]
    assert told["errors"] == []
    assert f"DataSource{SOURCES[image['seed']]}" in told["datasource"]
    assert not facts["cloud_errors"], facts["cloud_errors"].splitlines()[0]


def test_sshd_takes_no_password(facts: Facts) -> None:
    for name in ("offered_root", "offered_user"):
        ways = re.search(r"Permission denied \(([^)]*)\)", facts[name])
        assert ways, f"{name}: {facts[name] or 'it let somebody in without any proof'}"
        assert not {"password", "keyboard-interactive"} & set(ways[1].split(",")), facts[name]


def test_the_disk_is_used_to_its_end(facts: Facts, image: Image) -> None:
    if not image["seed"]:
        pytest.skip("nothing grows the disk of a machine that gets no data")
    disk, end, device, filesystem = (int(part) for part in facts["room"].split())
    assert disk == image["disk"]
    assert disk - end <= 64 * MIB, f"{(disk - end) // MIB} MiB after the last partition"
    free = sum(int(word) for word in facts["free_extents"].split() if word.isdigit())
    assert free <= 64 * MIB, f"{free // MIB} MiB of the volume group"
    assert filesystem >= 0.9 * device, f"{filesystem // MIB} of {device // MIB} MiB"


def test_the_host_name_is_the_instances(facts: Facts, image: Image) -> None:
    if not image["seed"]:
        pytest.skip("the provider's machines get no data")
    assert facts["hostname"].partition(".")[0] == image["hostname"]


def test_host_keys_and_machine_id_are_new(facts: Facts) -> None:
    """Made in this very boot, so the artifact has none that its machines would share."""
    own = [line.split(maxsplit=2) for line in facts["identity"].splitlines()]
    names = [name for _, _, name in own]
    assert "/etc/machine-id" in names
    assert [name for name in names if "ssh_host_" in name], "no host keys"
    for made, size, name in own:
        assert int(size) >= 33, f"{name} is empty"
        assert int(made) >= int(facts["booted"]) - 5, f"{name} was in the artifact"


def test_no_unit_has_failed(facts: Facts) -> None:
    assert not facts["failed"], ", ".join(facts["failed"].splitlines())
    assert facts["started"] in ("running", ""), facts["started"]


def test_the_build_left_nothing(facts: Facts) -> None:
    assert not facts["leftovers"], ", ".join(facts["leftovers"].splitlines())


def test_the_package_manager_works(facts: Facts) -> None:
    assert facts["packages"].splitlines()[-1:] == ["fine"], facts["packages"]
