"""Packer's `virtualbox-iso` builder, and the disk that VirtualBox exports.

https://developer.hashicorp.com/packer/integrations/hashicorp/virtualbox and the manual's
"VBoxManage modifyvm": https://www.virtualbox.org/manual/ch08.html. EFI, the network card and the
serial port are set by VBoxManage: the builder of Packer 1.6 has no options for them.
"""

from __future__ import annotations

from pathlib import Path

from goldimg.packer.spec import Spec, common, from_iso

# From this version on a guest reaches services on the host's loopback only where it is allowed to:
# https://www.virtualbox.org/manual/ch06.html#network_nat_localhostreachable
CLOSED_LOOPBACK = (7, 0)
ADDITIONS = "/tmp/VBoxGuestAdditions.iso"  # noqa: S108 - in the guest, as in the original system


def builder(spec: Spec) -> dict[str, object]:
    """The builder section. The disk and card are those that the finished OVA asks for."""
    machine, native = spec.machine, spec.native
    if native is None:
        raise ValueError("a virtualbox-iso build needs the hypervisor's settings")
    section = {
        **common(spec),
        **from_iso(spec),
        "vm_name": native.vm_name,
        "format": "ovf",
        "guest_os_type": native.guest_os or "Linux_64",
        "guest_additions_mode": native.guest_additions,
        "virtualbox_version_file": "",  # nothing is uploaded that a playbook did not ask for
        "cpus": machine.cpus,
        "memory": machine.memory_mib,
        "sound": "none",
        "usb": False,
        "disk_size": machine.disk_mib,
        "hard_drive_interface": "ide",
        # VirtualBox takes a guest's trimming only for disks that say that they do not rotate
        "hard_drive_discard": True,
        "hard_drive_nonrotational": True,
        "vboxmanage": [["modifyvm", "{{.Name}}", *words] for words in _settings(spec)],
        # the exported machine must not name a file of this host
        "vboxmanage_post": [["modifyvm", "{{.Name}}", "--uart1", "off"]],
    }
    if native.guest_additions == "upload":
        section["guest_additions_path"] = ADDITIONS
    return section


def _settings(spec: Spec) -> list[list[str]]:
    settings = [
        ["--usbehci", "off"],
        ["--nictype1", "virtio"],
        ["--uart1", "0x3F8", "4"],
        ["--uartmode1", "file", str(spec.console)],
    ]
    if spec.native and spec.native.version >= CLOSED_LOOPBACK:
        settings.append(["--nat-localhostreachable1", "on"])
    if spec.machine.firmware == "efi":
        settings.append(["--firmware", "efi"])
    return settings


def exported_disk(spec: Spec) -> Path:
    """The VMDK beside the OVF; it does not exist where the export did not end well."""
    found = sorted(spec.output.glob("*.vmdk"))
    return found[0] if len(found) == 1 else spec.output / "disk001.vmdk"
