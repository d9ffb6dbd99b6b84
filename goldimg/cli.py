"""The command line: parse, call, print, exit code. The only place that prints results.

Imports of what a command needs happen in the command, so that `goldimg --help` stays quick.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from goldimg import __version__
from goldimg.errors import GoldimgError, Interrupted

if TYPE_CHECKING:
    from goldimg.config.models import Settings
    from goldimg.project import Site
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="goldimg")
@click.option(
    "--site",
    "site_dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GOLDIMG_SITE",
    help="Site directory; by default the one around you.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show only what goes wrong, and results.")
@click.option("-v", "--verbose", is_flag=True, help="Show every stage and task.")
@click.option("--debug", is_flag=True, help="Show a traceback when goldimg fails.")
@click.pass_context
def cli(
    context: click.Context, site_dir: Path | None, quiet: bool, verbose: bool, debug: bool
) -> None:
    """One description of an operating system in, the same machine everywhere out.

    Builds images for aws, azure, docker, gcp, openstack, virtualbox and vmware from an installer
    ISO, a kickstart and Ansible playbooks.
    """
    context.obj = {"site": site_dir, "quiet": quiet, "verbose": verbose, "debug": debug}


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


@cli.command("build")
@selection
@click.option("--force", is_flag=True, help="Replace finished artifacts of the selected providers.")
@click.option("--update", is_flag=True, help="Replace finished artifacts whose inputs changed.")
@click.option("--base-cache/--no-base-cache", default=True, help="Use bases of earlier builds.")
@click.option("--headless/--no-headless", default=None, help="Run VMs without a window.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def build_command(
    context: click.Context,
    os_name: str,
    only: tuple[tuple[str, ...], ...],
    excepted: tuple[tuple[str, ...], ...],
    version: str | None,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    jobs: int | None,
    force: bool,
    update: bool,
    base_cache: bool,
    headless: bool | None,
    as_json: bool,
) -> None:
    """Build images: ISO, install, provision, convert, checksum."""
    site, settings = read_settings(context, os_name, variables, var_files, version)
    from goldimg.build import Request, build
    from goldimg.display import choose_display
    from goldimg.events import Bus
    from goldimg.host import inspect_host
    from goldimg.providers import select_providers
    from goldimg.report import failures_text, outcome_json, outcome_table

    providers = select_providers(settings.site.providers, flat(only), flat(excepted))
    request = Request(
        providers=tuple(providers),
        version=settings.site.version,
        force=force,
        update=update,
        use_base_cache=base_cache,
        jobs=jobs or 0,
        headless=headless,
    )
    events = Bus()
    display = choose_display(sys.stderr, quiet=context.obj["quiet"], verbose=context.obj["verbose"])
    events.subscribe(display)
    runner = new_runner()
    try:
        outcomes = build(site, settings, request, host=inspect_host(), runner=runner, events=events)
    finally:
        display.close()
    click.echo(outcome_json(outcomes) if as_json else outcome_table(site, outcomes))
    for line in failures_text(site, outcomes):
        click.echo(line, err=True)
    codes = [getattr(item.error, "code", 1) for item in outcomes if item.error]
    if codes:
        sys.exit(Interrupted.code if Interrupted.code in codes else codes[0])


@cli.command("plan")
@selection
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_context
def plan_command(
    context: click.Context,
    os_name: str,
    only: tuple[tuple[str, ...], ...],
    excepted: tuple[tuple[str, ...], ...],
    version: str | None,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    jobs: int | None,
    as_json: bool,
) -> None:
    """Show installs, layers, groups, builders and artifacts, without starting anything."""
    site, settings = read_settings(context, os_name, variables, var_files, version)
    from goldimg.host import inspect_host
    from goldimg.inputs import make_recipe, public_key_of
    from goldimg.providers import select_providers
    from goldimg.report import plan_json, plan_text

    host = inspect_host()
    recipe = make_recipe(
        site,
        settings,
        select_providers(settings.site.providers, flat(only), flat(excepted)),
        version=settings.site.version,
        jobs=jobs or 0,
        host=host,
        public_key=public_key_of(site),
        runner=new_runner(),
    )
    if as_json:
        click.echo(plan_json(recipe.plan, host))
    else:
        click.echo(plan_text(site, settings, recipe.plan, host))


@cli.command("keys")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["ed25519", "rsa"]),
    default="ed25519",
    show_default=True,
    help="rsa is for targets that know nothing newer.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace existing keys: images made with them are no longer reachable by the new ones.",
)
@click.pass_context
def keys_command(context: click.Context, kind: str, force: bool) -> None:
    """Make the packer and vagrant SSH key pairs in keys/."""
    from goldimg.keys import KeyKind, ensure_keys

    site = this_site(context)
    choice: KeyKind = "rsa" if kind == "rsa" else "ed25519"
    pairs = ensure_keys(site.keys, new_runner(), kind=choice, force=force)
    for pair in pairs:
        click.echo(f"{site.shown(pair.private)}  {pair.public_text}")


@cli.group("kickstart")
def kickstart_group() -> None:
    """Render and check kickstarts."""


@kickstart_group.command("render")
@click.argument("build")
@click.option("-O", "--os", "os_name", default="Debian-12", show_default=True)
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE")
@click.pass_context
def render_command(
    context: click.Context, build: str, os_name: str, variables: tuple[str, ...]
) -> None:
    """Print the kickstart of BUILD, such as virtual/azure; root's password is locked in it."""
    site, settings = read_settings(context, os_name, variables, ())
    from goldimg.inputs import public_key_of, render_build

    text = render_build(site, settings, build, public_key_of(site), new_runner())
    click.echo(text, nl=False)


@cli.command("verify")
@selection
@click.pass_context
def verify_command(
    context: click.Context,
    os_name: str,
    only: tuple[tuple[str, ...], ...],
    excepted: tuple[tuple[str, ...], ...],
    version: str | None,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    jobs: int | None,
) -> None:
    """Check finished artifacts against SHA256SUMS and the rules of their formats."""
    site, settings = read_settings(context, os_name, variables, var_files, version)
    from goldimg.providers import select_providers
    from goldimg.verify import verify_directory

    providers = select_providers(settings.site.providers, flat(only), flat(excepted))
    for provider in providers:
        directory = site.artifact_dir(settings.site.version, settings.name, provider.name)
        for name in verify_directory(directory, provider, new_runner()):
            click.echo(f"{site.shown(directory / name)}: OK")


@cli.command("doctor")
@click.option("-O", "--os", "os_name", help="Also ask whether this OS's ISO can be had.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor_command(context: click.Context, os_name: str | None, as_json: bool) -> None:
    """Show which tools a build needs, which are there, and what brings the others."""
    from goldimg.doctor import examine, examine_iso
    from goldimg.report import doctor_json, doctor_text

    findings = examine(new_runner())
    if os_name:
        site, settings = read_settings(context, os_name, (), ())
        findings.append(examine_iso(settings, site.cache))
    click.echo(doctor_json(findings) if as_json else doctor_text(findings))
    if any(finding.is_required and not finding.is_there for finding in findings):
        sys.exit(3)


@cli.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def init_command(directory: Path) -> None:
    """Lay out a new site in DIRECTORY: templates, kickstarts and playbooks to make your own."""
    from goldimg.layout import lay_out

    for path in lay_out(directory):
        click.echo(path)


def main() -> None:
    """Runs the command line; every error ends here, once, with its exit code."""
    is_debug = "--debug" in sys.argv
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(Interrupted.code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except GoldimgError as error:
        if is_debug:
            raise
        show_error(error)
        sys.exit(error.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if is_debug:
            raise
        fault = f"error: {type(error).__name__}: {error}"
        click.echo(f"{fault}\nhint: this is a fault of goldimg's; --debug shows where", err=True)
        sys.exit(1)


def show_error(error: GoldimgError) -> None:
    """Prints an error as STYLE has it: what, why, where, and what to type next."""
    from goldimg.report import error_text

    for line in error_text(error):
        click.echo(line, err=True)


if __name__ == "__main__":
    main()
