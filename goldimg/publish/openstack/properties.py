"""How an image is described to Glance, and through it to Nova. Pure.

https://docs.openstack.org/glance/latest/admin/useful-image-properties.html
"""

from __future__ import annotations

from collections.abc import Mapping

from goldimg.config.publish.openstack import OpenstackPublish
from goldimg.errors import PublishFailed
from goldimg.formats import round_up
from goldimg.publish.image import File, Image

GIB = 1 << 30
# Where libosinfo's short id, which os_distro holds, is not the name in lower case.
DISTRIBUTIONS = {"redhat": "rhel", "oraclelinux": "ol", "oracle": "ol", "rockylinux": "rocky"}
# What Glance has by itself: not to be set as a property.
RESERVED = frozenset(
    {"id", "name", "status", "visibility", "protected", "tags", "size", "checksum", "owner"}
    | {"file", "self", "schema", "min_disk", "min_ram", "disk_format", "container_format"}
    | {"created_at", "updated_at", "virtual_size", "os_hidden", "os_hash_algo", "os_hash_value"}
    | {"locations", "direct_url", "stores"}
)


def image_name(image: Image, options: OpenstackPublish) -> str:
    """What the image is called in Glance; at most 255 characters there."""
    return options.name.format(
        name=image.name, os=image.os_name, version=image.version, namespace=image.namespace
    )


def properties(image: Image, options: OpenstackPublish, tags: Mapping[str, str]) -> dict[str, str]:
    """The additional properties: what guests need of the hypervisor, what the OS is, our tags."""
    distribution = "".join(image.distribution.lower().split())
    found = {
        "architecture": image.architecture,
        "hw_disk_bus": options.disk_bus,
        "hw_vif_model": "virtio",
        "hw_rng_model": "virtio",
        "hw_firmware_type": "uefi" if image.firmware == "efi" else "bios",
        "os_type": "linux",
        "os_distro": DISTRIBUTIONS.get(distribution, distribution),
        "os_version": image.release,
    }
    if options.disk_bus == "scsi":
        found["hw_scsi_model"] = "virtio-scsi"
    if options.machine:
        found["hw_machine_type"] = options.machine
    if options.secure_boot:
        found["os_secure_boot"] = options.secure_boot
    found |= {key: value for key, value in tags.items() if value}
    return found | dict(options.properties)


def settings_problems(image: Image, options: OpenstackPublish) -> list[str]:
    """What of the settings does not fit together, or this image."""
    found = [f"properties.{it} is Glance's own" for it in options.properties if it in RESERVED]
    found += [
        f"properties.{it} is goldimg's own"
        for it in options.properties
        if it.startswith("goldimg-")
    ]
    if options.secure_boot == "required" and image.firmware != "efi":
        found.append("secure_boot needs an image that is built for EFI (firmware: efi)")
    if options.machine == "pc" and options.secure_boot == "required":
        found.append("secure_boot needs machine: q35")
    if options.machine == "q35" and options.disk_bus == "ide":
        found.append("disk_bus: ide does not exist on machine: q35")
    return found


def min_disk(file: File, options: OpenstackPublish) -> int:
    """GiB that a flavor's disk must have."""
    if not file.virtual_size:
        raise PublishFailed(
            f"the manifest does not tell the disk's size in {file.path.name}",
            hint="build the image again",
        )
    return max(options.min_disk, round_up(file.virtual_size, GIB) // GIB)


def description(
    image: Image, file: File, options: OpenstackPublish, tags: Mapping[str, str]
) -> dict[str, object]:
    """The body that creates the image."""
    return {
        "name": image_name(image, options),
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_disk": min_disk(file, options),
        "min_ram": options.min_ram,
        "tags": sorted({"goldimg", *options.tags}),
        **properties(image, options, tags),
    }
