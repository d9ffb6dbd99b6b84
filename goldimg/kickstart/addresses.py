"""Addresses and names of the network as they are written in kickstart definitions."""

import re
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    ip_interface,
)
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from goldimg.kickstart.fields import LABEL


def _commas(value: object) -> object:
    return ",".join(value) if isinstance(value, list) and all(map(_is_text, value)) else value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _one_machine(address: IPv4Address | IPv6Address) -> None:
    if (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or (address.version == 4 and address.is_reserved)
    ):
        raise ValueError("must be the address of one machine")


def ipv4(value: str) -> str:
    try:
        address = IPv4Address(value)
    except ValueError:
        raise ValueError("must be an IPv4 address") from None
    _one_machine(address)
    return str(address)


def ipv6(value: str) -> str:
    try:
        address = IPv6Address(value)
    except ValueError:
        address = None
    if address is None or address.scope_id:
        raise ValueError("must be an IPv6 address")
    _one_machine(address)
    return str(address)


def netmask(value: str) -> str:
    try:
        # IPv4Network also takes a host mask and a prefix length, which kickstart does not.
        network = IPv4Network(f"0.0.0.0/{value}")
    except ValueError:
        network = None
    if network is None or str(network.netmask) != value:
        raise ValueError("must be a netmask such as 255.255.255.0")
    return value


def is_own(interface: IPv4Interface | IPv6Interface) -> bool:
    """Whether the address is a machine's, and neither the network's nor its broadcast's.

    RFC 3021 gives both to machines where there are but two; RFC 6164 the same for IPv6.
    """
    network = interface.network
    if network.prefixlen >= network.max_prefixlen - 1:
        return True
    if interface.ip == network.network_address:
        return False
    return interface.version == 6 or interface.ip != network.broadcast_address


def cidr(value: str) -> str:
    """An address of either family with its prefix length."""
    try:
        if not re.fullmatch(r"[0-9A-Fa-f.:]+/[0-9]{1,3}", value):
            raise AddressValueError
        interface = ip_interface(value)
    except ValueError:
        raise ValueError("must be an address with its prefix, such as 192.0.2.7/24") from None
    _one_machine(interface.ip)
    if not is_own(interface):
        raise ValueError("is the address of the network itself, or its broadcast address")
    return str(interface)


def _ipv6_mode(value: str) -> str:
    if value in ("auto", "dhcp", "none"):
        return value
    if ":" not in value or "/" not in value:
        raise ValueError("must be auto, dhcp, none or an address such as 2001:db8::7/64")
    return cidr(value)


def _nameservers(value: str) -> str:
    def one(address: str) -> str:
        if re.fullmatch(r"[0-9.]+", address):
            return ipv4(address)
        try:
            return ipv6(address)
        except ValueError:
            raise ValueError("must be addresses with commas between them") from None

    return ",".join(one(part.strip()) for part in value.split(","))


def _time_server(value: str) -> str:
    for check in (ipv4, ipv6):
        try:
            return check(value)
        except ValueError:
            continue
    if re.fullmatch(r"[0-9.]+", value) or not re.fullmatch(rf"{LABEL}(\.{LABEL})*", value):
        raise ValueError("must be a host name or an address")
    return value


TimeServer = Annotated[str, AfterValidator(_time_server)]
Ipv4 = Annotated[str, AfterValidator(ipv4)]
Ipv6 = Annotated[str, AfterValidator(ipv6)]
Ipv6Mode = Annotated[str, AfterValidator(_ipv6_mode)]
Netmask = Annotated[str, AfterValidator(netmask)]
NameServers = Annotated[str, AfterValidator(_nameservers), BeforeValidator(_commas)]
Cidr = Annotated[str, AfterValidator(cidr)]
