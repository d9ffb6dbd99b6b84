# shellcheck shell=dash disable=SC2034
# What the installer says, to whom, and how it stops.
LOG=${LOG:-/tmp/install.log}
REPORT=""
# reports in a row that nobody took
UNHEARD=0
SYSLOG=""
: >"$LOG"

# A line on every console: a person may look at the screen, a program at the serial port.
say() {
    local console active uptime
    read -r uptime _ </proc/uptime
    echo "[$uptime] $*" >>"$LOG"
    read -r active </sys/class/tty/console/active
    for console in $active; do echo "goldimg [$uptime] $*" >"/dev/$console"; done
}

# Sends one report with the end of the log. 5 seconds at most: busybox's own wget -T crashes.
send() {
    timeout 5 wget -q -O /dev/null --post-data "$2" "$REPORT/$1" >/dev/null 2>&1
}

# Tells the server which stage is reached. It never stops an install, and hardly slows one that
# nobody listens to: after two reports in vain the next ones are not sent.
report() {
    [ -n "$REPORT" ] && [ "$UNHEARD" -lt 2 ] || return 0
    if send "$1" "$(tail -n 20 "$LOG")"; then UNHEARD=0; else UNHEARD=$((UNHEARD + 1)); fi
}

# The report that ends an install is worth waiting for, where somebody listened before.
report_last() { # stage, why
    local body tries=1
    [ -n "$REPORT" ] || return 0
    body="${2:+$2
}$(tail -n 20 "$LOG")"
    [ "$UNHEARD" -gt 0 ] || tries=5
    until send "$1" "$body"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 0
        sleep 2
    done
}

# inst.syslog=HOST[:PORT]: every line of the log goes there too (RFC 3164, local0.info, UDP 514).
start_syslog() {
    local target
    target=$(parameter inst.syslog)
    [ -n "$target" ] || return 0
    syslogd -n -t -R "$target" &
    sleep 0.2
    tail -n +1 -f "$LOG" | logger -t goldimg -p local0.info &
    SYSLOG=$target
    say "the log goes to $target too"
}

# tail looks once a second
flush_syslog() { [ -z "$SYSLOG" ] || sleep 1.5; }

# Says why, tells the build, and stays: a reboot would start the same install again, and a
# powered-off machine shows nobody what happened.
fail() {
    trap - INT TERM
    report_last failed "$*"
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
