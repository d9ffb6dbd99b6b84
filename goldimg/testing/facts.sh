#!/bin/sh
# Says what a machine or a container is like, in one go: a line "@name" before each answer.
# Debian and EL, POSIX sh. No answer is needed: what a system lacks stays empty.
# shellcheck disable=SC2317
set -u
kind=$1
fact() {
    echo "@$1"
    shift
    "$@" 2>&1
}
has() { command -v "$1" >/dev/null 2>&1; }
started() {
    if has systemctl; then timeout 240 systemctl is-system-running --wait; fi
}
# what cloud-init writes last; its own `status --wait` is Python, which starts slowly
cloud_init() {
    has cloud-init || return
    tries=0
    while [ ! -e /run/cloud-init/result.json ] && [ "$tries" -lt 300 ]; do
        [ ! -e /run/cloud-init/disabled ] || return
        tries=$((tries + 1))
        sleep 1
    done
    cat /run/cloud-init/result.json
}
cloud_errors() {
    if has cloud-init; then grep -h -E '\[(CRITICAL|ERROR)\]' /var/log/cloud-init.log; fi
}
failed() { if has systemctl; then systemctl --failed --no-legend --plain; fi; }
# seconds since the epoch
booted() { awk '$1 == "btime" { print $2 }' /proc/stat; }
# "<seconds> <size> <name>" of what has to be this machine's own
identity() { stat -L -c '%Y %s %n' /etc/machine-id /etc/ssh/ssh_host_*_key; }
root_source() { findmnt -n -o SOURCE /; }
# bytes: of the disk, up to the end of its last partition, of root's device, of its file system
room() {
    disk=$(lsblk -n -p -s -l -o NAME,TYPE "$(root_source)" | awk '$2 == "disk" { print $1; exit }')
    name=${disk#/dev/}
    size=$(($(cat "/sys/class/block/$name/size") * 512))
    end=0
    for part in "/sys/class/block/$name/$name"*; do
        [ -e "$part/start" ] || continue
        last=$((($(cat "$part/start") + $(cat "$part/size")) * 512))
        [ "$last" -le "$end" ] || end=$last
    done
    echo "$size $end $(lsblk -n -b -d -o SIZE "$(root_source)") $(df -B1 --output=size / | tail -n 1)"
}
free_extents() { if has vgs; then vgs --noheadings --units b --nosuffix -o vg_free; fi; }
packages() {
    if has dpkg; then
        # without the caches that it would leave for whoever looks next
        dpkg --audit &&
            apt-get -qq -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= check && echo fine
    elif has rpm; then
        rpm -q rpm >/dev/null && rpm -V rpm glibc bash && echo fine
    fi
}
# Files of the build, of its tools and of an installer, that no image is to have.
leftovers() {
    for path in /var/log/installer /var/log/anaconda /root/anaconda-ks.cfg /root/original-ks.cfg \
        /root/initial-setup-ks.cfg /root/install.log /root/install.log.syslog /root/.ansible \
        /root/.bash_history /home/*/.bash_history /home/*/.ansible /var/log/goldimg-install.log; do
        [ ! -e "$path" ] || echo "$path"
    done
    # what this start itself has put there is no leftover
    set -- ! -name 'systemd-private-*' ! -name '.*-unix'
    [ "$kind" != machine ] || set -- "$@" ! -newermt "@$(booted)"
    find /tmp /var/tmp -mindepth 1 -maxdepth 1 "$@"
    find /root /home /opt /srv /usr/local /etc -xdev \( -name '.goldimg-*' -o -name '*.goldimg.part' \
        -o -name 'packer*.sh' -o -name 'ansible_*' \)
}
# accounts that a password opens
passwords() { awk -F: '$2 ~ /^[$]/ || $2 == "" { print $1 }' /etc/shadow; }

if [ "$kind" = machine ]; then
    fact cloud_init cloud_init
    fact cloud_errors cloud_errors
    fact started started
    fact failed failed
    fact hostname hostname
    fact room room
    fact free_extents free_extents
    fact booted booted
    fact user id -un "${SUDO_USER:-root}"
fi
fact identity identity
fact packages packages
fact leftovers leftovers
fact passwords passwords
fact release cat /etc/os-release
