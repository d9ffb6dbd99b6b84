"""goldimg build and plan: images and their artifacts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import (
    as_variables,
    choosing,
    chosen_providers,
    new_runner,
    read_settings,
    selection,
)
from goldimg.errors import Interrupted

if TYPE_CHECKING:
    from goldimg.build import Request
    from goldimg.config.models import Settings
    from goldimg.events import Bus
    from goldimg.host import Host
    from goldimg.packer.policy import OnError
    from goldimg.project import Site
    from goldimg.providers import Provider
    from goldimg.run import Runner
    from goldimg.serve.recorder import Recorder
    from goldimg.testing.results import Outcome as Tested


@click.command("build")
@selection
@choosing
@click.option("--force", is_flag=True, help="Replace finished artifacts of the selected providers.")
@click.option("--update", is_flag=True, help="Replace finished artifacts whose inputs changed.")
@click.option("--base-cache/--no-base-cache", default=True, help="Use bases of earlier builds.")
@click.option("--headless/--no-headless", default=None, help="Run VMs without a window.")
@click.option(
    "--from",
    "from_step",
    type=click.Choice(["install", "layer", "convert"]),
    help="Make finished artifacts again from this step on.",
)
@click.option(
    "--on-error",
    type=click.Choice(["cleanup", "abort", "keep"]),
    default="cleanup",
    show_default=True,
    help="When a build fails: remove what it leaves; stop all builds "
    "and leave their files; or leave its VM running until Enter or Ctrl-C.",
)
@click.option(
    "--verify-reproducible",
    is_flag=True,
    help="Then build every image once more, elsewhere, and show what differs.",
)
@click.option("--test", "wants_test", is_flag=True, help="Test the images, too: goldimg test.")
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
    builders: tuple[str, ...],
    group: str | None,
    boxes: bool,
    force: bool,
    update: bool,
    base_cache: bool,
    headless: bool | None,
    from_step: str | None,
    on_error: OnError,
    verify_reproducible: bool,
    wants_test: bool,
    as_json: bool,
) -> None:
    """Build images: ISO, install, provision, convert, checksum."""
    site, settings = read_settings(
        context, os_name, (*variables, *as_variables(builders, boxes)), var_files, version
    )
    from goldimg.build import Request, build
    from goldimg.display import choose_display
    from goldimg.events import Bus
    from goldimg.hold import Holder
    from goldimg.host import inspect_host
    from goldimg.report import failures_text, outcome_json, outcome_table

    host = inspect_host()
    providers = chosen_providers(settings, only, excepted, group, host)
    events, runner = Bus(), new_runner()
    request = Request(
        providers=tuple(providers),
        version=settings.site.version,
        force=force or from_step is not None,
        update=update,
        use_base_cache=base_cache and from_step != "install",
        jobs=jobs or 0,
        headless=headless,
        on_error=on_error,
        hold=Holder(events, runner),
        keep_layers=from_step == "convert",
    )
    display = choose_display(sys.stderr, quiet=context.obj["quiet"], verbose=context.obj["verbose"])
    events.subscribe(display)
    if recorder := build_recorder(site, settings):
        events.subscribe(recorder)
    tested: list[Tested] = []
    try:
        outcomes = build(site, settings, request, host=host, runner=runner, events=events)
        good = [it for it in providers if it.name in {o.provider for o in outcomes if not o.error}]
        if wants_test and good and not runner.cancel.is_set():
            shown = Bus()  # a status page tells of builds
            shown.subscribe(display)
            tested = test_built(site, settings, good, runner, shown)
    finally:
        display.close()
    if not (as_json and verify_reproducible):
        click.echo(outcome_json(outcomes) if as_json else outcome_table(site, outcomes))
    test_code = tell_tested(site, tested, as_json=as_json) if tested else 0
    for line in failures_text(site, outcomes):
        click.echo(line, err=True)
    codes = [getattr(item.error, "code", 1) for item in outcomes if item.error]
    if codes:
        # with --on-error abort it is goldimg that interrupts the others
        failed = [code for code in codes if code != Interrupted.code]
        was_asked = Interrupted.code in codes and not (failed and on_error == "abort")
        sys.exit(Interrupted.code if was_asked else failed[0])
    if verify_reproducible:
        show_second_build(context, site, settings, request, host, as_json=as_json)
    if test_code:
        click.echo("the artifacts are kept; 'goldimg test' tests them again", err=True)
        sys.exit(test_code)


def show_second_build(
    context: click.Context,
    site: Site,
    settings: Settings,
    request: Request,
    host: Host,
    *,
    as_json: bool,
) -> None:
    """Builds once more and prints what differs; exit code 5 where a file does."""
    from goldimg.again import build_again
    from goldimg.again_report import compared_json, compared_text
    from goldimg.display import choose_display
    from goldimg.errors import VerificationFailed
    from goldimg.events import Bus

    quiet, verbose = context.obj["quiet"], context.obj["verbose"]
    display, events = choose_display(sys.stderr, quiet=quiet, verbose=verbose), Bus()
    events.subscribe(display)
    try:
        events.emit("", "note", "building everything once more, to compare")
        found = build_again(site, settings, request, host=host, runner=new_runner(), events=events)
    finally:
        display.close()
    title = f"{settings.name} {settings.site.version}"
    text = "\n".join(compared_text(title, found, is_verbose=verbose))
    click.echo(compared_json(found) if as_json else text)
    if not all(it.is_same for it in found):
        sys.exit(VerificationFailed.code)


def test_built(
    site: Site, settings: Settings, providers: list[Provider], runner: Runner, events: Bus
) -> list[Tested]:
    """Tests what was built, or was there already: `goldimg build --test`."""
    from goldimg.cli.test import try_and_sign
    from goldimg.testing.session import Request

    request = Request(providers=tuple(providers), version=settings.site.version)
    return try_and_sign(site, settings, request, runner=runner, events=events)


def tell_tested(site: Site, tested: list[Tested], *, as_json: bool) -> int:
    """Shows how the tests ended, and returns their exit code."""
    from goldimg.cli.test import tell
    from goldimg.testing.results import results_table

    click.echo(results_table(tested), err=as_json)
    return tell(site, tested)


def build_recorder(site: Site, settings: Settings) -> Recorder | None:
    """Tells the status page of the build; None where the site serves none."""
    from goldimg.errors import GoldimgError
    from goldimg.project import artifact_name
    from goldimg.serve.recorder import Recorder
    from goldimg.serve.store import Store

    path = site.root / Path(settings.site.serve.state_dir).expanduser() / "goldimg.sqlite"
    if not path.exists():
        return None
    version = settings.site.version

    def name_of(build: str) -> str:
        return artifact_name(settings.name, version, build)

    def directory_of(build: str) -> Path:
        return site.artifact_dir(version, settings.name, build)

    try:
        return Recorder(Store(path), name_of, directory_of)
    except (GoldimgError, OSError):
        return None  # a page is not worth a build


@click.command("plan", short_help="Show what a build would do, and whether it fits.")
@selection
@choosing
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
    builders: tuple[str, ...],
    group: str | None,
    boxes: bool,
    as_json: bool,
) -> None:
    """Show installs, layers, groups, builders and artifacts, without starting anything."""
    site, settings = read_settings(
        context, os_name, (*variables, *as_variables(builders, boxes)), var_files, version
    )
    from goldimg.host import inspect_host
    from goldimg.inputs import make_recipe, public_key_of
    from goldimg.report import plan_json, plan_text
    from goldimg.space import estimate

    host = inspect_host()
    recipe = make_recipe(
        site,
        settings,
        chosen_providers(settings, only, excepted, group, host),
        version=settings.site.version,
        jobs=jobs or 0,
        host=host,
        public_key=public_key_of(site),
        runner=new_runner(),
    )
    names = [layer.provider for layer in recipe.plan.layers]
    needs = estimate(site, recipe.plan, names)
    if as_json:
        click.echo(plan_json(recipe.plan, host, needs))
    else:
        click.echo(plan_text(site, settings, recipe.plan, host, needs))
