"""Manifests that have changed since they were signed, signed anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from goldimg.config.sign import Sign
    from goldimg.project import Site


def sign_manifests(site: Site, sign: Sign, directories: list[Path]) -> None:
    """Signs anew what is signed in `directories`; where that fails, it is only told."""
    from goldimg.errors import GoldimgError
    from goldimg.run import Runner
    from goldimg.trust.seal import is_signed, seal
    from goldimg.trust.signer import site_signer

    for directory in directories:
        if not directory.is_dir() or not is_signed(directory):
            continue
        try:
            if signer := site_signer(site, sign, Runner()):
                seal(directory, signer)
        except GoldimgError as error:
            shown = site.shown(directory)
            click.echo(f"warning: {shown}: the manifest is not signed again: {error}", err=True)
