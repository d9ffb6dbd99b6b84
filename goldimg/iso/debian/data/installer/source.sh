# shellcheck shell=dash disable=SC2034,SC2154
# Where the root file system's image comes from (the medium, or HTTP into memory), and the kickstart.
IMAGE_NAME=goldimg/root.img
# What the installer needs beside the image: file systems, tools, the target's package manager.
WORK_MIB=192
MEMINFO=${MEMINFO:-/proc/meminfo}
KICKSTART=${KICKSTART:-/tmp/ks.cfg}

# Sets REPO to the tree named on the command line; empty: the medium is searched.
choose_source() {
    REPO=$(parameter inst.repo)
    [ -n "$REPO" ] || REPO=$(parameter inst.stage2)
    case $REPO in
        http://*) REPO=${REPO%/} ;;
        "" | cdrom* | hd:*) REPO="" ;;
        *) fail "inst.repo: only http:// is understood, not $(place_of "$REPO")" ;;
    esac
}

find_medium() {
    local tries=0 device
    modprobe -a -q isofs loop ext4 >/dev/null 2>&1
    while [ "$tries" -lt 150 ]; do
        for device in /dev/sr? /dev/vd? /dev/sd?; do
            [ -b "$device" ] || continue
            mount -t iso9660 -o ro "$device" /medium 2>/dev/null || continue
            if [ -f "/medium/$IMAGE_NAME" ]; then
                medium_disk=${device#/dev/}
                IMAGE=/medium/$IMAGE_NAME
                return 0
            fi
            umount /medium
        done
        tries=$((tries + 1))
        sleep 0.2
        load_drivers
    done
    fail "the installation medium was not found (by PXE, add inst.repo=http://...; a cloud kernel drives no AHCI)"
}

# Content-Length, in bytes. A server that does not tell it could cut the image short unseen.
size_at() {
    local tries=0 size=""
    while [ "$tries" -lt 5 ]; do
        size=$(timeout 20 wget -S --spider "$1" 2>&1 | tr -d '\r' |
            sed -n 's/^ *[Cc]ontent-[Ll]ength: *\([0-9]*\).*/\1/p' | tail -n 1)
        [ -z "$size" ] || break
        tries=$((tries + 1))
        sleep 2
    done
    echo "$size"
}

available_mib() { echo $(($(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' "$MEMINFO") / 1024)); }

size_of() { stat -c %s "$1" 2>/dev/null || echo 0; }

# One transfer, resumed where an earlier one stopped. Says each fifth; gives up where nothing came
# for 30 seconds.
transfer() { # URL, file, bytes
    local child got last=0 quiet=0
    wget -q -c -O "$2" "$1" 2>>"$LOG" &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        sleep 1
        got=$(size_of "$2")
        if [ "$got" = "$last" ]; then quiet=$((quiet + 1)); else quiet=0; fi
        last=$got
        while [ "$shown_fifth" -lt 4 ] && [ "$got" -ge $(($3 * (shown_fifth + 1) / 5)) ]; do
            shown_fifth=$((shown_fifth + 1))
            say "  $((shown_fifth * 20)) %"
        done
        [ "$quiet" -lt 30 ] || kill "$child" 2>/dev/null
    done
    wait "$child"
}

# All of it, or no install.
fetch_whole() { # URL, file, bytes
    local tries=0 got
    shown_fifth=0
    until { transfer "$1" "$2" "$3"; [ "$(size_of "$2")" = "$3" ]; }; do
        got=$(size_of "$2")
        tries=$((tries + 1))
        say "the transfer stopped at $got of $3 bytes"
        # longer than it should be: another file than before, so from the start
        [ "$got" -le "$3" ] || rm -f "$2"
        [ "$tries" -lt 5 ] || fail "the root file system could not be fetched from $(place_of "$1") in 5 tries"
        sleep 2
    done
}

fetch_image() {
    local url=$REPO/$IMAGE_NAME place size mib free
    place=$(place_of "$REPO")
    size=$(size_at "$url")
    [ -n "$size" ] || fail "no $IMAGE_NAME below inst.repo at $place (or it does not tell its length)"
    mib=$((size / 1048576 + 1))
    free=$(available_mib)
    say "fetching the root file system from $place: $mib MiB of memory, $free MiB are free"
    [ $((mib + WORK_MIB)) -le "$free" ] ||
        fail "not enough memory to install from the network: $((mib + WORK_MIB)) MiB are needed, $free MiB are free"
    modprobe -a -q loop ext4 >/dev/null 2>&1
    mkdir -p /image
    mount -t tmpfs -o "mode=0700,size=$((mib + 1))m" image /image
    fetch_whole "$url" /image/root.img "$size"
    IMAGE=/image/root.img
    medium_disk=""
    say "root file system fetched"
}

# inst.ks.sendmac and inst.ks.sendsn: who asks, in headers as Anaconda sends them. One each line.
identity_headers() {
    local card number=0 serial
    if has_flag inst.ks.sendmac || has_flag kssendmac; then
        for card in $CARDS; do
            echo "X-RHN-Provisioning-MAC-$number: $card $(mac_of "$card")"
            number=$((number + 1))
        done
    fi
    if has_flag inst.ks.sendsn || has_flag kssendsn; then
        serial=$(tr -dc ' -~' <"$SYS/class/dmi/id/product_serial" 2>/dev/null)
        [ -z "$serial" ] || echo "X-System-Serial-Number: $serial"
    fi
}

fetch_kickstart() {
    local url place line tries=0
    url=$(parameter inst.ks)
    [ -n "$url" ] || url=$(parameter ks)
    [ -n "$url" ] || fail "no kickstart: add inst.ks=http://... to the boot entry (press Tab)"
    place=$(place_of "$url")
    case $url in
        http://*) ;;
        *) fail "inst.ks: only http:// is understood, not $place" ;;
    esac
    identity_headers >"$KICKSTART.headers"
    set --
    while IFS= read -r line; do set -- "$@" --header "$line"; done <"$KICKSTART.headers"
    say "fetching the kickstart from $place"
    while ! timeout 20 wget -q -O "$KICKSTART" "$@" "$url" 2>>"$LOG" || [ ! -s "$KICKSTART" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 10 ] || fail "the kickstart could not be fetched from $place in 10 tries"
        sleep 2
    done
    REPORT=$(sed -n 's/^# goldimg-report: //p' "$KICKSTART" | tr -d '\r' | head -n 1)
}
