"""Adds a box to this user's Vagrant, by python-vagrant.

https://github.com/pycontribs/python-vagrant: box_add gives Vagrant a name and an address. Vagrant
takes a catalog's address with the catalog's own name only, and then keeps the address, so that
`vagrant box outdated` and `box update` ask it.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from goldimg.catalog.local import Local
from goldimg.catalog.version import sort_key
from goldimg.errors import GoldimgError, MissingTool
from goldimg.run import has_program


def add_to_vagrant(local: Local, provider: str | None) -> str:
    """Adds the newest box of a catalog, in place of one of that version; returns its version.

    `provider` is Vagrant's. MissingTool without python-vagrant or Vagrant, GoldimgError where
    Vagrant refuses the box; what it says goes to the terminal.
    """
    providers = sorted({it.provider for it in local.boxes})
    if provider is None and len(providers) > 1:
        raise GoldimgError(
            f"{local.name} has boxes for {' and '.join(providers)}",
            hint=f"name one: --provider {providers[0]}",
        )
    chosen = provider or providers[0]
    if chosen not in providers:
        raise GoldimgError(
            f"{local.name} has no box for {chosen}", hint=f"it has some for {', '.join(providers)}"
        )
    vagrant = _client(local)
    try:
        vagrant.box_add(local.name, local.path.resolve().as_uri(), provider=chosen, force=True)
    except Exception as error:  # its own are a mixture; what matters Vagrant has said by now
        raise GoldimgError(f"vagrant did not take {local.name}", why=str(error)) from error
    found = [it for it in vagrant.box_list() if (it.name, it.provider) == (local.name, chosen)]
    return str(max((it.version for it in found), key=sort_key, default=""))


def _client(local: Local) -> Any:
    """python-vagrant; it and Vagrant itself are looked for first."""
    if not has_program("vagrant"):
        raise MissingTool("vagrant is not installed", hint="apt-get install vagrant")
    try:
        module = importlib.import_module("vagrant")
    except ImportError as error:
        raise MissingTool(
            "python-vagrant is not installed", hint="pip install 'goldimg[vagrant]'"
        ) from error
    # Vagrant's own progress is not a result, so it goes to stderr
    stderr = 2
    return module.Vagrant(
        root=str(local.path.parent),
        out_cm=lambda: contextlib.nullcontext(stderr),
        err_cm=lambda: contextlib.nullcontext(stderr),
    )
