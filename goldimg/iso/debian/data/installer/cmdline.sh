# shellcheck shell=dash disable=SC2034
# What the kernel's command line says, and small words that every part uses.
CMDLINE=${CMDLINE:-/proc/cmdline}
SYS=${SYS:-/sys}

# Every value of a parameter, one a line, in order.
parameters() {
    tr -s ' ' '\n' <"$CMDLINE" | sed -n "s/^$1=//p"
}

# The last one wins, as everywhere in the kernel.
parameter() { parameters "$1" | tail -n 1; }

has_flag() { tr -s ' ' '\n' <"$CMDLINE" | grep -qx -e "$1" -e "$1=1"; }

has_word() {
    case " $2 " in *" $1 "*) return 0 ;; esac
    return 1
}

# The path of a URL may hold a token: only the server is shown.
place_of() { echo "$1" | sed 's|^\([a-z]*:/*[^/]*\).*|\1|; s|//[^/]*@|//|'; }

mac_of() { cat "$SYS/class/net/$1/address" 2>/dev/null; }
