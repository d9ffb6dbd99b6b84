"""What a request says, as far as it can be believed: its address, its parameters, its machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any
from urllib.parse import unquote_plus

from goldimg.serve.desk import Ask

Environ = Mapping[str, Any]
Networks = Sequence[IPv4Network | IPv6Network]
LONGEST_QUERY = 2048  # characters
MACS = 32  # network devices of one machine that are looked at
_BUILD = re.compile(r"([a-z]{1,32}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TOKEN = re.compile(r"[A-Za-z0-9~_-]{1,200}")
_CHECKS = {"build": _BUILD, "os": _OS, "token": _TOKEN}
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")
_MAC_HEADER = "HTTP_X_RHN_PROVISIONING_MAC_"


class BadRequest(ValueError):
    """What was asked cannot be meant; the text says so and repeats nothing of it."""


def address_of(environ: Environ, trusted: Networks) -> str:
    """The client's address. `X-Forwarded-For` counts only where a trusted proxy sent it.

    Of several addresses it is the last that no trusted proxy has: those before it anybody may have
    written.
    """
    remote = str(environ.get("REMOTE_ADDR", ""))
    if not trusted or not _is_in(remote, trusted):
        return _plain(remote)
    for hop in reversed(str(environ.get("HTTP_X_FORWARDED_FOR", "")).split(",")):
        hop = hop.strip()
        try:
            ip_address(hop)
        except ValueError:
            break
        if not _is_in(hop, trusted):
            return _plain(hop)
    return _plain(remote)


def _is_in(address: str, networks: Networks) -> bool:
    try:
        there = ip_address(_plain(address))
    except ValueError:
        return False
    return any(there in network for network in networks)


@lru_cache(maxsize=4096)
def _plain(address: str) -> str:
    """IPv4 as such, where a socket of both kinds gives it as ::ffff:10.0.0.1."""
    try:
        there = ip_address(address)
    except ValueError:
        return ""
    mapped = getattr(there, "ipv4_mapped", None)
    return str(mapped or there)


def kickstart_ask(environ: Environ, build: str, address: str) -> Ask:
    """What is asked for; `build` is the path's, empty where the query names it.

    Raises BadRequest for anything but one `build`, one `os` and one `token` of plain characters:
    arrays, repetitions, line ends and paths are nobody's names.
    """
    given = dict(_parameters(str(environ.get("QUERY_STRING", ""))))
    if build and "build" in given:
        raise BadRequest("the build is given twice")
    values = {"build": build, **given}
    for name, text in values.items():
        if text and not _CHECKS[name].fullmatch(text):
            raise BadRequest(f"{name} is not a name that anything here has")
    macs: tuple[str, ...] = ()
    serial = ""
    for key in environ:
        # A plain loop: few requests have these headers, and all pay for the look.
        if key.startswith(_MAC_HEADER):
            macs = machine_macs(environ)
            break
    if "HTTP_X_SYSTEM_SERIAL_NUMBER" in environ:
        serial = machine_serial(str(environ["HTTP_X_SYSTEM_SERIAL_NUMBER"]))
    return Ask(
        build=values["build"],
        os=values.get("os", ""),
        token=values.get("token", ""),
        macs=macs,
        serial=serial,
        address=address,
        is_head=environ.get("REQUEST_METHOD") == "HEAD",
    )


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    if len(query) > LONGEST_QUERY:
        raise BadRequest("the query is too long")
    seen = set()
    for part in query.split("&") if query else ():
        if not part:
            continue
        key, _, value = part.partition("=")
        if key not in _CHECKS:
            raise BadRequest("only build, os and token can be given")
        if key in seen:
            raise BadRequest(f"{key} is given twice")
        seen.add(key)
        if "%" in value or "+" in value:
            value = unquote_plus(value)
        if not value:
            continue  # `os=` says nothing
        yield key, value


def machine_macs(environ: Environ) -> tuple[str, ...]:
    """The MAC addresses that an installer's headers name (`inst.ks.sendmac`): "eth0 52:54:…"."""
    found = []
    for number in range(MACS):
        words = str(environ.get(f"{_MAC_HEADER}{number}", "")).split()
        if words and (mac := mac_of(words[-1])):
            found.append(mac)
    return tuple(found)


def mac_of(text: str) -> str | None:
    """52:54:00:12:34:56 for a MAC address in either notation, None for anything else."""
    return text.lower().replace("-", ":") if _MAC.fullmatch(text) else None


def machine_serial(text: str) -> str:
    """A serial number as firmware may have it; empty for what cannot be one."""
    return text.strip() if len(text) <= 100 and text.isascii() and text.isprintable() else ""
