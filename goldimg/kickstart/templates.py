"""The Jinja2 environment of the kickstart's sections: sandboxed, strict, and quoting everything.

`{{ value }}` gives one word, quoted as POSIX shell and kickstart (which splits lines as a shell
does) both read it; the only exceptions are the filters `script`, `package` and `comment`, which
check instead. A value that could end a line is refused wherever it comes from.
"""

from __future__ import annotations

import functools
import re
import shlex
import traceback
from pathlib import Path
from typing import TypeVar

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from goldimg.errors import Problem
from goldimg.kickstart.fields import check_script, is_clean

MAIN = "main.ks.j2"
SITE = "ks.d"  # the site's own sections, beside ours


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


def _comment(value: str) -> _Checked:
    # After a `#` nothing is special but the end of the line.
    if not is_clean(value):
        raise jinja2.TemplateRuntimeError("a comment holds a line end or a control character")
    return _Checked(value)


@functools.lru_cache(maxsize=4)
def environment_of(root: Path) -> jinja2.Environment:
    """The environment for the kickstart directory `root`: its ks/, and its ks.d/ as `ks.d/…`."""
    own = jinja2.PrefixLoader({SITE: jinja2.FileSystemLoader(root / SITE)})
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.ChoiceLoader([jinja2.FileSystemLoader(root / "ks"), own]),
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
        "comment": _comment,
    }
    return environment


def site_sections(root: Path) -> list[str]:
    """The site's own sections in name order, as the environment calls them."""
    return [f"{SITE}/{path.name}" for path in sorted((root / SITE).glob("*.ks.j2"))]


def template_problem(root: Path, error: jinja2.TemplateError) -> Problem:
    """Where in the templates of `root` the error is, and why."""
    shown, line = f"{root.name}/ks", None
    if isinstance(error, jinja2.TemplateSyntaxError):
        shown, line = _shown(root, error.name or MAIN), error.lineno
    elif isinstance(error, jinja2.TemplateNotFound):
        return _problem(shown, None, f"there is no {error.message}")
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename.endswith(".j2"):
                path = Path(frame.filename)
                name = f"{SITE}/{path.name}" if path.parent.name == SITE else path.name
                shown, line = _shown(root, name), frame.lineno
    return _problem(shown, line, error.message or type(error).__name__)


def _shown(root: Path, name: str) -> str:
    return f"{root.name}/{name}" if name.startswith(f"{SITE}/") else f"{root.name}/ks/{name}"


def _problem(file: str, line: int | None, message: str) -> Problem:
    return Problem(file=file, line=line, column=None, key="", message=message)
