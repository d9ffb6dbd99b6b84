# shellcheck shell=dash disable=SC2034,SC2154
# From the tables of the kickstart to mounted file systems under $TARGET.
KS=/tmp/ks
TARGET=/mnt/sysimage

# A tool of the image, on the live devices. The image itself is mounted read-only at /src.
# By env's full path: busybox's chroot would run applets of its own instead of programs found by name.
tool() { chroot /src /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }

# As anaconda: twice the memory below 2 GiB, as much up to 8 GiB, half of it above, at most a
# tenth of the disk.
swap_recommended() {
    local memory size
    memory=$(($(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo) / 1024))
    if [ "$memory" -lt 2048 ]; then size=$((memory * 2))
    elif [ "$memory" -lt 8192 ]; then size=$memory
    else size=$((memory / 2)); fi
    [ "$size" -le $((DISK_MIB / 10)) ] || size=$((DISK_MIB / 10))
    echo "$size"
}

part_node() {
    case $DISK in
        *[0-9]) echo "/dev/${DISK}p$1" ;;
        *) echo "/dev/$DISK$1" ;;
    esac
}

# Which label, and what the firmware needs. Kickstarts written for one firmware stop on the other.
choose_label() {
    local firmware=bios last
    [ ! -d /sys/firmware/efi ] || firmware=efi
    FIRMWARE=$firmware
    LABEL=${KS_disklabel:-dos}
    ! grep -q '^biosboot|' "$KS/parts" || LABEL=gpt
    [ "$firmware" = bios ] || LABEL=gpt
    [ "$DISK_MIB" -lt 2097152 ] || LABEL=gpt
    if [ -n "$KS_reqpart" ]; then
        if [ "$firmware" = efi ] && ! grep -q '^/boot/efi|' "$KS/parts"; then
            echo '/boot/efi|200||efi|||||||0' >>"$KS/parts"
        elif [ "$firmware" = bios ] && [ "$LABEL" = gpt ] && ! grep -q '^biosboot|' "$KS/parts"; then
            echo 'biosboot|1||biosboot|||||||0' >>"$KS/parts"
        fi
        [ "$KS_reqpart" != boot ] || echo '/boot|1024||ext4|||||||0' >>"$KS/parts"
    fi
    [ "$firmware" = bios ] || grep -q '^/boot/efi|' "$KS/parts" ||
        fail "this machine boots by UEFI and the kickstart has no /boot/efi (add it, or reqpart)"
    [ "$firmware" = efi ] || [ "$LABEL" = dos ] || grep -q '^biosboot|' "$KS/parts" ||
        fail "a GPT disk needs a 'biosboot' partition to boot by BIOS (add it, or reqpart)"
    # What grows comes last, so that the disk can be enlarged later.
    grep -v '^[^|]*|[^|]*|1|' "$KS/parts" >"$KS/parts.sorted"
    grep '^[^|]*|[^|]*|1|' "$KS/parts" >>"$KS/parts.sorted"
    last=$(wc -l <"$KS/parts.sorted")
    [ "$LABEL" = gpt ] || [ "$last" -le 4 ] ||
        fail "$last partitions do not fit an MBR; use LVM or clearpart --disklabel=gpt"
}

type_of() { # file system -> partition type of sfdisk(8)
    case $LABEL-$1 in
        dos-swap) echo 82 ;;
        dos-pv) echo 8e ;;
        dos-efi) echo ef ;;
        dos-*) echo 83 ;;
        gpt-swap) echo S ;;
        gpt-pv) echo V ;;
        gpt-efi) echo U ;;
        gpt-biosboot) echo 21686148-6449-6E6F-744E-656564454649 ;;
        gpt-*) echo L ;;
    esac
}

# Prints "MiB" for each row of stdin (mount size grow fstype recommended ... maximum): what is
# asked for, and for those that grow an equal share of what is left of $1 MiB.
share_out() {
    local total=$1 used=0 growing=0 mount size grow fstype recommended rest maximum left
    cat >/tmp/rows
    while IFS='|' read -r mount size grow fstype recommended rest; do
        [ -z "$recommended" ] || size=$(swap_recommended)
        used=$((used + ${size:-0}))
        [ -z "$grow" ] || growing=$((growing + 1))
    done </tmp/rows
    left=$((total - used))
    [ "$left" -ge 0 ] || fail "the kickstart asks for $used MiB, the disk has $total MiB"
    while IFS='|' read -r mount size grow fstype recommended rest; do
        [ -z "$recommended" ] || size=$(swap_recommended)
        if [ -n "$grow" ]; then
            size=$((${size:-0} + left / growing))
            maximum=$(echo "$rest" | cut -d '|' -f "$2")
            [ -z "$maximum" ] || [ "$size" -le "$maximum" ] || size=$maximum
        fi
        echo "$size"
    done </tmp/rows
}

write_partitions() {
    local mount size grow fstype rest start=2048 flag booted="" boot=/
    ! grep -q '^/boot|' "$KS/parts.sorted" || boot=/boot
    # 1 MiB before the first partition, 1 MiB after the last for the second GPT.
    share_out $((DISK_MIB - 2)) 5 <"$KS/parts.sorted" >"$KS/sizes"
    echo "label: $LABEL" >"$KS/table"
    paste -d '|' "$KS/sizes" "$KS/parts.sorted" >"$KS/sized"
    while IFS='|' read -r size mount _ grow fstype rest; do
        flag=""
        if [ "$LABEL" = dos ] && [ "$mount" = "$boot" ]; then flag=", bootable"; booted=1; fi
        echo "start=$start, size=$((size * 2048)), type=$(type_of "$fstype")$flag"
        start=$((start + size * 2048))
    done <"$KS/sized" >>"$KS/table"
    tool sfdisk --quiet --wipe always --wipe-partitions always --no-tell-kernel "/dev/$DISK" <"$KS/table" \
        >>"$LOG" 2>&1 || { cat "$KS/table" >>"$LOG"; fail "sfdisk refused the partition table"; }
    [ -n "$booted" ] || [ "$LABEL" = gpt ] || tool sfdisk --quiet --activate "/dev/$DISK" 1 >>"$LOG" 2>&1
    blockdev --rereadpt "/dev/$DISK" || fail "the kernel does not read the new partition table of $DISK"
}

clear_disk() {
    if [ -z "$KS_clear" ] && [ -n "$(ls -d "/sys/block/$DISK/$DISK"* 2>/dev/null)" ]; then
        fail "$DISK has partitions and the kickstart has no 'clearpart --all'"
    fi
    step "wiping $DISK" tool wipefs --all --force --quiet "/dev/$DISK"
}

LVM_CONFIG='backup{backup=0 archive=0} activation{udev_sync=0 udev_rules=0 monitoring=0} devices{use_devicesfile=0}'
lvm() {
    local command=$1
    shift
    tool lvm "$command" --config "$LVM_CONFIG" "$@"
}

# fs|device|mount|options for each volume, in $KS/volumes
add_volume() { echo "$1|$2|$3|$4" >>"$KS/volumes"; }

make_groups() {
    local name members extent line member nodes free
    [ -s "$KS/volgroups" ] || return 0
    [ -x /src/usr/sbin/lvm ] || fail "the image has no lvm2"
    modprobe -q dm-mod
    while IFS='|' read -r name members extent line; do
        nodes=""
        for member in $members; do
            nodes="$nodes $(sed -n "s#^pv|\([^|]*\)|$member|.*#\1#p" "$KS/volumes")"
        done
        # shellcheck disable=SC2086
        step "volume group $name (line $line)" lvm vgcreate -y -ff -s "${extent:-4096}k" "$name" $nodes
        # what remains may be a little less than the partitions: extents are whole
        free=$(lvm vgs --noheadings --nosuffix --units m -o vg_free "$name" 2>/dev/null | sed 's/[. ]*//; s/\..*//')
        awk -F '|' -v g="$name" '$7 == g' "$KS/logvols" >"$KS/logvols.$name"
        make_volumes "$name" "$free" $((${extent:-4096} / 1024))
    done <"$KS/volgroups"
}

make_volumes() {
    local group=$1 free=$2 extent=$3 size mount fstype lv options percent line
    [ "$extent" -gt 0 ] || extent=1
    awk -F '|' -v OFS='|' -v free="$free" '$10 != "" { $2 = int(free * $10 / 100) } { print }' \
        "$KS/logvols.$group" >"$KS/lv.sized"
    share_out "$free" 4 <"$KS/lv.sized" >"$KS/sizes"
    paste -d '|' "$KS/sizes" "$KS/lv.sized" >"$KS/lv.rows"
    while IFS='|' read -r size mount _ _ fstype _ lv _ options _ percent line; do
        size=$((size / extent * extent))
        step "logical volume $lv (line $line)" lvm lvcreate -y -Wn -Zn -L "${size}m" -n "$lv" "$group"
        step "activating $group" lvm vgmknodes "$group"
        add_volume "$fstype" "/dev/mapper/$(mapper_name "$group")-$(mapper_name "$lv")" "$mount" "$options"
    done <"$KS/lv.rows"
}

mapper_name() { echo "$1" | sed 's/-/--/g'; }

make_partitions() {
    local number=0 size mount fstype options node
    : >"$KS/volumes"
    write_partitions
    while IFS='|' read -r size mount _ _ fstype _ _ _ _ options _; do
        number=$((number + 1))
        node=$(part_node "$number")
        [ -b "$node" ] || fail "no device $node after partitioning"
        add_volume "$fstype" "$node" "$mount" "$options"
    done <"$KS/sized"
    make_groups
}

format_volume() { # fs device mount
    case $1 in
        ext[234]) step "formatting $2" tool "mkfs.$1" -q -F -b 4096 "$2" ;;
        xfs) modprobe -q xfs; step "formatting $2" tool mkfs.xfs -q -f "$2" ;;
        efi | vfat) modprobe -a -q vfat nls_cp437 nls_ascii; step "formatting $2" tool mkfs.vfat -F 32 "$2" ;;
        swap) step "formatting $2" tool mkswap "$2" ;;
    esac
}

# First block of a file on the medium, where all of it is contiguous; the kernel's FIBMAP knows.
first_block() {
    # shellcheck disable=SC2016
    tool perl -e 'open(F, "<", $ARGV[0]) or exit 1; my @at;
        for my $n (0, int(((-s F) - 1) / 2048)) {
            my $block = pack("L", $n); ioctl(F, 1, $block) or exit 1; push @at, $n, unpack("L", $block);
        }
        print $at[1] if $at[1] && $at[3] - $at[1] == $at[2]' "$1" 2>>"$LOG"
}

# Block by block from the medium itself, past the page cache, which costs most of the time under
# emulation; through the file where that does not work. An image in memory is read from there, and
# written past the page cache, which would take as much memory again.
copy_image() {
    local device=$1 size block
    if [ -z "$medium_disk" ]; then
        tool dd if=/media/root.img of="$device" bs=4M oflag=direct conv=fsync
        return
    fi
    size=$(stat -c %s "$IMAGE")
    block=$(first_block /media/root.img)
    if [ -n "$block" ] && tool dd if="/dev/$medium_disk" of="$device" bs=4M count="$size" \
        skip=$((block * 2048)) iflag=direct,fullblock,skip_bytes,count_bytes oflag=direct conv=fsync; then
        return
    fi
    tool dd if=/media/root.img of="$device" bs=4M conv=fsync
}

# The root file system is a copy of the image: block by block where it is ext4, else by files.
write_root() {
    local fs=$1 device=$2
    if [ "$fs" = ext4 ]; then
        step "writing the root file system" copy_image "$device"
        # The seed of the checksums is in the superblock, so a new UUID rewrites nothing else.
        step "giving the root file system its own UUID" tool tune2fs -U random "$device"
        step "growing the root file system" tool resize2fs "$device"
        step "mounting the root file system" mount -t ext4 -o noatime "$device" "$TARGET"
    else
        format_volume "$fs" "$device"
        step "mounting the root file system" mount -t "$fs" -o noatime "$device" "$TARGET"
        mount -o bind "$TARGET" /src/mnt
        step "copying the root file system" tool sh -c \
            'tar -C / --one-file-system --xattrs --xattrs-include=* --acls --numeric-owner -cf - . |
             tar -C /mnt --xattrs --xattrs-include=* --acls --numeric-owner -xpf -'
        umount /src/mnt
    fi
}

# Mounts everything else below the root, moving what the image has at that place.
mount_volume() {
    local fs=$1 device=$2 mount=$3
    mkdir -p "$TARGET$mount" /tmp/volume
    case $fs in efi) fs=vfat ;; esac
    if [ -n "$(ls -A "$TARGET$mount")" ]; then
        step "mounting $mount" mount -t "$fs" "$device" /tmp/volume
        cp -a "$TARGET$mount/." /tmp/volume/ || fail "moving $mount to its own file system"
        find "${TARGET:?}$mount" -mindepth 1 -maxdepth 1 -exec rm -rf {} + || fail "emptying $mount below its own file system"
        umount /tmp/volume
    fi
    step "mounting $mount" mount -t "$fs" "$device" "$TARGET$mount"
}

make_filesystems() {
    local fs device mount options
    IFS='|' read -r fs device mount options <<EOF
$(awk -F '|' '$3 == "/"' "$KS/volumes")
EOF
    write_root "$fs" "$device"
    # parents before children
    awk -F '|' '$3 != "/"' "$KS/volumes" | sort -t '|' -k 3,3 >"$KS/others"
    while IFS='|' read -r fs device mount options; do
        case $fs in pv | biosboot) continue ;; esac
        format_volume "$fs" "$device"
        [ "$fs" = swap ] || mount_volume "$fs" "$device" "$mount"
    done <"$KS/others"
}

uuid_of() { tool blkid -p -s UUID -o value "$1"; }

write_fstab() {
    local fs device mount options name pass
    while IFS='|' read -r fs device mount options; do
        case $device in /dev/mapper/*) name=$device ;; *) name=UUID=$(uuid_of "$device") ;; esac
        pass=2
        [ "$mount" != / ] || pass=1
        case $fs in
            pv | biosboot) continue ;;
            swap) echo "$name none swap ${options:-sw} 0 0"; continue ;;
            efi | vfat) fs=vfat; options=${options:-umask=0077} ;;
            xfs) pass=0 ;;
        esac
        [ "$mount" != / ] || [ "$fs" != ext4 ] || options=${options:-errors=remount-ro}
        echo "$name $mount $fs ${options:-defaults} 0 $pass"
    done <"$KS/volumes" | sort -k 2 >"$TARGET/etc/fstab"
}

unmount_all() {
    awk '{print $2}' /proc/mounts | grep "^$TARGET" | sort -r | while read -r place; do
        umount "$place" 2>/dev/null || umount -l "$place"
    done
    # gone with the medium where that was ejected; nothing is mounted any more either way
    [ ! -s "$KS/volgroups" ] || [ ! -x /src/usr/sbin/lvm ] || lvm vgchange -an >>"$LOG" 2>&1
    sync
}
