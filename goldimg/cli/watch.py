"""goldimg watch and logs: builds that run now, and what earlier ones said."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goldimg.cli.common import read_settings, this_site

if TYPE_CHECKING:
    from goldimg.events import Event
    from goldimg.project import Site
    from goldimg.timeline import Timeline

POLL = 0.5  # seconds between two looks at a file


@click.command("watch", short_help="Follow the builds of this site that run now.")
@click.option("--wait", is_flag=True, help="Wait for a build to begin, where none runs.")
@click.pass_context
def watch_command(context: click.Context, wait: bool) -> None:
    """Follow the builds of this site that run now, from their beginning to their end.

    It disturbs none of them; Ctrl-C ends the watching only.
    """
    from goldimg.display import MARKS, clock_text, is_shown, text_of
    from goldimg.running import pid_of, running_pids
    from goldimg.timeline import events_path, read_events

    site = this_site(context)
    while not (pids := running_pids(site)):
        if not wait:
            click.echo("nothing is being built here", err=True)
            return
        time.sleep(POLL)
    verbose = context.obj["verbose"]
    runs = [str(event.data.get("run", "")) for event in read_events(events_path(site))]
    latest = {pid_of(run): run for run in runs}
    began: dict[str, float] = {}
    for event in followed(site, events_path(site)):
        run = str(event.data.get("run", ""))
        # an earlier run may have had the same process id
        if pid_of(run) not in pids or run != latest.get(pid_of(run), run):
            continue
        began.setdefault(run, event.time)
        if is_shown(event, verbose=verbose):
            name = f"[{event.build}] " if event.build else ""
            mark = MARKS.get(event.kind, "warning:" if event.kind == "warning" else "")
            elapsed = clock_text(event.time - began[run])
            click.echo(f"{elapsed:>6} {name}{f'{mark} {text_of(event)}'.strip()}")


def followed(site: Site, path: Path) -> Iterator[Event]:
    """The events in the file, then those that are added while anything is being built."""
    from goldimg.running import running_pids
    from goldimg.timeline import event_of

    for line in lines_of(path, lambda: bool(running_pids(site))):
        if event := event_of(line):
            yield event


def lines_of(path: Path, is_growing: Callable[[], bool]) -> Iterator[str]:
    """The whole lines of a file, then those that are added as long as it `is_growing`.

    It begins again where the file is replaced or cut.
    """
    position, rest = 0, b""
    while True:
        more = is_growing()
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            if stream.seek(0, 2) < position:
                position, rest = 0, b""
            stream.seek(position)
            data = stream.read()
            position += len(data)
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
        if not more:
            return
        time.sleep(POLL)


@click.command("logs", short_help="Print the log of the latest build of a provider's image.")
@click.argument("provider")
@click.option("-O", "--os", "os_name", default="Debian-12", show_default=True,
              help="Operating system: a file in templates/os/.")  # fmt: skip
@click.option("--version", "version", help="Version of the images; overrides the site's.")
@click.option("--install", is_flag=True, help="Of the install that the image is built over.")
@click.option("--console", is_flag=True, help="The guest's serial console.")
@click.option("--timeline", "wants_timeline", is_flag=True,
              help="When what happened, and the slowest tasks.")  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on until the build ends.")
@click.pass_context
def logs_command(
    context: click.Context,
    provider: str,
    os_name: str,
    version: str | None,
    install: bool,
    console: bool,
    wants_timeline: bool,
    follow: bool,
) -> None:
    """Print the log of the latest build of PROVIDER's image: what Packer and Ansible said."""
    site, settings = read_settings(context, os_name, (), (), version)
    from goldimg.errors import UsageError
    from goldimg.providers import all_providers
    from goldimg.running import running_pids
    from goldimg.timeline import events_path, latest_timeline, read_events, timeline_text

    if provider not in all_providers():
        raise UsageError(f"no such provider: {provider}", hint=", ".join(all_providers()))
    version = settings.site.version
    timeline = latest_timeline(read_events(events_path(site)), settings.name, version, provider)
    what = f"{settings.name} {version} for {provider}"
    nothing = UsageError(f"no build of {what} is known here", hint="'goldimg build' makes one")
    if wants_timeline:
        if timeline is None:
            raise nothing
        click.echo(timeline_text(timeline))
        return
    directory = site.artifact_dir(version, settings.name, provider)
    path = log_file(site, directory, timeline, install=install, console=console)
    if path is None:
        raise nothing
    click.echo(f"{site.shown(path)}:", err=True)
    for line in lines_of(path, lambda: follow and bool(running_pids(site))):
        click.echo(line)


def log_file(
    site: Site, directory: Path, timeline: Timeline | None, *, install: bool, console: bool
) -> Path | None:
    """The file to show: where the build writes it now, or where it has left it."""
    from goldimg.artifacts import read_finished

    name = "console.log" if console else "build.log"
    files = timeline.bases if timeline and install else timeline.files if timeline else {}
    now = Path(files.get("console" if console else "log", "/nowhere"))
    # a base's working directory gets its final name once it is whole
    found = [now, Path(str(now).replace(".work/", "/"))]
    if install:
        finished = read_finished(directory)
        base = str(finished.manifest.get("base", "")) if finished else ""
        found += [site.cache / "bases" / base / name] if base else []
    else:
        found.append(directory / name)
    return next((path for path in found if path.is_file()), None)
