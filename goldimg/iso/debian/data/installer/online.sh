# shellcheck shell=dash disable=SC2154
# The network of the installer itself, as dracut.cmdline(7) has it: ip=, BOOTIF=, nameserver=, vlan=
# and bond=. IPv4 only. What is given and not understood stops the install.
RESOLV=${RESOLV:-/etc/resolv.conf}

# Links only: /sys/class/net/bonding_masters is a file.
cards_here() { find "$SYS/class/net" -mindepth 1 -maxdepth 1 -type l ! -name lo | sed 's|.*/||' | sort; }

describe_cards() {
    local card said=""
    for card in $CARDS; do said="$said, $card ($(mac_of "$card"))"; done
    echo "${said#, }"
}

wait_for_cards() {
    local tries=0
    CARDS=$(cards_here)
    while [ -z "$CARDS" ] && [ "$tries" -lt 20 ]; do
        sleep 0.5
        CARDS=$(cards_here)
        tries=$((tries + 1))
    done
    [ -n "$CARDS" ] || fail "no network card that the kernel has a driver for"
}

card_with_mac() {
    local card wanted
    wanted=$(echo "$1" | tr 'A-F-' 'a-f:')
    for card in $CARDS; do
        [ "$(mac_of "$card")" != "$wanted" ] || { echo "$card"; return; }
    done
}

# PXE names the card it booted from: BOOTIF=01-52-54-00-12-34-56 (01: Ethernet).
boot_card() {
    local mac
    mac=$(parameter BOOTIF)
    [ -z "$mac" ] || card_with_mac "${mac#01-}"
}

# Sets CARD to the card that `$1` means: a name, a MAC address with dashes, or nothing. Names like
# enp1s0 are udev's; here the kernel's own are in use, so such a name can only mean the boot card
# or the only card there is.
choose_card() {
    CARD=""
    case $1 in
        ??-??-??-??-??-??) CARD=$(card_with_mac "$1") ;;
        "") CARD=$(boot_card); [ -n "$CARD" ] || CARD=$(echo "$CARDS" | head -n 1) ;;
        *)
            if [ -e "$SYS/class/net/$1" ]; then CARD=$1; return; fi
            CARD=$(boot_card)
            [ -n "$CARD" ] || [ "$(echo "$CARDS" | wc -l)" != 1 ] || CARD=$CARDS
            [ -z "$CARD" ] || say "'$1' is taken to be $CARD" ;;
    esac
    [ -n "$CARD" ] || fail "no network card '$1'; there is: $(describe_cards)"
}

# bond=NAME[:MEMBERS[:OPTIONS[:MTU]]]: members and options are separated by commas.
make_bond() {
    local name members options mtu word
    IFS=: read -r name members options mtu <<EOF
$1
EOF
    modprobe -q bonding max_bonds=0
    { echo "+$name" >"$SYS/class/net/bonding_masters"; } 2>>"$LOG" || fail "bond=$1: the kernel makes no $name"
    # the mode first: the others depend on it, and so do the members
    for word in $(echo "${options:-mode=balance-rr}" | tr , '\n' | sort -t = -k 1,1 | sed -n '/^mode=/p') \
        $(echo "$options" | tr , '\n' | sed '/^mode=/d'); do
        { echo "${word#*=}" >"$SYS/class/net/$name/bonding/${word%%=*}"; } 2>>"$LOG" ||
            fail "bond=$1: '$word' was refused"
    done
    for word in $(echo "$members" | tr , ' '); do
        choose_card "$word"
        ip link set "$CARD" down
        { echo "+$CARD" >"$SYS/class/net/$name/bonding/slaves"; } 2>>"$LOG" || fail "bond=$1: $CARD was refused"
    done
    [ -z "$mtu" ] || ip link set "$name" mtu "$mtu"
    ip link set "$name" up
    MADE="$MADE $name"
}

# vlan=NAME:PARENT; the number at the end of the name is the VLAN's.
make_vlan() {
    local name=${1%%:*} parent=${1#*:} number
    number=$(echo "$name" | sed 's/.*[^0-9]//')
    case $1-$number in *:*-[0-9]*) ;; *) fail "vlan=$1: not vlan=NAME:DEVICE with a number at the name's end" ;; esac
    modprobe -q 8021q
    choose_card "$parent"
    ip link add link "$CARD" name "$name" type vlan id "$number" 2>>"$LOG" || fail "vlan=$1 was refused"
    ip link set "$name" up
    MADE="$MADE $name"
}

# ADDRESS::GATEWAY:NETMASK:HOST:DEVICE:none[:MTU] or [:DNS1[:DNS2]]
set_static() {
    local address gateway netmask device method first second
    IFS=: read -r address _ gateway netmask _ device method first second <<EOF
$1
EOF
    case $method in none | off | static | "") ;; *) fail "ip=$1: unsupported method '$method'" ;; esac
    [ -n "$netmask" ] || fail "ip=$1 has no netmask"
    choose_card "$device"
    ip addr add "$address/$netmask" dev "$CARD" 2>>"$LOG" || fail "ip=$1 was refused"
    ip link set "$CARD" up
    [ -z "$gateway" ] || ip route add default via "$gateway" dev "$CARD" 2>>"$LOG" ||
        fail "ip=$1: the gateway $gateway was refused"
    case $first in
        *.*) printf 'nameserver %s\n' "$first" ${second:+"$second"} >>"$RESOLV" ;;
        [0-9]*) ip link set "$CARD" mtu "$first" ;;
    esac
}

# The first of the cards that gets an answer.
ask_dhcp() {
    local card
    for card in "$@"; do
        if udhcpc -q -f -n -t 8 -T 1 -i "$card" -s /installer/lease.sh >>"$LOG" 2>&1; then
            say "address by DHCP on $card"
            return
        fi
    done
    fail "no DHCP answer on: $*"
}

# Which cards DHCP is tried on where none is named.
dhcp_cards() {
    local card
    card=$(boot_card)
    if [ -n "$MADE" ]; then echo "$MADE"; elif [ -n "$card" ]; then echo "$card"; else echo "$CARDS"; fi
}

set_address() {
    # shellcheck disable=SC2046
    case $1 in
        *\[*) fail "ip=$1: the installer itself understands IPv4 only" ;;
        dhcp | on | any) ask_dhcp $(dhcp_cards) ;;
        *.*.*.*:*) set_static "$1" ;;
        *:dhcp | *:on | *:any) choose_card "${1%:*}"; ask_dhcp "$CARD" ;;
        *:dhcp:[0-9]*) choose_card "${1%%:*}"; ip link set "$CARD" mtu "${1##*:}"; ask_dhcp "$CARD" ;;
        *:none | *:off | none | off) ;;
        *) fail "ip=$1 is not understood (dhcp, DEVICE:dhcp, or ADDRESS::GATEWAY:NETMASK::DEVICE:none)" ;;
    esac
}

network_up() {
    local word
    MADE=""
    wait_for_cards
    [ -z "$(parameter BOOTIF)" ] || [ -n "$(boot_card)" ] ||
        say "no card has BOOTIF's address $(parameter BOOTIF); there is: $(describe_cards)"
    ip link set lo up
    for word in $(parameters bond); do make_bond "$word"; done
    for word in $CARDS; do ip link set "$word" up 2>/dev/null; done
    for word in $(parameters vlan); do make_vlan "$word"; done
    : >"$RESOLV"
    word=$(parameters ip)
    for word in ${word:-dhcp}; do set_address "$word"; done
    word=$(parameters nameserver | sed 's/^/nameserver /')
    [ -z "$word" ] || { echo "$word"; cat "$RESOLV"; } >"$RESOLV.new"
    [ -z "$word" ] || mv "$RESOLV.new" "$RESOLV"
}
