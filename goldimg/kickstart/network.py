"""A machine's network: what is written of it, whether it can work, and the interfaces that result.

What kickstart says is https://pykickstart.readthedocs.io/en/latest/kickstart-docs.html#network ;
what it has no word for (further addresses of an interface), a %post writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from goldimg.config.fields import Fault
from goldimg.kickstart.addresses import (
    Cidr,
    Ipv4,
    Ipv6,
    Ipv6Mode,
    NameServers,
    Netmask,
    is_own,
)
from goldimg.kickstart.fields import (
    DEVICE_WORDS,
    MAC,
    Blank,
    BondOption,
    BondValue,
    Device,
    InterfaceName,
    OneOrMore,
)

KeyPath = tuple[str | int, ...]
Conflict = tuple[KeyPath, str]
IPV6_MTU = 1280  # RFC 8200, section 5: the least that IPv6 works with


class Bond(BaseModel):
    """Several cards as one: `device` of the interface is the bond's name, or `bond0`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: Annotated[tuple[InterfaceName, ...], Field(min_length=1, max_length=16)]
    # https://docs.kernel.org/networking/bonding.html
    mode: Literal[
        "active-backup",
        "802.3ad",
        "balance-rr",
        "balance-xor",
        "balance-alb",
        "balance-tlb",
        "broadcast",
    ] = "active-backup"
    options: dict[BondOption, BondValue] = {}

    @model_validator(mode="after")
    def _mode_is_given_once(self) -> Bond:
        if "mode" in self.options:
            raise Fault("options.mode", "is a key of the bond, not one of its options")
        return self

    def words(self) -> str:
        """The bond's options as kickstart and dracut take them: `mode=802.3ad,miimon=100`."""
        options: Mapping[str, str] = self.options
        if not {"miimon", "arp_interval"} & options.keys():
            # Without one of them a bond does not notice that a cable was drawn.
            options = {**options, "miimon": "100"}
        return ",".join([f"mode={self.mode}", *(f"{key}={options[key]}" for key in options)])


class Interface(BaseModel):
    """One interface. The names up to `gateway` are the original system's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Annotated[Device | None, Blank] = None
    ipaddr: Annotated[Ipv4 | None, Blank] = None
    netmask: Annotated[Netmask | None, Blank] = None
    gateway: Annotated[Ipv4 | None, Blank] = None
    nameserver: Annotated[NameServers | None, Blank] = None
    ipv6: Annotated[Ipv6Mode | None, Blank] = None
    gateway6: Annotated[Ipv6 | None, Blank] = None
    addresses: Annotated[tuple[Cidr, ...], OneOrMore] = ()
    mtu: Annotated[int | None, Field(ge=576, le=65535)] = None
    vlan: Annotated[int | None, Field(ge=1, le=4094)] = None
    bond: Bond | None = None

    @model_validator(mode="before")
    @classmethod
    def _split_prefix(cls, data: Any) -> Any:
        """`ipaddr: 192.0.2.11/24` is an address and a netmask."""
        written = data.get("ipaddr") if isinstance(data, Mapping) else None
        match = re.fullmatch(r"([0-9.]+)/([0-9]|[12][0-9]|3[0-2])", str(written))
        if not match:
            return data
        mask = str(IPv4Interface(f"0.0.0.0/{match[2]}").netmask)
        if data.get("netmask") not in (None, "", mask):
            raise Fault("netmask", "is not the one of ipaddr's prefix")
        return {**data, "ipaddr": match[1], "netmask": mask}

    def ipv4(self) -> IPv4Interface | None:
        """The static IPv4 address; None: by DHCP."""
        return IPv4Interface(f"{self.ipaddr}/{self.netmask}") if self.ipaddr else None

    def ipv6_address(self) -> IPv6Interface | None:
        """The static IPv6 address, if there is one."""
        return IPv6Interface(self.ipv6) if self.ipv6 and "/" in self.ipv6 else None


@dataclass(frozen=True, kw_only=True)
class Link:
    """An interface as the installer is told of it.

    `device` is what kickstart calls it: a name, a MAC address, `link`, or the bond's name. `name`
    is the interface that gets the addresses (`vlan100`, `bond0`, `em1`), None where only the
    installer knows.
    """

    device: str
    name: str | None
    mac: str | None  # of `device`, where it is given so
    vlan_name: str | None
    settings: Interface


def links(first: Interface, further: Sequence[Interface]) -> tuple[Link, ...]:
    """Every interface, the one with the host's name first."""
    return tuple(_link(interface) for interface in (first, *further))


def _link(interface: Interface) -> Link:
    device = interface.device or ("bond0" if interface.bond else "link")
    is_mac = bool(MAC.fullmatch(device))
    vlan_name = f"vlan{interface.vlan}" if interface.vlan else None
    known = None if is_mac or device in DEVICE_WORDS else device
    return Link(
        device=device,
        name=vlan_name or known,
        mac=device if is_mac else None,
        vlan_name=vlan_name,
        settings=interface,
    )


# --- can it work? ------------------------------------------------------------------------------


def network_conflicts(first: Interface, further: Sequence[Interface]) -> Iterator[Conflict]:
    """Keys whose values are right alone and wrong together, with the reason."""
    everything: list[tuple[KeyPath, Interface]] = [((), first)]
    everything += [(("interfaces", at), interface) for at, interface in enumerate(further)]
    for path, interface in everything:
        for check in (_static, _static6, _further, _kind):
            for key, message in check(interface):
                yield (*path, *key), message
    for path, interface in everything[1:]:
        if not interface.device and not interface.bond:
            yield (*path, "device"), "is required for a further interface"
    yield from _twice(everything)
    for name in ("gateway", "gateway6"):
        given = [(*path, name) for path, interface in everything if getattr(interface, name)]
        for place in given[1:]:
            yield place, "is given twice: a machine has one default route"


def _static(interface: Interface) -> Iterator[Conflict]:
    if interface.ipaddr is None:
        for key in ("netmask", "gateway"):
            if getattr(interface, key) is not None:
                yield (key,), "needs ipaddr"
        if interface.nameserver is not None and interface.ipv6_address() is None:
            yield ("nameserver",), "needs ipaddr"
        return
    if interface.netmask is None:
        yield ("ipaddr",), "needs netmask"
        return
    own = IPv4Interface(f"{interface.ipaddr}/{interface.netmask}")
    if own.network.prefixlen == 0:
        yield ("netmask",), "leaves no network"
    elif not is_own(own):
        yield ("ipaddr",), "is the address of the network itself, or its broadcast address"
    if interface.gateway is None:
        return
    gateway = IPv4Interface(f"{interface.gateway}/{interface.netmask}")
    if gateway.network != own.network:
        yield ("gateway",), "is not in the network of ipaddr and netmask"
    elif gateway == own:
        yield ("gateway",), "is the machine's own address"
    elif not is_own(gateway):
        yield ("gateway",), "is the address of the network itself, or its broadcast address"


def _static6(interface: Interface) -> Iterator[Conflict]:
    own = interface.ipv6_address()
    if own is None:
        if interface.gateway6 is not None:
            yield ("gateway6",), "needs an address in ipv6"
        return
    if interface.mtu is not None and interface.mtu < IPV6_MTU:
        yield ("mtu",), f"must be at least {IPV6_MTU} for IPv6"
    if interface.gateway6 is None:
        return
    gateway = IPv6Address(interface.gateway6)
    if gateway == own.ip:
        yield ("gateway6",), "is the machine's own address"
    elif gateway not in own.network and not gateway.is_link_local:
        yield ("gateway6",), "is neither in the network of ipv6 nor link-local"


def _further(interface: Interface) -> Iterator[Conflict]:
    if not interface.addresses:
        return
    is_named = interface.bond or interface.device not in (None, *DEVICE_WORDS)
    if not is_named:
        yield ("addresses",), "needs device: a name or a MAC address"
    for at, address in enumerate(interface.addresses):
        if ":" in address and interface.ipv6 == "none":
            yield ("addresses", at), "needs IPv6, which ipv6: none turns off"


def _kind(interface: Interface) -> Iterator[Conflict]:
    device = interface.device
    if interface.vlan and not device and not interface.bond:
        yield ("vlan",), "needs device: the card that carries it"
    if not interface.bond:
        return
    if device is not None and (device in DEVICE_WORDS or MAC.fullmatch(device)):
        yield ("device",), "must be the bond's own name, such as bond0"
    members = interface.bond.devices
    if (device or "bond0") in members:
        yield ("bond", "devices"), "must not hold the bond itself"
    if set(members) & set(DEVICE_WORDS):
        yield ("bond", "devices"), "must be names of network devices"
    if len(set(members)) != len(members):
        yield ("bond", "devices"), "holds a device twice"


def _twice(everything: Sequence[tuple[KeyPath, Interface]]) -> Iterator[Conflict]:
    devices: set[tuple[str, int | None]] = set()
    names: set[str] = set()
    members: set[str] = set()
    addresses: set[str] = set()
    for path, interface in everything:
        link = _link(interface)
        key = (link.device, interface.vlan)
        if path and not interface.device and not interface.bond:
            continue  # told already
        if key in devices or (link.vlan_name and link.name in names):
            yield (*path, "vlan" if interface.vlan else "device"), "is given twice"
        devices.add(key)
        names.add(link.name or "")
        if interface.bond:
            if members & set(interface.bond.devices):
                yield (*path, "bond", "devices"), "holds a device of another bond"
            members |= set(interface.bond.devices)
        for place, address in _addresses(interface):
            if address in addresses:
                yield (*path, *place), "is given twice"
            addresses.add(address)
    for path, interface in everything:
        if interface.device in members:
            yield (*path, "device"), "is part of a bond"


def _addresses(interface: Interface) -> Iterator[tuple[KeyPath, str]]:
    if interface.ipaddr:
        yield ("ipaddr",), interface.ipaddr
    if own := interface.ipv6_address():
        yield ("ipv6",), str(own.ip)
    for at, address in enumerate(interface.addresses):
        yield ("addresses", at), str(ip_interface(address).ip)
