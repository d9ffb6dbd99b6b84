"""The machines of a site, a file each in `kickstart/builds/metal/`, and who is who on a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from goldimg.config.document import closest
from goldimg.config.settings import list_oses
from goldimg.errors import ConfigError, Problem, UsageError
from goldimg.kickstart.model import Options, builds, load_options
from goldimg.project import Site, write_text

KIND = "metal"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# What firmware reports where nobody has set a serial number: never somebody's.
NO_SERIAL = {"", "0", "none", "not specified", "default string", "to be filled by o.e.m."}


@dataclass(frozen=True, kw_only=True)
class Host:
    """One machine as its file describes it; with `problems` it is never installed."""

    name: str
    mac: tuple[str, ...] = ()
    serial: str | None = None
    os: str | None = None
    options: Options | None = None
    problems: tuple[Problem, ...] = ()
    via: str = ""  # the build that describes it, where it has no file of its own

    @property
    def build(self) -> str:
        return self.via or f"{KIND}/{self.name}"


Kept = dict[str, tuple[object, Host]]


def load_hosts(site: Site, kept: Kept | None = None) -> dict[str, Host]:
    """Every host that has a file. A wrong file makes a host with problems, and hides no other.

    With `kept`, which is filled for the next time, only files that have changed are read again.

    Two hosts with one MAC address or serial number both have a problem: a machine that could be
    either must be neither.
    """
    oses = list_oses(site)
    hosts = {}
    kept = {} if kept is None else kept
    common = (oses, [_mark(site, f"{name}.yml") for name in ("defaults", f"{KIND}/defaults")])
    for name in host_names(site):
        mark = (common, _mark(site, f"{KIND}/{name}.yml"))
        if name not in kept or kept[name][0] != mark:
            kept[name] = (mark, _load(site, name, oses))
        hosts[name] = kept[name][1]
    for key in ("mac", "serial"):
        for value, names in _owners(hosts.values(), key).items():
            if len(names) > 1:
                for name in names:
                    others = ", ".join(other for other in names if other != name)
                    problem = _problem(site, name, key, f"{value} is also that of {others}")
                    hosts[name] = _with(hosts[name], problem)
    return hosts


def host_names(site: Site) -> list[str]:
    """The names of all hosts that have a file."""
    prefix = f"{KIND}/"
    return [name.removeprefix(prefix) for name in builds(site.kickstart) if name.startswith(prefix)]


def identify(hosts: Mapping[str, Host], macs: Sequence[str], serial: str | None) -> str | None:
    """The one host that has one of these MAC addresses, or else this serial number.

    None where no host fits, and where more than one does.
    """
    wanted = {mac.lower() for mac in macs}
    found = {host.name for host in hosts.values() if wanted & set(host.mac)}
    if not found and serial and serial.strip().lower() not in NO_SERIAL:
        found = {host.name for host in hosts.values() if host.serial == serial.strip()}
    return found.pop() if len(found) == 1 else None


def check_name(name: str) -> str:
    """The name, if a host may be called so; else UsageError."""
    if not NAME.fullmatch(name) or name == "defaults":
        raise UsageError(
            f"{name!r} is no name for a host",
            hint="letters, digits and . _ - only, beginning with a letter or digit",
        )
    return name


def find_host(hosts: Mapping[str, Host], name: str) -> Host:
    """The host called `name`; UsageError says which one was probably meant."""
    if name in hosts:
        return hosts[name]
    meant = closest(name, hosts)
    raise UsageError(
        f"no host {name!r}" + (f" (did you mean '{meant}'?)" if meant else ""),
        why="hosts are " + ", ".join(sorted(hosts)) if hosts else "the site has no hosts yet",
        hint=f"'goldimg host add {name} --mac …' makes one" if NAME.fullmatch(name) else "",
    )


def add_host(
    site: Site, name: str, *, mac: Sequence[str], serial: str | None, os_name: str | None
) -> Host:
    """Writes `kickstart/builds/metal/<name>.yml`; what is wrong is told, and no file stays.

    Raises UsageError for a host that exists or a name that cannot be, ConfigError with problems.
    """
    check_name(name)
    path = site.kickstart / "builds" / KIND / f"{name}.yml"
    if path.exists():
        raise UsageError(
            f"host {name} exists", why=f"{site.shown(path)} describes it", hint="edit that file"
        )
    lines = ["# Options of this machine; see ../defaults.yml and example.yml.example."]
    lines += [f"mac: [{', '.join(_quoted(it) for it in mac)}]"] if mac else []
    lines += [f"serial: {_quoted(serial)}"] if serial else []
    lines += [f"os: {_quoted(os_name)}"] if os_name else []
    write_text(path, "\n".join(lines) + "\n")
    host = load_hosts(site)[name]
    if host.problems:
        path.unlink()
        raise ConfigError.of(host.problems)
    return host


def remove_host(site: Site, name: str) -> None:
    """Removes the host's file."""
    (site.kickstart / "builds" / KIND / f"{name}.yml").unlink()


def _quoted(text: str) -> str:
    # Always quoted: a MAC address such as 52:54:00:12:34:56 is a number to some YAML readers.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _load(site: Site, name: str, oses: Sequence[str]) -> Host:
    build = f"{KIND}/{name}"
    try:
        options = load_options(site.kickstart, build, {})
    except ConfigError as error:
        return Host(name=name, problems=error.problems)
    host = Host(name=name, mac=options.mac, serial=options.serial, os=options.os, options=options)
    if options.os is not None and options.os not in oses:
        problem = _problem(site, name, "os", "no such operating system", closest(options.os, oses))
        return _with(host, problem)
    return host


def _mark(site: Site, relative: str) -> tuple[int, int, int] | None:
    try:
        found = (site.kickstart / "builds" / relative).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _owners(hosts: Iterable[Host], key: str) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for host in hosts:
        value = getattr(host, key)
        for item in (value,) if isinstance(value, str) else value or ():
            owners.setdefault(item, []).append(host.name)
    return owners


def _with(host: Host, problem: Problem) -> Host:
    return Host(
        name=host.name,
        mac=host.mac,
        serial=host.serial,
        os=host.os,
        options=host.options,
        problems=(*host.problems, problem),
    )


def _problem(
    site: Site, name: str, key: str, message: str, suggestion: str | None = None
) -> Problem:
    return Problem(
        file=f"{site.kickstart.name}/builds/{KIND}/{name}.yml",
        line=None,
        column=None,
        key=key,
        message=message,
        suggestion=suggestion,
    )
