#!/bin/sh
# Runs a command where VMware seems to be installed and its NAT network is up, in namespaces of its
# own: nothing of this host changes. Packer looks for VMware in /etc/vmware and /usr/lib/vmware.
# namespace.sh BIN SCRATCH COMMAND...   (started by 'unshare --mount --net')
set -eu
bin=$1
scratch=$2
shift 2
ip link set lo up
ip link add vmnet8 type bridge
ip address add 192.168.77.1/24 dev vmnet8
ip link set vmnet8 up
over() { # what is written below $1 stays in the scratch directory
    mkdir -p "$scratch$1.upper" "$scratch$1.work"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$scratch$1.upper,workdir=$scratch$1.work" "$1"
}
over /etc
over /usr/lib
mkdir -p /etc/vmware/vmnet8/dhcpd /usr/lib/vmware/bin
touch /etc/vmware/license-ws-170-e1-202012 /etc/vmware/vmnet8/dhcpd/dhcpd.leases
cat >/etc/vmware/netmap.conf <<MAP
network8.name = "NAT"
network8.device = "vmnet8"
MAP
cat >/etc/vmware/vmnet8/dhcpd/dhcpd.conf <<CONF
subnet 192.168.77.0 netmask 255.255.255.0 {
	range 192.168.77.128 192.168.77.254;
}
host vmnet8 {
	hardware ethernet 00:50:56:c0:00:08;
	fixed-address 192.168.77.1;
}
CONF
cp "$bin/vmware-vmx" /usr/lib/vmware/bin/vmware-vmx
exec "$@"
