"""Validate documents against pydantic models; every fault becomes a Problem at its position."""

import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from goldimg.config.document import Document, as_keypath, closest, dotted, load_yaml
from goldimg.errors import Problem

__all__ = [
    "Document",
    "as_keypath",
    "closest",
    "dotted",
    "giver_of",
    "is_secret",
    "load_yaml",
    "merged",
    "validate_layers",
    "validate_model",
]

M = TypeVar("M", bound=BaseModel)
KeyPath = tuple[str | int, ...]

UNKNOWN = "unknown key"
MISSING = "required key is missing"
_MESSAGES = {
    "missing": MISSING,
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("must be at least {}", "ge"),
    "greater_than": ("must be more than {}", "gt"),
    "less_than_equal": ("must be at most {}", "le"),
    "less_than": ("must be less than {}", "lt"),
    "string_too_long": ("must have at most {} characters", "max_length"),
    "string_too_short": ("must have at least {} characters", "min_length"),
    "too_short": ("must have at least {} items", "min_length"),
    "too_long": ("must have at most {} items", "max_length"),
}


def validate_model(
    model: type[M], document: Document, *, extra: Mapping[str, object] | None = None
) -> tuple[M | None, list[Problem]]:
    """The model, or None and every problem with file, line, column and the likely meant key.

    `extra` gives values laid over the document's own. Values never appear in a message.
    """
    layers = [document]
    if extra:
        layers.append(Document(path=document.path, data=dict(extra)))
    return validate_layers(model, layers)


def validate_layers(
    model: type[M], layers: Sequence[Document], *, owner: Document | None = None
) -> tuple[M | None, list[Problem]]:
    """As `validate_model`, for documents laid over one another; later ones win.

    A problem names the last document that gives the faulty key or its parent, or else `owner`
    (the first document unless told).
    """
    shapeless = [
        layer.problem((), "must be a mapping of keys to values")
        for layer in layers
        if layer.data is not None and not isinstance(layer.data, Mapping)
    ]
    if shapeless:
        return None, shapeless
    try:
        return model.model_validate(merged(layer.data or {} for layer in layers)), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    layers = [owner, *layers] if owner else layers
    problems = {_problem(model, layers, detail) for detail in details}
    meant = {problem.suggestion for problem in problems if problem.message == UNKNOWN}
    # A misspelt key is one fault, not also a missing one.
    told = [it for it in problems if it.message != MISSING or it.key.split(".")[-1] not in meant]
    return None, sorted(told, key=lambda it: (it.file, it.line or 0, it.column or 0, it.key))


def merged(layers: Iterable[object]) -> dict[str, Any]:
    """Mappings merged key by key, deeply; anything else is replaced by the later value."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items() if isinstance(layer, Mapping) else ():
            below = result.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            result[key] = merged([below, value]) if both else value
    return result


def _problem(model: type[BaseModel], layers: Sequence[Document], detail: ErrorDetails) -> Problem:
    path = tuple(step for step in detail["loc"] if step != "[key]")
    document = giver_of(layers, path)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields(_type_at(model, path[:-1]))
        return document.problem(path, UNKNOWN, closest(path[-1], known))
    if kind in ("literal_error", "enum"):
        return _choice(model, document, path, detail)
    if kind == "value_error":
        # Our own validators raise these; they never quote what they were given.
        fault = context.get("error", "is not valid")
        path = (*path, *as_keypath(getattr(fault, "key", "")))
        return giver_of(layers, path).problem(path, str(fault))
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return document.problem(path, words.format(context.get(bound)))
    return document.problem(path, _MESSAGES.get(kind, "is not valid"))


def giver_of(layers: Sequence[Document], path: KeyPath) -> Document:
    """The last document that gives the key, or else the nearest parent of it."""
    while path:
        for layer in reversed(layers):
            if layer.has(path):
                return layer
        path = path[:-1]
    return layers[0]


def _choice(
    model: type[BaseModel], document: Document, path: KeyPath, detail: ErrorDetails
) -> Problem:
    found = _type_at(model, path)
    choices = [str(choice) for choice in _literals(found)]
    message = f"must be one of {', '.join(choices)}" if choices else "is not one of the choices"
    return document.problem(path, message, closest(detail["input"], choices))


# --- reading a model's annotations -----------------------------------------------------------


def _strip(annotation: Any) -> Any:
    """The annotation without Annotated and without `| None`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
            if len(kinds) != 1:
                return annotation
            annotation = kinds[0]
        else:
            return annotation


def _type_at(model: Any, path: Sequence[str | int]) -> Any:
    """The annotation that stands at a key path, or None where the model does not say."""
    found = _strip(model)
    for step in path:
        if isinstance(found, type) and issubclass(found, BaseModel):
            known = found.model_fields.get(str(step))
            found = _strip(known.annotation) if known else None
        elif get_args(found):
            found = _strip(next(a for a in reversed(get_args(found)) if a is not Ellipsis))
        else:
            return None
    return found


def _fields(found: Any) -> list[str]:
    is_model = isinstance(found, type) and issubclass(found, BaseModel)
    return list(found.model_fields) if is_model else []


def _literals(found: Any) -> list[object]:
    if isinstance(found, type) and issubclass(found, Enum):
        return [member.value for member in found]
    return [value for value in get_args(found) if not isinstance(value, type)]


def is_secret(model: type[BaseModel], path: str | KeyPath) -> bool:
    """Whether the model keeps this key's value secret."""
    return _type_at(model, as_keypath(path)) is SecretStr
