"""What gunicorn loads: `goldimg.serve.wsgi:application()`, for the site in `GOLDIMG_SITE`."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from goldimg.errors import UsageError
from goldimg.project import find_site
from goldimg.run import Runner
from goldimg.serve.service import Service, open_service

if TYPE_CHECKING:
    from flask import Flask

SITE = "GOLDIMG_SITE"


@functools.cache
def service() -> Service:
    """The service of the site that the environment names; UsageError where it names none.

    A process opens it once: the server's settings and its application are of one piece.
    """
    place = os.environ.get(SITE)
    if not place:
        raise UsageError(
            f"{SITE} is not set",
            hint=f"'goldimg serve' sets it; for another server: {SITE}=/path/to/site",
        )
    cache = os.environ.get("GOLDIMG_CACHE")
    site = find_site(Path(place).resolve(), cache=Path(cache).resolve() if cache else None)
    return open_service(site, os.environ, Runner())


def application() -> Flask:
    """The WSGI application."""
    from goldimg.serve.app import create_app

    return create_app(service())
