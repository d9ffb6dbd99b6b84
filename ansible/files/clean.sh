# Removes what a machine gathers and an image must not have. Both OS families, POSIX sh:
#   sh -s base    what is big: the package manager's caches, temporary files
#   sh -s layer   also everything that tells this machine from others
# A missing file is no error.
set -u
stage=$1

caches() {
    if command -v apt-get >/dev/null; then apt-get clean; fi
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/yum/* /var/cache/dnf/*
    rm -rf /var/cache/ldconfig/aux-cache /var/cache/man/* /var/cache/debconf/*-old /var/lib/dpkg/*-old
    # what runs here right now has directories of its own, and removes them
    find /tmp /var/tmp -mindepth 1 -maxdepth 1 ! -name 'systemd-private-*' \
        ! -name 'ansible_mitogen_*' -exec rm -rf {} +
}

# Bytecode of Python modules that are gone, and the directories that only it kept.
bytecode() {
    place=/usr/lib/python3/dist-packages
    # builtins only, and one rm: a process takes 50 ms under emulation, and there are a hundred
    find "$place" -name __pycache__ -prune 2>/dev/null | while read -r cache; do
        set -- "${cache%/*}"/*.py
        [ -e "$1" ] || echo "$cache"
    done | xargs -r rm -rf
    for compiled in "$place"/__pycache__/*.pyc; do
        module=${compiled##*/}
        [ -e "$place/${module%%.*}.py" ] || echo "$compiled"
    done | xargs -r rm -f
    find "$place" -mindepth 1 -depth -type d -empty -delete 2>/dev/null
}

identity() {
    # Packer has to connect anew where a playbook of the site's has rebooted the machine: until the
    # power goes off sshd finds its keys in memory.
    cp -a /etc/ssh /run/goldimg-ssh 2>/dev/null
    rm -f /etc/ssh/ssh_host_*
    if [ -d /run/goldimg-ssh ]; then mount --bind /run/goldimg-ssh /etc/ssh; fi
    : >/etc/machine-id
    rm -f /var/lib/dbus/machine-id
    # saved at shutdown too, so the service is stopped first: https://systemd.io/BUILDING_IMAGES/
    systemctl stop systemd-random-seed.service 2>/dev/null
    rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /boot/efi/loader/random-seed
    rm -f /etc/udev/rules.d/70-persistent-net.rules /etc/iscsi/initiatorname.iscsi
    # a registered RHEL; what is registered anew gets an identity of its own
    if command -v subscription-manager >/dev/null; then subscription-manager clean >/dev/null; fi
    rm -rf /var/lib/rhsm/facts /var/lib/rhsm/productid.js /etc/insights-client/machine-id
}

network() {
    rm -f /var/lib/dhcp/*.lease* /var/lib/dhclient/* /var/lib/NetworkManager/*
    rm -rf /var/lib/systemd/network/* /var/lib/chrony/* /var/lib/tuned/*
    # the card of this machine, as EL's installer and cloud-init write it down
    rm -f /etc/NetworkManager/system-connections/cloud-init-*
    for file in /etc/sysconfig/network-scripts/ifcfg-*; do
        [ ! -f "$file" ] || sed -i '/^\(HWADDR\|UUID\|MACADDR\)=/d' "$file"
    done
    if [ ! -h /etc/resolv.conf ]; then : >/etc/resolv.conf; fi
}

state() {
    # what `cloud-init clean --logs --seed` removes, without starting Python
    rm -rf /var/lib/cloud/* /run/cloud-init
    rm -f /etc/network/interfaces.d/50-cloud-init* /etc/netplan/50-cloud-init.yaml
    rm -f /etc/systemd/network/10-cloud-init-* /etc/ssh/sshd_config.d/50-cloud-init.conf
    rm -rf /var/lib/systemd/timers/* /var/lib/systemd/coredump/* /var/lib/systemd/timesync/*
    rm -rf /var/lib/waagent /var/backups/*
    # copies of the account files, with the installer's password hash
    rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-
    rm -f /root/anaconda-ks.cfg /root/original-ks.cfg /root/initial-setup-ks.cfg
    rm -rf /root/install.log* /root/ks-* /root/cobbler.ks /root/.pki /root/.ansible_async
    # locks and indexes of the RPM database, which it makes again
    rm -f /var/lib/rpm/__db.*
}

people() {
    # a play without our ansible.cfg has its directory here and is still running
    [ -n "$(find /root/.ansible -name 'ansible*' 2>/dev/null)" ] || rm -rf /root/.ansible
    for home in /root /home/*; do
        rm -rf "$home"/.bash_history "$home"/.lesshst "$home"/.python_history "$home"/.viminfo \
            "$home"/.wget-hsts "$home"/.cache "$home"/.ssh/known_hosts*
    done
}

logs() {
    systemctl stop systemd-update-utmp.service 2>/dev/null
    journalctl --relinquish-var 2>/dev/null
    rm -rf /var/log/journal/* /var/log/anaconda /var/log/installer /var/log/rhsm /var/log/apt/*
    find /var/log -type f \( -name '*.gz' -o -name '*.xz' -o -name '*.old' -o -name '*.[0-9]' \
        -o -name 'cloud-init*' -o -name 'waagent*' -o -name 'goldimg-install.log' \) -exec rm -f {} +
    find /var/log -type f -size +0 -exec truncate -s 0 {} +
    # the shutdown is recorded after this
    mount --bind /dev/null /var/log/wtmp
}

# Files get SELinux's labels by their places. Where the kernel that runs now knows no SELinux (an
# installation with selinux=0) but the image's is to, the first boot does it: selinux(8).
labels() {
    command -v restorecon >/dev/null || return
    if selinuxenabled 2>/dev/null; then
        restorecon -RF /etc /root /home /usr/local /var/lib /var/log /boot 2>/dev/null
    elif grep -Eq '^SELINUX=(enforcing|permissive)' /etc/selinux/config 2>/dev/null; then
        : >/.autorelabel
    fi
}

caches
if [ "$stage" != base ]; then
    bytecode
    people
    state
    network
    identity
    labels
    logs
fi
# gives free blocks back to the disk; not every disk takes them
fstrim --all 2>/dev/null
sync
exit 0
