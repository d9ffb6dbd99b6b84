"""The command line: parse, call, print, exit code. The only place that prints results."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from goldimg import __version__
from goldimg.cli.build import build_command, plan_command
from goldimg.cli.catalog import catalog_command, verify_command
from goldimg.cli.channels import channels_command
from goldimg.cli.host import host_group
from goldimg.cli.images import diff_command, list_command, show_command
from goldimg.cli.kickstart import kickstart_group
from goldimg.cli.os import os_group
from goldimg.cli.promote import promote_command
from goldimg.cli.publish import (
    published_command,
    unpublish_command,
    upload_command,
)
from goldimg.cli.remote import gc_command
from goldimg.cli.serve import serve_command
from goldimg.cli.site import doctor_command, init_command, keys_command
from goldimg.cli.test import test_command
from goldimg.cli.trust import prune_command, sign_command
from goldimg.cli.watch import logs_command, watch_command
from goldimg.errors import GoldimgError, Interrupted

SECTIONS = {
    "Build": (build_command, plan_command, watch_command, logs_command, catalog_command),
    "Trust": (test_command, verify_command, sign_command),
    "Look": (list_command, show_command, diff_command, published_command, channels_command),
    "Publish": (upload_command, promote_command, unpublish_command, gc_command, prune_command),
    "Install machines": (serve_command, host_group, kickstart_group),
    "Site": (init_command, doctor_command, keys_command, os_group),
}


class Sections(click.Group):
    """A group whose help shows its commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(str(it.name), it.get_short_help_str(limit=66)) for it in commands]
                formatter.write_dl(rows)


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="goldimg")
@click.option(
    "--site",
    "site_dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GOLDIMG_SITE",
    help="Site directory; by default the one around you.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show only what goes wrong, and results.")
@click.option("-v", "--verbose", is_flag=True, help="Show every stage and task.")
@click.option("--debug", is_flag=True, help="Show a traceback when goldimg fails.")
@click.pass_context
def cli(
    context: click.Context, site_dir: Path | None, quiet: bool, verbose: bool, debug: bool
) -> None:
    """One description of an operating system in, the same machine everywhere out.

    Builds images for aws, azure, docker, gcp, openstack, virtualbox and vmware from an installer
    ISO, a kickstart and Ansible playbooks.
    """
    context.obj = {"site": site_dir, "quiet": quiet, "verbose": verbose, "debug": debug}


for commands in SECTIONS.values():
    for command in commands:
        cli.add_command(command)


def main() -> None:
    """Runs the command line; every error ends here, once, with its exit code."""
    is_debug = "--debug" in sys.argv
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(Interrupted.code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except GoldimgError as error:
        if is_debug:
            raise
        show_error(error)
        sys.exit(error.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if is_debug:
            raise
        fault = f"error: {type(error).__name__}: {error}"
        click.echo(f"{fault}\nhint: this is a fault of goldimg's; --debug shows where", err=True)
        sys.exit(1)


def show_error(error: GoldimgError) -> None:
    """Prints an error as STYLE has it: what, why, where, and what to type next."""
    from goldimg.report import error_text

    for line in error_text(error):
        click.echo(line, err=True)
