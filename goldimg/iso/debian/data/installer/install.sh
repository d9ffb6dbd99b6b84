# shellcheck shell=dash disable=SC1091,SC2154
# The install itself, stage by stage. Sourced by init, after the kickstart was fetched.

# Reads the kickstart into the tables of $KS. Once for its problems, before any script runs; where
# a %pre writes files that it includes, once more with these.
parse_kickstart() { # "", or expand=1
    rm -rf "$KS"
    mkdir -p "$KS"
    if ! awk -v out="$KS" ${1:+-v "$1"} -f /installer/parse.awk -f /installer/commands.awk "$KICKSTART"; then
        while IFS= read -r line; do say "kickstart, $line"; done <"$KS/errors"
        fail "the kickstart has $(wc -l <"$KS/errors") problem(s): $(head -n 1 "$KS/errors")"
    fi
    for name in append boot_drive clear clear_drives disklabel eject final hostname ignored keyboard \
        lang ntp ntp_off only_use proxy reqpart rootpw rootpw_mode timeout timezone url; do
        eval "KS_$name="
    done
    . "$KS/scalars.sh"
}

show_notes() {
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
    [ -z "$REPO" ] || fetch_image
    step "opening the image" mount -t ext4 -o ro,loop,noload "$IMAGE" /src
    mount -o bind /proc /src/proc
    mount -o bind /sys /src/sys
    mount -o bind /dev /src/dev
    mount -t tmpfs run /src/run
    mount -t tmpfs tmp /src/tmp
    mount -o bind "${IMAGE%/*}" /src/media
}

# EJECT on the command line, or 'reboot --eject'. The kernel refuses while the disc is in use, so the
# image on it goes first; the tool is the installed system's.
eject_disc() {
    local place device=${medium_disk:-sr0}
    [ -n "$KS_eject" ] || has_flag EJECT || return 0
    case $device in sr*) ;; *) device=sr0 ;; esac
    [ -b "/dev/$device" ] || { say "no CD or DVD to eject"; return 0; }
    for place in media tmp run dev sys proc; do umount "/src/$place" 2>/dev/null; done
    umount /src 2>/dev/null
    umount /medium 2>/dev/null
    # CDROMEJECT of linux/cdrom.h; perl-base is essential, the package eject is not
    # shellcheck disable=SC2016
    if inside perl -MFcntl -e 'sysopen(my $disc, $ARGV[0], O_RDONLY | O_NONBLOCK) or die "$!\n";
        ioctl($disc, 0x5309, 0) or die "$!\n"' "/dev/$device" >>"$LOG" 2>&1; then
        say "ejected /dev/$device"
    else
        say "could not eject /dev/$device: $(tail -n 1 "$LOG")"
    fi
}

finish() {
    cp "$LOG" "$TARGET/var/log/goldimg-install.log"
    leave_target
    report_last "done"
    say "done: ${KS_final:-reboot}"
    eject_disc
    unmount_all
    flush_syslog
    case ${KS_final:-reboot} in
        halt) halt -f ;;
        poweroff) poweroff -f ;;
        *) reboot -f ;;
    esac
}

report started
parse_kickstart
umask 022
report pre
run_scripts pre
[ ! -s "$KS/includes" ] || parse_kickstart expand=1
show_notes
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
set_time
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
