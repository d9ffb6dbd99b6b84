"""What a provider's machine is like, as far as QEMU can be one: every provider declares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bus = Literal["ide", "nvme", "pvscsi", "virtio", "virtio-scsi"]
# How the machine gets its data; "" where nothing asks for any.
Seed = Literal["nocloud", "config-drive", "ovf", "ec2", ""]

MAC = "52:54:00:12:34:56"  # of the card


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A machine for tests: its disk's bus, its network card, who its firmware says made it.

    `smbios` holds members of QEMU's `-smbios type=1`. `lacks` tells people what of the provider is
    not imitated.
    """

    bus: Bus = "virtio"
    card: str = "virtio-net-pci"
    smbios: str = ""
    seed: Seed = "nocloud"
    lacks: str = ""
