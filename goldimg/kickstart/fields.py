"""Types of the values in kickstart definitions: what is accepted, and how it is refused.

Everything here ends in a kickstart, a shell script or a kernel's command line, so each text has an
alphabet in which it cannot end a line or a word.
"""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainValidator

from goldimg.config.fields import matching

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# A line that starts so would end the script, start another section or include a file.
SECTION_LINE = re.compile(r"\s*%\w")
SSH_KEY = re.compile(r"[a-z][a-z0-9@.-]+ [A-Za-z0-9+/]+=*( .*)?")
MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
SMALLEST = re.compile(r"smallest(:(nvme|ssd|hdd))?")
# Kickstart's own words for "the one with a link" and "the one that it booted from".
DEVICE_WORDS = ("link", "bootif")
# What firmware says where nobody wrote a serial number; many machines would share it.
_NO_SERIALS = {"none", "default string", "to be filled by o.e.m.", "system serial number", "0"}


def is_clean(text: str) -> bool:
    """Whether every character prints. Line ends of any kind (also U+0085, U+2028) do not."""
    return text.isprintable()


def check_script(text: str) -> str:
    """The script, if kickstart cannot take one of its lines for its own; else ValueError."""
    for line in text.split("\n"):
        if not is_clean(line.replace("\t", " ")):
            raise ValueError("must not have control characters")
        if SECTION_LINE.match(line):
            raise ValueError("must not have a line that starts with '%', as kickstart sections do")
    return text


def size_or(word: str, low: int, high: int) -> PlainValidator:
    """`word`, or a number of MiB from `low` to `high`."""

    # One validator and not a union, so that a wrong value is one problem with one message.
    def check(value: object) -> object:
        if value == word:
            return value
        is_number = isinstance(value, int | str) and re.fullmatch(r"[0-9]{1,9}", str(value))
        if not is_number or not low <= (size := int(str(value))) <= high:
            raise ValueError(f"must be '{word}' or a size of {low} to {high} MiB")
        return size

    return PlainValidator(check)


def firmware_word(value: object) -> object:
    """true, false or auto, also as the original's 1 and 0."""
    known: dict[object, object] = {
        "auto": "auto",
        "true": True,
        "false": False,
        "1": True,
        "0": False,
    }
    if str(value).lower() not in known:
        raise ValueError("must be true, false or auto")
    return known[str(value).lower()]


# --- lists and numbers as people write them ----------------------------------------------------


def blank_is_none(value: object) -> object:
    return None if value == "" else value


def one_or_more(value: object) -> object:
    """A list may be written as one value."""
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


def number_is_text(value: object) -> object:
    """A serial number or a MAC address of digits is text, however YAML sees it."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# --- machines ----------------------------------------------------------------------------------


def mac(value: str) -> str:
    """`52:54:00:12:34:56` of any common notation (`52-54-…`, `5254.0012.3456`, no separators)."""
    if not re.fullmatch(
        r"[0-9A-Fa-f]{2}((:|-)[0-9A-Fa-f]{2}){5}|([0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}"
        r"|[0-9A-Fa-f]{12}",
        value,
    ):
        raise ValueError("must be a MAC address such as 52:54:00:12:34:56")
    digits = re.sub(r"[^0-9a-f]", "", value.lower())
    # IEEE 802: the lowest bit of the first octet marks a group of stations.
    if int(digits[:2], 16) & 1 or digits == "0" * 12:
        raise ValueError("must be the MAC address of one machine")
    return ":".join(re.findall("..", digits))


def _serial(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._/+-]{0,63}", value):
        raise ValueError("must be a serial number of letters, digits and ' ._/+-'")
    if value.lower() in _NO_SERIALS:
        raise ValueError("is what machines without a serial number say")
    return value


def _disk(value: str) -> str:
    name = value.removeprefix("/dev/")
    if name.startswith("smallest"):
        if not SMALLEST.fullmatch(name):
            raise ValueError("must be smallest, smallest:nvme, smallest:ssd or smallest:hdd")
        return name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:+-]*(/[A-Za-z0-9][A-Za-z0-9._:+-]*)*", name):
        raise ValueError("must be a disk's name")
    if re.search(r"^([shv]|xv)d[a-z]+[0-9]|^(nvme|mmcblk).*[0-9]p[0-9]+$|^disk/.*-part[0-9]", name):
        raise ValueError("must be a whole disk, not a partition")
    return name


def _device(value: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", value):
        return mac(value)
    return _interface(value)


def _interface(value: str) -> str:
    # 15 characters: IFNAMSIZ of linux/if.h.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", value):
        raise ValueError("must be a network device's name")
    return value


def _ssh_key(value: str) -> str:
    if not is_clean(value) or not SSH_KEY.fullmatch(value):
        raise ValueError('must be a public key such as "ssh-ed25519 AAAA… name"')
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    # Words of a kickstart line, of a comment and of a kernel's command line.
    if not fine or not re.fullmatch(r"[A-Za-z0-9:/?&=%@._~+,$\[\]-]+", value):
        raise ValueError("must be an http:// or https:// URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password: every machine could read them")
    return value


def _proxy(value: str) -> str:
    url = _http_url(value).rstrip("/")
    if not re.fullmatch(r"https?://[^/?]+", url):
        raise ValueError("must be such as http://proxy.example.com:3128")
    return url


def _service(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value}/tcp"
    match = re.fullmatch(r"([0-9]{1,5})/(tcp|udp)", value) if isinstance(value, str) else None
    if match and 0 < int(match[1]) < 65536:
        return value
    if match or not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", value):
        raise ValueError("must be a service such as https or a port such as 8080/tcp")
    return value


# --- the types ---------------------------------------------------------------------------------


Blank = BeforeValidator(blank_is_none)  # the original system wrote "" for "not given"
OneOrMore = BeforeValidator(one_or_more)
NumberIsText = BeforeValidator(number_is_text)
Package = Annotated[
    str,
    # A leading `@` is a group, `@^` an environment, `-` an exclusion, `*` a glob.
    matching(r"-?(@\^?)?[A-Za-z0-9][A-Za-z0-9._+:*-]*", "must be a package, @group or -exclusion"),
]
KernelArg = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._,:=/@+%-]*", "must be one kernel argument")
]
Script = Annotated[str, AfterValidator(check_script)]
SnippetName = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "must be the name of a snippet")
]
OsName = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "must be the name of an operating system"),
]
Mac = Annotated[str, AfterValidator(mac), NumberIsText]
Serial = Annotated[str, AfterValidator(_serial), NumberIsText]
Disk = Annotated[str, AfterValidator(_disk)]
Device = Annotated[str, AfterValidator(_device)]
InterfaceName = Annotated[str, AfterValidator(_interface)]
HostName = Annotated[str, matching(rf"{LABEL}(\.{LABEL})*", "must be a host name")]
SshKey = Annotated[str, AfterValidator(_ssh_key)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
ProxyUrl = Annotated[str, AfterValidator(_proxy)]
RepoName = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "may hold letters, digits and . _ - only")
]
Service = Annotated[str, PlainValidator(_service)]
BondOption = Annotated[str, matching(r"[a-z_]{1,32}", "must be an option of the bonding driver")]
BondValue = Annotated[
    str, matching(r"[A-Za-z0-9._:+-]{1,64}", "must be one value, without a comma"), NumberIsText
]
