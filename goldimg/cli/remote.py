"""goldimg gc, and the remote half of goldimg prune: what is to go at providers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from goldimg.cli.common import new_runner, read_settings
from goldimg.cli.publish import chosen, environment_option, quiet_publisher
from goldimg.cli.signing import sign_manifests
from goldimg.errors import PublishFailed

if TYPE_CHECKING:
    from goldimg.config.models import SiteFile
    from goldimg.project import Site
    from goldimg.publish.outdated import Outdated
    from goldimg.publish.publisher import Publisher
    from goldimg.publish.sweep import Removal
    from goldimg.run import Runner


def prune_remote(
    site: Site,
    site_file: SiteFile,
    runner: Runner,
    *,
    keep: int,
    oses: Sequence[str],
    providers: Sequence[str],
    yes: bool,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Shows publications that may go, and removes them with `yes`; what it found, for JSON.

    PublishFailed where not all could be removed: the same command goes on.
    """
    from goldimg.publish.outdated import find_outdated

    made: dict[tuple[str, str], Publisher[Any]] = {}

    def publisher(provider: str, environment: str) -> Publisher[Any]:
        key = (provider, environment)
        if key not in made:
            made[key] = _publisher(site_file, runner, provider, environment)
        return made[key]

    search = find_outdated(site, keep=keep, oses=oses, providers=providers, publisher=publisher)
    for note in search.notes:
        click.echo(f"note: {note}", err=True)
    if not as_json:
        for it in search.old:
            click.echo(_line(it))
    if yes and search.old:
        _remove(site, site_file, search.old)
    elif not search.old:
        click.echo("no publication is old enough to go", err=True)
    elif not yes:
        click.echo(f"no publication was removed ({len(search.old)} would be): say --yes", err=True)
    return [
        {
            "kind": "publication",
            "provider": it.record.provider,
            "os": it.record.os_name,
            "version": it.record.version,
            "name": it.record.publication.name,
            "target": it.record.target,
            "environment": it.record.environment,
            "why": it.why,
            "note": it.note,
        }
        for it in search.old
    ]


def _line(it: Outdated) -> str:
    record, note = it.record, f"; {it.note}" if it.note else ""
    return f"{record.provider}: {record.publication.name} at {record.target}  ({it.why}{note})"


def _publisher(
    site_file: SiteFile, runner: Runner, provider: str, environment: str
) -> Publisher[Any]:
    from goldimg.events import Bus
    from goldimg.publish.site import publisher_class, sections_of
    from goldimg.publish.upload import new_session

    sections = sections_of(site_file.publish, environment)
    session = new_session(provider, runner, Bus())
    publisher = publisher_class(provider)(getattr(sections, provider), session)
    session.is_transient = publisher.is_transient
    return publisher


def _remove(site: Site, site_file: SiteFile, old: Sequence[Outdated]) -> None:
    """OS by OS, while nobody can promote; what was promoted since it was listed stays."""
    from goldimg.channels import held, read_channels
    from goldimg.publish.outdated import remove_outdated

    def tell(it: Outdated, removal: Removal) -> None:
        words = f"not removed: {removal.error}" if removal.error else "removed"
        click.echo(f"{it.record.provider}: {removal.resource}: {words}", err=True)

    is_whole = True
    for os_name in sorted({it.record.os_name for it in old}):
        with held(site, os_name):
            channels = read_channels(site, os_name)
            mine = [
                it
                for it in old
                if it.record.os_name == os_name
                and not channels.pointing(it.record.provider, it.record.version)
            ]
            is_whole &= remove_outdated(site, mine, tell)
        places = sorted({(it.record.version, os_name, it.record.provider) for it in mine})
        sign_manifests(site, site_file.sign, [site.artifact_dir(*place) for place in places])
    if not is_whole:
        raise PublishFailed("not everything could be removed", hint="run the same command again")


@click.command("gc", short_help="Find and remove what interrupted uploads left.")
@click.argument("providers", nargs=-1, required=True)
@click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
              help="Whose settings to use; what is found is of any OS.")  # fmt: skip
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
              help="Override a setting, such as publish.gcp.project=other.")  # fmt: skip
@environment_option
@click.option("--older", default=24.0, show_default=True, metavar="HOURS",
              help="Orphans of this age only; what journals here know goes at once.")  # fmt: skip
@click.option("-y", "--yes", is_flag=True, help="Remove what is found; without it, only show.")
@click.pass_context
def gc_command(
    context: click.Context,
    providers: tuple[str, ...],
    os_name: str,
    variables: tuple[str, ...],
    environment: str,
    older: float,
    yes: bool,
) -> None:
    """Find and remove what interrupted uploads left at providers."""
    from goldimg.publish.report import leftovers_table, removals_text
    from goldimg.publish.sweep import leftovers, remove_leftovers

    site, settings = read_settings(context, os_name, variables, ())
    failed, found, runner = False, [], new_runner()
    for name in chosen(providers):
        publisher = quiet_publisher(settings, name, environment, runner)
        directories = sorted(path for path in site.artifacts.glob(f"*/*/{name}") if path.is_dir())
        there = leftovers(site, publisher, directories, older=older * 3600)
        found += [(name, it) for it in there]
        if yes and there:
            ended = remove_leftovers(publisher, there)
            for line in removals_text(ended):
                click.echo(f"{name}: {line}")
            failed |= any(it.error for it in ended)
    if failed:
        raise PublishFailed("not everything could be removed", hint="run the same command again")
    if not found:
        click.echo("nothing is left over", err=True)
    elif not yes:
        click.echo(leftovers_table(found))
        click.echo("nothing was removed: say --yes", err=True)
