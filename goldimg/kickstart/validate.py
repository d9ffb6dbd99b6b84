"""Is a kickstart right for its syntax version? Asked before a VM starts.

ksvalidator (pykickstart, GPL: always run as a process, never imported) knows each version's
commands and options. It parses; it does not ask whether the parts fit together, so `semantic`
adds what it lets pass: a volume group that nobody makes, a static network without an address,
a root that anybody may be.
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from goldimg.errors import Problem
from goldimg.kickstart.render import CRYPT
from goldimg.kickstart.syntax import SYNTAXES
from goldimg.run import Runner

NAME = "kickstart"
FSTYPES = {"ext3", "ext4", "xfs", "vfat", "efi", "swap", "biosboot", "lvmpv"}
_INCLUDES = ("%include", "%ksappend")
_WHERE = re.compile(r"\bon line (\d+)\b(?: of the kickstart file)?:?")
_HASH = re.compile(r"\$[0-9a-z]{1,3}\$[^\s'\"\]]+")


def validate(text: str, syntax: str, runner: Runner) -> list[Problem]:
    """Every fault of the kickstart `text` for `syntax` (such as `RHEL9`); none: it may be served.

    What a release has deprecated counts as a fault. The hash of a password appears in no problem.
    Raises MissingTool where ksvalidator is not installed.
    """
    found = semantic(text)
    if not any(problem.message.startswith(_INCLUDES) for problem in found):
        # Else ksvalidator would go and fetch what the file names.
        found += _ksvalidator(text, syntax, runner)
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda problem: (problem.line or 0, problem.message))


# --- ksvalidator -----------------------------------------------------------------------------


def _ksvalidator(text: str, syntax: str, runner: Runner) -> Iterator[Problem]:
    if syntax not in SYNTAXES:
        yield _problem(None, f"unknown syntax version {syntax}")
        return
    own = Path(sys.executable).parent / "ksvalidator"
    # The directory is ours alone (0700): the text may hold the hash of a password.
    with tempfile.TemporaryDirectory(prefix="goldimg-ks-") as directory:
        path = Path(directory) / "ks.cfg"
        path.write_text(text, encoding="utf-8")
        done = runner.run(
            [own if own.exists() else "ksvalidator", "-v", syntax, path],
            reason="check kickstarts",
            check=False,
            timeout=60,
            # Its messages are read below, so they must not be translated.
            env={"LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "default"},
        )
        said = done.stdout + "\n" + done.stderr
        messages = list(_messages(said.replace(str(path), NAME)))
    yield from messages
    if done.code != 0 and not messages:
        yield _problem(None, f"ksvalidator ended with exit code {done.code}")


def _messages(said: str) -> Iterator[Problem]:
    """One problem for each message; those of a parse error put their reason two lines below."""
    line = None
    for raw in said.splitlines():
        words = _HASH.sub("***", raw.strip())
        if not words or words.startswith("Checking kickstart file"):
            continue
        words = words.removeprefix("File uses a deprecated option or command.").strip()
        if match := _WHERE.search(words):
            line = int(match[1])
            before, after = words[: match.start()].strip(), words[match.end() :].strip()
            if not after or before == "The following problem occurred":
                words = after
            else:
                words = f"{before}: {after}"
        if words:
            yield _problem(line, words)
            line = None


# --- what it lets pass -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Command:
    line: int
    name: str
    options: dict[str, str]
    words: tuple[str, ...]


# Of the commands read here, the options that take the next word where they have no `=`.
_VALUED = frozenset(
    f"--{name}"
    for name in (
        *("bootproto", "device", "ip", "netmask", "gateway", "nameserver", "hostname", "onboot"),
        *("fstype", "size", "maxsize", "ondisk", "ondrive", "onpart", "label", "fsoptions"),
        *("name", "vgname", "pesize"),
    )
)


def semantic(text: str) -> list[Problem]:
    """Faults that a parser cannot see. Reads commands only, not the inside of sections."""
    commands = list(_commands(text))
    return [
        problem
        for check in (_root_password, _network, _disks, _mounts, _sections)
        for problem in check(commands)
    ]


def _commands(text: str) -> Iterator[_Command]:
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        first = line.split(maxsplit=1)[0] if line.strip() else ""
        # Inside a script other words with a percent sign are the script's own.
        if first in _INCLUDES or first == "%end" or (first.startswith("%") and not inside):
            if first not in _INCLUDES:
                inside = first != "%end"
            yield _Command(line=number, name=first, options={}, words=())
            continue
        if inside:
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # ksvalidator says where the quote is open
        if words:
            yield _command(number, words)


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
        yield _problem(None, "no rootpw: the installer would ask for a password, or set none")
    for command in found:
        if "--allow-ssh" in command.options:
            yield _problem(command.line, "rootpw --allow-ssh lets root log in by password")
        if "--lock" in command.options:
            continue
        if "--iscrypted" not in command.options:
            yield _problem(command.line, "rootpw holds a password in clear text")
        elif not (command.words and CRYPT.fullmatch(command.words[0])):
            yield _problem(command.line, "rootpw holds no sha256, sha512 or yescrypt hash")


def _network(commands: list[_Command]) -> Iterator[Problem]:
    for command in _named(commands, "network"):
        if command.options.get("--bootproto", "dhcp") == "static":
            for option in ("--ip", "--netmask"):
                if not command.options.get(option):
                    yield _problem(command.line, f"a static network needs {option}")
        for option in ("--ip", "--netmask", "--gateway", "--nameserver"):
            value = command.options.get(option)
            if value and value != "dhcp" and not all(map(_is_address, value.split(","))):
                yield _problem(command.line, f"{option} is not an IPv4 address")


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _disks(commands: list[_Command]) -> Iterator[Problem]:
    volumes = {word for it in _named(commands, "part") for word in it.words if "pv." in word}
    groups = set()
    for command in _named(commands, "volgroup"):
        name, *members = command.words or ("",)
        groups.add(name)
        if not name or name.startswith("_"):
            yield _problem(command.line, "the volume group has no proper name")
        for member in members:
            if member not in volumes:
                yield _problem(command.line, f"no part makes the physical volume {member}")
    for command in _named(commands, "logvol"):
        if (group := command.options.get("--vgname", "")) not in groups:
            yield _problem(command.line, f"no volgroup makes the volume group {group}")
    for command in _named(commands, "part", "logvol"):
        fstype = command.options.get("--fstype")
        if fstype is not None and fstype not in FSTYPES:
            yield _problem(command.line, f"unknown file system {fstype}")


def _mounts(commands: list[_Command]) -> Iterator[Problem]:
    if _named(commands, "autopart", "liveimg", "ostreesetup"):
        return
    seen = set()
    for command in _named(commands, "part", "logvol"):
        mount = command.words[0] if command.words else ""
        if mount in seen and mount.startswith("/"):
            yield _problem(command.line, f"{mount} is mounted twice")
        seen.add(mount)
    if "/" not in seen:
        yield _problem(None, "nothing is mounted at /")


def _sections(commands: list[_Command]) -> Iterator[Problem]:
    for command in commands:
        if command.name in _INCLUDES:
            yield _problem(command.line, f"{command.name} brings in text that was not checked")


def _problem(line: int | None, message: str) -> Problem:
    return Problem(file=NAME, line=line, column=None, key="", message=message)
