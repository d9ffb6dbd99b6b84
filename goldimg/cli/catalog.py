"""goldimg verify and catalog: what is finished, and what lists it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import (
    flat,
    new_runner,
    read_settings,
    selection,
    show_notes,
    this_site,
    with_cache,
)
from goldimg.errors import UsageError, VerificationFailed

if TYPE_CHECKING:
    from goldimg.catalog.local import Local
    from goldimg.project import Site
    from goldimg.providers import Provider
    from goldimg.run import Runner
    from goldimg.trust.check import Checked
    from goldimg.trust.verifier import Trusted


@click.command("verify", short_help="Check artifacts: signatures, sums, manifests, formats.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@selection
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Trust this public key, or allowed_signers file, instead of the site's.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def verify_command(
    context: click.Context,
    paths: tuple[Path, ...],
    os_name: str,
    only: tuple[tuple[str, ...], ...],
    excepted: tuple[tuple[str, ...], ...],
    version: str | None,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Check finished artifacts: signatures, SHA256SUMS, manifests, the rules of their formats.

    PATH is an artifact or a directory with some below it; without one, the images of -O and
    --version are checked. Where a key is trusted, what it has not signed is a fault.
    """
    from goldimg.report import error_text
    from goldimg.trust.verifier import Verifier
    from goldimg.verify import verify_path, verify_site

    runner = new_runner()
    site: Site | None = None
    verifier = Verifier(_trusted(context, keys, runner), runner)
    context.call_on_close(verifier.close)
    if paths:
        checked: Iterable[Checked] = (it for path in paths for it in verify_path(path, verifier))
    else:
        site, settings = read_settings(context, os_name, variables, var_files, version)
        number = settings.site.version
        providers = _finished(site, settings.name, number, flat(only), flat(excepted))
        checked = verify_site(site, settings.name, number, providers, verifier)
    results = []
    for item in checked:
        results.append(item)
        shown = site.shown(item.path) if site else str(item.path)
        if not as_json:
            note = f" ({item.note})" if item.note else ""
            click.echo(f"{shown}: {'FAILED' if item.error else 'OK'}{note}")
        for line in error_text(item.error, site) if item.error else ():
            click.echo(line, err=True)
    if as_json:
        found = [
            {"path": str(it.path), "ok": not it.error, "error": str(it.error) if it.error else None}
            for it in results
        ]
        click.echo(json.dumps(found, indent=2))
    if any(item.error for item in results):
        sys.exit(VerificationFailed.code)


def _trusted(context: click.Context, keys: Sequence[Path], runner: Runner) -> list[Trusted]:
    """The keys named on the command line, or those of the site around us; none elsewhere."""
    from goldimg.config.settings import load_site
    from goldimg.trust.own import trusted_by_site
    from goldimg.trust.verifier import Trusted

    if keys:
        return [Trusted.read(path) for path in keys]
    try:
        site = this_site(context)
    except UsageError:
        return []
    return trusted_by_site(site, load_site(site)[0].sign, runner)


def _finished(
    site: Site, os_name: str, version: str, only: tuple[str, ...], excepted: tuple[str, ...]
) -> Sequence[Provider]:
    """The providers asked for by name, or else those that have something to verify."""
    from goldimg.artifacts import MANIFEST
    from goldimg.providers import select_providers

    chosen = select_providers([], only, excepted)
    there = [
        provider
        for provider in chosen
        if only or (site.artifact_dir(version, os_name, provider.name) / MANIFEST).exists()
    ]
    if not there:
        raise UsageError(
            f"nothing of {os_name} {version} is finished",
            hint=f"goldimg build -O {os_name} --version {version}, or name another --version",
        )
    return there


@click.command(
    "catalog", short_help="Bring Vagrant catalogs and each version's SHA256SUMS up to date."
)
@click.option("-O", "--os", "os_name", help="Of this OS only; by default of all that have boxes.")
@click.option(
    "--var",
    "variables",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting, such as catalog.url=https://boxes.example.com.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit with 5 where something is wrong.")
@click.option("--add", is_flag=True, help="Add the newest box to this user's Vagrant.")
@click.option("--image", default="", help="With --add: the debugging box of this image instead.")
@click.option("--provider", help="With --add: Vagrant's provider, where there are several.")
@click.option("--json", "as_json", is_flag=True, help="Print the catalogs as JSON.")
@click.pass_context
def catalog_command(
    context: click.Context,
    os_name: str | None,
    variables: tuple[str, ...],
    check: bool,
    add: bool,
    image: str,
    provider: str | None,
    as_json: bool,
) -> None:
    """Bring the Vagrant catalogs in artifacts/, and each version's SHA256SUMS, up to date.

    A build does the same when it ends. What others wrote into a catalog stays.
    """
    from goldimg.catalog.local import base_url_of, catalogs, known_oses, update
    from goldimg.config.settings import load_site

    site = this_site(context)
    site_file, notes = load_site(site, variables=variables)
    show_notes(context, notes)
    site = with_cache(site, site_file)
    runner, url = new_runner(), base_url_of(site, site_file.catalog.url)
    names = [os_name] if os_name else known_oses(site)
    found: list[Local] = []
    for name in names:
        if check:
            found += catalogs(site, site_file.namespace, name, url)
        else:
            found += update(site, site_file.namespace, name, url, runner.check_cancelled)
    if not check:
        _write_sums(site, runner)
    if not found:
        raise UsageError(
            f"there are no boxes of {os_name}" if os_name else "there are no boxes in artifacts/",
            hint="goldimg build --only virtualbox, or --boxes",
        )
    faulty = list(_show(site, found, check=check, as_json=as_json))
    if add:
        _add(found, image, provider)
    if faulty:
        sys.exit(VerificationFailed.code)


def _write_sums(site: Site, runner: Runner) -> None:
    from goldimg.artifacts import MANIFEST, write_version_sums

    for version in sorted({it.parents[2].name for it in site.artifacts.glob(f"*/*/*/{MANIFEST}")}):
        write_version_sums(site, version, runner.check_cancelled)


def _show(site: Site, found: Sequence[Local], *, check: bool, as_json: bool) -> Iterator[Local]:
    """Prints the catalogs and what is wrong with them; yields those that are not right."""
    from goldimg.catalog.check import faults
    from goldimg.catalog.local import read_catalog
    from goldimg.report import catalog_table

    for local in found:
        shown = site.shown(local.path)
        for note in local.notes:
            click.echo(f"note: {shown}: {note}", err=True)
        wrong = faults(local, read_catalog(local.path)) if check else []
        for fault in wrong:
            click.echo(f"error: {shown}: {fault}", err=True)
        if wrong:
            yield local
    if as_json:
        click.echo(json.dumps({it.path.name: it.catalog for it in found}, indent=2))
    else:
        click.echo(catalog_table(site, found))


def _add(found: Sequence[Local], image: str, provider: str | None) -> None:
    from goldimg.catalog.add import add_to_vagrant

    chosen = [it for it in found if it.key == image and it.boxes]
    if len(chosen) != 1:
        names = ", ".join(it.name for it in found)
        raise UsageError(
            "--add wants one box", why=f"there are {names}", hint="name its OS with -O, its --image"
        )
    version = add_to_vagrant(chosen[0], provider)
    click.echo(f"added {chosen[0].name} {version}", err=True)
