"""goldimg list, show and diff: what is finished, what is in it, what differs."""

from __future__ import annotations

import json

import click

from goldimg.cli.common import Names, flat, read_settings, this_site


@click.command("list", short_help="List finished images.")
@click.option("-O", "--os", "os_name", help="Of this OS only.")
@click.option("--json", "as_json", is_flag=True, help="Print the images as JSON.")
@click.pass_context
def list_command(context: click.Context, os_name: str | None, as_json: bool) -> None:
    """List finished images: when built, how large, where published, whether tested."""
    from goldimg.images import find_images
    from goldimg.inventory.report import images_json, images_table

    site = this_site(context)
    images = find_images(site, os_name)
    if as_json:
        click.echo(json.dumps(images_json(images), indent=2))
    elif images:
        click.echo(images_table(site, images))
    else:
        click.echo(f"nothing is finished{f' of {os_name}' if os_name else ''}", err=True)


@click.command("show", short_help="Show what is in the images of a version.")
@click.argument("os_name", metavar="OS")
@click.argument("version")
@click.argument("provider", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print manifest and packages as JSON.")
@click.pass_context
def show_command(
    context: click.Context, os_name: str, version: str, provider: str | None, as_json: bool
) -> None:
    """Show the finished images of a version: files, origin, what is in them."""
    from goldimg.artifacts import read_finished
    from goldimg.images import one_version
    from goldimg.inventory.describe import inventory_in
    from goldimg.inventory.report import image_json, image_text

    site = this_site(context)
    whole: list[dict[str, object]] = []
    lines: list[str] = []
    for image in one_version(site, os_name, version, provider):
        finished = read_finished(image.directory)
        if finished is None:  # removed in between
            continue
        inventory = inventory_in(image.directory)
        whole.append(image_json(image, finished, inventory))
        lines += [*([""] if lines else []), *image_text(site, image, finished, inventory)]
    click.echo(json.dumps(whole, indent=2) if as_json else "\n".join(lines))


@click.command("diff", short_help="Tell what differs between two images.")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option(
    "-O",
    "--os",
    "os_name",
    default="Debian-12",
    show_default=True,
    help="Operating system of versions and providers.",
)
@click.option("--version", "version", help="Version of providers; by default the site's.")
@click.option("--only", multiple=True, type=Names(), help="Of two versions these providers only.")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.pass_context
def diff_command(
    context: click.Context,
    one: str,
    other: str,
    os_name: str,
    version: str | None,
    only: tuple[tuple[str, ...], ...],
    as_json: bool,
) -> None:
    """Tell what differs between two images: packages, services, files, size.

    A and B are versions (1.0.0), providers (aws), both (1.0.0/aws), or directories with a
    manifest.json.
    """
    from pathlib import Path

    from goldimg.artifacts import MANIFEST
    from goldimg.inventory.report import diff_json, diff_text
    from goldimg.inventory.sides import compare
    from goldimg.providers import all_providers

    site, number = None, version or ""
    if not all((Path(word) / MANIFEST).exists() for word in (one, other)):
        site = this_site(context)
        if not version and {one, other} & set(all_providers()):
            site, settings = read_settings(context, os_name, (), (), None)
            number = settings.site.version
    pairs = compare(site, one, other, os_name=os_name, version=number, only=flat(only))
    if as_json:
        click.echo(diff_json(pairs))
    else:
        click.echo("\n".join(diff_text(site, pairs, is_verbose=context.obj["verbose"])))
