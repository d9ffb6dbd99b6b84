#!/bin/sh
# shellcheck disable=SC2013,SC2016
# mmdebstrap's customize hook: finishes the root file system and makes the files of the ISO.
# Runs as root, or as root of a user namespace; mounts live in mmdebstrap's own mount namespace.
#
#   customize.sh ROOT DATA OUT      makes OUT/iso and OUT/packages.tsv
#
# Environment: GOLDIMG_TOOLS (packages used and left out), GOLDIMG_SOURCES (file), GOLDIMG_TITLE,
# GOLDIMG_VOLUME (ISO volume id)
set -eu
root=$1 data=$2 out=$3
tools=$root/tmp/tools
iso=$out/iso
kernel=$(ls "$root/lib/modules")

unpack_tools() {
    mkdir -p "$tools"
    # apt of the outside with the lists and keys of the inside, as mmdebstrap itself does it
    # shellcheck disable=SC2086
    (cd "$tools" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q download $GOLDIMG_TOOLS)
    for package in "$tools"/*.deb; do dpkg-deb -x "$package" "$tools"; done
    rm -f "$tools"/*.deb
    # From trixie on packages hold no /bin of their own.
    [ -e "$tools/bin" ] || ln -s usr/bin "$tools/bin"
}

# Services that would run at every boot of every machine, wanted or not. Each layer enables what
# its provider needs.
quiet_services() {
    for unit in e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer \
        blk-availability.service lvm2-monitor.service walinuxagent.service \
        google-guest-agent.service google-startup-scripts.service google-shutdown-scripts.service; do
        [ ! -e "$root/lib/systemd/system/$unit" ] || chroot "$root" systemctl -q disable "$unit"
    done
    for unit in systemd-networkd.service systemd-resolved.service goldimg-hostkeys.service; do
        chroot "$root" systemctl -q enable "$unit"
    done
    # Running .pyc files as programs is not worth a kernel module at every boot.
    chroot "$root" systemctl -q mask systemd-binfmt.service proc-sys-fs-binfmt_misc.automount
    # /etc/fstab names every file system, and an image neither hibernates nor has verity devices.
    for name in gpt-auto hibernate-resume integritysetup veritysetup; do
        mkdir -p "$root/etc/systemd/system-generators"
        ln -s /dev/null "$root/etc/systemd/system-generators/systemd-$name-generator"
    done
}

configure() {
    cp "$GOLDIMG_SOURCES" "$root/etc/apt/sources.list"
    chmod 644 "$root/etc/apt/sources.list"
    rm -f "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap
    echo localhost >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
    : >"$root/etc/fstab"
    # for the grub-cloud package: an upgrade of GRUB installs it again
    touch "$root/etc/grub.d/enable_cloud"
    [ ! -e "$root/usr/sbin/locale-gen" ] || {
        echo 'en_US.UTF-8 UTF-8' >"$root/etc/locale.gen"
        chroot "$root" locale-gen >/dev/null
    }
    ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
}

# Nothing that two machines must not share, and nothing that is only a cache.
clean() {
    chroot "$root" dpkg-query -W -f '${Package}\t${Version}\n' >"$out/packages.tsv"
    rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/systemd/random-seed "$root"/etc/machine-id-
    : >"$root/etc/machine-id"
    rm -f "$root/var/lib/dbus/machine-id"
    ln -s /etc/machine-id "$root/var/lib/dbus/machine-id"
    chroot "$root" apt-get clean
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/debconf/*-old \
        "$root"/var/lib/dpkg/*-old "$root"/var/log/*.log "$root"/var/log/apt "$tools" \
        "$root"/var/cache/ldconfig/aux-cache
    find "$root/usr/share/man" "$root/usr/share/info" -type f -delete
    find "$root/usr/share/doc" ! -type d ! -name copyright -delete
    find "$root/usr/share/doc" -mindepth 1 -type d -empty -delete
    find "$root/usr/share/locale" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
}

# busybox, our scripts and a few drivers; every other tool is run from the image itself.
make_initrd() {
    tree=$out/initrd
    mkdir -p "$tree/bin" "$tree/installer" "$tree/lib/modules/$kernel"
    cp "$tools/bin/busybox" "$tree/bin/busybox"
    for name in $("$tree/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$tree/bin/$name"
    done
    ln -s bin "$tree/sbin"
    cp "$data"/installer/* "$tree/installer/"
    mv "$tree/installer/init" "$tree/init"
    chmod 755 "$tree/init" "$tree/installer/lease.sh"
    for name in $(sed 's/#.*//' "$data/modules.txt"); do
        chroot "$root" modprobe -q -S "$kernel" -D "$name" || :
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
        mkdir -p "$tree${file%/*}"
        cp "$root$file" "$tree$file"
        # From trixie on drivers are packed, which not every busybox can load.
        case $file in *.xz) "$tools/bin/busybox" unxz "$tree$file" ;; esac
    done
    cp "$root/lib/modules/$kernel/modules.builtin" "$root/lib/modules/$kernel/modules.order" \
        "$tree/lib/modules/$kernel/"
    mv "$tree" "$root/tmp/initrd"
    chroot "$root" depmod -b /tmp/initrd "$kernel"
    rm -f "$root/tmp/initrd/lib/modules/$kernel"/*.bin
    (cd "$root/tmp/initrd" && find . | LC_ALL=C sort | "$tools/bin/busybox" cpio -o -H newc 2>/dev/null) \
        >"$root/tmp/initrd.cpio"
    chroot "$root" zstd -q -19 --rm /tmp/initrd.cpio -o /tmp/initrd.img
    cp "$root/tmp/initrd.img" "$iso/isolinux/initrd.img"
    rm -rf "$root/tmp/initrd" "$root/tmp/initrd.img"
}

make_boot_files() {
    mkdir -p "$iso/isolinux" "$iso/boot/grub" "$iso/goldimg"
    cp "$root/boot/vmlinuz-$kernel" "$iso/isolinux/vmlinuz"
    cp "$tools/usr/lib/ISOLINUX/isolinux.bin" "$iso/isolinux/"
    for name in ldlinux libcom32 libutil menu; do
        cp "$tools/usr/lib/syslinux/modules/bios/$name.c32" "$iso/isolinux/"
    done
    sed "s|@TITLE@|$GOLDIMG_TITLE|" "$data/iso/isolinux.cfg" >"$iso/isolinux/isolinux.cfg"
    sed "s|@TITLE@|$GOLDIMG_TITLE|" "$data/iso/grub.cfg" >"$iso/boot/grub/grub.cfg"
    # For PXE with Secure Boot: the distribution's signed shim, and its GRUB that loads over the network
    mkdir -p "$iso/boot/netboot"
    cp "$root/usr/lib/shim/shimx64.efi.signed" "$iso/boot/netboot/shimx64.efi"
    cp "$root/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed" "$iso/boot/netboot/grubx64.efi"
    cp "$data/iso/grub-early.cfg" "$tools/early.cfg"
    chroot "$root" grub-mkimage -O x86_64-efi -p /boot/grub -c /tmp/tools/early.cfg \
        -o /tmp/tools/bootx64.efi part_gpt part_msdos iso9660 fat normal configfile search \
        search_fs_file linux boot echo all_video efi_gop ls
    # An EFI system partition as a file: UEFI boots a CD from it (El Torito, platform EFI)
    chroot "$root" sh -eu -c '
        cd /tmp/tools
        truncate -s 2M efi.img
        mkfs.vfat -F 12 -n GOLDIMG_EFI --invariant efi.img >/dev/null
        export MTOOLS_SKIP_CHECK=1
        usr/bin/mtools -c mmd -i efi.img ::/EFI ::/EFI/BOOT
        usr/bin/mtools -c mcopy -i efi.img bootx64.efi ::/EFI/BOOT/BOOTX64.EFI'
    cp "$tools/efi.img" "$iso/boot/grub/efi.img"
}

# A bind mount that is not recursive shows the directories /proc, /sys and /dev, not what is mounted
# there. mke2fs is the target's own: another release's defaults would make features it cannot read.
make_image() {
    mkdir -p "$out/bare"
    mount --bind "$root" "$out/bare"
    mount --rbind "$out" "$root/mnt"
    used=$(du -sxm "$out/bare" | cut -f1)
    # 4096: a small file system would get 1 KiB blocks, which GRUB reads four times slower.
    # metadata_csum_seed: a new UUID does not rewrite every checksum.
    chroot "$root" mke2fs -q -t ext4 -b 4096 -I 256 -i 16384 -J size=32 -L root -m 1 \
        -O metadata_csum,metadata_csum_seed,^orphan_file -E root_owner=0:0 -d /mnt/bare \
        /mnt/iso/goldimg/root.img "$((used + used / 25 + 48))M"
    umount -l "$root/mnt"
    umount "$out/bare"
    rmdir "$out/bare"
}

unpack_tools
quiet_services
configure
make_boot_files
make_initrd
clean
make_image
