"""Checks request bodies against the models of azure-mgmt-compute: keys, types, enumerations."""

from __future__ import annotations

import enum
import re
import typing
from typing import Any

from azure.mgmt.compute import models

from tests.clouds.arm.service import Body, Refusal


def check_body(body: Body, model: str) -> None:
    """Refuses what the model does not know."""
    _check(body, getattr(models, model), model)


def _bad(message: str) -> Refusal:
    return Refusal(400, "InvalidRequestContent", message)


def _check(value: Any, kind: Any, where: str) -> None:
    for plain in _kinds(kind):
        if isinstance(plain, type) and issubclass(plain, enum.Enum):
            known = [str(it.value) for it in plain]
            if value not in known:
                raise _bad(f"{where}: '{value}' is none of {', '.join(known)}")
            return
        if hasattr(plain, "_attr_to_rest_field"):
            if not isinstance(value, dict):
                raise _bad(f"{where} must be an object")
            _check_members(value, plain, where)
            return
        if typing.get_origin(plain) is list:
            if not isinstance(value, list):
                raise _bad(f"{where} must be a list")
            for number, item in enumerate(value):
                _check(item, typing.get_args(plain)[0], f"{where}[{number}]")
            return
        if plain in (int, bool, str) and type(value) is not plain:
            raise _bad(f"{where} must be of {plain.__name__}")


def _check_members(value: Body, kind: Any, where: str) -> None:
    kind(value)  # the model learns its fields when it is first made
    fields = {it._rest_name: (name, it) for name, it in kind._attr_to_rest_field.items()}
    hints = _hints(kind)
    for key, member in value.items():
        if key not in fields:
            raise _bad(f"{where}: could not find member '{key}'")
        name, rest = fields[key]
        if rest._visibility == ["read"]:
            continue
        _check(member, hints.get(name, Any), f"{where}.{key}")


def _hints(kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    spaces = {
        "_models": models,
        "models": models,
        **vars(models),
        "datetime": __import__("datetime"),
    }
    for parent in reversed(kind.__mro__):
        for name, hint in vars(parent).get("__annotations__", {}).items():
            text = re.sub(r'"(_models\.\w+)"', r"\1", hint) if isinstance(hint, str) else hint
            if isinstance(text, str):
                text = eval(text, {**vars(typing), **spaces})  # noqa: S307 - of the SDK's own source
            found[name] = text
    return found


def _kinds(kind: Any) -> list[Any]:
    """The types that an annotation allows, enumerations before plain text."""
    if isinstance(kind, typing.ForwardRef):
        kind = getattr(models, kind.__forward_arg__.rpartition(".")[2])
    if typing.get_origin(kind) is typing.Union:
        found = [it for part in typing.get_args(kind) for it in _kinds(part)]
        enums = [it for it in found if isinstance(it, type) and issubclass(it, enum.Enum)]
        return enums or [it for it in found if it is not type(None)]
    return [kind]
