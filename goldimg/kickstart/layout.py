"""What a build's options make of a disk, for people to see before anything is installed."""

from __future__ import annotations

from dataclasses import dataclass

from goldimg.errors import ConfigError, Problem
from goldimg.kickstart.model import Options

ESP = 200  # MiB
EXTENT = 32  # MiB, of the volume group
FIRST = 1  # MiB before the first partition
ROOT = 1024  # MiB: what the root is asked to have at least


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One file system or swap: `size` in MiB, None where the installer decides it.

    `mount` is a path or `swap`. `grows`: takes what the others leave.
    """

    mount: str
    fstype: str
    size: int | None
    lvm: bool
    grows: bool = False


def disk_layout(options: Options, disk_mib: int) -> tuple[Volume, ...]:
    """The volumes that `options` give on a disk of `disk_mib` MiB, in the kickstart's order.

    With swap as recommended the installer sizes it by the machine's memory, so neither it nor the
    root has a size here; nor has the root on RAID, whose level and disks decide it. ConfigError
    where the disk is too small.
    """
    volumes = []
    if options.efi is True:
        volumes.append(Volume(mount="/boot/efi", fstype="efi", size=ESP, lvm=False))
    if options.boot:
        volumes.append(Volume(mount="/boot", fstype="ext4", size=options.bootsize, lvm=False))
    left = disk_mib - FIRST - sum(volume.size or 0 for volume in volumes)
    swap = options.swapsize if options.lvm and options.swap else None
    if swap is not None:
        size = None if swap == "recommended" else swap
        volumes.append(Volume(mount="swap", fstype="swap", size=size, lvm=True))
    if options.lvm:
        left = (left - 1) // EXTENT * EXTENT  # the volume group's own data takes less than 1 MiB
        left -= _extents(swap) if isinstance(swap, int) else 0
    if left < ROOT:
        message = f"{disk_mib} MiB leave {max(left, 0)} MiB for /, which needs {ROOT}"
        raise ConfigError.of(
            [Problem(file="disk", line=None, column=None, key="disk_size", message=message)]
        )
    root: int | None = left if options.rootsize == "max" else min(left, options.rootsize)
    if options.raid or (swap == "recommended" and options.rootsize == "max"):
        root = None
    volumes.append(Volume(mount="/", fstype=options.fstype, size=root, lvm=options.lvm, grows=True))
    return tuple(volumes)


def smallest_disk(options: Options) -> int:
    """The MiB that a disk must have to hold `options`, with an ESP and without recommended swap."""
    swap = options.swapsize if options.lvm and options.swap else 0
    return (
        (ESP if options.efi else 0)
        + (options.bootsize if options.boot else 0)
        + (_extents(swap) if isinstance(swap, int) else 0)
        + FIRST
        + EXTENT
        + ROOT
    )


def _extents(size: int) -> int:
    return -(-size // EXTENT) * EXTENT
