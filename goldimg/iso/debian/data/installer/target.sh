# shellcheck shell=dash disable=SC2016,SC2034,SC2154
# What the kickstart asks of the installed system: names, network, accounts, packages, boot loader.

inside() { chroot "$TARGET" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

enter_target() {
    local place
    for place in proc sys dev dev/pts; do
        mount -o bind "/$place" "$TARGET/$place"
    done
    mount -t tmpfs run "$TARGET/run"
    [ ! -d /sys/firmware/efi/efivars ] || mount -t efivarfs efivarfs "$TARGET/sys/firmware/efi/efivars" 2>/dev/null
    # /etc/resolv.conf of the image points to where systemd-resolved writes
    mkdir -p "$TARGET/run/systemd/resolve"
    cp /etc/resolv.conf "$TARGET/run/systemd/resolve/stub-resolv.conf" 2>/dev/null
    # no service starts in here: https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt
    printf '#!/bin/sh\nexit 101\n' >"$TARGET/usr/sbin/policy-rc.d"
    chmod 755 "$TARGET/usr/sbin/policy-rc.d"
}

leave_target() { rm -f "$TARGET/usr/sbin/policy-rc.d"; }

set_names() {
    local host=${KS_hostname:-localhost.localdomain} short
    short=${host%%.*}
    echo "$short" >"$TARGET/etc/hostname"
    {
        echo "127.0.0.1 localhost"
        case $host in
            localhost*) ;;
            *.*) echo "127.0.1.1 $host $short" ;;
            *) echo "127.0.1.1 $host" ;;
        esac
        echo "::1 localhost ip6-localhost ip6-loopback"
        echo "ff02::1 ip6-allnodes"
        echo "ff02::2 ip6-allrouters"
    } >"$TARGET/etc/hosts"
}

set_locale() {
    local zone=${KS_timezone:-Etc/UTC} code=${KS_lang:-C.UTF-8}
    [ -f "$TARGET/usr/share/zoneinfo/$zone" ] || fail "unknown time zone '$zone'"
    ln -sf "/usr/share/zoneinfo/$zone" "$TARGET/etc/localtime"
    echo "$zone" >"$TARGET/etc/timezone"
    case $code in
        C | C.* | POSIX) ;;
        *)
            case $code in *.*) ;; *) code=$code.UTF-8 ;; esac
            if ! inside locale -a 2>/dev/null | grep -qix "$(echo "$code" | sed 's/UTF-8/utf8/')"; then
                step "unknown language '$code'" inside localedef -i "${code%%.*}" -f "${code#*.}" "$code"
            fi
            grep -qx "$code UTF-8" "$TARGET/etc/locale.gen" 2>/dev/null || echo "$code UTF-8" >>"$TARGET/etc/locale.gen" ;;
    esac
    echo "LANG=$code" >"$TARGET/etc/default/locale"
    ln -sf default/locale "$TARGET/etc/locale.conf"
    printf 'XKBMODEL="pc105"\nXKBLAYOUT="%s"\nXKBVARIANT=""\nXKBOPTIONS=""\nBACKSPACE="guess"\n' \
        "${KS_keyboard:-us}" >"$TARGET/etc/default/keyboard"
}

# Servers of systemd-timesyncd, which the image may not have.
set_time() {
    local unit=systemd-timesyncd.service
    [ -n "$KS_ntp$KS_ntp_off" ] || return 0
    if [ ! -e "$TARGET/lib/systemd/system/$unit" ]; then
        [ -z "$KS_ntp" ] || say "note: no systemd-timesyncd in the image, so the time servers are ignored"
        return 0
    fi
    [ -z "$KS_ntp_off" ] || step "disabling $unit" inside systemctl disable "$unit"
    [ -n "$KS_ntp" ] || return 0
    mkdir -p "$TARGET/etc/systemd/timesyncd.conf.d"
    printf '[Time]\nNTP=%s\n' "$KS_ntp" >"$TARGET/etc/systemd/timesyncd.conf.d/goldimg.conf"
}

set_password() { # user mode value: never in a process list, never in the log
    case $2 in
        hash) printf '%s:%s\n' "$1" "$3" | inside chpasswd -e ;;
        plain) printf '%s:%s\n' "$1" "$3" | inside chpasswd -c SHA512 ;;
    esac || fail "the password of $1 was refused"
}

set_accounts() {
    local name groups mode shell lock uid comment group home key
    case ${KS_rootpw_mode:-lock} in
        lock) printf 'root:*\n' | inside chpasswd -e ;;
        *) set_password root "$KS_rootpw_mode" "$KS_rootpw" ;;
    esac
    while IFS='|' read -r name groups mode shell lock uid comment; do
        if ! grep -q "^$name:" "$TARGET/etc/passwd"; then
            step "user $name" inside useradd -m -s "${shell:-/bin/bash}" ${uid:+-u "$uid"} -c "$comment" "$name"
        fi
        for group in $groups; do
            grep -q "^$group:" "$TARGET/etc/group" || step "group $group" inside groupadd "$group"
            step "group $group of $name" inside usermod -aG "$group" "$name"
        done
        [ "$mode" = none ] || set_password "$name" "$mode" "$(cat "$KS/password.$name")"
        [ -z "$lock" ] || step "locking $name" inside passwd -l "$name"
    done <"$KS/users"
    while IFS='|' read -r name key; do
        home=$(sed -n "s#^$name:[^:]*:[^:]*:[^:]*:[^:]*:\([^:]*\):.*#\1#p" "$TARGET/etc/passwd")
        [ -n "$home" ] || fail "sshkey: there is no user '$name'"
        inside mkdir -p -m 0700 "$home/.ssh"
        echo "$key" >>"$TARGET$home/.ssh/authorized_keys"
        inside chmod 0600 "$home/.ssh/authorized_keys"
        inside chown -R "$name:" "$home/.ssh"
    done <"$KS/sshkeys"
}

# 'url --proxy' is for everything, 'repo --proxy' for that repository's host:
# https://manpages.debian.org/bookworm/apt/apt-transport-http.1.en.html
write_proxies() {
    local name url proxy host
    [ -z "$KS_proxy" ] || printf 'Acquire::http::Proxy "%s";\nAcquire::https::Proxy "%s";\n' "$KS_proxy" "$KS_proxy"
    while IFS='|' read -r name url proxy; do
        host=${url#*://}
        host=${host%%[/:]*}
        [ -z "$proxy" ] || printf 'Acquire::%s::Proxy::%s "%s";\n' "${url%%:*}" "$host" "$proxy"
    done <"$KS/repos"
}

# The image names the mirrors it was made from; 'url' and 'repo --name=security' replace them.
set_sources() {
    local name url list=$TARGET/etc/apt/sources.list
    write_proxies >"$KS/proxies"
    [ ! -s "$KS/proxies" ] || cp "$KS/proxies" "$TARGET/etc/apt/apt.conf.d/90goldimg-proxy"
    if [ -n "$KS_url" ]; then
        sed -i "/-security /!s#^\(deb \(\[[^]]*\] \)\?\)[^ ]*#\1${KS_url%/}#" "$list"
    fi
    while IFS='|' read -r name url _; do
        if [ "$name" = security ]; then
            sed -i "/-security /s#^\(deb \(\[[^]]*\] \)\?\)[^ ]*#\1${url%/}#" "$list"
        else
            say "repo '$name' is ignored: only 'security' is understood"
        fi
    done <"$KS/repos"
}

set_packages() {
    local line name add="" remove=""
    while IFS= read -r line; do
        name=${line#?}
        if inside dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii'; then
            case $line in -*) remove="$remove $name" ;; esac
        else
            case $line in +*) add="$add $name" ;; esac
        fi
    done <"$KS/packages"
    # shellcheck disable=SC2086
    if [ -n "$add" ]; then
        say "installing$add"
        step "apt-get update" inside apt-get -q update
        step "installing$add" inside apt-get -q -y install --no-install-recommends $add
        inside apt-get -q clean >>"$LOG" 2>&1
        rm -rf "$TARGET"/var/lib/apt/lists/*
    fi
    # shellcheck disable=SC2086
    if [ -n "$remove" ]; then
        say "removing$remove"
        step "removing$remove" inside apt-get -q -y purge $remove
    fi
}

set_services() {
    local verb unit
    while IFS='|' read -r verb unit; do
        step "services --${verb}d=$unit" inside systemctl "$verb" "$unit"
    done <"$KS/services"
}

# The same arguments in /etc/default/grub and in grub.cfg: update-grub in the image changes nothing.
write_grub_defaults() {
    cat >"$TARGET/etc/default/grub" <<EOF
GRUB_DEFAULT=0
GRUB_TIMEOUT=${KS_timeout:-1}
GRUB_RECORDFAIL_TIMEOUT=${KS_timeout:-1}
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="$1"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
GRUB_DISABLE_SUBMENU=true
EOF
}

# As short as GRUB allows: a generated one costs seconds of module loading at every emulated boot.
write_grub_config() { # directory of the kernel as GRUB sees it, root=, arguments
    local kernel release
    kernel=$(find "$TARGET/boot" -maxdepth 1 -name 'vmlinuz-*' | sort | tail -n 1)
    release=${kernel##*/vmlinuz-}
    cat >"$TARGET/boot/grub/grub.cfg" <<EOF
# Written by the installer; 'update-grub' replaces it.
set default=0
set timeout=${KS_timeout:-1}
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
menuentry 'Debian GNU/Linux' --class debian --class os {
	linux	$1/vmlinuz-$release root=$2 ro $3
	initrd	$1/initrd.img-$release
}
EOF
}

set_bootloader() {
    local arguments="$KS_append" fs device mount options root prefix=/boot
    device=$(awk -F '|' '$3 == "/" { print $2 }' "$KS/volumes")
    case $device in /dev/mapper/*) root=$device ;; *) root=UUID=$(uuid_of "$device") ;; esac
    ! grep -q '|/boot|' "$KS/volumes" || prefix=""
    mkdir -p "$TARGET/boot/grub"
    write_grub_defaults "$arguments"
    if [ "$FIRMWARE" = bios ]; then
        step "grub-install" inside grub-install --target=i386-pc --no-floppy "/dev/$DISK"
    fi
    if grep -q '|/boot/efi|' "$KS/volumes"; then
        # also to the removable-media path: an image has no boot variables of its own
        step "grub-install for UEFI" inside grub-install --target=x86_64-efi --no-nvram \
            --uefi-secure-boot --force-extra-removable --efi-directory=/boot/efi
    fi
    write_grub_config "$prefix" "$root" "$arguments"
}
