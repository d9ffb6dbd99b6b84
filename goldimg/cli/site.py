"""goldimg keys, doctor and init: the site and the machine it is on."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from goldimg.cli.common import new_runner, read_settings, this_site


@click.command("keys")
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


@click.command("doctor")
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


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def init_command(directory: Path) -> None:
    """Lay out a new site in DIRECTORY: templates, kickstarts and playbooks to make your own."""
    from goldimg.layout import lay_out

    for path in lay_out(directory):
        click.echo(path)
