# shellcheck shell=dash disable=SC2034
# What the installer says, to whom, and how it stops.
LOG=/tmp/install.log
REPORT=""
: >"$LOG"

# A line on every console: a person may look at the screen, a program at the serial port.
say() {
    local console active uptime
    read -r uptime _ </proc/uptime
    echo "[$uptime] $*" >>"$LOG"
    read -r active </sys/class/tty/console/active
    for console in $active; do echo "goldimg [$uptime] $*" >"/dev/$console"; done
}

# Tells the build which stage is reached. It never stops an install.
report() {
    [ -n "$REPORT" ] || return 0
    # busybox's own wget -T crashes
    timeout 5 wget -q -O /dev/null --post-data "${2:-}" "$REPORT/$1" >/dev/null 2>&1 || true
}

# Says why, tells the build, and stays: a reboot would start the same install again, and a
# powered-off machine shows nobody what happened.
fail() {
    trap - INT TERM
    report failed "$*
$(tail -n 30 "$LOG")"
    show_end_of "$LOG"
    say "ERROR: $*"
    say "the installation has stopped"
    sync
    while :; do sleep 3600; done
}

# Shows the last lines that a tool wrote. They are read first: say itself writes to the log.
show_end_of() {
    grep -v '^\[' "$1" | tail -n 8 >/tmp/shown
    while IFS= read -r shown; do say "  $shown"; done </tmp/shown
}

# Runs a step of the install; its output goes to the log, its failure ends the install.
step() {
    local what=$1
    shift
    "$@" >>"$LOG" 2>&1 </dev/null || fail "$what"
}
