# shellcheck shell=dash disable=SC2154
# Disks, by the kernel's names and by the names udev gives them in /dev/disk/by-id. The installer
# has no udev: the names are built from sysfs as systemd's 60-persistent-storage.rules builds them.

# As udev's util_replace_whitespace: none at the ends, each run of it one '_'.
underscored() { tr -s ' \t' '__' | sed 's/^_*//; s/_*$//'; }

attribute() { head -n 1 "$1" 2>/dev/null | tr -d '\000\n' | underscored; }

# Whole disks that can be written to, the usual first ones first; never the medium.
disks_here() {
    local disk path list=""
    for disk in vda sda nvme0n1 xvda vdb sdb hda $(ls "$SYS/block"); do
        path=$SYS/block/$disk
        case $disk in loop* | ram* | zram* | sr* | fd* | dm-* | md* | nbd*) continue ;; esac
        [ -e "$path" ] || continue
        [ "$disk" != "${medium_disk:-}" ] || continue
        case $(cat "$path/size" "$path/ro" "$path/removable" 2>/dev/null | tr '\n' ' ') in
            "0 "* | *" 1 "*) continue ;;
        esac
        has_word "$disk" "$list" || list="$list $disk"
    done
    echo "${list# }"
}

# MODEL_SERIAL of an ATA disk. sysfs cuts the model after 16 characters; the T10 designator of the
# device identification page (SAT-4, 10.3.4: "ATA     ", 40 of model, 20 of serial) has all of it.
ata_name() {
    local said
    said=$({ cat "$1/vpd_pg83" 2>/dev/null || cat "$1/wwid"; } 2>/dev/null | tr -c ' -~' '\n' |
        sed -n 's/^.*ATA     \(.\{40\}\)\(.\{20\}\).*/\1|\2/p' | head -n 1)
    [ -z "$said" ] || echo "$(echo "${said%|*}" | underscored)_$(echo "${said#*|}" | underscored)"
}

scsi_names() {
    local device=$1 wwid vendor serial name
    wwid=$(attribute "$device/wwid")
    vendor=$(attribute "$device/vendor")
    case $wwid in naa.*) echo "wwn-0x${wwid#naa.}" ;; esac
    if [ "$vendor" = ATA ]; then
        name=$(ata_name "$device")
        [ -z "$name" ] || echo "ata-$name"
        return
    fi
    case $wwid in
        naa.*) echo "scsi-3${wwid#naa.}" ;;
        eui.*) echo "scsi-2${wwid#eui.}" ;;
    esac
    # page 0x80: four bytes of header, then the serial number
    serial=$(tail -c +5 "$device/vpd_pg80" 2>/dev/null | tr -d '\000\n' | underscored)
    [ -z "$serial" ] || echo "scsi-0${vendor}_$(attribute "$device/model")_$serial"
}

nvme_names() {
    local wwid name
    wwid=$(attribute "$1/wwid")
    [ -z "$wwid" ] || echo "nvme-$wwid"
    name=$(attribute "$1/device/model")_$(attribute "$1/device/serial")
    [ "$name" = _ ] || printf 'nvme-%s\nnvme-%s_%s\n' "$name" "$name" "$(attribute "$1/nsid")"
}

# The names of a disk below /dev/disk/by-id, one a line.
ids_of() {
    local path=$SYS/block/$1 serial
    case $1 in
        nvme*) nvme_names "$path" ;;
        vd*)
            serial=$(attribute "$path/serial")
            [ -z "$serial" ] || echo "virtio-$serial" ;;
        sd*) scsi_names "$path/device" ;;
    esac
}

# Every disk with its names, for who has to choose another.
describe_disks() {
    local disk said=""
    for disk in $(disks_here); do
        said="$said; $disk ($(($(cat "$SYS/block/$disk/size") / 2048)) MiB) $(ids_of "$disk" | tr '\n' ' ')"
    done
    said=${said#; }
    echo "${said:-no disk}" | sed 's/ *;/;/g; s/ *$//'
}

# The kernel's name of a disk that a kickstart names; nothing where there is none such.
resolve_disk() {
    local disk
    for disk in $(disks_here); do
        case $1 in
            disk/by-id/*) ! ids_of "$disk" | grep -qxF "${1#disk/by-id/}" || { echo "$disk"; return; } ;;
            "$disk") echo "$disk"; return ;;
        esac
    done
}

# The disk to install on: where partitions name one, exactly that; else the first there is of what
# ignoredisk and clearpart name; else the first that is not ignored.
choose_disk() {
    local here named disk name ignored=""
    here=$(disks_here)
    [ -n "$here" ] || fail "no disk that the kernel has a driver for"
    DISK=""
    for name in $KS_ignored; do ignored="$ignored $(resolve_disk "$name")"; done
    # shellcheck disable=SC2013
    for name in $(cut -d '|' -f 6 "$KS/parts" | sed '/^$/d' | sort -u); do
        disk=$(resolve_disk "$name")
        [ -n "$disk" ] || fail "no disk $name here; there is: $(describe_disks)"
        [ "$disk" = "${DISK:-$disk}" ] || fail "partitions on several disks are not supported ($DISK, $disk)"
        DISK=$disk
    done
    named="$KS_only_use $KS_clear_drives"
    for name in $named; do
        [ -n "$DISK" ] || DISK=$(resolve_disk "$name")
    done
    [ -n "$DISK" ] || [ "$named" = " " ] || fail "no disk $named here; there is: $(describe_disks)"
    for disk in $here; do
        [ -n "$DISK" ] || has_word "$disk" "$ignored" || DISK=$disk
    done
    [ -n "$DISK" ] || fail "every disk here ($here) is ignored by the kickstart"
    ! has_word "$DISK" "$ignored" || fail "$DISK is named by the kickstart, and ignored by it too"
    [ -z "$KS_boot_drive" ] || [ "$(resolve_disk "$KS_boot_drive")" = "$DISK" ] ||
        fail "bootloader --boot-drive=$KS_boot_drive is not the disk of the partitions, $DISK"
    DISK_MIB=$(($(cat "$SYS/block/$DISK/size") / 2048))
    say "installing on $DISK ($DISK_MIB MiB)"
}
