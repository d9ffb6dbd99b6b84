"""What machines that start over the network are told, for iPXE, GRUB and PXELINUX: pure.

Every value is checked for the place where it lands: none of these languages can quote all that may
stand in a URL, so that a word with a character of their syntax is refused, and a text for the
screen loses it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import jinja2

from goldimg.errors import ConfigError, Problem
from goldimg.kickstart.sandbox import Checked, sandbox, template_problem
from goldimg.netboot import Boot, Entry

MENU_SECONDS = 30
# No space, quote, `$`, `;`, `{`, `|`, `<`, `#`: in none of the three languages does any of these
# end a word or start something else. `&` is quoted for GRUB and means nothing inside iPXE's words.
_WORD = re.compile(r"[A-Za-z0-9_.,:/@%+=~?&\[\]-]+")
_PATH = re.compile(r"[A-Za-z0-9_.+~-]+(/[A-Za-z0-9_.+~-]+)*")
_URL = re.compile(
    r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*|"
    r"https?://\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*"
)
_UNSHOWABLE = re.compile(r"[^A-Za-z0-9 _.,:/@%+=~?()\[\]'*-]")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


def ipxe_first(root: Path, base_url: str) -> str:
    """The script that every machine with iPXE gets: it asks `base_url` what to do.

    The question is `/netboot/ipxe?mac=&uuid=&serial=&platform=&buildarch=`, the MAC address as
    52-54-00-12-34-56. It asks five times, and then leaves the machine to its next boot device.
    """
    return _rendered(root, "boot.ipxe", base_url=_url(base_url))


def ipxe(root: Path, boot: Boot, base_url: str) -> str:
    """The answer to that question. Kernels come from `<base_url>/tree/<OS>/<path>`.

    Local boot ends with `exit 1`: with `exit 0`, UEFI firmware shows its own menu and waits.
    """
    return _rendered(root, "machine.ipxe", base_url=_url(base_url), boot=_checked(boot))


def grub(root: Path, boot: Boot, base_url: str, *, finds_machine: bool = False) -> str:
    """GRUB's configuration. Kernels come by TFTP from `/boot/<OS>/<path>`.

    With `finds_machine`, it first looks for the machine's own at `/grub/grub.cfg-01-<mac>`.
    """
    return _rendered(
        root,
        "grub.cfg",
        base_url=_url(base_url),
        boot=_checked(boot),
        finds_machine=finds_machine,
    )


def pxelinux(root: Path, boot: Boot, base_url: str) -> str:
    """PXELINUX's configuration. Kernels come by TFTP from `/boot/<OS>/<path>`."""
    return _rendered(root, "pxelinux.cfg", base_url=_url(base_url), boot=_checked(boot))


def dashed(mac: str) -> str:
    """`01-52-54-00-12-34-56` of `52:54:00:12:34:56`: type and address, as BOOTIF and file names."""
    if not _MAC.fullmatch(mac.lower()):
        raise ValueError(f"{mac!r} is not a MAC address such as 52:54:00:12:34:56")
    return "01-" + mac.lower().replace(":", "-")


def kernel_name(entry: Entry, path: str) -> str:
    """Where the TFTP tree has the file at `path` of the entry's OS."""
    return f"boot/{entry.os}/{path}"


def _checked(boot: Boot) -> Boot:
    """`boot`, once all that can be refused has been looked at."""
    if boot.action == "install" and len(boot.entries) != 1:
        raise ValueError("an install has one entry")
    for entry in boot.entries:
        for name, pattern, words in (
            ("os", _PATH, (entry.os,)),
            ("kernel", _PATH, (entry.kernel,)),
            ("initrd", _PATH, (entry.initrd,)),
            ("arguments", _WORD, entry.arguments),
        ):
            for word in words:
                if not pattern.fullmatch(word) or ".." in Path(word).parts:
                    raise _refused(entry, name, word)
    return boot


def _refused(entry: Entry, name: str, word: str) -> ConfigError:
    # Of an argument only its name is shown: its value may be a token.
    shown = word.partition("=")[0] if name == "arguments" else word
    message = f"{shown!r} has a character that boot loaders cannot be given"
    return ConfigError.of([Problem(ascii(entry.os), None, None, f"netboot.{name}", message)])


def _url(base_url: str) -> str:
    if not _URL.fullmatch(base_url):
        message = "must be such as http://10.0.0.1:8080 for machines that start over the network"
        raise ConfigError.of([Problem("site", None, None, "serve.url", message)])
    return base_url


def _rendered(root: Path, name: str, **values: object) -> str:
    try:
        template = _environment(root / "netboot").get_template(f"{name}.j2")
        return template.render(seconds=MENU_SECONDS, **values)
    except jinja2.TemplateError as error:
        raise ConfigError.of([template_problem(root, error)]) from None


def _shown(text: str) -> str:
    """A text for the screen, without what a language would take for its own."""
    return _UNSHOWABLE.sub(" ", text).strip()


@functools.lru_cache(maxsize=4)
def _environment(directory: Path) -> jinja2.Environment:
    # Values are checked above: none of the three languages can quote them all. What a macro makes
    # has more than one line.
    return sandbox(jinja2.FileSystemLoader(directory), str, {"shown": _shown, "lines": Checked})
