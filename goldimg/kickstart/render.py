"""Options and target in, kickstart text out: pure, and the same text for the same input.

Every value is quoted for the place where it lands. `{{ value }}` in a template gives one word,
quoted as POSIX shell and kickstart (which splits lines as a shell does) both read it; the only
exceptions are the filters `script` and `package`, which check instead. A value that could end a
line is refused wherever it comes from.
"""

from __future__ import annotations

import functools
import re
import shlex
import traceback
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from goldimg.errors import ConfigError, Problem
from goldimg.kickstart.layout import ESP, ROOT, Volume, disk_layout
from goldimg.kickstart.model import LABEL, Options, check_script, is_clean
from goldimg.kickstart.syntax import SYNTAXES, Family, Syntax

__all__ = ["Target", "Volume", "disk_layout", "render", "volume_group"]

MAIN = "main.ks.j2"
# crypt(5): sha256, sha512 or yescrypt with a salt and a digest of that method's length.
CRYPT = re.compile(
    r"\$5\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43}"
    r"|\$6\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}"
    r"|\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}"
)
_HOST = rf"({LABEL}(\.{LABEL})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?"
_CHECKS = {
    "build": re.compile(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9._-]*"),
    "os_name": re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*"),
    "os_version": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"),
    "family": re.compile(r"el|debian"),
    "syntax": re.compile("|".join(SYNTAXES)),
    "repo_url": re.compile(r"(https?|ftp|nfs|file)://[!-~]+"),
    "lang": re.compile(r"[A-Za-z][A-Za-z0-9_.@-]*"),
    "keyboard": re.compile(r"[A-Za-z0-9][A-Za-z0-9_()-]*"),
    "timezone": re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*"),
    "hostname": re.compile(rf"{LABEL}(\.{LABEL})*|"),
    "root_hash": CRYPT,
    # Plain enough to stand unquoted in a comment and in a shell's word.
    "report_url": re.compile(rf"https?://{_HOST}(/[A-Za-z0-9._~-]+)*"),
}
_REPO_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SSH_KEY = re.compile(r"[a-z][a-z0-9@.-]+ [A-Za-z0-9+/]+=*( .*)?")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is installed, from where, and who may log in. ConfigError for a value of no use.

    `build` names the build in messages and never enters the text, so that builds with the same
    options share an install. `root_hash` is in crypt(5) form; None locks root's password.
    `report_url` is where stages are POSTed to, as `<report_url>/<stage>`.
    """

    build: str
    os_name: str
    os_version: str
    family: Family
    syntax: str
    repo_url: str
    extra_repos: tuple[tuple[str, str], ...] = ()
    lang: str = "en_US.UTF-8"
    keyboard: str = "us"
    timezone: str = "UTC"
    hostname: str = ""
    root_hash: str | None = field(default=None, repr=False)
    ssh_keys: tuple[str, ...] = ()
    report_url: str | None = None

    def __post_init__(self) -> None:
        values = {it.name: getattr(self, it.name) for it in fields(self)}
        wrong = [
            name
            for name, check in _CHECKS.items()
            if values[name] is not None
            and not (is_clean(values[name]) and check.fullmatch(values[name]))
        ]
        for name, url in self.extra_repos:
            if not _REPO_NAME.fullmatch(name) or not _CHECKS["repo_url"].fullmatch(url):
                wrong.append("extra_repos")
        if not all(is_clean(key) and _SSH_KEY.fullmatch(key) for key in self.ssh_keys):
            wrong.append("ssh_keys")
        if wrong:
            # Never the value: it may be the hash.
            raise ConfigError.of(
                _problem(self.build if is_clean(self.build) else "kickstart", name, _wanted(name))
                for name in wrong
            )


def _wanted(name: str) -> str:
    return f"must be one of {', '.join(SYNTAXES)}" if name == "syntax" else "is not valid"


def render(root: Path, options: Options, target: Target) -> str:
    """The kickstart of `options` for `target`, by the templates in `root`/ks.

    It holds nothing that two builds with the same options and target would not share. Raises
    ConfigError with file and line for a template that fails.
    """
    environment = _environment(root / "ks")
    try:
        return environment.get_template(MAIN).render(
            options=options,
            target=target,
            syntax=SYNTAXES[target.syntax],
            sizes={"esp": ESP, "root": ROOT},
            hostname=options.fqdn or target.hostname,
            volume_group=volume_group(options, target.hostname),
            kernel_args=kernel_args(options, target.family, SYNTAXES[target.syntax]),
        )
    except jinja2.TemplateError as error:
        raise ConfigError.of([_template_problem(root, error)]) from None


def volume_group(options: Options, hostname: str = "") -> str:
    """The name of root's volume group, never without a name before `_rootvg` and never empty."""
    host = (options.fqdn or hostname).split(".")[0]
    return f"{host}_rootvg" if options.hardware == "metal" and host else "rootvg"


def kernel_args(options: Options, family: Family, syntax: Syntax) -> tuple[str, ...]:
    """The installed system's kernel arguments: the options', and no nouveau, as the original."""
    if family == "debian":
        return options.kernel_args
    return (f"{syntax.blacklist}=nouveau", "nouveau.modeset=0", *options.kernel_args)


# --- templates -------------------------------------------------------------------------------


class _Checked(str):
    """Text that a filter has checked for its place and that goes out as it is."""

    __slots__ = ()


T = TypeVar("T")


def _finalize(value: T) -> T | str:
    if isinstance(value, _Checked | jinja2.Undefined):
        return value  # an undefined value raises when it is turned into text
    text = str(value)
    if not is_clean(text):
        raise jinja2.TemplateRuntimeError("a value holds a line end or a control character")
    return shlex.quote(text)


def _script(value: str) -> _Checked:
    try:
        return _Checked(check_script(value).rstrip("\n"))
    except ValueError as error:
        raise jinja2.TemplateRuntimeError(str(error)) from None


def _package(value: str) -> _Checked:
    # Lines of %packages are no shell words: quotes would become part of the name.
    if not re.fullmatch(r"[@^A-Za-z0-9._+:*-]+", value):
        raise jinja2.TemplateRuntimeError("a package's name holds other characters")
    return _Checked(value)


@functools.lru_cache(maxsize=4)
def _environment(sections: Path) -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(sections),
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # nothing here is HTML; _finalize quotes
    )
    environment.filters = {
        "join": environment.filters["join"],
        "script": _script,
        "package": _package,
    }
    return environment


def _template_problem(root: Path, error: jinja2.TemplateError) -> Problem:
    shown, line = f"{root.name}/ks", None
    if isinstance(error, jinja2.TemplateSyntaxError):
        shown, line = f"{shown}/{error.name or MAIN}", error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        for frame in frames:
            if frame.filename.endswith(".j2"):
                shown, line = f"{root.name}/ks/{Path(frame.filename).name}", frame.lineno
    return Problem(
        file=shown, line=line, column=None, key="", message=error.message or type(error).__name__
    )


def _problem(where: str, key: str, message: str) -> Problem:
    return Problem(file=where, line=None, column=None, key=key, message=message)
