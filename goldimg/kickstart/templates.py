"""The templates of the kickstart's sections, in which everything is quoted.

`{{ value }}` gives one word, quoted as POSIX shell and kickstart (which splits lines as a shell
does) both read it; the only exceptions are the filters `script`, `package` and `comment`, which
check instead. A value that could end a line is refused wherever it comes from.
"""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

import jinja2

from goldimg.kickstart.sandbox import Checked, clean, sandbox, script

MAIN = "main.ks.j2"
SITE = "ks.d"  # the site's own sections, beside ours


def _script(value: str) -> Checked:
    return Checked(script(value))


def _package(value: str) -> Checked:
    # Lines of %packages are no shell words: quotes would become part of the name.
    if not re.fullmatch(r"[@^A-Za-z0-9._+:*-]+", value):
        raise jinja2.TemplateRuntimeError("a package's name holds other characters")
    return Checked(value)


def _comment(value: str) -> Checked:
    # After a `#` nothing is special but the end of the line.
    return Checked(clean(value))


@functools.lru_cache(maxsize=4)
def environment_of(root: Path) -> jinja2.Environment:
    """The environment for the kickstart directory `root`: its ks/, and its ks.d/ as `ks.d/…`."""
    own = jinja2.PrefixLoader({SITE: jinja2.FileSystemLoader(root / SITE)})
    return sandbox(
        jinja2.ChoiceLoader([jinja2.FileSystemLoader(root / "ks"), own]),
        shlex.quote,
        {"script": _script, "package": _package, "comment": _comment},
    )


def site_sections(root: Path) -> list[str]:
    """The site's own sections in name order, as the environment calls them."""
    return [f"{SITE}/{path.name}" for path in sorted((root / SITE).glob("*.ks.j2"))]
