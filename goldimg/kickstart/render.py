"""Options and target in, kickstart text out: pure, and the same text for the same input.

How values are quoted is in goldimg/kickstart/templates.py, what the words are in the templates.
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from goldimg.config.loader import dotted
from goldimg.errors import ConfigError, Problem
from goldimg.kickstart.bootline import boot_arguments
from goldimg.kickstart.layout import ESP, ROOT, Volume, disk_layout, smallest_disk
from goldimg.kickstart.model import Options
from goldimg.kickstart.release import (
    arrays,
    carrier,
    firewall_words,
    kernel_args,
    refusals,
    volume_group,
)
from goldimg.kickstart.sandbox import template_problem
from goldimg.kickstart.snippets import scripts
from goldimg.kickstart.syntax import SYNTAXES
from goldimg.kickstart.target import CRYPT, Target
from goldimg.kickstart.templates import MAIN, environment_of, site_sections

__all__ = ["CRYPT", "Target", "Volume", "disk_layout", "kernel_args", "render", "volume_group"]


def render(root: Path, options: Options, target: Target) -> str:
    """The kickstart of `options` for `target`, by the templates in `root`/ks and `root`/ks.d.

    It holds nothing that two builds with the same options and target would not share. Raises
    ConfigError with file and line for a template that fails, and for what the release cannot do.
    """
    syntax = SYNTAXES[target.syntax]
    if refused := list(refusals(options, target.family, syntax)):
        raise ConfigError.of(_problem(target, dotted(key), reason) for key, reason in refused)
    environment = environment_of(root)
    context: dict[str, object] = {
        "options": options,
        "target": target,
        "syntax": syntax,
        "sizes": {"esp": ESP, "root": ROOT, "smallest_disk": smallest_disk(options)},
        "hostname": options.fqdn or target.hostname,
        "volume_group": volume_group(options, target.hostname),
        "kernel_args": kernel_args(options, target.family, syntax),
        "arrays": arrays(options, syntax),
        "firewall": firewall_words(options),
        "ssh_keys": tuple(dict.fromkeys((*target.ssh_keys, *options.ssh_keys))),
        "repos": {**dict(target.extra_repos), **options.repos},
        "carriers": tuple(carrier(link, syntax) for link in options.links),
        "boot_arguments": _boot_line(options, target),
        "site_sections": site_sections(root),
    }
    try:
        context["pre"], context["post"] = scripts(root, options.pre), scripts(root, options.post)
        return environment.get_template(MAIN).render(context)
    except jinja2.TemplateError as error:
        raise ConfigError.of([template_problem(root, error)]) from None
    except (OSError, ValueError) as error:  # a snippet that was there when the options were read
        raise ConfigError.of([_problem(target, "pre, post", str(error))]) from None


def _boot_line(options: Options, target: Target) -> tuple[str, ...]:
    if options.hardware != "metal" or target.ks_url is None:
        return ()
    return boot_arguments(options, target.family, target.syntax, target.ks_url)


def _problem(target: Target, key: str, message: str) -> Problem:
    where = f"kickstart {target.build}"
    return Problem(file=where, line=None, column=None, key=key, message=message)
