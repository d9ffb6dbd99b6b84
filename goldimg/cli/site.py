"""goldimg keys, doctor and init: the site and the machine it is on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import Names, flat, new_runner, read_settings, this_site
from goldimg.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from goldimg.doctor import Patient


@click.command("keys", short_help="Make the key pairs in keys/.")
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
    """Make the packer and vagrant SSH key pairs in keys/, and the one that signs images.

    The signing pair is made where the site names no other key, and never replaced: others trust it.
    """
    from goldimg.config.settings import load_site
    from goldimg.keys import KeyKind, ensure_keys, ensure_signing_key

    site = this_site(context)
    choice: KeyKind = "rsa" if kind == "rsa" else "ed25519"
    runner = new_runner()
    pairs = list(ensure_keys(site.keys, runner, kind=choice, force=force))
    sign = load_site(site)[0].sign
    own = ensure_signing_key(site.keys, runner) if sign.using == "ssh" and not sign.key else None
    for pair in [*pairs, *([own] if own else [])]:
        click.echo(f"{site.shown(pair.private)}  {pair.public_text}")


@click.command("doctor", short_help="Show which tools are there, and what brings the others.")
@click.option("-O", "--os", "os_name", help="Also ask about this OS: its ISO, repository, Python.")
@click.option("--only", multiple=True, type=Names(), help="Ask for these providers only.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor_command(
    context: click.Context, os_name: str | None, only: tuple[tuple[str, ...], ...], as_json: bool
) -> None:
    """Show which tools are there, what brings the others, and what is wrong in the site's files."""
    from goldimg.doctor import examine
    from goldimg.report import doctor_json, doctor_text

    findings = examine(new_runner(), patient_of(context, os_name, flat(only)))
    problems = site_problems(context)
    click.echo(doctor_json(findings, problems) if as_json else doctor_text(findings))
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    if any(finding.is_required and not finding.is_there for finding in findings):
        sys.exit(3)
    if problems:
        sys.exit(2)


def patient_of(
    context: click.Context, os_name: str | None, only: tuple[str, ...]
) -> Patient | None:
    """What the doctor is asked about; None where there is no site, or its file cannot be read."""
    from goldimg.config.settings import load_site
    from goldimg.doctor import Patient
    from goldimg.providers import select_providers

    settings = None
    if os_name:
        site, settings = read_settings(context, os_name, (), ())
        site_file = settings.site
    else:
        try:
            site = this_site(context)
            site_file = load_site(site)[0]
        except (UsageError, ConfigError):
            if only:
                select_providers((), only, ())
            return None
    providers = tuple(select_providers(site_file.providers, only, ()))
    return Patient(site=site, site_file=site_file, providers=providers, settings=settings)


def site_problems(context: click.Context) -> list[str]:
    """What is wrong with the site's files, hosts included; nothing where there is no site."""
    from goldimg.serve.catalogue import read_view

    try:
        view = read_view(this_site(context), os.environ, new_runner())
    except UsageError:
        return []
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in view.all_problems()]


@click.command("init", short_help="Lay out a new site.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def init_command(directory: Path) -> None:
    """Lay out a new site in DIRECTORY: templates, kickstarts and playbooks to make your own."""
    from goldimg.layout import lay_out

    for path in lay_out(directory):
        click.echo(path)
