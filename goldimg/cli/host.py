"""goldimg host: the machines of a site, and which of them are to be installed."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import new_runner, this_site

if TYPE_CHECKING:
    from goldimg.serve.service import Service


@click.group("host")
def host_group() -> None:
    """Machines that are installed by kickstart: add, arm, watch."""


def opened(context: click.Context, variables: tuple[str, ...] = ()) -> Service:
    """The site's state and definitions."""
    from goldimg.serve.service import open_service

    return open_service(this_site(context), os.environ, new_runner(), variables=variables)


@host_group.command("add")
@click.argument("name")
@click.option("--mac", multiple=True, help="A network card's address; may be given several times.")
@click.option("--serial", help="The machine's serial number, as its firmware has it.")
@click.option("-O", "--os", "os_name", help="Operating system that it is installed with.")
@click.pass_context
def add_command(
    context: click.Context, name: str, mac: tuple[str, ...], serial: str | None, os_name: str | None
) -> None:
    """Write the file of a new host; edit it for network, disk and packages."""
    from goldimg.serve.hosts import add_host

    site = this_site(context)
    host = add_host(site, name, mac=mac, serial=serial, os_name=os_name)
    path = site.kickstart / "builds" / f"{host.build}.yml"
    click.echo(f"{site.shown(path)} written")


@host_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the hosts as JSON.")
@click.pass_context
def list_command(context: click.Context, as_json: bool) -> None:
    """Show every host with its state."""
    from goldimg.serve.report import hosts_json, hosts_table

    service = opened(context)
    service.store.expire()
    click.echo(hosts_json(service) if as_json else hosts_table(service))
    problems = [it for host in service.catalogue.view().hosts.values() for it in host.problems]
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)


@host_group.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--lines", default=20, show_default=True, help="How much of its log.")
@click.pass_context
def show_command(context: click.Context, name: str, as_json: bool, lines: int) -> None:
    """Show what happened to a host, and the end of its installer's log."""
    from goldimg.serve.report import host_json, host_text

    service = opened(context)
    service.store.expire()
    click.echo(
        json.dumps(host_json(service, name, lines), indent=2)
        if as_json
        else host_text(service, name, lines)
    )


@host_group.command("install")
@click.argument("names", nargs=-1, required=True)
@click.option("-O", "--os", "os_name", help="Operating system; by default the host's own.")
@click.option("--expires", metavar="DURATION", help="Disarm unless it has begun by then: 2h, 30m.")
@click.option("--yes", is_flag=True, help="Do not ask before a host is installed once more.")
@click.option("--force", is_flag=True, help="Also while it is being installed.")
@click.option("--wait", is_flag=True, help="Wait until it is installed or has failed.")
@click.pass_context
def install_command(
    context: click.Context,
    names: tuple[str, ...],
    os_name: str | None,
    expires: str | None,
    yes: bool,
    force: bool,
    wait: bool,
) -> None:
    """Arm hosts: each is installed once, the next time it starts over the network.

    Its disk is wiped then.
    """
    from goldimg.config.fields import seconds
    from goldimg.display import choose_display
    from goldimg.errors import UsageError
    from goldimg.events import Bus
    from goldimg.serve.arming import arm_host
    from goldimg.serve.report import when
    from goldimg.serve.store import State

    try:
        duration = seconds(expires) if expires else None
    except ValueError as error:
        raise UsageError(f"--expires {error}") from None
    service = opened(context)
    events = Bus()
    display = choose_display(sys.stderr, quiet=context.obj["quiet"], verbose=context.obj["verbose"])
    events.subscribe(display)
    try:
        for name in dict.fromkeys(names):
            before = service.store.host(name)
            if before.state is State.INSTALLED and not yes:
                ask_again(name, f"installed with {before.os} {when(before.since)}")
            record = arm_host(
                service, name, os_name=os_name, expires=duration, force=force, events=events
            )
            click.echo(f"{name}: armed for {record.os}, until {when(record.expires)}")
    finally:
        display.close()
    if wait:
        wait_for(service, tuple(dict.fromkeys(names)))


def ask_again(name: str, state: str) -> None:
    """Asks before a host that works is wiped; UsageError where nobody is there to answer."""
    from goldimg.errors import Interrupted, UsageError

    if not sys.stdin.isatty():
        raise UsageError(
            f"{name} is {state}", hint="--yes installs it once more, and wipes its disk"
        )
    if not click.confirm(f"{name} is {state}. Install it once more and wipe its disk?", err=True):
        raise Interrupted("nothing was armed")


def wait_for(service: Service, names: tuple[str, ...]) -> None:
    """Prints what happens to the hosts until each is installed; BuildFailed where one is not."""
    from goldimg.errors import BuildFailed
    from goldimg.serve.store import UNDER_WAY, WAITING

    shown: dict[str, str] = {}
    while True:
        service.runner.check_cancelled()
        service.store.expire()
        records = [service.store.host(name) for name in names]
        for record in records:
            text = f"{record.state}{f', {record.stage}' if record.state in UNDER_WAY else ''}"
            if shown.get(record.name) != text:
                shown[record.name] = text
                click.echo(f"{time.strftime('%H:%M:%S')} {record.name}: {text}", err=True)
        if all(record.state not in (*WAITING, *UNDER_WAY) for record in records):
            break
        time.sleep(1)
    failed = [record for record in records if record.state != "installed"]
    if failed:
        raise BuildFailed(
            f"not installed: {', '.join(it.name for it in failed)}",
            details=[f"{it.name}: {it.message or it.state}" for it in failed],
            hint=f"'goldimg host show {failed[0].name}' shows the end of its log",
        )


@host_group.command("cancel")
@click.argument("names", nargs=-1, required=True)
@click.pass_context
def cancel_command(context: click.Context, names: tuple[str, ...]) -> None:
    """Disarm hosts: they start their disks, and reports of an install under way are ignored."""
    service = opened(context)
    for name in names:
        known_host(service, name)
        before = service.store.host(name)
        after = service.store.disarm(name)
        changed = (
            "cancelled" if after.since != before.since else f"nothing to cancel: {after.state}"
        )
        click.echo(f"{name}: {changed}")


@host_group.command("remove")
@click.argument("name")
@click.pass_context
def remove_command(context: click.Context, name: str) -> None:
    """Remove a host's file, its state and its history."""
    from goldimg.serve.hosts import remove_host

    service = opened(context)
    known_host(service, name)
    if name in service.catalogue.view().hosts:
        remove_host(service.site, name)
    service.store.forget(name)
    click.echo(f"{name}: removed")


@host_group.command("bootline")
@click.argument("name")
@click.pass_context
def bootline_command(context: click.Context, name: str) -> None:
    """Print the boot options for a host that is armed, to type where it cannot start by network.

    They hold the host's token: whoever has them gets its kickstart.
    """
    from goldimg.serve.report import boot_line

    click.echo(boot_line(opened(context), name))


def known_host(service: Service, name: str) -> None:
    """Raises UsageError for a host that has neither a file nor a state."""
    from goldimg.serve.hosts import find_host

    if not service.store.host(name).armed:
        find_host(service.catalogue.view().hosts, name)
