"""The OVF envelope of a virtual machine with one disk, for VMware and for VirtualBox.

Sources: DMTF DSP0243 (OVF 1.1); the CIM resource types of DSP1041; VMware, "OVF Extensions" (the
vmw: keys and the sub-types of controllers and cards); VirtualBox manual, "Import and export".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from goldimg.errors import GoldimgError
from goldimg.formats.vmdk import Adapter

Flavour = Literal["vmware", "virtualbox"]
Controller = Literal["ide", "sata", "virtio-scsi", "pvscsi", "lsilogic"]
Nic = Literal["e1000", "virtio", "vmxnet3"]

NS = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
VMW = "http://www.vmware.com/schema/ovf"
VBOX = "http://www.virtualbox.org/ovf/machine"
STREAM_OPTIMIZED = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
GUEST_INFO = "com.vmware.guestInfo"
# CIM resource types
IDE, SCSI, ETHERNET, DISK, STORAGE, CPU, MEMORY, OTHER = 5, 6, 10, 17, 20, 3, 4, 1
_CONTROLLERS: dict[Flavour, dict[Controller, tuple[int, str]]] = {
    "vmware": {
        "ide": (IDE, ""),
        "sata": (STORAGE, "vmware.sata.ahci"),
        "pvscsi": (SCSI, "VirtualSCSI"),
        "lsilogic": (SCSI, "lsilogic"),
    },
    "virtualbox": {
        "ide": (IDE, "PIIX4"),
        "sata": (STORAGE, "AHCI"),
        "virtio-scsi": (STORAGE, "VirtioSCSI"),
        "lsilogic": (SCSI, "lsilogic"),
    },
}
_NICS: dict[Flavour, dict[Nic, str]] = {
    "vmware": {"e1000": "E1000", "vmxnet3": "VmxNet3"},
    "virtualbox": {"e1000": "E1000", "virtio": "virtio"},
}
_TEXT = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]*")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The virtual machine; `memory` in MiB.

    `version` is VMware's virtual hardware, as in vmx-11. Firmware, secure boot, TPM and hot-add are
    VMware's extensions.
    """

    cpus: int = 1
    memory: int = 1024
    controller: Controller = "lsilogic"
    nic: Nic = "e1000"
    firmware: Literal["bios", "efi"] = "bios"
    version: int = 11
    secure_boot: bool = False
    tpm: bool = False
    hot_add: bool = False

    @property
    def adapter(self) -> Adapter:
        """The adapter type that belongs into the descriptor of the VMDK."""
        return "ide" if self.controller in ("ide", "sata") else "lsilogic"


@dataclass(frozen=True, kw_only=True)
class GuestOs:
    """How readers name the guest: CIM's number, VMware's and VirtualBox's id, and a plain name."""

    cim: int = 101  # Linux 64-Bit
    vmware: str = "otherLinux64Guest"
    virtualbox: str = "Linux_64"
    name: str = "Linux 64-Bit"


@dataclass(frozen=True, kw_only=True)
class Property:
    """A value that the one who deploys the machine may set."""

    key: str
    label: str
    default: str = ""
    is_password: bool = False


# The keys that cloud-init's OVF data source reads: cloudinit/sources/DataSourceOVF, "OVF".
CLOUD_INIT = (
    Property(key="instance-id", label="Identity of this instance", default="id-ovf"),
    Property(key="hostname", label="Host name", default=""),
    Property(key="seedfrom", label="URL of further seed data"),
    Property(key="public-keys", label="SSH public keys of the default user"),
    Property(key="user-data", label="cloud-init user data, in base64"),
    Property(key="password", label="Password of the default user", is_password=True),
)


@dataclass(frozen=True, kw_only=True)
class DiskFile:
    """The VMDK that goes with the envelope: its name, its bytes, the bytes of its disk."""

    name: str
    size: int
    capacity: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A virtual machine as one of the two kinds of readers wants it described.

    With `properties` VMware hands them to the guest over com.vmware.guestInfo.
    """

    name: str
    flavour: Flavour
    hardware: Hardware
    guest: GuestOs = GuestOs()
    properties: tuple[Property, ...] = ()


def render(machine: Machine, disk: DiskFile) -> str:
    """The envelope as XML. GoldimgError where the flavour has no such controller or network card.

    VirtualBox takes EFI firmware only from a machine description of its own; the envelope for it
    says nothing of the firmware.
    """
    name, flavour, hardware = machine.name, machine.flavour, machine.hardware
    _check_choice("disk controller", hardware.controller, flavour, tuple(_CONTROLLERS[flavour]))
    _check_choice("network card", hardware.nic, flavour, tuple(_NICS[flavour]))
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<Envelope ovf:version="1.0" xmlns="{NS}" xmlns:ovf="{NS}" xmlns:rasd="{RASD}"'
        f' xmlns:vssd="{VSSD}" xmlns:vmw="{VMW}" xmlns:vbox="{VBOX}">',
        *_references(disk),
        f'  <VirtualSystem ovf:id="{_text(name)}">',
        "    <Info>A virtual machine</Info>",
        f"    <Name>{_text(name)}</Name>",
        *_guest(machine.guest, flavour),
        *_hardware(name, hardware, flavour, wants_transport=bool(machine.properties)),
        *(_product(machine.properties) if machine.properties else []),
        "  </VirtualSystem>",
        "</Envelope>",
    ]
    return "\n".join(lines) + "\n"


def _check_choice(kind: str, choice: str, flavour: Flavour, known: Sequence[str]) -> None:
    if choice not in known:
        raise GoldimgError(
            f"{kind} '{choice}' does not exist on {flavour}", hint="use " + ", ".join(known)
        )


def _text(value: str) -> str:
    if not _TEXT.fullmatch(value):
        raise GoldimgError(f"{value!r} holds a character that XML does not allow")
    return escape(value, quote=True)


def _references(disk: DiskFile) -> list[str]:
    return [
        "  <References>",
        f'    <File ovf:href="{_text(disk.name)}" ovf:id="file1" ovf:size="{disk.size}"/>',
        "  </References>",
        "  <DiskSection>",
        "    <Info>Virtual disks</Info>",
        f'    <Disk ovf:capacity="{disk.capacity}" ovf:capacityAllocationUnits="byte"'
        f' ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="{STREAM_OPTIMIZED}"/>',
        "  </DiskSection>",
        "  <NetworkSection>",
        "    <Info>Networks</Info>",
        '    <Network ovf:name="nat">',
        "      <Description>The network of the first card</Description>",
        "    </Network>",
        "  </NetworkSection>",
    ]


def _guest(guest: GuestOs, flavour: Flavour) -> list[str]:
    vmware = f' vmw:osType="{_text(guest.vmware)}"' if flavour == "vmware" else ""
    lines = [
        f'    <OperatingSystemSection ovf:id="{guest.cim}"{vmware}>',
        "      <Info>The guest operating system</Info>",
        f"      <Description>{_text(guest.name)}</Description>",
    ]
    if flavour == "virtualbox":
        kind = _text(guest.virtualbox)
        lines.append(f'      <vbox:OSType ovf:required="false">{kind}</vbox:OSType>')
    return [*lines, "    </OperatingSystemSection>"]


def _hardware(
    name: str, hardware: Hardware, flavour: Flavour, *, wants_transport: bool
) -> list[str]:
    transport = f' ovf:transport="{GUEST_INFO}"' if wants_transport else ""
    family = f"vmx-{hardware.version:02}" if flavour == "vmware" else "virtualbox-2.2"
    return [
        f"    <VirtualHardwareSection{transport}>",
        "      <Info>Virtual hardware</Info>",
        "      <System>",
        "        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>",
        "        <vssd:InstanceID>0</vssd:InstanceID>",
        f"        <vssd:VirtualSystemIdentifier>{_text(name)}</vssd:VirtualSystemIdentifier>",
        f"        <vssd:VirtualSystemType>{family}</vssd:VirtualSystemType>",
        "      </System>",
        *_items(hardware, flavour),
        *(_vmware_config(hardware) if flavour == "vmware" else []),
        "    </VirtualHardwareSection>",
    ]


def _items(hardware: Hardware, flavour: Flavour) -> list[str]:
    kind, sub_type = _CONTROLLERS[flavour][hardware.controller]
    items = [
        _item(
            AllocationUnits="hertz * 10^6",
            ElementName=f"{hardware.cpus} virtual CPU(s)",
            InstanceID=1,
            ResourceType=CPU,
            VirtualQuantity=hardware.cpus,
        ),
        _item(
            AllocationUnits="byte * 2^20",
            ElementName=f"{hardware.memory}MB of memory",
            InstanceID=2,
            ResourceType=MEMORY,
            VirtualQuantity=hardware.memory,
        ),
        _item(
            Address=0,
            ElementName="Disk Controller 0",
            InstanceID=3,
            ResourceSubType=sub_type,
            ResourceType=kind,
        ),
        _item(
            AddressOnParent=0,
            ElementName="Hard Disk 1",
            HostResource="ovf:/disk/vmdisk1",
            InstanceID=4,
            Parent=3,
            ResourceType=DISK,
        ),
        _item(
            AddressOnParent=7,
            AutomaticAllocation="true",
            Connection="nat",
            ElementName="Ethernet 1",
            InstanceID=5,
            ResourceSubType=_NICS[flavour][hardware.nic],
            ResourceType=ETHERNET,
        ),
    ]
    if hardware.tpm and flavour == "vmware":
        items.append(
            _item(
                AutomaticAllocation="false",
                ElementName="Virtual TPM",
                InstanceID=6,
                ResourceSubType="vmware.vtpm",
                ResourceType=OTHER,
            )
        )
    return items


def _item(**values: str | int) -> str:
    """An Item; the schema wants its elements in alphabetical order, as they are given."""
    inside = "".join(
        f"        <rasd:{key}>{value}</rasd:{key}>\n"
        for key, value in values.items()
        if value != ""
    )
    return f"      <Item>\n{inside}      </Item>"


def _vmware_config(hardware: Hardware) -> list[str]:
    settings = {
        "firmware": hardware.firmware,
        "bootOptions.efiSecureBootEnabled": _boolean(hardware.secure_boot),
        "cpuHotAddEnabled": _boolean(hardware.hot_add),
        "memoryHotAddEnabled": _boolean(hardware.hot_add),
    }
    return [
        f'      <vmw:Config ovf:required="false" vmw:key="{key}" vmw:value="{value}"/>'
        for key, value in settings.items()
    ]


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _product(properties: Sequence[Property]) -> list[str]:
    lines = ['    <ProductSection ovf:required="false">', "      <Info>cloud-init</Info>"]
    for entry in properties:
        password = ' ovf:password="true"' if entry.is_password else ""
        lines += [
            f'      <Property ovf:key="{_text(entry.key)}" ovf:type="string"{password}'
            f' ovf:userConfigurable="true" ovf:value="{_text(entry.default)}">',
            f"        <Label>{_text(entry.label)}</Label>",
            "      </Property>",
        ]
    return [*lines, "    </ProductSection>"]
