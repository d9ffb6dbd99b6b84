# shellcheck shell=dash
# What the installer says, to whom, and how it stops.
LOG=/tmp/install.log
REPORT=""
: >"$LOG"

# A line on every console: a person may look at the screen, a program at the serial port.
say() {
    local console uptime
    read -r uptime _ </proc/uptime
    echo "[$uptime] $*" >>"$LOG"
    for console in $(cat /sys/class/tty/console/active 2>/dev/null); do
        echo "goldimg [$uptime] $*" >"/dev/$console"
    done
}

# Tells the build which stage is reached. It never stops an install.
report() {
    [ -n "$REPORT" ] || return 0
    wget -q -T 5 -O /dev/null --post-data "${2:-}" "$REPORT/$1" >/dev/null 2>&1 || true
}

# Says why, tells the build, and stays: a reboot would start the same install again, and a
# powered-off machine shows nobody what happened.
fail() {
    trap - INT TERM
    say "ERROR: $*"
    report failed "$* 
$(tail -n 20 "$LOG")"
    say "the installation has stopped"
    sync
    while :; do sleep 3600; done
}

# Runs a step of the install; its output goes to the log, its failure ends the install.
step() {
    local what=$1
    shift
    "$@" >>"$LOG" 2>&1 </dev/null || {
        tail -n 8 "$LOG" | while IFS= read -r line; do say "  $line"; done
        fail "$what"
    }
}
