"""goldimg os: the operating systems of the site, and whether they can be had."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import new_runner, this_site

if TYPE_CHECKING:
    from goldimg.oses import Entry

CHECK = click.option("--check", is_flag=True, help="Ask the servers for ISO and packages.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("os", short_help="Show operating systems: the files in templates/os/.")
def os_group() -> None:
    """Show operating systems: files in templates/os/."""


@os_group.command("list")
@CHECK
@JSON
@click.pass_context
def list_command(context: click.Context, check: bool, as_json: bool) -> None:
    """List every operating system that can be built."""
    import json

    from goldimg.oses import described, read_entries, unused_mirrors
    from goldimg.report import table

    site = this_site(context)
    entries = read_entries(site, os.environ)
    if check:
        entries = asked(context, entries)
    if as_json:
        click.echo(json.dumps([described(entry) for entry in entries], indent=2))
    else:
        click.echo(table([("name", "installer", "iso", "from", "state"), *map(row, entries)]))
    for remark in unused_mirrors(site, entries):
        click.echo(f"note: {remark}", err=True)
    finish(entries, quiet_about_missing=True)


@os_group.command("show")
@click.argument("name")
@CHECK
@JSON
@click.pass_context
def show_command(context: click.Context, name: str, check: bool, as_json: bool) -> None:
    """Show all that is known of one operating system."""
    import json

    from goldimg.oses import described, read_entries

    entries = read_entries(this_site(context), os.environ, [name])
    if check:
        entries = asked(context, entries)
    facts = described(entries[0])
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    elif entries[0].settings:
        for line in lines(facts):
            click.echo(line)
    finish(entries, quiet_about_missing=not check)


def asked(context: click.Context, entries: list[Entry]) -> list[Entry]:
    """The entries, with what their servers answered."""
    from goldimg.oses import ask

    return ask(entries, this_site(context).cache, new_runner())


def row(entry: Entry) -> tuple[str, str, str, str, str]:
    """One line of the table."""
    from goldimg.oses import source_of

    settings = entry.settings
    if settings is None:
        return entry.name, "-", "-", "-", "wrong"
    state = "ok" if entry.unreachable is None else "reachable"
    if entry.unreachable:
        state = "unreachable"
    if entry.missing:
        state = f"set os_mirrors.{settings.os.os_name}"
    iso = settings.iso_file or settings.os.installer.suite or ""
    return entry.name, settings.os.installer.kind, iso, source_of(settings), state


def lines(facts: dict[str, object]) -> list[str]:
    """`key: value` lines; a list or mapping has a line for each of its items."""
    width = max(map(len, facts)) + 1
    found = []
    for key, value in facts.items():
        items = [value]
        if isinstance(value, dict):
            items = [f"{name} {it}" for name, it in value.items()]
        elif isinstance(value, list):
            items = value
        for number, item in enumerate(it for it in items if it is not None):
            label = f"{key}:" if number == 0 else ""
            found.append(f"{label.ljust(width)} {item}")
    return found


def finish(entries: list[Entry], *, quiet_about_missing: bool) -> None:
    """Tells what is wrong, and ends with its exit code."""
    wrong = [str(problem) for entry in entries for problem in entry.problems]
    if not quiet_about_missing:
        wrong += [it for entry in entries for it in entry.missing]
    for text in dict.fromkeys(wrong):
        click.echo(f"error: {text}", err=True)
    away = [(entry.name, it) for entry in entries for it in entry.unreachable or ()]
    for name, text in away:
        click.echo(f"error: {name}: {text}", err=True)
    if wrong or away:
        sys.exit(2 if wrong else 1)
