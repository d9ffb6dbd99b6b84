"""goldimg channels: where channels and environments point."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import this_site

if TYPE_CHECKING:
    from goldimg.channels import Channels


@click.command("channels", short_help="Show which version each channel and environment means.")
@click.option("-O", "--os", "os_name", help="Of this OS only.")
@click.option("--history", is_flag=True, help="Show who promoted what, the newest last.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
@click.pass_context
def channels_command(
    context: click.Context, os_name: str | None, history: bool, as_json: bool
) -> None:
    """Show which version each channel and environment means, and since when."""
    from goldimg.channels import DIRECTORY, read_channels
    from goldimg.report import table

    site = this_site(context)
    names = sorted(it.stem for it in (site.artifacts / DIRECTORY).glob("*.json"))
    found = [read_channels(site, name) for name in names if os_name in (None, name)]
    if as_json:
        click.echo(json.dumps([it.as_json() for it in found], indent=2))
        return
    if not found:
        click.echo("no channel points to anything yet", err=True)
        return
    click.echo(table(history_rows(found) if history else pointer_rows(found)))


def history_rows(found: list[Channels]) -> list[tuple[str, ...]]:
    """A line for each promotion, the newest last."""
    moves = sorted(((it.at, each.os_name, it) for each in found for it in each.history),
                   key=lambda row: row[:2])  # fmt: skip
    return [
        ("at", "os", "channel", "provider", "version", "before", "by"),
        *((at, name, it.channel, it.provider, it.version, it.former, it.by)
          for at, name, it in moves),
    ]  # fmt: skip


def pointer_rows(found: list[Channels]) -> list[tuple[str, ...]]:
    """A line for each provider that a channel means something for."""
    rows: list[tuple[str, ...]] = [("os", "channel", "provider", "version", "since", "by")]
    for each in found:
        for channel, pointers in sorted(each.pointers.items()):
            for name, it in sorted(pointers.items()):
                moving = f" (moving to {it.moving_to})" if it.moving_to else ""
                shown = f"{it.version or 'nothing'}{moving}"
                rows.append((each.os_name, channel, name, shown, it.since, it.by))
    return rows
