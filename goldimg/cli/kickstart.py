"""goldimg kickstart: render and check kickstarts."""

from __future__ import annotations

import os
import sys

import click

from goldimg.cli.common import new_runner, this_site


@click.group("kickstart")
def kickstart_group() -> None:
    """Render and check kickstarts."""


@kickstart_group.command("render")
@click.argument("build")
@click.option("-O", "--os", "os_name", help="By default the host's, or Debian-12.")
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE")
@click.pass_context
def render_command(
    context: click.Context, build: str, os_name: str | None, variables: tuple[str, ...]
) -> None:
    """Print the kickstart of BUILD, such as virtual/azure or metal/node01.

    It is shown as strangers get it: root's password is locked, and nothing is reported.
    """
    from goldimg.serve.catalogue import read_view
    from goldimg.serve.service import public_url

    view = read_view(this_site(context), os.environ, new_runner(), variables)
    host = view.hosts.get(build.removeprefix("metal/")) if build.startswith("metal/") else None
    chosen = os_name or (host.os if host else None) or "Debian-12"
    ks_url = f"{public_url(view.site_file.serve)}/ks/{build}?os={chosen}"
    click.echo(view.render(build, chosen, view.target(build, chosen, ks_url=ks_url)), nl=False)


@kickstart_group.command("validate")
@click.argument("builds", nargs=-1)
@click.option("-O", "--os", "oses", multiple=True, help="For these operating systems only.")
@click.pass_context
def validate_command(
    context: click.Context, builds: tuple[str, ...], oses: tuple[str, ...]
) -> None:
    """Check the kickstarts of all builds and hosts, or of BUILDS, each against its release."""
    from goldimg.kickstart.check import check_all

    found = check_all(this_site(context), new_runner(), names=builds, oses=oses, environ=os.environ)
    for checked in found:
        click.echo(f"{checked.build} {checked.os}: {'wrong' if checked.problems else 'OK'}")
    problems = [(it, problem) for it in found for problem in it.problems]
    for it, problem in problems:
        click.echo(f"error: {it.build} for {it.os}: {problem}", err=True)
    if problems:
        sys.exit(2)


@kickstart_group.command("url")
@click.argument("build")
@click.option("-O", "--os", "os_name", required=True, help="Operating system.")
@click.option("--expires", default="1h", show_default=True, metavar="DURATION")
@click.pass_context
def url_command(context: click.Context, build: str, os_name: str, expires: str) -> None:
    """Print a URL by which the kickstart of a virtual BUILD is served once with root's password.

    Whoever has the URL has the password's hash.
    """
    from goldimg.config.fields import seconds
    from goldimg.errors import UsageError
    from goldimg.serve.service import open_service

    try:
        duration = seconds(expires)
    except ValueError as error:
        raise UsageError(f"--expires {error}") from None
    if not build.startswith("virtual/"):
        raise UsageError(
            f"{build} is no virtual build", hint="'goldimg host bootline' is for hosts"
        )
    service = open_service(this_site(context), os.environ, new_runner())
    view = service.catalogue.view()
    view.options(build, os_name)  # says what is wrong with either name
    if view.root_hash(os_name) is None:
        raise UsageError(
            "the site has no root password, so no kickstart has a secret",
            hint="set GOLDIMG_ROOT_PASS or root_pass_file",
        )
    click.echo(
        service.desk.ks_url(build, os_name, service.desk.new_token(build, os_name, duration))
    )
