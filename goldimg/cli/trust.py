"""goldimg sign and prune: what finished images are signed with, and how long they stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import Names, flat, new_runner, show_notes, this_site, with_cache
from goldimg.errors import UsageError, VerificationFailed
from goldimg.words import size_text

if TYPE_CHECKING:
    from goldimg.project import Site
    from goldimg.trust.signer import Signer


@click.command("sign", short_help="Sign finished images.")
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
              help="Override a setting, such as sign.with=gpg.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace signatures, those by other keys too.")
@click.pass_context
def sign_command(
    context: click.Context, directory: Path | None, variables: tuple[str, ...], force: bool
) -> None:
    """Sign finished images in DIRECTORY, by default all that the site has, with the site's key.

    Builds sign what they finish. Images are verified first, unless they are signed already; what
    was changed since it was signed is not signed again.
    """
    from goldimg.artifacts import MANIFEST
    from goldimg.config.settings import load_site
    from goldimg.trust.signer import site_signer

    site = this_site(context)
    site_file, notes = load_site(site, variables=variables)
    show_notes(context, notes)
    start = directory.resolve() if directory else site.artifacts
    found = sorted(path.parent for path in start.rglob(MANIFEST))
    if not found:
        raise UsageError(
            f"{start} holds no finished image", hint="goldimg build, or name another directory"
        )
    signer = site_signer(site, site_file.sign, new_runner())
    if signer is None:
        raise UsageError("this site signs nothing", why="site.yml says sign: {with: none}")
    failed = [path for path in found if not _sign(site, path, signer, force=force)]
    failed += _sign_versions(site, found, signer, force=force)
    if start == site.artifacts:
        failed += _sign_channels(site, signer, force=force)
    if failed:
        raise VerificationFailed(
            f"{len(failed)} not signed", hint="'goldimg verify' tells what is wrong with them"
        )


def _sign(site: Site, directory: Path, signer: Signer, *, force: bool) -> bool:
    """Verifies an image that nobody has signed, and signs it; tells why where it does not."""
    from goldimg.report import error_text
    from goldimg.trust.seal import is_signed, seal
    from goldimg.trust.verifier import verifying
    from goldimg.verify import verify_directory

    errors = []
    if force or not is_signed(directory):
        with verifying([], signer.runner) as nobody:
            errors = [it.error for it in verify_directory(directory, nobody) if it.error]
    try:
        written = [] if errors else seal(directory, signer, force=force)
    except VerificationFailed as error:
        errors.append(error)
    for fault in errors:
        for line in error_text(fault, site):
            click.echo(line, err=True)
    if not errors:
        said = "signed" if written else "is signed already"
        click.echo(f"{site.shown(directory)}: {said}")
    return not errors


def _sign_versions(
    site: Site, directories: list[Path], signer: Signer, *, force: bool
) -> list[Path]:
    from goldimg.report import error_text
    from goldimg.trust.seal import seal_sums
    from goldimg.verify import SUMS, version_fault

    failed = []
    for version in sorted({directory.parent.parent for directory in directories}):
        if not (version / SUMS).exists():
            continue
        try:
            if fault := version_fault(version, required=False):
                raise fault
            seal_sums(site, version / SUMS, signer, force=force)
        except VerificationFailed as error:
            failed.append(version)
            for line in error_text(error, site):
                click.echo(line, err=True)
    return failed


def _sign_channels(site: Site, signer: Signer, *, force: bool) -> list[Path]:
    """The files that tell what channels point to, in the same way."""
    from goldimg.channels import DIRECTORY
    from goldimg.report import error_text
    from goldimg.trust.seal import seal_sums

    failed = []
    for path in sorted((site.artifacts / DIRECTORY).glob("*.json")):
        try:
            seal_sums(site, path, signer, force=force)
        except VerificationFailed as error:
            failed.append(path)
            for line in error_text(error, site):
                click.echo(line, err=True)
    return failed


@click.command("prune", short_help="Remove old images, bases and ISOs, here and at providers.")
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True,
              help="Versions to keep of each OS and provider, the newest.")  # fmt: skip
@click.option("-O", "--os", "os_names", multiple=True, type=Names(),
              help="Images of these OSes only.")  # fmt: skip
@click.option("--only", multiple=True, type=Names(), help="Images of these providers only.")
@click.option("--remote", is_flag=True,
              help="Old publications at providers too, before what is here.")  # fmt: skip
@click.option("-y", "--yes", is_flag=True, help="Remove what is found; without it, only show.")
@click.option("--json", "as_json", is_flag=True, help="Print what is found as JSON.")
@click.pass_context
def prune_command(
    context: click.Context,
    keep: int,
    os_names: tuple[tuple[str, ...], ...],
    only: tuple[tuple[str, ...], ...],
    remote: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove old images here, and bases, disks and ISOs that no kept image was built from.

    Without --yes they are only listed. Never removed: what is published, what a channel points to,
    the newest versions, and what a running build or upload uses.

    With --remote publications go first: of each target those older than its newest N versions,
    unless a channel points to them or something there uses them, as far as the provider tells.
    """
    from goldimg.config.settings import load_site
    from goldimg.providers import select_providers
    from goldimg.retention import find_old, refresh_lists, remove

    site = this_site(context)
    site_file, notes = load_site(site)
    show_notes(context, notes)
    site = with_cache(site, site_file)
    if names := flat(only):
        select_providers((), names, ())
    runner = new_runner()
    listed = []
    if remote:
        from goldimg.cli.remote import prune_remote

        listed = prune_remote(site, site_file, runner, keep=keep, oses=flat(os_names),
                              providers=names, yes=yes, as_json=as_json)  # fmt: skip
    found = find_old(site, keep=keep, oses=flat(os_names), providers=names)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    total = sum(it.size for it in found.old)
    if as_json:
        listed += [{"path": str(it.path), "kind": it.kind, "size": it.size, "why": it.why}
                   for it in found.old]  # fmt: skip
        click.echo(json.dumps(listed, indent=2))
    else:
        for it in found.old:
            click.echo(f"{it.kind:5} {it.size >> 20:7} MiB  {site.shown(it.path)}  ({it.why})")
    if not found.old:
        click.echo("nothing is old enough to go", err=True)
        return
    if not yes:
        click.echo(f"nothing was removed ({size_text(total)} would be): say --yes", err=True)
        return
    removed, kept = remove(site, found.old, runner)
    for item, why in kept:
        click.echo(f"note: {site.shown(item.path)} stays: {why}", err=True)
    refresh_lists(site, site_file, removed, runner)
    freed = sum(it.size for it in removed)
    click.echo(f"removed {len(removed)} of {len(found.old)}, {size_text(freed)}", err=True)
