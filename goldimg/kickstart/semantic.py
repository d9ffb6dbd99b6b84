"""Do the parts of a kickstart fit together? What a parser lets pass, and an install would not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from goldimg.errors import Problem
from goldimg.kickstart.target import CRYPT

NAME = "kickstart"
FSTYPES = {"ext3", "ext4", "xfs", "vfat", "efi", "swap", "biosboot", "lvmpv"}
INCLUDES = ("%include", "%ksappend")
# What our own %pre scripts write, and no other text.
_OWN = re.compile(r"/tmp/goldimg-[a-z0-9-]+\.ks")  # noqa: S108 - on the installed machine


@dataclass(frozen=True, kw_only=True)
class _Command:
    line: int
    name: str
    options: dict[str, str]
    words: tuple[str, ...]
    inside: bool = False  # of a section


# Of the commands read here, the options that take the next word where they have no `=`.
_VALUED = frozenset(
    f"--{name}"
    for name in (
        *("bootproto", "device", "ip", "netmask", "gateway", "nameserver", "hostname", "onboot"),
        *("ipv6", "ipv6gateway", "mtu", "vlanid", "interfacename", "bondslaves", "bondopts"),
        *("fstype", "size", "maxsize", "ondisk", "ondrive", "onpart", "label", "fsoptions"),
        *("name", "vgname", "pesize", "level", "only-use", "drives"),
    )
)


def semantic(text: str) -> list[Problem]:
    """Faults that a parser cannot see. Reads commands; of sections, what a %pre writes."""
    commands = list(_commands(text))
    checks = (_root_password, _network, _interfaces, _members, _groups, _disks, _mounts)
    found = [problem for check in checks for problem in check(commands)]
    return [*found, *_includes(commands, _written(text))]


def _commands(text: str) -> Iterator[_Command]:
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        first = line.split(maxsplit=1)[0] if line.strip() else ""
        # Inside a script other words with a percent sign are the script's own.
        if first in INCLUDES:
            words = tuple(line.split()[1:])
            yield _Command(line=number, name=first, options={}, words=words, inside=inside)
        elif first == "%end" or (first.startswith("%") and not inside):
            inside = first != "%end"
        elif not inside:
            try:
                words_of = shlex.split(line, comments=True)
            except ValueError:
                continue  # ksvalidator says where the quote is open
            if words_of:
                yield _command(number, words_of)


def _command(number: int, words: list[str]) -> _Command:
    options: dict[str, str] = {}
    plain: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("--"):
            plain.append(word)
        elif "=" in word:
            name, _, value = word.partition("=")
            options[name] = value
        else:
            options[word] = next(rest, "") if word in _VALUED else ""
    name = "part" if words[0] == "partition" else words[0]
    return _Command(line=number, name=name, options=options, words=tuple(plain))


def _named(commands: list[_Command], *names: str) -> list[_Command]:
    return [command for command in commands if command.name in names]


def _root_password(commands: list[_Command]) -> Iterator[Problem]:
    found = _named(commands, "rootpw")
    if not found:
        yield problem_at(None, "no rootpw: the installer would ask for a password, or set none")
    for command in found:
        if "--allow-ssh" in command.options:
            yield problem_at(command.line, "rootpw --allow-ssh lets root log in by password")
        if "--lock" in command.options:
            continue
        if "--iscrypted" not in command.options:
            yield problem_at(command.line, "rootpw holds a password in clear text")
        elif not (command.words and CRYPT.fullmatch(command.words[0])):
            yield problem_at(command.line, "rootpw holds no sha256, sha512 or yescrypt hash")


# --- network -----------------------------------------------------------------------------------


def _network(commands: list[_Command]) -> Iterator[Problem]:
    for command in _named(commands, "network"):
        options = command.options
        if options.get("--bootproto", "dhcp") == "static":
            for option in ("--ip", "--netmask"):
                if not options.get(option):
                    yield problem_at(command.line, f"a static network needs {option}")
        for option in ("--ip", "--netmask", "--gateway"):
            value = options.get(option)
            if value and value != "dhcp" and not _is_address(value, 4):
                yield problem_at(command.line, f"{option} is not an IPv4 address")
        if not all(map(_is_address, filter(None, options.get("--nameserver", "").split(",")))):
            yield problem_at(command.line, "--nameserver is not a list of addresses")
        own = options.get("--ipv6")
        if own and own not in ("auto", "dhcp") and not _is_address(own.partition("/")[0], 6):
            yield problem_at(command.line, "--ipv6 is not an IPv6 address")
        gateway = options.get("--ipv6gateway")
        if gateway and not _is_address(gateway, 6):
            yield problem_at(command.line, "--ipv6gateway is not an IPv6 address")


def _is_address(text: str, version: int | None = None) -> bool:
    try:
        return ip_address(text).version == (version or ip_address(text).version)
    except ValueError:
        return False


def _interfaces(commands: list[_Command]) -> Iterator[Problem]:
    """Each interface once, and a bond's cards in no other place."""
    seen: set[tuple[str, str]] = set()
    members: dict[str, int] = {}
    for command in _named(commands, "network"):
        device, vlan = command.options.get("--device", ""), command.options.get("--vlanid", "")
        if device and (device, vlan) in seen:
            yield problem_at(command.line, f"the network device {device} is set up twice")
        seen.add((device, vlan))
        if "--bondslaves" in command.options:
            for member in command.options["--bondslaves"].split(","):
                if not member or member in members:
                    yield problem_at(command.line, f"the bond's device '{member}' is of no use")
                members[member] = command.line
    for device, vlan in seen:
        if device in members and not vlan:
            yield problem_at(members[device], f"{device} is set up and is part of a bond")


# --- disks -------------------------------------------------------------------------------------


def _members(commands: list[_Command]) -> Iterator[Problem]:
    """Every array is of partitions that are there, each in one array only."""
    parts = {word for it in _named(commands, "part") for word in it.words[:1]}
    used: set[str] = set()
    for command in _named(commands, "raid"):
        for member in command.words[1:]:
            if member not in parts:
                yield problem_at(command.line, f"no part makes the array's {member}")
            if member in used:
                yield problem_at(command.line, f"{member} is in two arrays")
            used.add(member)
        if len(command.words) < 3:
            yield problem_at(command.line, "an array needs two members")
    for member in sorted(it for it in parts - used if it.startswith("raid.")):
        yield problem_at(None, f"no array uses {member}")


def _groups(commands: list[_Command]) -> Iterator[Problem]:
    makers = _named(commands, "part", "raid")
    volumes = {word for it in makers for word in it.words[:1] if word.startswith("pv.")}
    groups = set()
    for command in _named(commands, "volgroup"):
        name, *members = command.words or ("",)
        groups.add(name)
        if not name or name.startswith("_"):
            yield problem_at(command.line, "the volume group has no proper name")
        for member in members:
            if member not in volumes:
                yield problem_at(command.line, f"no part makes the physical volume {member}")
    for command in _named(commands, "logvol"):
        if (group := command.options.get("--vgname", "")) not in groups:
            yield problem_at(command.line, f"no volgroup makes the volume group {group}")
    for command in _named(commands, "part", "logvol", "raid"):
        fstype = command.options.get("--fstype")
        if fstype is not None and fstype not in FSTYPES:
            yield problem_at(command.line, f"unknown file system {fstype}")


def _disks(commands: list[_Command]) -> Iterator[Problem]:
    """What lies on a disk that the installer was told to leave alone cannot be made."""
    only = [it.options["--only-use"] for it in commands if it.options.get("--only-use")]
    known = {disk for words in only for disk in words.split(",")}
    for command in _named(commands, "part", "clearpart"):
        options = command.options
        wanted = options.get("--ondisk") or options.get("--ondrive") or options.get("--drives", "")
        for disk in filter(None, wanted.split(",")):
            if known and disk not in known:
                yield problem_at(command.line, f"ignoredisk leaves {disk} out")


def _mounts(commands: list[_Command]) -> Iterator[Problem]:
    if _named(commands, "autopart", "liveimg", "ostreesetup"):
        return
    seen = set()
    for command in _named(commands, "part", "logvol", "raid"):
        mount = command.words[0] if command.words else ""
        if mount in seen and mount.startswith("/"):
            yield problem_at(command.line, f"{mount} is mounted twice")
        seen.add(mount)
    if "/" not in seen:
        yield problem_at(None, "nothing is mounted at /")


# --- text from elsewhere -----------------------------------------------------------------------


def _written(text: str) -> set[str]:
    """The files that the %pre scripts write, of those that may be included."""
    section, found = "", set()
    for line in text.splitlines():
        first = line.split(maxsplit=1)[0] if line.strip() else ""
        if first == "%end" or (first.startswith("%") and not section):
            section = "" if first == "%end" else first
        elif section == "%pre":
            found |= {match[1] for match in re.finditer(rf">\s*({_OWN.pattern})(?!\S)", line)}
    return found


def _includes(commands: Iterable[_Command], written: set[str]) -> Iterator[Problem]:
    for command in _named(list(commands), *INCLUDES):
        path = command.words[0] if len(command.words) == 1 else ""
        is_own = command.name == "%include" and not command.inside and _OWN.fullmatch(path)
        if not is_own:
            yield problem_at(command.line, f"{command.name} brings in text that was not checked")
        elif path not in written:
            yield problem_at(command.line, f"%include of {path}, which no %pre writes")


def problem_at(line: int | None, message: str) -> Problem:
    """A fault of the rendered text, at its line."""
    return Problem(file=NAME, line=line, column=None, key="", message=message)
