"""What options come to in the terms of Debian's installer, and what it has no term for.

Sources: partman-auto's recipe format
(https://salsa.debian.org/installer-team/debian-installer/-/blob/master/doc/devel/partman-auto-recipe.txt),
the templates of netcfg, apt-setup and grub-installer of Debian 12 and 13.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from goldimg.errors import ConfigError, Problem
from goldimg.kickstart.layout import ESP, ROOT
from goldimg.kickstart.model import Options
from goldimg.kickstart.network import Link
from goldimg.kickstart.render import Target

# What a build reaches an installed system with; kickstart's @core has the like.
PACKAGES = ("openssh-server", "python3", "python3-apt", "sudo", "ca-certificates")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+]")  # Debian policy 5.6.1; `name-` removes
_MIRROR = re.compile(r"(https?)://([A-Za-z0-9.-]+(?::[0-9]{1,5})?)((?:/[A-Za-z0-9._~+%-]+)*)/?")
_REPO = re.compile(r"https?://[A-Za-z0-9:/?&=%@._~+,\[\]-]+")
_SWAP = "method{ swap } format{ } ."
SECURITY = "security"  # the repository of this name is Debian's security service


@dataclass(frozen=True, kw_only=True)
class Mirror:
    protocol: str
    host: str  # with its port, if any
    directory: str


@dataclass(frozen=True, kw_only=True)
class Static:
    address: str
    netmask: str
    gateway: str
    nameservers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A partman-auto recipe; sizes in it are in MB (10^6 bytes)."""

    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(("goldimg ::", *self.lines))


@dataclass(frozen=True, kw_only=True)
class Stanza:
    kind: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What interfaces(5) says of one card beyond what netcfg wrote. Without `mac` and `name` it is
    the card that netcfg set up."""

    name: str | None
    mac: str | None
    is_further: bool
    stanzas: tuple[Stanza, ...]
    without_ipv6: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that the templates would otherwise have to work out. `recipes` holds the one for
    the firmware that is asked for; with `efi: auto` the BIOS's and the EFI's."""

    keymap: str
    variant: str
    host: str
    domain: str
    interface: str
    static: Static | None
    nameservers: tuple[str, ...]
    mirror: Mirror
    security_host: str
    repos: tuple[tuple[str, str], ...]
    disk: str
    recipes: tuple[Recipe, ...]
    packages: tuple[str, ...]
    keys: tuple[str, ...]
    cards: tuple[Card, ...]


def make_plan(options: Options, target: Target) -> Plan:
    """The plan of `options` for `target`; ConfigError names every key that cannot be followed."""
    repos = {**dict(target.extra_repos), **options.repos}
    found = [*_impossible(options), *_addresses_of(target, repos)]
    if found:
        raise ConfigError.of(Problem(target.build, None, None, key, text) for key, text in found)
    match = _MIRROR.fullmatch(target.repo_url)
    assert match  # noqa: S101 - else there was a problem
    keymap, _, variant = target.keyboard.partition("(")
    host, domain = host_and_domain(options.fqdn or target.hostname)
    static = static_of(options)
    modes = {"auto": (False, True), True: (True,), False: (False,)}[options.efi]
    return Plan(
        keymap=keymap,
        variant=variant.rstrip(")"),
        host=host or "localhost",
        domain=domain,
        interface=interface_of(options),
        static=static,
        nameservers=_nameservers(options) if static else (),
        mirror=Mirror(protocol=match[1], host=match[2], directory=match[3] or "/"),
        security_host=urlsplit(repos[SECURITY]).netloc if SECURITY in repos else "",
        repos=tuple((name, url) for name, url in repos.items() if name != SECURITY),
        disk=_disk(options),
        recipes=tuple(_recipe(options, efi=efi) for efi in modes),
        packages=_packages(options),
        keys=tuple(dict.fromkeys((*target.ssh_keys, *options.ssh_keys))),
        cards=tuple(_cards(options)),
    )


def host_and_domain(name: str) -> tuple[str, str]:
    host, _, domain = name.partition(".")
    return host, domain


def interface_of(options: Options) -> str:
    """netcfg's word for the first interface: name, MAC address, or `auto` (what has a link)."""
    first = options.links[0]
    return first.mac or first.name or "auto"


def static_of(options: Options) -> Static | None:
    """The first interface's static IPv4 address; None: by DHCP."""
    first = options.links[0].settings
    if first.ipaddr is None or first.netmask is None:
        return None
    # netcfg takes three name servers at most, as resolv.conf(5) does.
    return Static(
        address=first.ipaddr,
        netmask=first.netmask,
        gateway=first.gateway or "",
        nameservers=_nameservers(options)[:3],
    )


# --- what cannot be ----------------------------------------------------------------------------


def _impossible(options: Options) -> Iterator[tuple[str, str]]:
    if options.raid:
        yield "raid", "is not supported with Debian's installer"
    for at, link in enumerate(options.links):
        place = f"interfaces[{at - 1}]." if at else ""
        if link.settings.bond:
            yield f"{place}bond", "Debian's installer has no bonds; post can make one"
        if link.settings.vlan:
            yield f"{place}vlan", "netcfg of Debian 12 and 13 has no VLANs; post can make one"
        if at and link.settings.nameserver and not static_of(options):
            yield f"{place}nameserver", "would be overwritten by DHCP of the first interface"
    if (static := static_of(options)) and not static.nameservers:
        yield "nameserver", "is needed with ipaddr: Debian's installer would ask for one"
    for at, name in enumerate(options.packages):
        if not _PACKAGE.fullmatch(name):
            yield f"packages[{at}]", "must be a Debian package: no group, exclusion or pattern"


def _addresses_of(target: Target, repos: dict[str, str]) -> Iterator[tuple[str, str]]:
    if target.family != "debian":
        yield "family", "a preseed is for Debian"
    if not _MIRROR.fullmatch(target.repo_url):
        yield "repo_server", "must be a plain http:// or https:// URL of a Debian mirror"
    for name, url in repos.items():
        if not _REPO.fullmatch(url):
            yield f"repos.{name}", "must be a plain http:// or https:// URL"
        elif name == SECURITY and not re.fullmatch(r"http://[^/]+/debian-security/?", url):
            # apt-setup's generators/91security makes the URL of the host alone.
            yield f"repos.{name}", "must be such as http://HOST/debian-security"


# --- parts -------------------------------------------------------------------------------------


def _packages(options: Options) -> tuple[str, ...]:
    wanted = [*PACKAGES, *(["systemd-timesyncd"] if options.ntp else []), *options.packages]
    return tuple(dict.fromkeys(wanted))


def _disk(options: Options) -> str:
    """The disk to begin with: what is not there is never another. The disk script says which."""
    if options.smallest:
        return "/dev/goldimg-smallest"
    return f"/dev/{options.disk}" if options.disk else ""


def _nameservers(options: Options) -> tuple[str, ...]:
    given = (link.settings.nameserver or "" for link in options.links)
    return tuple(dict.fromkeys(part for text in given for part in text.split(",") if part))


def _mb(mib: int) -> int:
    """MiB in MB, rounded up."""
    return -(-mib * 1048576 // 1_000_000)


def _recipe(options: Options, *, efi: bool) -> Recipe:
    """One line for each partition and volume: least size, priority, largest size, file system."""
    on_disk = "" if efi else "$primary{ } "
    lines = [
        f"{_mb(ESP)} {_mb(ESP)} {_mb(ESP)} free $iflabel{{ gpt }} method{{ efi }} format{{ }} ."
        if efi
        # Only where the disk is too large for an MBR.
        else "1 1 1 free $iflabel{ gpt } method{ biosgrub } ."
    ]
    if options.boot:
        size = _mb(options.bootsize)
        # On GPT the boot flag would make it an ESP.
        flags = on_disk if efi else f"{on_disk}$bootable{{ }} "
        lines.append(f"{size} {size} {size} ext4 {flags}{_file_system('ext4', '/boot')}")
    least = _mb(ROOT)
    if not options.lvm:
        lines.append(f"{least} 10000 -1 ext4 {on_disk}{_file_system(options.fstype, '/')}")
        return Recipe(lines=tuple(lines))
    lines.append(f"100 1000 -1 ext4 {on_disk}method{{ lvm }} .")
    if options.swap:
        wanted = options.swapsize
        # What Debian's own recipes have: by memory, of which partman-auto counts 1 GB at most.
        sizes = "100% 512 200%" if wanted == "recommended" else " ".join([str(_mb(wanted))] * 3)
        lines.append(f"{sizes} linux-swap $lvmok{{ }} lv_name{{ swap }} {_SWAP}")
    most = -1 if options.rootsize == "max" else _mb(options.rootsize)
    least = least if most < 0 else min(least, most)
    system = _file_system(options.fstype, "/")
    lines.append(f"{least} 10000 {most} {options.fstype} $lvmok{{ }} lv_name{{ rootvol }} {system}")
    return Recipe(lines=tuple(lines))


def _file_system(fstype: str, mount: str) -> str:
    return (
        f"method{{ format }} format{{ }} use_filesystem{{ }} filesystem{{ {fstype} }} "
        f"mountpoint{{ {mount} }} ."
    )


def _cards(options: Options) -> Iterator[Card]:
    for at, link in enumerate(options.links):
        card = Card(
            name=link.name,
            mac=link.mac,
            is_further=at > 0,
            stanzas=tuple(_stanzas(link, is_further=at > 0)),
            without_ipv6=link.settings.ipv6 == "none",
        )
        if card.stanzas or card.without_ipv6:
            yield card


def _stanzas(link: Link, *, is_further: bool) -> Iterator[Stanza]:
    settings = link.settings
    if is_further and (own := settings.ipv4()):
        gateway = (f"gateway {settings.gateway}",) if settings.gateway else ()
        yield Stanza(kind="inet static", lines=(f"address {own}", *gateway))
    elif is_further:
        yield Stanza(kind="inet dhcp", lines=())
    if own6 := settings.ipv6_address():
        gateway = (f"gateway {settings.gateway6}",) if settings.gateway6 else ()
        yield Stanza(kind="inet6 static", lines=(f"address {own6}", *gateway))
    elif settings.ipv6 in ("auto", "dhcp"):
        yield Stanza(kind=f"inet6 {settings.ipv6}", lines=())
    for address in settings.addresses:
        kind = "inet6 static" if ":" in address else "inet static"
        yield Stanza(kind=kind, lines=(f"address {address}",))
    if settings.mtu:
        # `mtu` is an option of static addresses only; this works with DHCP too.
        up = f'up ip link set dev "$IFACE" mtu {settings.mtu}'
        yield Stanza(kind="inet manual", lines=(up,))
