"""Find, lay over one another and validate the files and options that make the Settings of an OS."""

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import SecretStr

from goldimg.config.document import Document, closest, load_yaml
from goldimg.config.fields import os_name_pattern
from goldimg.config.loader import giver_of, is_secret, merged, validate_layers
from goldimg.config.models import OsFile, Settings, SiteFile
from goldimg.config.os_file import iso_file_name, mirror_of
from goldimg.config.secrets import ENVIRONMENT, password_from
from goldimg.errors import ConfigError, Problem, UsageError
from goldimg.project import Site

SUFFIXES = (".yml", ".json")  # in this order
EXAMPLE_PASSWORD = "password"  # noqa: S105 - the original's example, which many sites kept
_SITE_KEYS, _OS_KEYS = set(SiteFile.model_fields), set(OsFile.model_fields)


def list_oses(site: Site) -> list[str]:
    """Names of all operating systems that the site has a file for, sorted as versions are."""
    names = {
        path.stem
        for path in (site.os_dir.iterdir() if site.os_dir.is_dir() else ())
        if path.suffix in SUFFIXES and os_name_pattern().fullmatch(path.stem)
    }
    return sorted(names, key=lambda name: [_number(part) for part in re.split(r"(\d+)", name)])


def _number(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part.lower())


def load_settings(
    site: Site,
    os_name: str,
    *,
    variables: Sequence[str] = (),
    var_files: Sequence[Path] = (),
    environ: Mapping[str, str],
    providers: Collection[str] | None = None,
) -> Settings:
    """The merged, valid Settings of one OS: files, then `var_files`, then `variables` (`k=v`).

    Where `providers` names the known ones, every key that names another is a problem. Raises
    UsageError for an OS that the site does not have, ConfigError with all problems of all files at
    once otherwise. `notes` of the result are for the user to read.
    """
    os_path = _os_file(site, os_name)
    work = _Work(site=site)
    site_layers = work.read(_site_file(site, work.notes))
    os_layers = work.read(os_path)
    owner = os_layers[0] if os_layers else Document(path=site.shown(os_path), data={})
    for document in work.overrides(var_files, variables):
        for_site, for_os = work.split(document)
        site_layers.append(for_site)
        os_layers.append(for_os)
    site_file, found = validate_layers(SiteFile, site_layers)
    work.problems.extend(found)
    os_file = None
    if owner in os_layers:  # else it could not be read, and each of its keys would be missing
        os_file, found = validate_layers(OsFile, [*_families(os_layers), *os_layers], owner=owner)
        work.problems.extend(found)
    if os_file and os_file.vm_name not in (None, os_name):
        message = f"must be '{os_name}', the name of the file"
        work.problems.append(owner.problem("vm_name", message))
    if site_file and providers is not None:
        work.problems.extend(_unknown_providers(site_file, site_layers, providers))
    root_pass = work.password(site_file, site_layers, environ) if site_file else None
    if work.problems or site_file is None or os_file is None:
        raise ConfigError.of(dict.fromkeys(work.problems))
    # What was asked for this once wins over what is so at this site.
    asked = merged(layer.data for layer in os_layers if layer is not owner)
    os_file = os_file.at(mirror_of(site_file.os_mirrors, os_name, os_file.os_name), asked)
    return Settings(
        name=os_name,
        site=site_file,
        os=os_file,
        os_shown=owner.path,
        root_pass=root_pass,
        cache_dir=_path(site, site_file.cache_dir),
        iso_path=_path(site, os_file.iso_path) or _own_iso(site, site_file, os_file),
        checksum_file=_checksum_file(site, os_file),
        notes=(*work.notes, *_remarks(site_file)),
        sources=tuple(work.sources),
    )


def load_site(site: Site, *, variables: Sequence[str] = ()) -> tuple[SiteFile, tuple[str, ...]]:
    """The site file by itself, and notes for the user; ConfigError with all its problems."""
    work = _Work(site=site)
    layers = work.read(_site_file(site, work.notes))
    for document in work.overrides((), variables):
        layers.append(work.split(document)[0])
    site_file, found = validate_layers(SiteFile, layers)
    if work.problems or found or site_file is None:
        raise ConfigError.of(dict.fromkeys([*work.problems, *found]))
    return site_file, tuple(work.notes)


def _os_file(site: Site, os_name: str) -> Path:
    if os_name_pattern().fullmatch(os_name):
        for suffix in SUFFIXES:
            path = site.os_dir / f"{os_name}{suffix}"
            if path.is_file():
                return path
    known = list_oses(site)
    meant = closest(os_name, known)
    raise UsageError(
        f"unknown operating system {os_name!r}" + (f" (did you mean '{meant}'?)" if meant else ""),
        why=f"{site.shown(site.os_dir)}/ has " + (", ".join(known) or "no OS file"),
        hint=f"add {site.shown(site.os_dir)}/<OS>.yml, or name one of those with -O",
    )


def _site_file(site: Site, notes: list[str]) -> Path:
    for name in ("site.yml", "site.json"):
        path = site.templates / name
        if path.exists():
            return path
    shown = site.shown(site.templates)
    notes.append(f"{shown}/site.yml not found; using the values of {shown}/site.yml.example")
    return site.templates / "site.yml.example"


@dataclass(kw_only=True)
class _Work:
    """What gathers while files are read: problems, notes, sources."""

    site: Site
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)

    def read(self, path: Path) -> list[Document]:
        """The file as one layer; none, with its problems noted, where it cannot be read."""
        self.sources.append(path)
        try:
            return [load_yaml(path, shown=self.site.shown(path))]
        except ConfigError as error:
            self.problems.extend(error.problems)
            return []

    def overrides(self, files: Sequence[Path], variables: Sequence[str]) -> list[Document]:
        """What `--var-file` and `--var` give, in the order in which later ones win."""
        documents = [document for path in files for document in self.read(path)]
        return [*documents, *_variables(variables, self.problems)]

    def split(self, document: Document) -> tuple[Document, Document]:
        """The parts of an override that are for the site's model and for the OS's."""
        if not isinstance(document.data, Mapping):
            if document.data is not None:
                self.problems.append(document.problem((), "must be a mapping of keys to values"))
            return replace(document, data={}), replace(document, data={})
        for key in document.data.keys() - _SITE_KEYS - _OS_KEYS:
            meant = closest(key, sorted(_SITE_KEYS | _OS_KEYS))
            self.problems.append(document.problem((key,), "unknown key", meant))
        site_part = {key: value for key, value in document.data.items() if key in _SITE_KEYS}
        os_part = {key: value for key, value in document.data.items() if key in _OS_KEYS}
        return replace(document, data=site_part), replace(document, data=os_part)

    def password(
        self, site_file: SiteFile, layers: Sequence[Document], environ: Mapping[str, str]
    ) -> SecretStr | None:
        """The root password that applies; what is wrong with it is noted without showing it."""
        file = _path(self.site, site_file.root_pass_file)
        try:
            return password_from(environ, file, site_file.root_pass)
        except (OSError, ValueError) as error:
            unreadable = isinstance(error, OSError | UnicodeError)
            message = "cannot be read" if unreadable else str(error)
            key = "root_pass_file" if file else "root_pass"
            giver = giver_of(layers, (key,))
            if environ.get(ENVIRONMENT):
                giver, key = Document(path=ENVIRONMENT, data={}), ""
            self.problems.append(giver.problem(key, message))
            return None


def _path(site: Site, written: str | None) -> Path | None:
    """A path as users write it: `~` is their home, relative means to the site."""
    return site.root / Path(written).expanduser() if written else None


def _unknown_providers(
    site_file: SiteFile, layers: Sequence[Document], known: Collection[str]
) -> list[Problem]:
    """A problem for each key or item of the site file that names no known provider."""
    named: dict[tuple[str | int, ...], str] = {
        ("providers", at): name for at, name in enumerate(site_file.providers)
    }
    named |= {("builder", name): name for name in site_file.builder}
    return [
        giver_of(layers, place).problem(place, "unknown provider", closest(name, known))
        for place, name in named.items()
        if name not in known
    ]


def _own_iso(site: Site, site_file: SiteFile, os_file: OsFile) -> Path | None:
    """The ISO of that name in the site's directory of ISOs, where it is there."""
    directory, name = _path(site, site_file.iso_dir), iso_file_name(os_file.iso)
    found = directory / name if directory and name else None
    return found if found and found.is_file() else None


def _checksum_file(site: Site, os_file: OsFile) -> Path | None:
    kind, _, place = (os_file.iso_checksum or "").partition(":")
    is_here = kind == "file" and "://" not in place and "{" not in place
    return _path(site, place) if is_here else None


def _variables(variables: Sequence[str], problems: list[Problem]) -> list[Document]:
    """`--var key=value` as documents. Keys may be dotted; the models turn text into types."""
    documents = []
    for variable in variables:
        key, equals, text = variable.partition("=")
        empty = Document(path="--var", data={})
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            problems.append(empty.problem("", f"{key!r}: write it as key=value"))
        elif is_secret(SiteFile, path):
            message = f"is visible to every user there; set {ENVIRONMENT} or root_pass_file"
            problems.append(empty.problem(path, message))
        else:
            documents.append(Document(path="--var", data=_nested(path, text)))
    return documents


def _nested(path: Sequence[str], value: object) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return cast(dict[str, Any], value)


@functools.cache
def _family_rules() -> list[dict[str, Any]]:
    text = resources.files("goldimg.config").joinpath("families.yml").read_text(encoding="utf-8")
    return cast(list[dict[str, Any]], yaml.safe_load(text))


def _families(layers: Sequence[Document]) -> list[Document]:
    """Defaults for the OS that the layers name (families.yml), as the layers below them."""
    given = merged(layer.data for layer in layers)
    found = []
    for rule in _family_rules():
        name, version = str(given.get("os_name", "")), str(given.get("os_version", ""))
        is_version = re.fullmatch(rule.get("os_version", ".*"), version)
        if re.fullmatch(rule["os_name"], name) and is_version:
            found.append(Document(path="families.yml", data=rule["defaults"]))
    return found


def _remarks(site_file: SiteFile) -> list[str]:
    notes = []
    if site_file.root_pass and site_file.root_pass.get_secret_value() == EXAMPLE_PASSWORD:
        notes.append("root_pass is the one of the original's public example: choose another")
    if site_file.ks_server:
        notes.append("ks_server is passed to playbooks only: goldimg serves the kickstarts itself")
    if site_file.vmware_sha != "sha256" and site_file.ova_writer != "ovftool":
        notes.append("vmware_sha is for 'ova_writer: ovftool'; goldimg's own OVA files hold SHA256")
    zones = Path("/usr/share/zoneinfo")
    if zones.is_dir() and not (zones / site_file.timezone).is_file():
        # Not an error: the target may know zones that this machine does not.
        notes.append(f"timezone {site_file.timezone} is not in this machine's zone database")
    return notes
