"""The options of kickstart builds: what users write in `kickstart/builds/`, merged and checked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
)

from goldimg.config.loader import (
    Document,
    closest,
    load_yaml,
    validate_layers,
    validate_model,
)
from goldimg.errors import ConfigError, Problem

TYPES = ("virtual", "metal")
BUILD = re.compile(r"(virtual|metal)/([A-Za-z0-9][A-Za-z0-9._-]*)")
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# A line that starts so would end the script, start another section or include a file.
SECTION_LINE = re.compile(r"\s*%\w")


def is_clean(text: str) -> bool:
    """Whether every character prints. Line ends of any kind (also U+0085, U+2028) do not."""
    return text.isprintable()


def _matching(pattern: str, message: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def check_script(text: str) -> str:
    """The script, if kickstart cannot take one of its lines for its own; else ValueError."""
    for line in text.split("\n"):
        if not is_clean(line.replace("\t", " ")):
            raise ValueError("must not have control characters")
        if SECTION_LINE.match(line):
            raise ValueError("must not have a line that starts with '%', as kickstart sections do")
    return text


def _size_or(word: str, low: int, high: int) -> PlainValidator:
    # One validator and not a union, so that a wrong value is one problem with one message.
    def check(value: object) -> object:
        if value == word:
            return value
        is_number = isinstance(value, int | str) and re.fullmatch(r"[0-9]{1,9}", str(value))
        if not is_number or not low <= (size := int(str(value))) <= high:
            raise ValueError(f"must be '{word}' or a size of {low} to {high} MiB")
        return size

    return PlainValidator(check)


def _efi(value: object) -> object:
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


def _address(value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise ValueError("must be an IPv4 address") from None


def _netmask(value: str) -> str:
    try:
        # IPv4Network also takes a host mask and a prefix length, which kickstart does not.
        network = IPv4Network(f"0.0.0.0/{value}")
    except ValueError:
        network = None
    if network is None or str(network.netmask) != value:
        raise ValueError("must be a netmask such as 255.255.255.0")
    return value


def _addresses(value: str) -> str:
    return ",".join(_address(part.strip()) for part in value.split(","))


def _blank_is_none(value: object) -> object:
    return None if value == "" else value


Blank = BeforeValidator(_blank_is_none)  # the original system wrote "" for "not given"
Package = Annotated[
    str,
    # A leading `@` is a group, `@^` an environment, `-` an exclusion, `*` a glob.
    _matching(r"-?(@\^?)?[A-Za-z0-9][A-Za-z0-9._+:*-]*", "must be a package, @group or -exclusion"),
]
KernelArg = Annotated[
    str, _matching(r"[A-Za-z0-9][A-Za-z0-9._,:=/@+%-]*", "must be one kernel argument")
]
Script = Annotated[str, AfterValidator(check_script), Blank]
Disk = Annotated[
    str, _matching(r"[A-Za-z0-9][A-Za-z0-9._:+-]*(/[A-Za-z0-9._:+-]+)*", "must be a disk's name")
]
Device = Annotated[
    str, _matching(r"[A-Za-z0-9][A-Za-z0-9._:-]*", "must be a network device's name")
]
Name = Annotated[str, _matching(rf"{LABEL}(\.{LABEL})*", "must be a host name")]


class Options(BaseModel):
    """How one machine is installed. Sizes are in MiB. Names, meanings and values are those of the
    original system's `$`-variables; what it did not have is marked new in `builds/defaults.yml`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hardware: Literal["virtual", "metal"] = "virtual"
    fstype: Literal["xfs", "ext4", "ext3"] = "xfs"
    lvm: bool = True
    boot: bool = True
    bootsize: Annotated[int, Field(ge=200, le=16384)] = 1024
    efi: Annotated[bool | Literal["auto"], PlainValidator(_efi)] = "auto"
    swap: bool = True
    swapsize: Annotated[int | Literal["recommended"], _size_or("recommended", 32, 1 << 20)] = (
        "recommended"
    )
    rootsize: Annotated[int | Literal["max"], _size_or("max", 1024, 1 << 28)] = "max"
    disk: Annotated[Disk | None, Blank] = None
    packages: tuple[Package, ...] = ()
    kernel_args: tuple[KernelArg, ...] = ()
    pre: Script | None = None
    post: Script | None = None
    selinux: Literal["default", "enforcing", "permissive", "disabled"] = "default"
    firewall: bool = True
    fqdn: Annotated[Name | None, Blank] = None
    device: Annotated[Device | None, Blank] = None
    ipaddr: Annotated[Annotated[str, AfterValidator(_address)] | None, Blank] = None
    netmask: Annotated[Annotated[str, AfterValidator(_netmask)] | None, Blank] = None
    gateway: Annotated[Annotated[str, AfterValidator(_address)] | None, Blank] = None
    nameserver: Annotated[Annotated[str, AfterValidator(_addresses)] | None, Blank] = None


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
    options, problems = validate_layers(Options, layers)
    if options is None:
        raise ConfigError.of(problems)
    if conflicts := [_giver(layers, key).problem(key, text) for key, text in _conflicts(options)]:
        raise ConfigError.of(conflicts)
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


def _giver(layers: Sequence[Document], key: str) -> Document:
    return next((layer for layer in reversed(layers) if layer.has(key)), layers[-1])


def _conflicts(options: Options) -> Iterator[tuple[str, str]]:
    """Keys whose values are right alone and wrong together, with the reason."""
    if not options.lvm and options.rootsize != "max":
        yield "rootsize", "needs lvm: a plain root takes what is left of the disk"
    if not options.lvm and options.swap and options.swapsize != "recommended":
        yield "swapsize", "needs lvm: swap is a logical volume"
    if options.hardware == "metal" and options.disk is None:
        yield "disk", "is required for metal: without it every disk of the machine would be cleared"
    if options.ipaddr is None:
        for key in ("netmask", "gateway", "nameserver"):
            if getattr(options, key) is not None:
                yield key, "needs ipaddr"
    elif options.netmask is None:
        yield "ipaddr", "needs netmask"
    else:
        network = IPv4Network(f"{options.ipaddr}/{options.netmask}", strict=False)
        if options.gateway is not None and IPv4Address(options.gateway) not in network:
            yield "gateway", "is not in the network of ipaddr and netmask"
