"""goldimg test: starts finished images and looks at them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import new_runner, read_settings
from goldimg.errors import Interrupted

if TYPE_CHECKING:
    from goldimg.config.models import Settings
    from goldimg.events import Bus
    from goldimg.project import Site
    from goldimg.run import Runner
    from goldimg.testing.results import Outcome
    from goldimg.testing.session import Request


@click.command("test", short_help="Start finished images, and check them from inside.")
@click.argument("providers", nargs=-1)
@click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
              help="Operating system: a file in templates/os/.")  # fmt: skip
@click.option("--version", "version", help="Version; by default each provider's newest.")
@click.option("--jobs", type=click.IntRange(1, 64),
              help="Machines at once; by default what cores and memory allow.")  # fmt: skip
@click.option("--timeout", "seconds", type=click.IntRange(10, 7200), metavar="SECONDS",
              help="How long a machine may take to start (by default 300, emulated 900).",
              )  # fmt: skip
@click.option("--check-timeout", "check_seconds", type=click.IntRange(1, 7200), default=300,
              show_default=True, metavar="SECONDS",
              help="How long one check may take.")  # fmt: skip
@click.option("--boxes", is_flag=True, help="Test the disks in Vagrant boxes, too.")
@click.option("--keep-vm", is_flag=True,
              help="Leave a machine that failed running until Enter or Ctrl-C.")  # fmt: skip
@click.option("--junit", type=click.Path(path_type=Path, file_okay=False),
              help="Write JUnit XML into this directory, too.")  # fmt: skip
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
              help="Override a setting, such as accelerator=tcg.")  # fmt: skip
@click.option("--var-file", "var_files", multiple=True, type=click.Path(path_type=Path),
              help="Override settings from a file.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def test_command(
    context: click.Context,
    providers: tuple[str, ...],
    os_name: str,
    version: str | None,
    jobs: int | None,
    seconds: int | None,
    check_seconds: int,
    boxes: bool,
    keep_vm: bool,
    junit: Path | None,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Start finished images, check them from inside, and record the results.

    Each artifact is started as it is, over a throw-away disk, on its provider's bus; a container's
    files are tried as a container. Checks of your own go to tests.d/ (docs/testing.md).

    \b
    goldimg test -O Debian-12
    goldimg test aws azure -O Debian-12 --version 1.0.0
    """
    site, settings = read_settings(context, os_name, variables, var_files)
    from goldimg.display import choose_display
    from goldimg.events import Bus
    from goldimg.hold import Holder
    from goldimg.providers import select_providers
    from goldimg.testing.results import results_json, results_table
    from goldimg.testing.session import Request

    names = [part for name in providers for part in name.split(",") if part]
    chosen = select_providers((), names, ()) if names else []
    runner, events = new_runner(), Bus()
    request = Request(
        providers=tuple(chosen),
        version=version,
        jobs=jobs or 0,
        seconds=float(seconds or 0),
        check_seconds=float(check_seconds),
        boxes=boxes,
        hold=Holder(events, runner) if keep_vm else None,
    )
    display = choose_display(sys.stderr, quiet=context.obj["quiet"], verbose=context.obj["verbose"])
    events.subscribe(display)
    try:
        outcomes = try_and_sign(site, settings, request, runner=runner, events=events)
    finally:
        display.close()
    if junit:
        write_junit(junit, outcomes)
    click.echo(results_json(outcomes) if as_json else results_table(outcomes))
    sys.exit(tell(site, outcomes))


def try_and_sign(
    site: Site, settings: Settings, request: Request, *, runner: Runner, events: Bus
) -> list[Outcome]:
    """Tests images and signs their manifests anew, those that were signed."""
    from goldimg.cli.signing import sign_manifests
    from goldimg.host import inspect_host
    from goldimg.testing.session import try_images

    outcomes = try_images(
        site, settings, request, host=inspect_host(), runner=runner, events=events
    )
    sign_manifests(site, settings.site.sign, [it.directory for it in outcomes if it.checks])
    return outcomes


def write_junit(directory: Path, outcomes: list[Outcome]) -> None:
    """Writes a file an image into `directory`, for a CI system to gather."""
    from goldimg.artifacts import JUNIT
    from goldimg.project import artifact_name, make_directory, write_text
    from goldimg.testing.results import junit_text

    make_directory(directory)
    for it in outcomes:
        name = artifact_name(it.os_name, it.version, it.provider)
        write_text(directory / f"{name}{JUNIT}", junit_text([it]))


def tell(site: Site, outcomes: list[Outcome]) -> int:
    """Prints what failed, and returns the exit code: 130, else that of the first error."""
    from goldimg.errors import GoldimgError
    from goldimg.report import error_text

    codes = []
    for outcome in outcomes:
        for error in outcome.errors:
            codes.append(getattr(error, "code", 1))
            if isinstance(error, Interrupted):
                continue
            if isinstance(error, GoldimgError):
                lines = error_text(error, site)
            else:
                lines = [f"error: {outcome.provider}: {type(error).__name__}: {error}"]
            for line in lines:
                click.echo(line, err=True)
    if Interrupted.code in codes:
        click.echo("interrupted; results that were there are recorded", err=True)
        return Interrupted.code
    return codes[0] if codes else 0
