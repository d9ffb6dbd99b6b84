"""What the commands share: the site, its settings, a runner that Ctrl-C stops, common options.

Imports of what a command needs happen in the command, so that `goldimg --help` stays quick.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from goldimg.config.models import Settings, SiteFile
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
    """The options that say which images."""
    options = [
        click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
                     help="Operating system: a file in templates/os/."),
        click.option("--only", multiple=True, type=Names(), help="These providers only."),
        click.option("--except", "excepted", multiple=True, type=Names(),
                     help="All but these providers."),
        click.option("--version", "version", help="Version of the images; overrides the site's."),
        click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
                     help="Override a setting of the site or the OS."),
        click.option("--var-file", "var_files", multiple=True,
                     type=click.Path(path_type=Path), help="Override settings from a file."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def choosing(command: F) -> F:
    """The options that say how: by which builder, in which groups, how many at once, with what."""
    options = [
        click.option("--jobs", type=click.IntRange(1, 64),
                     help="VMs at once; by default what cores and memory allow."),
        click.option("--builder", "builders", multiple=True, metavar="PROVIDER=BUILDER",
                     help="auto, qemu, virtualbox-iso or vmware-iso; overrides the site's."),
        click.option("--group", help="Build this group only: its number in the plan, or its name."),
        click.option("--boxes", is_flag=True,
                     help="Make Vagrant boxes for debugging too, of every provider but vmware."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def as_variables(builders: tuple[str, ...], boxes: bool) -> tuple[str, ...]:
    """`--builder aws=qemu` and `--boxes` as the `--var` that says the same."""
    wanted = ("boxes=true",) if boxes else ()
    return (*(f"builder.{choice}" for choice in builders), *wanted)


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
    show_notes(context, settings.notes)
    return site, settings


def with_cache(site: Site, site_file: SiteFile) -> Site:
    """The site with the cache that its file names, unless the environment names another."""
    from dataclasses import replace

    if not site_file.cache_dir or site.cache_override is not None:
        return site
    return replace(site, cache_override=site.root / Path(site_file.cache_dir).expanduser())


def show_notes(context: click.Context, notes: Iterable[str]) -> None:
    """What the user should know of the files that were read, on stderr."""
    if not context.obj["quiet"]:
        for note in notes:
            click.echo(f"note: {note}", err=True)


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
