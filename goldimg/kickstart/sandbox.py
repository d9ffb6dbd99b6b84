"""Jinja2 as all our answer files and boot scripts use it: sandboxed, strict, checking every value.

Templates are a site's to change, so they can reach nothing but what they are given.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from goldimg.errors import Problem
from goldimg.kickstart.fields import check_script, is_clean

T = TypeVar("T")


class Checked(str):
    """Text that a filter has checked for its place and that goes out as it is."""

    __slots__ = ()


def sandbox(
    loader: jinja2.BaseLoader,
    quote: Callable[[str], str],
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> jinja2.Environment:
    """An environment in which every `{{ value }}` passes `quote`, unless a filter has checked it.

    Of Jinja2's own filters only `join` is there.
    """

    def finalize(value: T) -> T | str:
        if isinstance(value, Checked | jinja2.Undefined):
            return value  # an undefined value raises when it is turned into text
        return quote(clean(value))

    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # nothing here is HTML; `quote` is for what it is
    )
    environment.filters = {"join": environment.filters["join"], **(filters or {})}
    return environment


def clean(value: object) -> str:
    """The value as text, if it cannot end a line; else TemplateRuntimeError."""
    text = str(value)
    if not is_clean(text):
        raise jinja2.TemplateRuntimeError("a value holds a line end or a control character")
    return text


def script(text: str) -> str:
    """A script without trailing line ends, if no line of it is kickstart's own."""
    try:
        return check_script(text).rstrip("\n")
    except ValueError as error:
        raise jinja2.TemplateRuntimeError(str(error)) from None


def template_problem(root: Path, error: jinja2.TemplateError) -> Problem:
    """Where in the templates of the directory `root` the error is, and why."""
    shown, line = root.name, None
    if isinstance(error, jinja2.TemplateSyntaxError):
        shown, line = _shown(root, error.filename or error.name or ""), error.lineno
    elif isinstance(error, jinja2.TemplateNotFound):
        return Problem(shown, None, None, "", f"there is no {error.message}")
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename.endswith(".j2"):
                shown, line = _shown(root, frame.filename), frame.lineno
    return Problem(shown, line, None, "", error.message or type(error).__name__)


def _shown(root: Path, file: str) -> str:
    path = Path(file)
    return f"{root.name}/{path.relative_to(root) if path.is_relative_to(root) else path.name}"
