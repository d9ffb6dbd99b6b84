"""Which Debian package brings which program; `doctor`, errors and set-up all read these tables."""

from __future__ import annotations

# program -> Debian package (https://packages.debian.org/bookworm/)
PACKAGES = {
    "packer": "packer",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "mmdebstrap": "mmdebstrap",
    "xorriso": "xorriso",
    "mkfs.vfat": "dosfstools",
    "mke2fs": "e2fsprogs",
    "busybox": "busybox-static",
    "sfdisk": "fdisk",
    "zstd": "zstd",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "git": "git",
    "gpg": "gpg",
    "openssl": "openssl",
    "guestfish": "libguestfs-tools",
    "shellcheck": "shellcheck",
    "tar": "tar",
    "mount": "mount",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "newuidmap": "uidmap",
    "apt-get": "apt",
    "ansible-playbook": "ansible-core",
    "ksvalidator": "python3-pykickstart",
    "dnsmasq": "dnsmasq-base",
    "grub-script-check": "grub-common",
    "grub-editenv": "grub-common",
    "ip": "iproute2",
    "debconf-set-selections": "debconf",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "nginx": "nginx-light",
    "systemd-analyze": "systemd",
    "runc": "runc",
    "podman": "podman",
    "docker-registry": "docker-registry",
    "vagrant": "vagrant",
    "docker": "docker.io",
    "dockerd": "docker.io",
    "depmod": "kmod",
    "setcap": "libcap2-bin",
    "setfacl": "acl",
    "setfattr": "attr",
    "ruby": "ruby",
}

# What a build of Debian-12 for all providers runs. The installer's own tools (busybox, isolinux,
# GRUB, …) come out of packages that are unpacked where it is assembled, not installed here.
BUILD_PACKAGES = [
    "debian-archive-keyring",
    "ipxe-qemu",
    "mmdebstrap",
    "openssh-client",
    "packer",
    "python3-venv",
    "qemu-system-x86",
    "qemu-utils",
    "xorriso",
    "zstd",
]
# Only root may mount a disk or write one owner's files as another's; others need helpers for it.
UNPRIVILEGED_PACKAGES = ["libguestfs-tools", "libguestfs-xfs", "uidmap"]
# `goldimg serve --netboot`: the daemon, and loaders for machines of all kinds.
NETBOOT_PACKAGES = [
    "dnsmasq-base",
    "ipxe",
    "pxelinux",
    "syslinux-common",
]
TEST_PACKAGES = [
    *NETBOOT_PACKAGES,
    "acl",
    "attr",
    "busybox-static",
    "chromium",
    "chromium-driver",
    "curl",
    "docker-registry",
    "docker.io",
    "fdisk",
    "gpg",
    "grub-common",
    "libcap2-bin",
    "iproute2",
    "kmod",
    "libguestfs-tools",
    "libguestfs-xfs",
    "nginx-light",
    "ovmf",
    "podman",
    "runc",
    "shellcheck",
    "vagrant",
]


def package_of(program: str) -> str:
    """The Debian package that brings `program`, or the program's own name."""
    return PACKAGES.get(program, program)
