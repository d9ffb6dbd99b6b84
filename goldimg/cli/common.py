"""What the commands share: the site, its settings, a runner that Ctrl-C stops, common options.

Imports of what a command needs happen in the command, so that `goldimg --help` stays quick.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from goldimg.config.models import Settings
    from goldimg.host import Host
    from goldimg.project import Site
    from goldimg.providers import Provider
    from goldimg.run import Runner

F = TypeVar("F", bound=Callable[..., Any])


class Names(click.ParamType[Any]):
    """A comma-separated list; the option may be given several times too."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())


def flat(values: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Several lists as one, without repetitions."""
    return tuple(dict.fromkeys(name for value in values for name in value))


def selection(command: F) -> F:
    """The options that say what is built."""
    options = [
        click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
                     help="Operating system: a file in templates/os/."),
        click.option("--only", multiple=True, type=Names(), help="Build these providers only."),
        click.option("--except", "excepted", multiple=True, type=Names(),
                     help="Build all but these providers."),
        click.option("--version", "version", help="Version of the images; overrides the site's."),
        click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
                     help="Override a setting of the site or the OS."),
        click.option("--var-file", "var_files", multiple=True,
                     type=click.Path(path_type=Path), help="Override settings from a file."),
        click.option("--jobs", type=click.IntRange(1, 64),
                     help="VMs at once; by default what cores and memory allow."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def choosing(command: F) -> F:
    """The options that say by which builder, and which of the groups that follow from it."""
    options = [
        click.option("--builder", "builders", multiple=True, metavar="PROVIDER=BUILDER",
                     help="auto, qemu, virtualbox-iso or vmware-iso; overrides the site's."),
        click.option("--group", help="Build this group only: its number in the plan, or its name."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def as_variables(builders: tuple[str, ...]) -> tuple[str, ...]:
    """`--builder aws=qemu` as the `--var` that says the same."""
    return tuple(f"builder.{choice}" for choice in builders)


def chosen_providers(
    settings: Settings,
    only: tuple[tuple[str, ...], ...],
    excepted: tuple[tuple[str, ...], ...],
    group: str | None,
    host: Host,
) -> list[Provider]:
    """The providers of --only, --except and --group together."""
    from goldimg.host import choose_accelerator
    from goldimg.plan import choose_builder, pick_group
    from goldimg.providers import select_providers

    found = select_providers(settings.site.providers, flat(only), flat(excepted))
    if group is None:
        return found
    wanted = settings.site.builder
    choices = {it.name: choose_builder(it, wanted.get(it.name, "auto"), host) for it in found}
    accelerator = choose_accelerator(settings.site.accelerator, host).name
    names = pick_group(choices, accelerator, group)
    return [provider for provider in found if provider.name in names]


def this_site(context: click.Context) -> Site:
    """The site directory that the command works on."""
    from goldimg.project import find_site

    cache = os.environ.get("GOLDIMG_CACHE")
    chosen = context.obj["site"] or Path.cwd()
    return find_site(chosen.resolve(), cache=Path(cache).resolve() if cache else None)


def read_settings(
    context: click.Context,
    os_name: str,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    version: str | None = None,
) -> tuple[Site, Settings]:
    """Site and valid settings; what the user should know of them goes to stderr."""
    from dataclasses import replace

    from goldimg.config import load_settings
    from goldimg.providers import all_providers

    site = this_site(context)
    chosen = (*variables, f"version={version}") if version else variables
    settings = load_settings(
        site,
        os_name,
        variables=chosen,
        var_files=var_files,
        environ=os.environ,
        providers=all_providers(),
    )
    if settings.cache_dir and site.cache_override is None:
        site = replace(site, cache_override=settings.cache_dir)
    if not context.obj["quiet"]:
        for note in settings.notes:
            click.echo(f"note: {note}", err=True)
    return site, settings


def new_runner() -> Runner:
    """A runner that Ctrl-C and SIGTERM stop: once cleans up, twice kills."""
    from goldimg.run import Runner

    runner = Runner(cancel=threading.Event())

    def stop(number: int, _: FrameType | None) -> None:
        if runner.cancel.is_set():
            runner.hurry.set()
        else:
            runner.cancel.set()
            message = "\nstopping: cleaning up (once more kills at once)"
            os.write(2, f"{message}\n".encode())

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return runner
