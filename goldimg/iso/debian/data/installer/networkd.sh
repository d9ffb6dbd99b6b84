# shellcheck shell=dash disable=SC2154
# The network of the installed system: files of systemd-networkd, out of the 'network' lines.
#
# The n-th line's file is <n*10>-goldimg.network (10, 20, ...); a drop-in below its .network.d may
# add to it. Beside it: .netdev of a bond or VLAN, and one file for each card below those.

prefix_of() { # 255.255.255.0 -> 24
    local bits=0 octet
    for octet in $(echo "$1" | tr . ' '); do
        while [ "$octet" -gt 0 ]; do
            bits=$((bits + octet % 2))
            octet=$((octet / 2))
        done
    done
    echo "$bits"
}

# A card by name, or by its own address: a bond and a VLAN take their card's over.
match_card() {
    case $1 in
        ??:??:??:??:??:??) printf '[Match]\nPermanentMACAddress=%s\n' "$1" ;;
        *) printf '[Match]\nName=%s\n' "$1" ;;
    esac
}

# A card's name changes with the hypervisor's bus: where there is one line, only a static address is
# bound to a name.
match_line() { # protocol, device, number of lines
    case $2 in
        link | bootif | "") ;;
        ??:??:??:??:??:?? | bond* | team*) match_card "$2"; return ;;
        *) if [ "$1" = static ] || [ "$3" != 1 ]; then match_card "$2"; return; fi ;;
    esac
    printf '[Match]\nName=en* eth*\n'
    # a VLAN's name may begin with its card's
    [ "$3" = 1 ] || echo 'Type=ether'
}

address_settings() {
    local dhcp="" server
    [ "$proto" != dhcp ] || [ -n "$noipv4" ] || dhcp=ipv4
    case $dhcp-$ipv6-$noipv6 in
        ipv4--) dhcp=yes ;;
        ipv4-dhcp-) dhcp=yes ;;
        -dhcp-) dhcp=ipv6 ;;
    esac
    [ -z "$dhcp" ] || echo "DHCP=$dhcp"
    [ -z "$ip" ] || echo "Address=$ip/$(prefix_of "$netmask")"
    [ -z "$gateway" ] || echo "Gateway=$gateway"
    case $ipv6 in
        auto | dhcp) echo 'IPv6AcceptRA=yes' ;;
        */*) printf 'Address=%s\nIPv6AcceptRA=no\n' "$ipv6" ;;
    esac
    [ -z "$gateway6" ] || echo "Gateway=$gateway6"
    for server in $servers; do echo "DNS=$server"; done
    [ -z "$noipv6" ] || printf 'IPv6AcceptRA=no\nLinkLocalAddressing=no\n'
}

# bonding's word=value -> a line of [Bond], as systemd.netdev(5) spells it; times there have units.
bond_setting() {
    local value=${1#*=}
    case $1 in
        mode=[0-6])
            set -- balance-rr active-backup balance-xor broadcast 802.3ad balance-tlb balance-alb
            shift "$value"
            echo "Mode=$1" ;;
        mode=*) echo "Mode=$value" ;;
        miimon=*) echo "MIIMonitorSec=${value}ms" ;;
        updelay=*) echo "UpDelaySec=${value}ms" ;;
        downdelay=*) echo "DownDelaySec=${value}ms" ;;
        arp_interval=*) echo "ARPIntervalSec=${value}ms" ;;
        arp_ip_target=*) echo "ARPIPTargets=$(echo "$value" | tr , ' ')" ;;
        lacp_rate=[1f]*) echo 'LACPTransmitRate=fast' ;;
        lacp_rate=*) echo 'LACPTransmitRate=slow' ;;
        xmit_hash_policy=*) echo "TransmitHashPolicy=$value" ;;
        fail_over_mac=*) echo "FailOverMACPolicy=$value" ;;
        ad_select=*) echo "AdSelect=$value" ;;
        min_links=*) echo "MinLinks=$value" ;;
    esac
}

# A bond has its first member's address, as on EL, so that a lease can be reserved for it: neither
# networkd nor udev (99-default.link) may give it one made from the machine-id; systemd.netdev(5).
write_bond() { # file without its end; the line's values are the caller's
    local option member primary=""
    printf '[Match]\nOriginalName=%s\n\n[Link]\nNamePolicy=keep kernel\nMACAddressPolicy=none\n' \
        "$device" >"$1.link"
    {
        printf '[NetDev]\nName=%s\nKind=bond\nMACAddress=none\n' "$device"
        [ -z "$mtu" ] || echo "MTUBytes=$mtu"
        printf '\n[Bond]\n'
        for option in $bondopts; do bond_setting "$option"; done
    } >"$1.netdev"
    for option in $bondopts; do
        case $option in primary=*) primary=${option#*=} ;; esac
    done
    for member in $members; do
        {
            match_card "$member"
            printf '\n[Network]\nBond=%s\n' "$device"
            [ "$member" != "$primary" ] || echo 'PrimarySlave=yes'
        } >"$1-$(echo "$member" | tr -d :).network"
    done
}

# The card below a VLAN names the VLAN: in a drop-in where the card has a line of its own.
write_vlan() { # file without its end, directory
    local own below
    {
        printf '[NetDev]\nName=%s\nKind=vlan\n' "$interface"
        [ -z "$mtu" ] || echo "MTUBytes=$mtu"
        printf '\n[VLAN]\nId=%s\n' "$vlan"
    } >"$1.netdev"
    own=$(awk -F '|' -v d="$device" '$2 == d && $13 == "" { print NR * 10; exit }' "$KS/networks")
    if [ -n "$own" ]; then
        mkdir -p "$2/$own-goldimg.network.d"
        printf '[Network]\nVLAN=%s\n' "$interface" >"$2/$own-goldimg.network.d/$interface.conf"
        return
    fi
    below=$2/05-goldimg-$(echo "$device" | tr -d :).network
    [ -e "$below" ] || {
        match_card "$device"
        [ -z "$mtu" ] || printf '\n[Link]\nMTUBytes=%s\n' "$mtu"
        printf '\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n'
    } >"$below"
    echo "VLAN=$interface" >>"$below"
}

write_interface() { # number of lines
    if [ -n "$interface" ]; then match_card "$interface"; else match_line "$proto" "$device" "$1"; fi
    [ -z "$mtu" ] || printf '\n[Link]\nMTUBytes=%s\n' "$mtu"
    printf '\n[Network]\n'
    address_settings
    # The machine-id differs at each first boot; a lease should follow the card.
    [ "$proto" != dhcp ] || [ -n "$noipv4" ] || printf '\n[DHCPv4]\nClientIdentifier=mac\n'
}

# DHCP on whatever card where there is no line.
set_network() {
    local number=0 lines proto device ip netmask gateway servers noipv6 onboot noipv4 ipv6 gateway6 \
        mtu vlan interface members bondopts directory=$TARGET/etc/systemd/network
    [ -s "$KS/networks" ] || echo 'dhcp||||||||||||||||' >"$KS/networks"
    lines=$(wc -l <"$KS/networks")
    while IFS='|' read -r proto device ip netmask gateway servers noipv6 onboot noipv4 ipv6 gateway6 \
        mtu vlan interface members bondopts _; do
        number=$((number + 10))
        case $onboot in no | off | 0) continue ;; esac
        [ -z "$members" ] || write_bond "$directory/$number-goldimg"
        # a bond and a VLAN in one line: each has a .netdev
        [ -z "$vlan" ] || write_vlan "$directory/$number-goldimg${members:+-vlan}" "$directory"
        write_interface "$lines" >"$directory/$number-goldimg.network"
    done <"$KS/networks"
}
