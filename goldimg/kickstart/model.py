"""The options of kickstart builds: what users write in `kickstart/builds/`, merged and checked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from goldimg.config.loader import (
    Document,
    closest,
    giver_of,
    load_yaml,
    validate_layers,
    validate_model,
)
from goldimg.errors import ConfigError, Problem
from goldimg.kickstart.addresses import TimeServer
from goldimg.kickstart.fields import (
    LABEL,
    SECTION_LINE,
    SMALLEST,
    Blank,
    Disk,
    HostName,
    HttpUrl,
    KernelArg,
    Mac,
    OneOrMore,
    OsName,
    Package,
    ProxyUrl,
    RepoName,
    Serial,
    Service,
    SnippetName,
    SshKey,
    blank_is_none,
    check_script,
    firmware_word,
    is_clean,
    size_or,
)
from goldimg.kickstart.network import (
    Conflict,
    Interface,
    KeyPath,
    Link,
    links,
    network_conflicts,
)
from goldimg.kickstart.snippets import snippet_problems

__all__ = [
    "LABEL",
    "SECTION_LINE",
    "Options",
    "Raid",
    "builds",
    "check_script",
    "conflicts",
    "is_clean",
    "load_options",
]

TYPES = ("virtual", "metal")
BUILD = re.compile(r"(virtual|metal)/([A-Za-z0-9][A-Za-z0-9._-]*)")
# md(4): the least disks that a level needs. Level 10 is two mirrors at least, as anaconda has it.
RAID_DISKS = {0: 2, 1: 2, 4: 3, 5: 3, 6: 4, 10: 4}
# What a layer says of the one takes the place of what a layer below says of the other.
_INSTEAD = (("disk", "raid"), ("raid", "disk"))
_NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[SnippetName, ...])
_SERVICES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Service, ...])


def _level(value: object) -> object:
    match = re.fullmatch(r"(?:raid)?([0-9]{1,2})", str(value).lower())
    if isinstance(value, bool) or not match or int(match[1]) not in RAID_DISKS:
        raise ValueError(f"must be one of {', '.join(map(str, RAID_DISKS))}")
    return int(match[1])


def _scripts(value: object) -> object:
    """Text, or names of snippets; one validator, so that a wrong value is one problem."""
    if blank_is_none(value) is None:
        return None
    if isinstance(value, str):
        return check_script(value)
    try:
        return _NAMES.validate_python(value) or None
    except ValidationError:
        raise ValueError("must be shell text, or a list of names of snippets") from None


def _firewall(value: object) -> object:
    known = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, bool | int | str) and str(value).lower() in known:
        return known[str(value).lower()]
    try:
        return _SERVICES.validate_python(value)
    except ValidationError:
        words = "must be true, false or a list of services and ports such as [ssh, 8080/tcp]"
        raise ValueError(words) from None


class Raid(BaseModel):
    """Software RAID (md) over whole disks: /boot mirrored on all of them, the rest at `level`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Annotated[int, PlainValidator(_level)]
    disks: Annotated[tuple[Disk, ...], Field(min_length=2, max_length=32)]


class Options(Interface):
    """How one machine is installed. Sizes are in MiB. Names, meanings and values are those of the
    original system's `$`-variables; what it did not have is marked new in `builds/defaults.yml`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hardware: Literal["virtual", "metal"] = "virtual"
    # Who a machine is, for `host add`, netboot and the kickstart server.
    mac: Annotated[tuple[Mac, ...], OneOrMore] = ()
    serial: Annotated[Serial | None, Blank] = None
    os: Annotated[OsName | None, Blank] = None
    fstype: Literal["xfs", "ext4", "ext3"] = "xfs"
    lvm: bool = True
    boot: bool = True
    bootsize: Annotated[int, Field(ge=200, le=16384)] = 1024
    efi: Annotated[bool | Literal["auto"], PlainValidator(firmware_word)] = "auto"
    swap: bool = True
    swapsize: Annotated[int | Literal["recommended"], size_or("recommended", 32, 1 << 20)] = (
        "recommended"
    )
    rootsize: Annotated[int | Literal["max"], size_or("max", 1024, 1 << 28)] = "max"
    disk: Annotated[Disk | None, Blank] = None
    raid: Raid | None = None
    packages: tuple[Package, ...] = ()
    repos: dict[RepoName, HttpUrl] = {}
    proxy: Annotated[ProxyUrl | None, Blank] = None
    ntp: Annotated[tuple[TimeServer, ...], OneOrMore] = ()
    ssh_keys: Annotated[tuple[SshKey, ...], OneOrMore] = ()
    kernel_args: tuple[KernelArg, ...] = ()
    pre: Annotated[str | tuple[str, ...] | None, PlainValidator(_scripts)] = None
    post: Annotated[str | tuple[str, ...] | None, PlainValidator(_scripts)] = None
    selinux: Literal["default", "enforcing", "permissive", "disabled"] = "default"
    firewall: Annotated[bool | tuple[str, ...], PlainValidator(_firewall)] = True
    fqdn: Annotated[HostName | None, Blank] = None
    interfaces: tuple[Interface, ...] = ()

    @property
    def smallest(self) -> str | None:
        """`any`, `nvme`, `ssd` or `hdd` where the smallest disk of a kind is asked for."""
        match = SMALLEST.fullmatch(self.disk or "")
        return (match[2] or "any") if match else None

    @property
    def disks(self) -> tuple[str, ...]:
        """The disks that are named; none: all there are, or one that is chosen at install time."""
        if self.raid:
            return self.raid.disks
        return (self.disk,) if self.disk and not self.smallest else ()

    @property
    def links(self) -> tuple[Link, ...]:
        """Every interface, the one with the host's name first."""
        return links(self, self.interfaces)


def load_options(
    root: Path,
    build: str,
    os_defaults: Mapping[str, object],
    *,
    os_file: str = "kickstart.options of the OS",
) -> Options:
    """The options of `build` (such as `virtual/aws`) in the kickstart directory `root`.

    Laid over one another: the OS's, `builds/defaults.yml`, the type's `defaults.yml`, the build's
    own file; a list replaces the list below it. Raises ConfigError with every problem of all of
    them, also for a build that has no file: there is no falling back to other people's defaults.
    """
    match = BUILD.fullmatch(build)
    if not match or build not in builds(root):
        raise ConfigError.of([_unknown(root, build)])
    kind, name = match.groups()
    layers = [Document(path=os_file, data=dict(os_defaults))]
    problems: list[Problem] = []
    for relative in ("defaults.yml", f"{kind}/defaults.yml", f"{kind}/{name}.yml"):
        path = root / "builds" / relative
        if not path.exists():
            continue
        try:
            layers.append(load_yaml(path, shown=f"{root.name}/builds/{relative}"))
        except ConfigError as error:
            problems.extend(error.problems)
    # Each file by itself too: a value that a later file covers is still wrong.
    for layer in layers:
        problems.extend(validate_model(Options, layer)[1])
    if problems:
        raise ConfigError.of(problems)
    layers = _overridden(layers)
    options, problems = validate_layers(Options, layers)
    if options is None:
        raise ConfigError.of(problems)
    found = [_giver(layers, path).problem(path, text) for path, text in conflicts(options)]
    found += _snippet_problems(root, options, layers)
    if found:
        raise ConfigError.of(dict.fromkeys(found))
    return options


def builds(root: Path) -> tuple[str, ...]:
    """Every build that has a file in the kickstart directory `root`, sorted within its type."""
    found = []
    for kind in TYPES:
        names = sorted(path.stem for path in (root / "builds" / kind).glob("*.yml"))
        found += [f"{kind}/{name}" for name in names if name != "defaults"]
    return tuple(build for build in found if BUILD.fullmatch(build))


def _unknown(root: Path, build: str) -> Problem:
    known = builds(root)
    listing = f"no such build; there are {', '.join(known)}" if known else "no such build"
    shown = build if is_clean(build) else repr(build)
    return Problem(
        file=f"{root.name}/builds",
        line=None,
        column=None,
        key=shown,
        message=listing,
        suggestion=closest(build, known),
    )


def _giver(layers: Sequence[Document], path: KeyPath) -> Document:
    # What no layer gives is best given in the last, which is the build's own.
    given = any(layer.has(path[:1]) for layer in layers)
    return giver_of(layers, path) if given else layers[-1]


def _overridden(layers: Sequence[Document]) -> list[Document]:
    """The layers without what a later one overrides by another key or another notation."""
    result: list[Document] = []
    for layer in layers:
        data: Mapping[str, Any] = layer.data if isinstance(layer.data, Mapping) else {}
        gone = {other for key, other in _INSTEAD if data.get(key) and other not in data}
        if "/" in str(data.get("ipaddr")) and "netmask" not in data:
            gone.add("netmask")
        result = [_without(below, gone) for below in result]
        result.append(layer)
    return result


def _without(layer: Document, keys: set[str]) -> Document:
    if not keys or not isinstance(layer.data, Mapping):
        return layer
    return replace(layer, data={key: it for key, it in layer.data.items() if key not in keys})


def _snippet_problems(root: Path, options: Options, layers: Sequence[Document]) -> list[Problem]:
    return [
        _giver(layers, (key,)).problem((key, at), message, meant)
        for key, written in (("pre", options.pre), ("post", options.post))
        for at, message, meant in snippet_problems(root, written)
    ]


def conflicts(options: Options) -> Iterator[Conflict]:
    """Keys whose values are right alone and wrong together, with the reason."""
    if options.hardware == "virtual":
        for key in ("mac", "serial", "os"):
            if getattr(options, key):
                yield (key,), "is for machines (metal): an image is no single one"
    yield from _disk_conflicts(options)
    if len(set(options.mac)) != len(options.mac):
        yield ("mac",), "holds an address twice"
    yield from network_conflicts(options, options.interfaces)


def _disk_conflicts(options: Options) -> Iterator[Conflict]:
    if not options.lvm and options.rootsize != "max":
        yield ("rootsize",), "needs lvm: a plain root takes what is left of the disk"
    if not options.lvm and options.swap and options.swapsize != "recommended":
        yield ("swapsize",), "needs lvm: swap is a logical volume"
    if options.raid is None:
        if options.hardware == "metal" and options.disk is None:
            reason = "without it every disk of the machine would be cleared"
            yield ("disk",), f"is required for metal: {reason}"
        return
    disks, level = options.raid.disks, options.raid.level
    if options.disk is not None:
        yield ("raid",), "excludes disk: its own disks are listed in it"
    if any(SMALLEST.fullmatch(disk) for disk in disks):
        yield ("raid", "disks"), "must be names of disks"
    if len(set(disks)) != len(disks):
        yield ("raid", "disks"), "holds a disk twice"
    if len(disks) < RAID_DISKS[level]:
        yield ("raid", "disks"), f"must have at least {RAID_DISKS[level]} for level {level}"
    if not options.boot:
        yield ("boot",), "is needed with raid: firmware reads no array but a mirror"
