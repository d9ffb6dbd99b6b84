"""Types of the values that users write: what is accepted, and how it is refused.

Everything here may end in a kickstart, a shell script, a file name or a boot command line, so each
text has an alphabet in which it cannot end a line, a word or a directory.
"""

import re
import string
from collections.abc import Callable, Collection, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
# What may stand in braces in the URLs of an OS file.
PLACES = ("os_name", "os_version", "os_major", "iso_server", "repo_server", "iso", "iso_file")


class Fault(ValueError):
    """A fault that a whole model has; `key` says where it is best shown."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def matching(pattern: str, message: str) -> AfterValidator:
    """Accepts text that matches all of `pattern`."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def seconds(value: object) -> int:
    """`"10m"`, `"1h30m"`, `"90s"` as whole seconds: the durations that Packer takes.

    Syntax: https://pkg.go.dev/time#ParseDuration (hours to milliseconds, no sign).
    """
    if not isinstance(value, str) or not re.fullmatch(r"([0-9]+(\.[0-9]+)?(h|ms|m|s))+", value):
        raise ValueError('must be a duration with a unit, such as "10m" or "1h30m"')
    parts = re.findall(r"([0-9.]+)(h|ms|m|s)", value)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 1 <= total <= 86_400:
        raise ValueError("must lie between 1s and 24h")
    return round(total)


def _words(value: object) -> object:
    """A list may also be written with commas, as `--var` and JSON strings need."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not re.fullmatch(r"[!#-&(-;=?-_a-z~]+", value):  # no space, quote, <, > or {}
        raise ValueError("must be an http:// or https:// URL")
    return value.rstrip("/")


def _checksum(value: str) -> str:
    if re.fullmatch(r"file:[!-~]+", value):
        rest = value.removeprefix("file:")
        check_places(rest, PLACES)
        if "://" in rest and "{" not in rest:
            rest = _url(rest)
        return f"file:{rest}"
    if re.fullmatch(r"(sha256:)?[0-9A-Fa-f]{64}", value):
        return value[-64:].lower()
    raise ValueError('must be 64 hex digits of a SHA-256, "sha256:…" or "file:URL of a list"')


def template(*names: str, required: str = "") -> AfterValidator:
    """Accepts text whose `{placeholders}` are all among `names`, with `required` among them."""

    def check(value: str) -> str:
        fields = check_places(value, names)
        if required and required not in fields:
            raise ValueError(f"must contain {{{required}}}")
        return value

    return AfterValidator(check)


def check_places(text: str, names: Collection[str]) -> set[str]:
    """The `{placeholders}` of `text`; ValueError where one is not among `names`."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError:
        raise ValueError("has a '{' or '}' that does not enclose a placeholder") from None
    if fields - set(names):
        allowed = ", ".join("{" + name + "}" for name in names)
        raise ValueError(f"has a placeholder other than {allowed}")
    return fields


def expand(text: str, values: Mapping[str, str], complain: Callable[[str], None]) -> str:
    """Fills a checked template; `complain` hears of a placeholder that has no value."""
    for _, name, _, _ in string.Formatter().parse(text):
        if name is not None and not values.get(name):
            complain(name)
    return text.format_map(values)


def os_name_pattern() -> re.Pattern[str]:
    """What an OS may be called: a file name, never a path."""
    return re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


ONE_LINE = matching(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", "must be one line of printable text")

Text = Annotated[str, ONE_LINE]
Word = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "may hold letters, digits and . _ - only")
]
Name = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "may hold letters, digits and . _ - only")
]
Version = Annotated[
    str,
    matching(
        r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}([-.][A-Za-z0-9]{1,20}){0,4}",
        'must be a version such as "1.2.0" or "1.2.0-rc.1"',
    ),
]
OsVersion = Annotated[str, matching(r"[0-9][A-Za-z0-9.]*", 'must be a version such as "7.2.1511"')]
# https://man7.org/linux/man-pages/man3/setlocale.3.html: language[_territory][.codeset][@modifier]
Lang = Annotated[
    str,
    matching(
        r"(C|POSIX|[a-z]{2,3}(_[A-Z]{2})?)(\.[A-Za-z0-9-]+)?(@[a-z]+)?",
        'must be a locale such as "en_US.UTF-8"',
    ),
]
Keyboard = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9_-]*", 'must be a layout such as "us" or "de-latin1"')
]
Timezone = Annotated[
    str,
    matching(
        r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}",
        'must be a time zone such as "UTC" or "Europe/London"',
    ),
]
# https://www.akkadia.org/drepper/SHA-crypt.txt: at most 16 characters count.
Salt = Annotated[
    str, matching(r"[./0-9A-Za-z]{1,16}", "must have 1 to 16 letters, digits, '.' or '/'")
]
Seconds = Annotated[int, BeforeValidator(seconds)]
Url = Annotated[str, AfterValidator(_url)]
Checksum = Annotated[str, AfterValidator(_checksum)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_words)]
# https://www.debian.org/doc/debian-policy/ch-controlfields.html#source, plus EL's groups and names
Package = Annotated[
    str, matching(r"[-@]?\^?[A-Za-z0-9][A-Za-z0-9.+:_-]*", "must be a package or @group name")
]
Packages = Annotated[tuple[Package, ...], BeforeValidator(_words)]
Urls = Annotated[tuple[Url, ...], BeforeValidator(_words)]
# An installer's kernel arguments. They are typed at its boot menu, where Packer reads <, > and {.
BootOption = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9._=:/,@+-]*", 'must be a kernel argument such as "selinux=0"'),
]
BootOptions = Annotated[tuple[BootOption, ...], BeforeValidator(_words)]
AbsolutePath = Annotated[
    str, matching(r"(/[A-Za-z0-9._-]+)+", "must be an absolute path without spaces")
]
