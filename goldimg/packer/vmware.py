"""Packer's `vmware-iso` builder, and the disk that it leaves.

https://developer.hashicorp.com/packer/integrations/vmware/vmware. EFI and the version of the
virtual hardware are set in `vmx_data`: the builder of Packer 1.6 has no option for the one, and
newer plugins refuse an old number for the other. Packer 1.6 also forgets memory and processors
where no serial port is configured, so there always is one.
"""

from __future__ import annotations

from pathlib import Path

from goldimg.packer.spec import Spec, common, from_iso

DISK = "disk"


def builder(spec: Spec) -> dict[str, object]:
    """The builder section. The disk and card are those that the finished OVA asks for."""
    machine, native = spec.machine, spec.native
    if native is None:
        raise ValueError("a vmware-iso build needs the hypervisor's settings")
    return {
        **common(spec),
        **from_iso(spec),
        "vm_name": native.vm_name,
        "guest_os_type": native.guest_os or "other3xlinux-64",
        "cpus": machine.cpus,
        "cores": 1,
        "memory": machine.memory_mib,
        "sound": False,
        "usb": False,
        "serial": f"FILE:{spec.console}",
        "network": "nat",
        "network_adapter_type": "vmxnet3",
        "disk_size": machine.disk_mib,
        "disk_type_id": "0",  # one file that grows
        "disk_adapter_type": "pvscsi",
        "cdrom_adapter_type": "ide",
        "vmdk_name": DISK,
        "skip_compaction": True,  # what is empty is found when the disk is converted
        "boot_key_interval": "10ms",
        "vmx_data": _settings(spec) | dict(native.vmx_data),
        # the machine that is left must not name a file of this host
        "vmx_data_post": {"serial0.present": "FALSE"} | dict(native.vmx_data_post),
    }


def _settings(spec: Spec) -> dict[str, str]:
    settings = {
        "virtualHW.version": str(spec.native.hardware_version if spec.native else 11),
        "ethernet0.pciSlotNumber": "-1",  # as the card's bus wants it
    }
    if spec.machine.firmware == "efi":
        settings["firmware"] = "efi"
    return settings


def exported_disk(spec: Spec) -> Path:
    """The VMDK beside the VMX; it does not exist where the build did not end well."""
    return spec.output / f"{DISK}.vmdk"
