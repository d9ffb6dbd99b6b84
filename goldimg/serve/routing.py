"""Views as methods, each with its rule beside it, of classes that hold what the views share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import Blueprint

F = TypeVar("F", bound=Callable[..., object])
_RULE = "_rule"


def at(rule: str, *methods: str) -> Callable[[F], F]:
    """The view answers at `rule` (Flask's notation); GET where no method is named."""

    def mark(view: F) -> F:
        setattr(view, _RULE, (rule, methods or ("GET",)))
        return view

    return mark


def routes_of(name: str, views: object) -> Blueprint:
    """The marked methods of `views`. Its method `allow` is asked before each, where it has one."""
    found = Blueprint(name, __name__)
    for key, view in vars(type(views)).items():
        if hasattr(view, _RULE):
            rule, methods = getattr(view, _RULE)
            found.add_url_rule(rule, key, getattr(views, key), methods=methods)
    if hasattr(views, "allow"):
        found.before_request(views.allow)
    return found
