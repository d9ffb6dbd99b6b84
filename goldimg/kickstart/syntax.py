"""What each version of the kickstart syntax can say; templates ask this and never an OS's name.

Sources: the per-version command tables of pykickstart (asked through ksvalidator) and Red Hat's
"Kickstart commands and options reference" of each release, chapter "Changes in RHEL".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["el", "debian"]


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """One syntax version, named as ksvalidator names it."""

    name: str
    has_install: bool  # `install` chooses the method; later releases know no other
    has_unsupported_hardware: bool
    has_authconfig: bool  # later releases hash with sha512 or better unasked
    has_nobase: bool  # `%packages --nobase`; later releases add nothing to @core by themselves
    has_boot_drive: bool  # `bootloader --boot-drive`; before it, `--driveorder`
    has_reqpart: bool
    has_sshkey: bool
    has_onerror: bool  # before it, `%traceback`, which is run for anaconda's own faults only
    has_pre_install: bool  # `%pre-install`: after partitioning, before packages
    has_bare_lock: bool  # `rootpw --lock` without a password
    has_interface_name: bool  # `network --interfacename`; before it, a VLAN is `em1.100`
    has_ipv6_gateway: bool
    has_vlan_over_bond: bool  # of one `network` line
    has_named_arrays: bool  # `raid --device=boot`; before it, `md0`
    has_dracut: bool  # boot options as dracut.cmdline(7) has them, and the prefix `inst.`
    ntp: Literal["file", "timezone", "timesource"]  # where time servers are written
    selinux: Literal["enforcing", "disabled"]  # where the options do not say
    selinux_off: Literal["command", "kernel"]  # what turns it off
    blacklist: str  # dracut's name for "do not load this driver"
    packages: tuple[str, ...]  # what the original system added to @core, by the release's names
    spared: tuple[str, ...]  # of @core, what no virtual machine has a use for
    has_kdump_addon: bool  # and what it would do unasked: keep memory for a crashed kernel


# Firmware of radio and sound cards, and the rescue kernel's initramfs: it holds the drivers of all
# machines and fills a third of a small /boot. Each is a "default" of @core in the release's
# comps.xml, not "mandatory", so nothing misses them.
_SPARED = {
    7: (
        "-iwl*-firmware",
        "-aic94xx-firmware",
        "-alsa-firmware",
        "-ivtv-firmware",
        "-dracut-config-rescue",
    ),
    8: ("-iwl*-firmware", "-dracut-config-rescue"),
}


def _syntax(major: int) -> Syntax:
    return Syntax(
        name=f"RHEL{major}",
        has_install=major <= 7,
        has_unsupported_hardware=major <= 7,
        has_authconfig=major <= 7,
        has_nobase=major <= 6,
        has_boot_drive=major >= 7,
        has_reqpart=major >= 7,
        has_sshkey=major >= 8,
        has_onerror=major >= 8,
        has_pre_install=major >= 8,
        has_bare_lock=major >= 7,
        has_interface_name=major >= 7,
        has_ipv6_gateway=major >= 7,
        has_vlan_over_bond=major >= 7,
        has_named_arrays=major >= 7,
        has_dracut=major >= 7,
        ntp="timesource" if major >= 9 else "timezone" if major >= 7 else "file",
        # RHEL 6 and 7 stay as the original system had them.
        selinux="enforcing" if major >= 8 else "disabled",
        # "Considerations in adopting RHEL 9", Security: SELINUX=disabled no longer does.
        selinux_off="kernel" if major >= 9 else "command",
        blacklist="rd.driver.blacklist" if major >= 7 else "rdblacklist",
        packages=("man-db", "openssh-clients")
        if major >= 7
        else ("man", "openssh-clients", "system-config-firewall-base"),
        spared=_SPARED.get(major, _SPARED[8]) if major >= 7 else (),
        has_kdump_addon=major >= 7,
    )


SYNTAXES = {syntax.name: syntax for syntax in map(_syntax, range(6, 11))}
