"""goldimg promote: versions into channels and environments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldimg.cli.common import new_runner, read_settings
from goldimg.cli.gate import pass_gate
from goldimg.cli.publish import (
    chosen,
    confirm,
    exit_code,
    make_tasks,
    quiet_publisher,
)
from goldimg.cli.signing import sign_manifests
from goldimg.errors import GoldimgError, Interrupted, PublishFailed, UsageError

if TYPE_CHECKING:
    from goldimg.config.models import Settings
    from goldimg.project import Site
    from goldimg.publish.promote import Aim, Step
    from goldimg.publish.publisher import Publisher
    from goldimg.publish.upload import Task
    from goldimg.trust.signer import Signer


@click.command("promote", short_help="Let a channel mean another version; go on to an environment.")
@click.argument("providers", nargs=-1)
@click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
              help="Operating system: a file in templates/os/.")  # fmt: skip
@click.option("--version", "version", required=True, help="Version to promote.")
@click.option("--to", "to", required=True, metavar="NAME",
              help="A channel such as stable, or an environment of the site's.")  # fmt: skip
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
              help="Override a setting, such as publish.gcp.project=other.")  # fmt: skip
@click.option("--var-file", "var_files", multiple=True, type=click.Path(path_type=Path),
              help="Override settings from a file.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; this is the approval, too.")
@click.pass_context
def promote_command(
    context: click.Context,
    providers: tuple[str, ...],
    os_name: str,
    version: str,
    to: str,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    """Let a channel mean another version, or take a version on to the next environment.

    Only images that were tested go anywhere. A channel moves where the version is published: a
    family's newest image, a parameter, a tag, and so on by provider. To an environment the images
    are uploaded first, with its settings, and only from the environment before it.

    Without PROVIDERS all are meant that are built, or that the environment before has. What is as
    it should be is not changed again; after a failure the same command goes on. To go back, promote
    the former version.

    \b
    goldimg promote -O Debian-12 --version 1.2.0 --to stable
    goldimg promote azure -O Debian-12 --version 1.2.0 --to prod --dry-run
    """
    from goldimg.publish.gate import check_tested

    site, settings = read_settings(context, os_name, variables, var_files)
    aim = aim_of(settings, version, to)
    names = _names(site, settings, aim, providers)
    check_tested(site, settings.name, version, names)
    if aim.environment:
        to_environment(context, site, settings, aim, names, dry_run=dry_run, yes=yes)
    else:
        runner = new_runner()
        publishers = [quiet_publisher(settings, name, "", runner) for name in names]
        move(site, settings, aim, publishers, dry_run=dry_run, ask=lambda: confirm(
            yes, f"let {aim.channel} mean {os_name} {version}?"))  # fmt: skip


def aim_of(settings: Settings, version: str, to: str) -> Aim:
    """What is promoted to where; UsageError for a name that the site does not have."""
    from goldimg.publish.promote import Aim
    from goldimg.publish.site import unknown

    publish = settings.site.publish
    environments = tuple(publish.environments)
    if to not in (*publish.channels, *environments):
        kind = "channel or environment" if environments else "channel"
        raise unknown(kind, to, (*publish.channels, *environments))
    return Aim(
        os_name=settings.name,
        version=version,
        channel=to,
        environment=to if to in environments else "",
        environments=frozenset(environments),
    )


def _names(site: Site, settings: Settings, aim: Aim, providers: tuple[str, ...]) -> list[str]:
    """The providers named, or those that have the version."""
    from goldimg.artifacts import MANIFEST
    from goldimg.providers import all_providers
    from goldimg.publish.gate import before, is_in

    if providers:
        return chosen(providers)
    place = site.artifacts / aim.version / aim.os_name
    built = [name for name in all_providers() if (place / name / MANIFEST).exists()]
    if not built:
        raise UsageError(
            f"nothing of {aim.os_name} {aim.version} is finished",
            hint=f"goldimg list -O {aim.os_name} shows what is",
        )
    if not aim.environment:
        return built
    former = before(settings.site.publish, aim.environment)
    if not former:
        raise UsageError(
            f"{aim.environment} is the first environment",
            hint=f"name the providers that go there, such as {built[0]}",
        )
    found = [it for it in built if is_in(site, aim.os_name, aim.version, it, former)]
    if not found:
        raise UsageError(
            f"{aim.os_name} {aim.version} cannot go to {aim.environment}",
            why=f"{former} comes before, and does not have it",
            hint=f"goldimg promote -O {aim.os_name} --version {aim.version} --to {former}",
        )
    return found


# --- environments -------------------------------------------------------------------------------


def to_environment(
    context: click.Context,
    site: Site,
    settings: Settings,
    aim: Aim,
    names: list[str],
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Uploads with the environment's settings, then moves it."""
    pass_gate(site, settings, aim.environment, names, aim.version, yes=yes or dry_run)
    tasks, close = make_tasks(
        context, site, settings, names, aim.version, environment=aim.environment
    )
    try:
        _upload(site, settings, tasks, dry_run=dry_run)
    finally:
        close()
    if dry_run:
        return
    runner = new_runner()
    publishers = [quiet_publisher(settings, name, aim.environment, runner) for name in names]
    move(site, settings, aim, publishers, dry_run=False, ask=lambda: None)


def _upload(site: Site, settings: Settings, tasks: list[Task], *, dry_run: bool) -> None:
    from goldimg.publish.report import failures, outcomes_table, preview_text
    from goldimg.publish.upload import upload

    outcomes = upload(tasks, dry_run=dry_run)
    if dry_run:
        for task, outcome in zip(tasks, outcomes, strict=True):
            if outcome.preview:
                click.echo(preview_text(site, task.image, outcome))
    else:
        sign_manifests(site, settings.site.sign, [task.image.directory for task in tasks])
        click.echo(outcomes_table(outcomes))
    for line in failures(site, outcomes):
        click.echo(line, err=True)
    if code := exit_code(outcomes):
        sys.exit(code)


# --- moving a channel ---------------------------------------------------------------------------


def move(
    site: Site,
    settings: Settings,
    aim: Aim,
    publishers: list[Publisher[Any]],
    *,
    dry_run: bool,
    ask: Callable[[], None],
) -> None:
    """Shows what a channel's move changes, asks, and carries it out."""
    from goldimg.channels import check_channels, held, read_channels
    from goldimg.publish.gate import check_tested
    from goldimg.publish.promote import step_for
    from goldimg.report import error_text
    from goldimg.trust.signer import site_signer

    signer = site_signer(site, settings.site.sign, new_runner())
    with held(site, aim.os_name):
        # again: nothing was pruned or rebuilt since, and nothing is from now on
        check_tested(site, aim.os_name, aim.version, [it.session.provider for it in publishers])
        check_channels(site, aim.os_name, signer)
        channels = read_channels(site, aim.os_name)
        steps, failed = [], False
        for publisher in publishers:
            try:
                steps.append(step_for(site, aim, channels, publisher))
            except Interrupted:
                raise
            except GoldimgError as error:
                failed = True
                for line in error_text(error, site):
                    click.echo(line, err=True)
        if failed:
            raise PublishFailed(
                f"{aim.channel} is what it was",
                hint="mend that, or name the providers that are to go on without it",
            )
        show(steps, aim)
        if all(step.is_done for step in steps):
            click.echo(f"{aim.channel} is {aim.os_name} {aim.version} already; nothing to do")
            return
        if dry_run:
            click.echo("nothing was changed", err=True)
            return
        ask()
        _carry_out(site, settings, aim, steps, publishers, signer)


def show(steps: list[Step], aim: Aim) -> None:
    """What is left to do, and what cannot be done."""
    for step in steps:
        former = f" in place of {', '.join(step.former)}" if step.former else ""
        wanted = f"{aim.channel} is to be {aim.os_name} {step.version}{former}"
        click.echo(f"{step.provider}: {step.version}, as it should be" if step.is_done
                   else f"{step.provider}: {wanted}")  # fmt: skip
        for change in step.promoting.changes:
            click.echo(f"  {change.what}")
        for note in step.promoting.notes:
            click.echo(f"  note: {note}")


def _carry_out(
    site: Site,
    settings: Settings,
    aim: Aim,
    steps: list[Step],
    publishers: list[Publisher[Any]],
    signer: Signer | None,
) -> None:
    """Provider by provider; one that fails stops no other."""
    from goldimg.channels import read_channels
    from goldimg.publish.promote import carry_out
    from goldimg.report import error_text

    def tell(provider: str, words: str) -> None:
        click.echo(f"{provider}: done: {words}")

    places = [(aim.version, aim.os_name, step.provider) for step in steps]
    directories = [site.artifact_dir(*place) for place in places]
    failed = []
    for step, publisher in zip(steps, publishers, strict=True):
        if step.is_done:
            continue
        try:
            carry_out(site, aim, read_channels(site, aim.os_name), step, signer, tell)
        except Interrupted:
            sign_manifests(site, settings.site.sign, directories)
            raise
        except Exception as error:
            told = error if isinstance(error, GoldimgError) else publisher.explain(error)
            failed.append(step.provider)
            for line in error_text(told, site):
                click.echo(line, err=True)
    sign_manifests(site, settings.site.sign, directories)
    if failed:
        raise PublishFailed(
            f"{aim.channel} is not {aim.version} for {', '.join(failed)} yet",
            why="what is done above is done",
            hint="the same command goes on; promoting the former version takes it back",
        )
