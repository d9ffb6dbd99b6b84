"""Which Debian package brings which program; `doctor`, errors and set-up all read these tables."""

from __future__ import annotations

# program -> Debian package (https://packages.debian.org/bookworm/)
PACKAGES = {
    "packer": "packer",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "xorriso": "xorriso",
    "mformat": "mtools",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "mke2fs": "e2fsprogs",
    "busybox": "busybox-static",
    "sfdisk": "fdisk",
    "cpio": "cpio",
    "zstd": "zstd",
    "lvm": "lvm2",
    "mkfs.xfs": "xfsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "openssl": "openssl",
    "virt-tar-out": "libguestfs-tools",
    "shellcheck": "shellcheck",
    "tar": "tar",
    "mount": "mount",
    "unshare": "util-linux",
    "grub-mkstandalone": "grub-common",
    "grub-mkimage": "grub-common",
    "newuidmap": "uidmap",
    "apt-get": "apt",
    "ansible-playbook": "ansible-core",
    "ksvalidator": "python3-pykickstart",
}

# What a build of Debian-12 for all providers runs.
BUILD_PACKAGES = [
    "busybox-static",
    "cpio",
    "debian-archive-keyring",
    "dosfstools",
    "e2fsprogs",
    "fdisk",
    "grub-common",
    "grub-efi-amd64-bin",
    "ipxe-qemu",
    "isolinux",
    "kmod",
    "lvm2",
    "mmdebstrap",
    "mtools",
    "openssh-client",
    "openssl",
    "packer",
    "python3-venv",
    "qemu-system-x86",
    "qemu-utils",
    "syslinux-common",
    "xfsprogs",
    "xorriso",
    "zstd",
]
# Only root may mount a disk or write one owner's files as another's; others need helpers for it.
UNPRIVILEGED_PACKAGES = ["libguestfs-tools", "uidmap"]
TEST_PACKAGES = ["ovmf", "shellcheck"]


def package_of(program: str) -> str:
    """The Debian package that brings `program`, or the program's own name."""
    return PACKAGES.get(program, program)
