"""The answer file that an OS's installer reads: a kickstart, or a preseed file for Debian's own.

The one place that knows which; all else says "kickstart" for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from goldimg.config.models import Settings
from goldimg.errors import Problem
from goldimg.kickstart.bootline import boot_arguments
from goldimg.kickstart.model import Options
from goldimg.kickstart.render import render
from goldimg.kickstart.target import Target
from goldimg.kickstart.validate import validate, validate_many
from goldimg.run import Runner


def is_preseed(settings: Settings) -> bool:
    """Whether the OS is installed by debian-installer."""
    return settings.os.installer.kind == "debian-installer"


def render_answer(root: Path, settings: Settings, options: Options, target: Target) -> str:
    """The answer file of `options`, by the templates in the kickstart directory `root`."""
    if is_preseed(settings):
        from goldimg.kickstart.preseed import render_preseed

        return render_preseed(root, options, target)
    return render(root, options, target)


def check_answer(text: str, settings: Settings, runner: Runner) -> list[Problem]:
    """What the installer's own validator, and our rules, have against the file."""
    if is_preseed(settings):
        from goldimg.kickstart.preseed_check import check_preseed

        return check_preseed(text, runner)
    return validate(text, settings.os.kickstart.syntax, runner)


def check_answers(
    texts: Iterable[str], settings: Settings, runner: Runner
) -> Iterator[tuple[str, list[Problem]]]:
    """As `check_answer` for each of `texts`, each once; kickstarts by one run of ksvalidator."""
    if is_preseed(settings):
        for text in dict.fromkeys(texts):
            yield text, check_answer(text, settings, runner)
    else:
        yield from validate_many(texts, settings.os.kickstart.syntax, runner)


def boot_words(settings: Settings, options: Options, ks_url: str, name: str) -> tuple[str, ...]:
    """What to add to the installer's boot entry for a machine called `name`."""
    if is_preseed(settings):
        from goldimg.kickstart.preseed import preseed_boot_arguments

        return preseed_boot_arguments(options, ks_url, name)
    kickstart = settings.os.kickstart
    return boot_arguments(options, kickstart.family, kickstart.syntax, ks_url)
