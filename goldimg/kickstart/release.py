"""What the options come to in a release's words, and what a release cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from goldimg.kickstart.model import Options
from goldimg.kickstart.network import Conflict, Link
from goldimg.kickstart.syntax import Family, Syntax


@dataclass(frozen=True, kw_only=True)
class Array:
    """One md array: `name` as the release calls it, `level` as `RAID1`."""

    name: str
    level: str
    members: tuple[str, ...]  # as `raid.11`; the n-th lies on the n-th disk


def refusals(options: Options, family: Family, syntax: Syntax) -> Iterator[Conflict]:
    """What is asked for and cannot be had: keys with the reason."""
    if family == "debian" and options.raid:
        yield ("raid",), "is not done by goldimg's Debian installer"
    if family == "debian" or syntax.has_ipv6_gateway:
        return
    for at, link in enumerate(options.links):
        path = ("interfaces", at - 1) if at else ()
        settings = link.settings
        if settings.gateway6:
            yield (*path, "gateway6"), f"cannot be said in {syntax.name}'s kickstart"
        if settings.vlan and settings.bond and not syntax.has_vlan_over_bond:
            yield (*path, "vlan"), f"cannot lie over a bond in {syntax.name}'s kickstart"
        if settings.addresses and not settings.ipaddr:
            yield (*path, "addresses"), f"needs ipaddr in {syntax.name}"
        if settings.addresses and settings.vlan and not carrier(link, syntax):
            yield (*path, "addresses"), f"needs the name of device for a vlan in {syntax.name}"


def carrier(link: Link, syntax: Syntax) -> str | None:
    """The name of the interface that has the addresses; None where only the installer knows."""
    if link.vlan_name and not syntax.has_interface_name:
        return None if link.mac else f"{link.device}.{link.settings.vlan}"
    return link.name


def kernel_args(options: Options, family: Family, syntax: Syntax) -> tuple[str, ...]:
    """The installed system's kernel arguments: the options', and no nouveau, as the original."""
    if family == "debian":
        return options.kernel_args
    off = options.selinux == "disabled" and syntax.selinux_off == "kernel"
    own = (f"{syntax.blacklist}=nouveau", "nouveau.modeset=0", *(("selinux=0",) if off else ()))
    return (*own, *(word for word in options.kernel_args if word not in own))


def firewall_words(options: Options) -> tuple[str, ...]:
    """The options of `firewall`. `true` lets SSH through, a list what it names and nothing else."""
    if isinstance(options.firewall, bool):
        return ("--enabled", "--port=22:tcp") if options.firewall else ("--disabled",)
    services = [it for it in options.firewall if "/" not in it]
    ports = [it.replace("/", ":") for it in options.firewall if "/" in it]
    words = ["--enabled"]
    words += [f"--service={','.join(services)}"] if services else []
    words += [f"--port={','.join(ports)}"] if ports else []
    return tuple(words)


def arrays(options: Options, syntax: Syntax) -> tuple[Array, ...]:
    """The arrays of `raid`: that of /boot, a mirror because firmware reads it, then the rest's."""
    if options.raid is None:
        return ()
    names = (
        ("boot", "pv01" if options.lvm else "root") if syntax.has_named_arrays else ("md0", "md1")
    )
    return tuple(
        Array(
            name=name,
            level=f"RAID{level}",
            members=tuple(f"raid.{number}{at}" for at in range(1, len(options.raid.disks) + 1)),
        )
        for number, (name, level) in enumerate(zip(names, (1, options.raid.level), strict=True), 1)
    )


def volume_group(options: Options, hostname: str = "") -> str:
    """The name of root's volume group, never without a name before `_rootvg` and never empty."""
    host = (options.fqdn or hostname).split(".")[0]
    return f"{host}_rootvg" if options.hardware == "metal" and host else "rootvg"
