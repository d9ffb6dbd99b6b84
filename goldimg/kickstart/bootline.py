"""What is typed at a machine's boot menu, or put behind its kernel, for it to find its kickstart.

Forms: dracut.cmdline(7) and anaconda's boot-options.rst from RHEL 7 on; before it, Red Hat's
"Installation Guide" of RHEL 6, chapter 28 ("Boot Options").
"""

from __future__ import annotations

from goldimg.kickstart.fields import DEVICE_WORDS
from goldimg.kickstart.model import Options
from goldimg.kickstart.network import Link
from goldimg.kickstart.syntax import SYNTAXES, Family


def boot_arguments(
    options: Options, family: Family, syntax: str, ks_url: str | None
) -> tuple[str, ...]:
    """The kernel arguments that give the installer its kickstart and the network to fetch it.

    Only the first interface is set up: it is the one that reaches the kickstart server. With a
    `ks_url` of None, the network's arguments alone.
    """
    link = options.links[0]
    if family == "el" and not SYNTAXES[syntax].has_dracut:
        found = [f"ks={ks_url}"] if ks_url else []
        found += _loader_words(link)
        return (*found, f"proxy={options.proxy}") if options.proxy else tuple(found)
    found = [f"inst.ks={ks_url}"] if ks_url else []
    found += _devices(link)
    found.append(_address(link, options.fqdn or "", bool(ks_url and "://[" in ks_url)))
    found += [f"nameserver={server}" for server in _servers(link)]
    return (*found, f"inst.proxy={options.proxy}") if options.proxy else tuple(found)


def _servers(link: Link) -> list[str]:
    return link.settings.nameserver.split(",") if link.settings.nameserver else []


def _devices(link: Link) -> list[str]:
    """The card, bond and VLAN that have to be there before there is an address."""
    found, carrier = [], link.device
    if link.mac and link.vlan_name:
        carrier = "net0"  # a VLAN names its card, and this card has no other name yet
        found.append(f"ifname={carrier}:{link.mac}")
    elif link.mac:
        found.append(f"BOOTIF=01-{link.mac.replace(':', '-')}")
    if link.settings.bond:
        members = ",".join(link.settings.bond.devices)
        found.append(f"bond={link.device}:{members}:{link.settings.bond.words()}")
    if link.vlan_name and link.device not in DEVICE_WORDS:
        found.append(f"vlan={link.vlan_name}:{carrier}")
    return found


def _address(link: Link, host: str, by_ipv6: bool) -> str:
    settings, device = link.settings, link.name or ""
    mtu = f":{settings.mtu}" if settings.mtu else ""
    if by_ipv6 and (own := settings.ipv6_address()):
        gateway = f"[{settings.gateway6}]" if settings.gateway6 else ""
        prefix = own.network.prefixlen
        return f"ip=[{own.ip}]::{gateway}:{prefix}:{host}:{device}:none{mtu}"
    if settings.ipaddr and not by_ipv6:
        gateway = settings.gateway or ""
        return f"ip={settings.ipaddr}::{gateway}:{settings.netmask}:{host}:{device}:none{mtu}"
    method = "dhcp" if not by_ipv6 else "dhcp6" if settings.ipv6 == "dhcp" else "auto6"
    return f"ip={device}:{method}{mtu}" if device else f"ip={method}"


def _loader_words(link: Link) -> list[str]:
    """RHEL 6: the loader knows no bond and no VLAN; the kickstart sets them up afterwards."""
    settings = link.settings
    card = settings.bond.devices[0] if settings.bond else link.device
    found = [f"ksdevice={card}"]
    if settings.ipaddr:
        found += [f"ip={settings.ipaddr}", f"netmask={settings.netmask}"]
        found += [f"gateway={settings.gateway}"] if settings.gateway else []
        found += [f"dns={settings.nameserver}"] if settings.nameserver else []
    else:
        found.append("ip=dhcp")
    found += [f"mtu={settings.mtu}"] if settings.mtu else []
    return [*found, "noipv6"] if settings.ipv6 == "none" else found
