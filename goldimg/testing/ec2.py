"""A machine of EC2's: how its firmware says so, and its metadata service on the link-local address.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html (the UUID)
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from goldimg.project import make_directory, write_text
from goldimg.testing import imds
from goldimg.testing.bench import MAC
from goldimg.testing.seeds import Instance

UUID = "ec2e1916-9099-7caf-fd21-c0d1e60ad1e6"
SMBIOS = f"manufacturer=Amazon EC2,product=t3.micro,uuid={UUID},serial={UUID}"
ADDRESS, ROUTER, NAMES = "169.254.169.15", "169.254.169.2", "169.254.169.3"
SERVICE = "169.254.169.254"


def tree(instance: Instance) -> Mapping[str, str]:
    """What the service tells, by path below the API version."""
    card = f"meta-data/network/interfaces/macs/{MAC}"
    identity = {
        "accountId": "000000000000",
        "architecture": "x86_64",
        "availabilityZone": "us-east-1a",
        "imageId": "ami-00000000",
        "instanceId": instance.id,
        "instanceType": "t3.micro",
        "privateIp": ADDRESS,
        "region": "us-east-1",
        "version": "2017-09-30",
    }
    return {
        "meta-data/ami-id": "ami-00000000",
        "meta-data/hostname": instance.hostname,
        "meta-data/instance-id": instance.id,
        "meta-data/instance-type": "t3.micro",
        "meta-data/local-hostname": instance.hostname,
        "meta-data/local-ipv4": ADDRESS,
        "meta-data/mac": MAC,
        "meta-data/placement/availability-zone": "us-east-1a",
        "meta-data/placement/region": "us-east-1",
        "meta-data/public-keys/0/openssh-key": instance.public_key,
        f"{card}/device-number": "0",
        f"{card}/local-ipv4s": ADDRESS,
        f"{card}/mac": MAC,
        "dynamic/instance-identity/document": json.dumps(identity),
        "user-data": instance.user_data(),
    }


def network(instance: Instance, scratch: Path) -> str:
    """Members of QEMU's user network by which the machine reaches the service; its files are laid
    out in `scratch`. QEMU runs a program for each connection: qemu(1), guestfwd.
    """  # fmt: skip
    root = make_directory(scratch / "ec2")
    for name, text in tree(instance).items():
        write_text(root / name, text)
    words = [sys.executable, "-I", "-S", str(Path(imds.__file__).resolve()), str(root)]
    command = shlex.join(words).replace(",", ",,")
    places = f"net=169.254.169.0/24,host={ROUTER},dns={NAMES},dhcpstart={ADDRESS}"
    return f"{places},guestfwd=tcp:{SERVICE}:80-cmd:{command}"
