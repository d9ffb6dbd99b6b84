"""goldimg serve: the site's kickstart server."""

from __future__ import annotations

import os
import time

import click

from goldimg.cli.common import new_runner, this_site


@click.command("serve", short_help="Serve kickstarts, boot files and the status page.")
@click.option("--listen", help="Address to listen on; by default 127.0.0.1, or the interface's.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; by default 8080.")
@click.option("--url", help="How machines reach this server; by default by address and port.")
@click.option("--netboot", is_flag=True, help="Start machines over the network, by dnsmasq.")
@click.option("--interface", help="Network interface of the machines.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that answer.")
@click.option("--var", "variables", multiple=True, metavar="KEY=VALUE",
              help="Override a setting, such as serve.netboot.mode=dhcp.")  # fmt: skip
@click.pass_context
def serve_command(
    context: click.Context,
    listen: str | None,
    port: int | None,
    url: str | None,
    netboot: bool,
    interface: str | None,
    workers: int | None,
    variables: tuple[str, ...],
) -> None:
    """Serve kickstarts, boot files and the status page, until Ctrl-C."""
    from goldimg.config.settings import load_site
    from goldimg.errors import Interrupted
    from goldimg.serve.run import Server, interface_variables
    from goldimg.serve.service import open_service

    site = this_site(context)
    given = {"listen": listen, "port": port, "url": url, "workers": workers}
    chosen = [*variables, *(f"serve.{key}={it}" for key, it in given.items() if it is not None)]
    serve = load_site(site, variables=chosen)[0].serve
    if netboot:
        explicit = {"listen": listen or (serve.listen if serve.listen != "127.0.0.1" else "")}
        where = interface or serve.netboot.interface
        chosen += interface_variables(where, explicit, serve.networks)
    service = open_service(site, os.environ, new_runner(), variables=chosen)

    def say(line: str) -> None:
        if not context.obj["quiet"]:
            click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)

    if not context.obj["quiet"]:
        for line in greeting(service.desk.url, site.shown(service.state_dir / "admin-token")):
            click.echo(line, err=True)
        for problem in service.catalogue.view().all_problems():
            click.echo(f"warning: {problem}", err=True)
    server = Server(
        service=service,
        variables=chosen,
        environ=os.environ,
        say=say,
        with_netboot=netboot,
        is_verbose=context.obj["verbose"],
    )
    try:
        server.run()
    except Interrupted:
        # Stopping is how a server ends well.
        click.echo("stopped", err=True)


def greeting(url: str, token_file: str) -> list[str]:
    """What a person sees who has started the server."""
    return [
        f"kickstarts   {url}/ks/<type>/<build>?os=<OS>",
        f"status page  {url}/ (the token is in {token_file})",
        "Ctrl-C stops.",
    ]
