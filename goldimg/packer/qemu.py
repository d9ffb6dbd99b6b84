"""Packer's `qemu` builder: https://developer.hashicorp.com/packer/integrations/hashicorp/qemu.

What Packer 1.6 has no option for is said by `qemuargs`, which every later plugin takes too.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from goldimg.packer.spec import Spec, common, from_iso

DISK = "disk.qcow2"


def builder(spec: Spec) -> dict[str, object]:
    """The builder section: from the ISO, or over a base disk."""
    section = {
        **common(spec),
        "vm_name": DISK,
        "format": "qcow2",
        "disk_size": f"{spec.machine.disk_mib}M",
        "disk_interface": "virtio",
        "disk_cache": "unsafe",
        "disk_discard": "unmap",
        "disk_detect_zeroes": "unmap",
        "net_device": "virtio-net",
        "skip_compaction": True,
        "boot_key_interval": "10ms",
        "accelerator": "kvm" if spec.machine.accelerator == "kvm" else "none",
        "qemuargs": [list(pair) for pair in _arguments(spec)],
    }
    if spec.boot_command:
        return {**section, **from_iso(spec)}
    return {
        **section,
        "iso_checksum": "none",  # a base is ours, and read-only once it stands
        "disk_image": True,
        "use_backing_file": True,
        # qemu-img refuses a backing file whose format nobody says
        "qemu_img_args": {"create": ["-F", "qcow2"]},
    }


def exported_disk(spec: Spec) -> Path:
    """The disk that the run leaves."""
    return spec.output / DISK


def _arguments(spec: Spec) -> list[tuple[str, str]]:
    machine = spec.machine
    arguments = [
        ("-m", f"{machine.memory_mib}M"),
        ("-smp", str(machine.cpus)),
        ("-serial", f"file:{spec.console}"),
        ("-device", "virtio-rng-pci"),
        # a -device of ours replaces Packer's own list, so the network card is named here again
        ("-device", "virtio-net,netdev=user.0"),
    ]
    if spec.efi_variables:
        arguments += _efi(spec, spec.efi_variables)
    if spec.freeze:
        arguments.append(("-qmp", f"unix:{spec.freeze.socket},server=on,wait=off"))
    if spec.monitor:
        arguments.append(("-qmp", f"unix:{spec.monitor},server=on,wait=off"))
    if spec.thaw:
        arguments.append(("-incoming", f"exec:zstd -dqc {shlex.quote(str(spec.thaw))}"))
    if machine.accelerator == "kvm":
        return [*arguments, ("-cpu", "host")]
    return [*arguments, ("-accel", "tcg,thread=multi"), ("-cpu", "max")]


def _efi(spec: Spec, variables: Path) -> list[tuple[str, str]]:
    """Firmware and drives for EFI: a -drive of ours replaces Packer's own list.

    OVMF knows no "once from the CD": it takes devices by their bootindex, and the CD only while
    the disk holds nothing to boot. https://www.qemu.org/docs/master/system/bootindex.html
    """
    ovmf = spec.machine.ovmf
    if ovmf is None:
        raise ValueError("a machine with EFI firmware has no OVMF")
    disk = (
        f"if=none,id=disk0,file={_file(spec.output / DISK)},format=qcow2,"
        "cache=unsafe,discard=unmap,detect-zeroes=unmap"
    )
    arguments = [
        ("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_file(ovmf.code)}"),
        ("-drive", f"if=pflash,unit=1,format=raw,file={_file(variables)}"),
        ("-drive", disk),
        ("-device", "virtio-blk-pci,drive=disk0,bootindex=1"),
    ]
    if spec.boot_command:
        arguments += [
            ("-drive", f"if=none,id=cd0,media=cdrom,readonly=on,file={_file(spec.source)}"),
            ("-device", "ide-cd,drive=cd0,bootindex=2"),
        ]
    return arguments


def _file(path: Path) -> str:
    """A path as an option's value, where a comma would begin the next option."""
    return str(path).replace(",", ",,")
