"""What a new machine is told at its first start: its name, a user, a key. Pure, but for the ISO.

NoCloud: https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html
Config drive: https://docs.openstack.org/nova/latest/user/metadata.html
OVF environment: DMTF DSP0243, section 11.1, on a CD (section 11.2, "iso" transport), as
https://docs.cloud-init.io/en/latest/reference/datasources/ovf.html reads it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from goldimg.project import make_directory, write_text
from goldimg.run import Runner
from goldimg.testing.bench import Seed

USER = "tester"  # the user that is asked for
OVF = "http://schemas.dmtf.org/ovf/environment/1"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One machine of an image: its id, the host name it is to have, and the key of its user."""

    id: str
    hostname: str
    public_key: str

    def user_data(self) -> str:
        """A cloud-config that adds the user (JSON, which is YAML too)."""
        user = {
            "name": USER,
            "shell": "/bin/sh",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": True,
            "ssh_authorized_keys": [self.public_key],
        }
        return "#cloud-config\n" + json.dumps({"users": ["default", user]}) + "\n"


def volume(seed: Seed, instance: Instance) -> tuple[str, Mapping[str, str]]:
    """The label of the CD that carries the seed, and its files by path."""
    if seed == "config-drive":
        data = {
            "uuid": instance.id,
            "hostname": instance.hostname,
            "name": instance.hostname,
            "public_keys": {USER: instance.public_key},
        }
        return "config-2", {
            "openstack/latest/meta_data.json": json.dumps(data) + "\n",
            "openstack/latest/user_data": instance.user_data(),
        }
    if seed == "ovf":
        return "OVF ENV", {"ovf-env.xml": _environment(instance)}
    data = {
        "instance-id": instance.id,
        "local-hostname": instance.hostname,
        "public-keys": [instance.public_key],
    }
    return "cidata", {"meta-data": json.dumps(data) + "\n", "user-data": instance.user_data()}


def _environment(instance: Instance) -> str:
    properties = {
        "instance-id": instance.id,
        "hostname": instance.hostname,
        "public-keys": instance.public_key,
        "user-data": base64.b64encode(instance.user_data().encode()).decode(),
    }
    lines = [
        f"    <Property oe:key={quoteattr(key)} oe:value={quoteattr(value)}/>"
        for key, value in properties.items()
    ]
    return "\n".join([
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<Environment xmlns="{OVF}" xmlns:oe="{OVF}">',
        "  <PropertySection>", *lines, "  </PropertySection>", "</Environment>", "",
    ])  # fmt: skip


def write_iso(seed: Seed, instance: Instance, scratch: Path, runner: Runner) -> Path:
    """Makes the seed's CD in `scratch`; MissingTool where there is no xorriso."""
    label, files = volume(seed, instance)
    root, iso = make_directory(scratch / "seed"), scratch / "seed.iso"
    for name, text in files.items():
        write_text(root / name, text)
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-volid", label, "-joliet", "-rock"]
    runner.run(
        [*command, "-output", iso, root], reason="give a machine under test its data", timeout=60
    )
    return iso
