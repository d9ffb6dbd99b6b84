"""goldimg upload, published and unpublish: images where they run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from goldimg.cli.common import F, Names, flat, new_runner, read_settings
from goldimg.cli.signing import sign_manifests
from goldimg.errors import Interrupted, PublishFailed, UsageError

if TYPE_CHECKING:
    from goldimg.config.models import Settings
    from goldimg.project import Site
    from goldimg.publish.publisher import Publisher
    from goldimg.publish.records import Record
    from goldimg.publish.upload import Outcome, Task
    from goldimg.run import Runner

HURRY = 2.0  # seconds that a second Ctrl-C leaves for the journal


def image_options(command: F) -> F:
    """The options that say which image, and with which settings."""
    options: list[Callable[[Any], Any]] = [
        click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
                     help="Operating system: a file in templates/os/."),
        click.option("--version", "version", help="Version; by default the newest that is built."),
        click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
                     help="Override a setting, such as publish.gcp.bucket=images."),
        click.option("--var-file", "var_files", multiple=True,
                     type=click.Path(path_type=Path), help="Override settings from a file."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def environment_option(command: F) -> F:
    """`--env`, for commands that work with one environment's settings."""
    text = "An environment of publish.environments: its settings."
    return click.option("--env", "environment", default="", metavar="NAME", help=text)(command)


def target_options(command: F) -> F:
    """Flags for what sites change most often; each stands for a key of `publish.<provider>`."""
    options: list[Callable[[Any], Any]] = [
        click.option("--regions", type=Names(), help="Publish to these regions; the first is where "
                     "the image is made."),
        click.option("--share", type=Names(), help="Share with these accounts or projects."),
        click.option("--public", is_flag=True, help="Let everybody use the image."),
        click.option("--via", help="The way there, where a provider has several: aws: ebs, s3 or "
                     "import-image; azure: blob or disk; openstack: upload or import."),
        click.option("--create", is_flag=True, help="Create groups, accounts, buckets and "
                     "galleries that are missing."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def flags_of(
    regions: tuple[str, ...] | None,
    share: tuple[str, ...] | None,
    public: bool,
    via: str | None,
    create: bool,
) -> dict[str, str]:
    """The flags that were given, as text for settings."""
    given = {
        "regions": ",".join(regions or ()),
        "share": ",".join(share or ()),
        "public": "true" if public else "",
        "via": via or "",
        "create": "true" if create else "",
    }
    return {key: value for key, value in given.items() if value}


@click.command("upload", short_help="Publish images: check, send, verify, import, share.")
@click.argument("providers", nargs=-1, required=True)
@image_options
@target_options
@environment_option
@click.option("--force", is_flag=True, help="Replace another image that has the same name.")
@click.option("--dry-run", is_flag=True, help="Check everything and show the calls; send nothing.")
@click.option("-y", "--yes", is_flag=True, help="The approval that an environment may want.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def upload_command(
    context: click.Context,
    providers: tuple[str, ...],
    os_name: str,
    version: str | None,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    regions: tuple[str, ...] | None,
    share: tuple[str, ...] | None,
    public: bool,
    via: str | None,
    create: bool,
    environment: str,
    force: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Publish finished images: check, send, verify, import, share, record.

    PROVIDERS are names such as aws, azure or gcp; several are published side by side. Where to is
    said under 'publish:' in templates/site.yml; credentials come from each provider's own chain
    (environment, profile, clouds.yaml, …), never from goldimg's files.

    An image that is there already is not sent again. After a failure or Ctrl-C the same command
    goes on where it was; what cannot be gone on with is removed.

    \b
    goldimg upload azure -O CentOS-7.2.1511
    goldimg upload aws gcp openstack docker -O Debian-12 --dry-run
    goldimg upload aws -O Debian-12 --regions eu-west-1,us-east-1 --share 123456789012
    """
    import json

    from goldimg.cli.gate import pass_gate
    from goldimg.publish.report import failures, outcome_json, outcomes_table, preview_text
    from goldimg.publish.site import as_variables
    from goldimg.publish.upload import upload

    names = chosen(providers)
    flags = as_variables(names, flags_of(regions, share, public, via, create), environment)
    site, settings = read_settings(context, os_name, (*variables, *flags), var_files)
    if environment:
        pass_gate(site, settings, environment, names, version, yes=yes or dry_run)
    tasks, close = make_tasks(context, site, settings, names, version, environment=environment)
    try:
        outcomes = upload(tasks, force=force, dry_run=dry_run)
    finally:
        close()
    if not dry_run:
        sign_manifests(site, settings.site.sign, [task.image.directory for task in tasks])
    if as_json:
        click.echo(json.dumps([outcome_json(it) for it in outcomes], indent=2))
    elif dry_run:
        for task, outcome in zip(tasks, outcomes, strict=True):
            if outcome.preview:
                click.echo(preview_text(site, task.image, outcome))
    else:
        click.echo(outcomes_table(outcomes))
    for line in failures(site, outcomes):
        click.echo(line, err=True)
    sys.exit(exit_code(outcomes))


def chosen(providers: tuple[str, ...]) -> list[str]:
    """The providers named, commas allowed too; UsageError for an unknown one."""
    from goldimg.providers import select_providers

    named = flat(tuple(tuple(part for part in it.split(",") if part) for it in providers))
    known = {provider.name for provider in select_providers((), named, ())}
    return [name for name in named if name in known]


def make_tasks(
    context: click.Context,
    site: Site,
    settings: Settings,
    names: list[str],
    version: str | None,
    *,
    environment: str = "",
) -> tuple[list[Task], Callable[[], None]]:
    """An image and a publisher for each provider, and what gives the terminal back."""
    from goldimg.display import choose_display
    from goldimg.events import Bus
    from goldimg.publish.image import check_tested, find_image
    from goldimg.publish.site import publisher_for, sections_of
    from goldimg.publish.upload import Task, new_session

    images = {name: find_image(site, settings, name, version) for name in names}
    if sections_of(settings.site.publish, environment).require_tested:
        check_tested(list(images.values()))
    runner, events = new_runner(), Bus()
    watch_hurry(runner)
    tasks = [
        Task(image=images[name],
             publisher=publisher_for(name, settings, new_session(name, runner, events),
                                     environment),
             environment=environment)
        for name in names
    ]  # fmt: skip
    display = choose_display(sys.stderr, quiet=context.obj["quiet"], verbose=context.obj["verbose"])
    events.subscribe(display)
    return tasks, display.close


def watch_hurry(runner: Runner) -> None:
    """A second Ctrl-C ends the command even where a call hangs; journals are whole at any time."""

    def wait() -> None:
        runner.hurry.wait()
        threading.Event().wait(HURRY)
        os.write(2, b"stopped at once; the same command goes on, 'goldimg gc' cleans up\n")
        os._exit(Interrupted.code)

    threading.Thread(target=wait, daemon=True).start()


def exit_code(outcomes: list[Outcome]) -> int:
    """130 where the user stopped it, else that of the first error."""
    codes = [getattr(it.error, "code", PublishFailed.code) for it in outcomes if it.error]
    if Interrupted.code in codes or any(it.status == "interrupted" for it in outcomes):
        return Interrupted.code
    return codes[0] if codes else 0


@click.command("published", short_help="Show where images are published, and under which ids.")
@click.argument("providers", nargs=-1)
@click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
              help="Operating system: a file in templates/os/.")  # fmt: skip
@click.option("--version", "version", help="This version only.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
@click.pass_context
def published_command(
    context: click.Context,
    providers: tuple[str, ...],
    os_name: str,
    version: str | None,
    as_json: bool,
) -> None:
    """Show where images of an OS are published, and under which ids."""
    from goldimg.publish.report import records_json, records_table

    site, settings = read_settings(context, os_name, (), ())
    records = find_records(site, settings, providers, version)
    if as_json:
        click.echo(records_json(records))
    elif records:
        click.echo(records_table(records))
    else:
        click.echo(f"{os_name} is not published", err=True)


def find_records(
    site: Site, settings: Settings, providers: tuple[str, ...], version: str | None
) -> list[Record]:
    """The publications that are meant, by provider and version."""
    from goldimg.providers import all_providers
    from goldimg.publish.records import published

    names = chosen(providers) if providers else list(all_providers())
    return [
        record
        for name in names
        for record in published(site, settings.name, name)
        if version in (None, record.version)
    ]


@click.command("unpublish", short_help="Take published images back.")
@click.argument("providers", nargs=-1, required=True)
@click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
              help="Operating system: a file in templates/os/.")  # fmt: skip
@click.option("--version", "version", required=True, help="Version to take back.")
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
              help="Override a setting, such as publish.gcp.project=other.")  # fmt: skip
@environment_option
@click.option("--force", is_flag=True, help="Even where a channel points to it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def unpublish_command(
    context: click.Context,
    providers: tuple[str, ...],
    os_name: str,
    version: str,
    variables: tuple[str, ...],
    environment: str,
    force: bool,
    yes: bool,
) -> None:
    """Take published images back: remove image, snapshots, objects, and the record."""
    from goldimg.publish.gate import check_unpointed
    from goldimg.publish.report import removals_text
    from goldimg.publish.sweep import unpublish

    site, settings = read_settings(context, os_name, variables, ())
    found = find_records(site, settings, providers, version)
    records = [it for it in found if it.environment == environment]
    if not records:
        where = f" in {environment}" if environment else ""
        others = ", ".join(sorted({it.environment or "none" for it in found}))
        raise UsageError(
            f"{os_name} {version} is not published to {', '.join(providers)}{where}",
            why=f"it is with --env {others}" if found else "",
            hint=f"what is published: goldimg published -O {os_name}",
        )
    if not force:
        check_unpointed(site, records, settings.site.publish.environments)
    runner = new_runner()
    publishers = {
        name: quiet_publisher(settings, name, environment, runner) for name in chosen(providers)
    }
    strangers = [it for it in records if it.target != publishers[it.provider].target]
    if strangers:
        first = strangers[0]
        raise UsageError(
            f"{first.publication.name} was published to {first.target}",
            why=f"the settings are now for {publishers[first.provider].target}",
            hint="name the settings of then with --var publish.…",
        )
    for record in records:
        for resource in record.publication.resources:
            click.echo(f"{record.provider}: {resource}")
    confirm(yes, f"remove {'these' if len(records) > 1 else 'this image'} for good?")
    failed = False
    for record in records:
        ended = unpublish(site, publishers[record.provider], record)
        for line in removals_text(ended):
            click.echo(f"{record.provider}: {line}")
        failed |= any(it.error for it in ended)
    places = {(it.version, it.os_name, it.provider) for it in records}
    sign_manifests(
        site, settings.site.sign, [site.artifact_dir(*place) for place in sorted(places)]
    )
    if failed:
        raise PublishFailed("not everything could be removed", hint="run the same command again")


def quiet_publisher(
    settings: Settings, name: str, environment: str, runner: Runner
) -> Publisher[Any]:
    """A publisher that shows no progress; `runner` is that of the whole command, for Ctrl-C."""
    from goldimg.events import Bus
    from goldimg.publish.site import publisher_for
    from goldimg.publish.upload import new_session

    session = new_session(name, runner, Bus())
    publisher = publisher_for(name, settings, session, environment)
    publisher.session.is_transient = publisher.is_transient
    return publisher


def confirm(yes: bool, question: str) -> None:
    """Asks, where there is somebody to ask; UsageError where there is nobody and no --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is here to confirm", hint="say --yes")
    click.confirm(question, abort=True, err=True)
