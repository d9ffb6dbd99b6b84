# shellcheck shell=dash disable=SC1091,SC2154
# The install itself, stage by stage. Sourced by init, after the kickstart was fetched.

parse_kickstart() {
    mkdir -p "$KS"
    if ! awk -v out="$KS" -f /installer/parse.awk /tmp/ks.cfg; then
        while IFS= read -r line; do say "kickstart, $line"; done <"$KS/errors"
        fail "the kickstart has $(wc -l <"$KS/errors") problem(s): $(head -n 1 "$KS/errors")"
    fi
    for name in append clear clear_drives disklabel final hostname ignored keyboard lang only_use \
        reqpart rootpw rootpw_mode timeout timezone url; do
        eval "KS_$name="
    done
    . "$KS/scalars.sh"
    while IFS= read -r line; do say "note: $line"; done <"$KS/notes"
}

# Runs the %pre or %post scripts, in order.
run_scripts() {
    local kind number line interpreter nochroot log erroronfail status
    while IFS='|' read -r kind number line interpreter nochroot log erroronfail; do
        [ "$kind" = "$1" ] || continue
        say "%$kind of line $line"
        status=0
        if [ "$kind" = pre ] || [ -n "$nochroot" ]; then
            "$interpreter" "$KS/script.$number" </dev/null >"$KS/output" 2>&1 || status=$?
            [ -z "$log" ] || { mkdir -p "$(dirname "$log")"; cp "$KS/output" "$log"; }
        else
            (umask 077; cp "$KS/script.$number" "$TARGET/root/.kickstart-script")
            inside "$interpreter" /root/.kickstart-script </dev/null >"$KS/output" 2>&1 || status=$?
            rm -f "$TARGET/root/.kickstart-script"
            [ -z "$log" ] || { mkdir -p "$TARGET$(dirname "$log")"; cp "$KS/output" "$TARGET$log"; }
        fi
        [ "$status" = 0 ] || {
            show_end_of "$KS/output"
            say "%$kind of line $line ended with exit code $status"
            [ -z "$erroronfail" ] || fail "%$kind of line $line failed (exit code $status)"
        }
    done <"$KS/scripts"
}

open_image() {
    step "opening the image" mount -t ext4 -o ro,loop,noload /medium/goldimg/root.img /src
    mount -o bind /proc /src/proc
    mount -o bind /sys /src/sys
    mount -o bind /dev /src/dev
    mount -t tmpfs run /src/run
    mount -t tmpfs tmp /src/tmp
    mount -o bind /medium/goldimg /src/media
}

finish() {
    cp "$LOG" "$TARGET/var/log/goldimg-install.log"
    leave_target
    unmount_all
    report "done"
    say "done: ${KS_final:-reboot}"
    case ${KS_final:-reboot} in
        halt) halt -f ;;
        poweroff) poweroff -f ;;
        *) reboot -f ;;
    esac
}

report started
parse_kickstart
umask 022
run_scripts pre
open_image
report partitioning
choose_disk
choose_label
clear_disk
make_partitions
say "writing the file systems"
make_filesystems
write_fstab
enter_target
report packages
say "configuring"
set_names
set_locale
set_network
set_sources
set_accounts
set_packages
set_services
report bootloader
say "installing the boot loader"
set_bootloader
report post
run_scripts post
finish
