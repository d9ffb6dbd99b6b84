#!/bin/sh
# Says what a booted image is like, in one connection: a line "@name" before each answer.
# shellcheck disable=SC2016,SC2317
set -u
fact() {
    echo "@$1"
    shift
    "$@" 2>&1
}
sockets() { ss -H -tulnp | awk '{ print $1, $5, $7 }'; }
leftovers() {
    find /root /tmp /var/tmp /var/lib/apt/lists /var/backups -mindepth 1 -type f
    find /var/cache/apt /var/lib/dhcp /var/lib/waagent /home/*/.bash_history -type f 2>/dev/null
    find / -xdev -name '*.goldimg*' -o -xdev -name '.goldimg-*' -o -xdev -name 'ansible_*' -type d
}
drivers() { lsinitramfs /initrd.img 2>/dev/null || lsinitramfs "/boot/initrd.img-$(uname -r)"; }
names() { drivers | sed -n 's|.*/\([^/]*\)[.]ko.*|\1|p' | tr - _; }
builtin() { sed -n 's|.*/\([^/]*\)[.]ko.*|\1|p' "/lib/modules/$(uname -r)/modules.builtin" | tr - _; }
kernel_has() { find "/lib/modules/$(uname -r)" -name '*.ko*' | sed -n 's|.*/\([^/]*\)[.]ko.*|\1|p' | tr - _; }
mount_of() { df --output=source,size / | tail -n 1; }
disk_size() { lsblk -bdno SIZE "$(lsblk -pno PKNAME "$(findmnt -no SOURCE /boot || findmnt -no SOURCE /)" | head -n 1)"; }

fact hostname hostname
fact machine_id cat /etc/machine-id
fact host_keys cat /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_ecdsa_key.pub
fact cmdline cat /proc/cmdline
fact consoles cat /sys/class/tty/console/active
fact packages dpkg-query -W -f '${Package}\n'
fact root_hash awk -F: '$1 == "root" { print $2 }' /etc/shadow
fact root_disk mount_of
fact disk_size disk_size
fact free_extents sh -c 'command -v vgs >/dev/null && vgs --noheadings -o vg_free_count || echo 0'
fact swap swapon --noheadings --show=NAME
fact sockets sockets
fact failed systemctl --failed --no-legend
fact leftovers leftovers
fact initramfs names
fact builtin builtin
fact kernel kernel_has
fact mtu cat /sys/class/net/eth0/mtu
fact routes ip route
fact used du -sxm --exclude=/proc --exclude=/sys --exclude=/run --exclude=/dev /
fact enabled systemctl list-unit-files --state=enabled --no-legend --plain
fact sysctl sysctl kernel.panic net.ipv4.tcp_rfc1337 net.ipv4.conf.all.rp_filter
fact sshd sshd -T
fact timesync cat /etc/systemd/timesyncd.conf.d/90-goldimg.conf
fact fstab cat /etc/fstab
fact mark awk 1 /etc/goldimg-mark /etc/goldimg-script
fact rebooted cat /etc/goldimg-rebooted
fact waagent cat /etc/waagent.conf
fact users getent passwd tester vagrant
fact root_keys cat /root/.ssh/authorized_keys
fact secret grep -rls Xq7-real-test /etc /var/log /root /var/lib/cloud
