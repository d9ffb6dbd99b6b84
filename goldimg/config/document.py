"""Read YAML and JSON files, and remember where every key stands.

Scalars follow YAML's JSON schema (https://yaml.org/spec/1.2.2/#102-json-schema) and not YAML 1.1:
`version: 1.10` stays "1.10", `keyboard: no` stays "no", `0755` stays "0755". Only `true`, `false`,
`null` and plain decimal integers are typed; the models take text for numbers and booleans too.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import yaml

from goldimg.errors import ConfigError, Problem

KeyPath = Sequence[str | int]
Position = tuple[int, int]

MAX_BYTES = 1 << 20
MAX_NODES = 20_000  # aliases may repeat a node: nine nested ones would otherwise mean a billion
MAX_DEPTH = 40


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file as read: its data (dicts with text keys, lists, scalars) and where each key stands."""

    path: str
    data: object
    positions: Mapping[tuple[str | int, ...], Position] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:  # data may hold a password
        return f"Document(path={self.path!r})"

    def position(self, keypath: str | KeyPath) -> tuple[int | None, int | None]:
        """Line and column, from 1, of the key, or of its nearest parent that the file has."""
        path = as_keypath(keypath)
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, (None, None))

    def problem(
        self, keypath: str | KeyPath, message: str, suggestion: str | None = None
    ) -> Problem:
        """A Problem at the key's position."""
        line, column = self.position(keypath)
        return Problem(
            file=self.path,
            line=line,
            column=column,
            key=dotted(keypath),
            message=message,
            suggestion=suggestion,
        )

    def has(self, keypath: str | KeyPath) -> bool:
        """Whether the file itself gives a value at this key."""
        value: object = self.data
        for step in as_keypath(keypath):
            inside = isinstance(value, Mapping) and step in value
            if not inside and not (isinstance(value, list) and step in range(len(value))):
                return False
            value = value[step]  # type: ignore[index]
        return True


def as_keypath(keypath: str | KeyPath) -> tuple[str | int, ...]:
    """`"a.b"` or `("a", "b")` as a tuple."""
    if isinstance(keypath, str):
        return tuple(keypath.split(".")) if keypath else ()
    return tuple(keypath)


def dotted(keypath: str | KeyPath) -> str:
    """The key as users read it: `installer.packages[2]`."""
    text = ""
    for step in as_keypath(keypath):
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def closest(word: object, known: Iterable[str]) -> str | None:
    """The known word that the user probably meant, if one is near."""
    choices = {choice.lower(): choice for choice in known}
    match = difflib.get_close_matches(str(word).lower(), list(choices), n=1, cutoff=0.6)
    return choices[match[0]] if match else None


# --- reading ---------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """SafeLoader that types only null, true, false and decimal integers."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}


def _resolve(tag: str, pattern: str, first: Iterable[str]) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""])
_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", r"^(?:0|-?[1-9][0-9]{0,17})$", "-0123456789")
_resolve("merge", r"^<<$", "<")


def load_yaml(path: Path, *, shown: str | None = None) -> Document:
    """The file's data with positions; ConfigError says file, line and column of what is wrong.

    JSON is read by the same rules. Duplicate keys are errors, anchors and merges are fine, and
    nothing in a file can make an object of another type.
    """
    name = shown if shown is not None else str(path)
    text = _read(path, name)
    if path.suffix == ".json":
        return _load_json(text, name)
    return _Composer(name).compose(text)


def _read(path: Path, name: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError.of([_at(name, None, "is not a file")])
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError.of([_at(name, None, f"cannot be read: {reason}")]) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError.of([_at(name, None, "is larger than 1 MiB, so no settings file")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError.of([_at(name, (line, column), "is not UTF-8 text")]) from None


def _load_json(text: str, name: str) -> Document:
    try:
        # As in YAML above, 1.10 must not turn into 1.1.
        data = json.loads(text, parse_float=str, parse_constant=str) if text.strip() else None
    except json.JSONDecodeError as error:
        where = (error.lineno, error.colno)
        raise ConfigError.of([_at(name, where, f"not JSON: {error.msg.lower()}")]) from None
    except (RecursionError, ValueError):
        raise ConfigError.of([_at(name, None, "not JSON that makes sense here")]) from None
    try:
        # JSON allows tabs between tokens, PyYAML does not; inside strings there are none.
        composed = _Composer(name).compose(text.replace("\t", " "))
    except ConfigError as error:
        if any("duplicate" in problem.message for problem in error.problems):
            raise
        return Document(path=name, data=data)
    return Document(path=name, data=data, positions=composed.positions)


def _at(name: str, where: Position | None, message: str, key: str = "") -> Problem:
    line, column = where if where else (None, None)
    return Problem(file=name, line=line, column=column, key=key, message=message, suggestion=None)


def _mark(mark: yaml.Mark | None) -> Position | None:
    return (mark.line + 1, mark.column + 1) if mark else None


def _words(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's reason. Names of aliases and tags stay out: a password may begin with `*` or `!`."""
    reason = error.problem or "cannot be parsed"
    if re.search(r"alias|anchor|tag", reason):
        return "undefined alias, anchor or tag (quote a text that begins with '*', '&' or '!')"
    return f"{error.context}, {reason}" if error.context else reason


class _Composer:
    """Builds data and positions from the node tree in one walk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.positions: dict[tuple[str | int, ...], Position] = {}
        self.problems: list[Problem] = []
        self.nodes = 0

    def compose(self, text: str) -> Document:
        loader = None
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            self.loader = loader
            data = None if node is None else self._value(node, ())
        except yaml.MarkedYAMLError as error:
            where = _mark(error.problem_mark or error.context_mark)
            raise ConfigError.of([_at(self.name, where, f"not YAML: {_words(error)}")]) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            words = str(error).splitlines()[0] if isinstance(error, yaml.YAMLError) else "too deep"
            raise ConfigError.of([_at(self.name, None, f"not YAML: {words}")]) from None
        finally:
            if loader is not None:
                loader.dispose()
        if self.problems:
            raise ConfigError.of(self.problems)
        self.positions.setdefault((), (1, 1))
        return Document(path=self.name, data=data, positions=self.positions)

    def _value(self, node: yaml.Node, path: tuple[str | int, ...]) -> object:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem="nested too deeply or repeated too often", problem_mark=node.start_mark
            )
        if not str(node.tag).startswith("tag:yaml.org,2002:"):
            raise yaml.MarkedYAMLError(problem="unknown tag", problem_mark=node.start_mark)
        self.positions.setdefault(path, _mark(node.start_mark) or (1, 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.loader.construct_object(node, deep=True)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, object]:
        data: dict[str, object] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            where = _mark(key_node.start_mark)
            if key_node.tag == "tag:yaml.org,2002:merge":
                several = isinstance(value_node, yaml.SequenceNode)
                merged.extend(value_node.value if several else [value_node])
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(_at(self.name, where, "a key must be plain text"))
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key in data:
                first = self.positions[inner][0]
                message = f"duplicate key, already given on line {first}"
                self.problems.append(_at(self.name, where, message, dotted(inner)))
                continue
            self.positions[inner] = where or (1, 1)
            data[key] = self._value(value_node, inner)
        for other in merged:
            self._merge(other, data, path)
        return data

    def _merge(self, node: yaml.Node, data: dict[str, object], path: tuple[str | int, ...]) -> None:
        if not isinstance(node, yaml.MappingNode):
            where = _mark(node.start_mark)
            self.problems.append(_at(self.name, where, "'<<' merges mappings only", dotted(path)))
            return
        inner = _Composer(self.name)
        inner.loader, inner.nodes = self.loader, self.nodes
        value = inner._value(node, path)
        self.nodes = inner.nodes
        self.problems.extend(inner.problems)
        for key, item in cast(dict[str, object], value).items():
            data.setdefault(key, item)
        for place, position in inner.positions.items():
            self.positions.setdefault(place, position)
