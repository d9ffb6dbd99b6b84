"""Options and target in, preseed out: what the distributor's own Debian ISOs read.

The same input gives the same text. A value lands either in a line of debconf's, where it is checked
to hold nothing that ends or continues the line, or in a script, where it is one quoted shell word.
Scripts go in as base64: the installer reads its file with shell of its own, splits and joins lines
and undoes backslashes, so quoting alone would not do
(https://salsa.debian.org/installer-team/preseed; the questions and their order:
https://www.debian.org/releases/stable/amd64/apb).
"""

from __future__ import annotations

import base64
import functools
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

import jinja2

from goldimg.errors import ConfigError, Problem
from goldimg.kickstart.model import Options
from goldimg.kickstart.preseed_plan import host_and_domain, interface_of, make_plan, static_of
from goldimg.kickstart.render import Target, volume_group
from goldimg.kickstart.sandbox import Checked, clean, sandbox, script, template_problem
from goldimg.kickstart.snippets import scripts as snippets_of

DIRECTORY = "preseed"
# script -> the question whose answer is the command that runs it
COMMANDS = {
    "early": "preseed/early_command",
    "disk": "partman/early_command",
    "late": "preseed/late_command",
}
# What the installer's `sh -c` gets as one argument may have 128 KiB (MAX_ARG_STRLEN of the kernel).
MAX_COMMAND = 120_000
_COMMAND = re.compile(
    r"echo ([A-Za-z0-9+/]+=*) \| base64 -d > (/tmp/goldimg-[a-z]+\.sh);"
    r" sh (/tmp/goldimg-[a-z]+\.sh)"
)
_URL = re.compile(r"https?://[A-Za-z0-9:/?&=%@._~+,\[\]-]+")


def render_preseed(root: Path, options: Options, target: Target) -> str:
    """The preseed of `options` for `target`, by the templates in `root`/preseed.

    It holds no password but its hash, and root is locked where there is none. Raises ConfigError
    for what Debian's installer cannot do, by the option's key, and with file and line for a
    template that fails.
    """
    plan = make_plan(options, target)
    values = {
        "options": options,
        "target": target,
        "plan": plan,
        "hostname": options.fqdn or target.hostname,
        "volume_group": volume_group(options, target.hostname),
        "snippets": {
            "pre": snippets_of(root, options.pre),
            "post": snippets_of(root, options.post),
        },
    }
    try:
        shell = _environment(root / DIRECTORY, shlex.quote)
        texts = {name: shell.get_template(f"{name}.sh.j2").render(values) for name in COMMANDS}
        return (
            _environment(root / DIRECTORY, _answer)
            .get_template("main.cfg.j2")
            .render(values, scripts=texts, commands=tuple(COMMANDS.items()))
        )
    except jinja2.TemplateError as error:
        raise ConfigError.of([template_problem(root, error)]) from None


def preseed_boot_arguments(options: Options, ks_url: str, hostname: str = "") -> tuple[str, ...]:
    """The installer's kernel arguments: it asks for its network before it can read a preseed.

    Each is one word; they belong before a `---`, behind which arguments are the installed system's.
    Only the first name server is among them, since a list would need spaces; the preseed has all.
    ConfigError for a URL that would not be one word.
    """
    if not _URL.fullmatch(ks_url):
        raise ConfigError.of([_problem("boot arguments", "ks_url", "is not a plain http(s) URL")])
    host, domain = host_and_domain(options.fqdn or hostname)
    found = {
        "auto": "true",
        "priority": "critical",
        "url": ks_url,
        "interface": interface_of(options),
        "hostname": host,
        "domain": domain,
    }
    if static := static_of(options):
        found |= {
            "netcfg/disable_autoconfig": "true",
            "netcfg/get_ipaddress": static.address,
            "netcfg/get_netmask": static.netmask,
            # An empty argument counts as none given, and the question would be asked.
            "netcfg/get_gateway": static.gateway or "none",
            "netcfg/get_nameservers": static.nameservers[0] if static.nameservers else "none",
            "netcfg/confirm_static": "true",
        }
    return tuple(f"{name}={value}" for name, value in found.items() if value)


def script_of(command: str) -> str | None:
    """The script that `command` (the answer to one of COMMANDS) runs; None: it is not of ours."""
    match = _COMMAND.fullmatch(command)
    if not match or match[2] != match[3]:
        return None
    try:
        return base64.b64decode(match[1], validate=True).decode("utf-8")
    except ValueError:
        return None


# --- templates -------------------------------------------------------------------------------


def _answer(text: str) -> str:
    """One line of debconf's: no backslash (it continues a line and is undone), no outer space."""
    if "\\" in text or text != text.strip():
        raise jinja2.TemplateRuntimeError("a value holds a backslash or begins or ends with space")
    return text


def _words(values: Iterable[str]) -> Checked:
    return Checked(" ".join(shlex.quote(clean(value)) for value in values))


def _quoted_lines(text: str) -> Checked:
    """Each line of a script as one word, for `printf '%s\\n'`."""
    lines = script(text).split("\n")
    return Checked(" ".join(shlex.quote(line) for line in lines))


def _comment(text: str) -> Checked:
    # debconf-set-selections continues comments too where they end in a backslash.
    lines = text.rstrip("\n").split("\n")
    return Checked("\n".join(f"#  {line} |" if line.endswith("\\") else f"#  {line}".rstrip()
                              for line in lines))  # fmt: skip


def _command(text: str, name: str) -> Checked:
    encoded = base64.b64encode(text.encode()).decode()
    if len(encoded) > MAX_COMMAND:
        raise jinja2.TemplateRuntimeError(
            f"the {name} script is too long: {len(text.encode())} bytes, snippets included"
        )
    file = f"/tmp/goldimg-{name}.sh"  # noqa: S108 - in the installer's own memory
    return Checked(f"echo {encoded} | base64 -d > {file}; sh {file}")


@functools.lru_cache(maxsize=8)
def _environment(directory: Path, quote: Callable[[str], str]) -> jinja2.Environment:
    filters: dict[str, Callable[..., Checked]] = (
        {"lines": _quoted_lines, "words": _words}
        if quote is shlex.quote
        else {"comment": _comment, "command": _command}
    )
    return sandbox(jinja2.FileSystemLoader(directory), quote, filters)


def _problem(where: str, key: str, message: str) -> Problem:
    return Problem(file=where, line=None, column=None, key=key, message=message)
