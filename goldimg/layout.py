"""Lays out a new site: the templates, kickstarts and playbooks that goldimg brings."""

from __future__ import annotations

import shutil
from pathlib import Path

from goldimg.errors import UsageError
from goldimg.project import make_directory

PARTS = ("templates", "kickstart", "ansible")
SCRIPTS = "scripts"  # of the site's own; a directory of that name may be there already
PACKAGE = Path(__file__).resolve().parent


def data_root() -> Path:
    """Where goldimg's own data files are: in the wheel, or in the checkout around the package."""
    shipped = PACKAGE / "data"
    return shipped if shipped.is_dir() else PACKAGE.parent


def lay_out(directory: Path) -> list[Path]:
    """Copies the data files into `directory`, and makes keys/ and artifacts/ beside them.

    Nothing that exists is touched: UsageError where one of the parts is there already.
    """
    existing = [name for name in PARTS if (directory / name).exists()]
    if existing:
        raise UsageError(
            f"{directory} already has {', '.join(f'{name}/' for name in existing)}",
            hint="name a new directory",
        )
    made = []
    for name in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", "site.yml.local", "*.pyc")
        shutil.copytree(data_root() / name, directory / name, ignore=ignored)
        made.append(directory / name)
    if not (directory / SCRIPTS).exists():
        shutil.copytree(data_root() / SCRIPTS, directory / SCRIPTS)
        made.append(directory / SCRIPTS)
    for name in ("keys", "artifacts"):
        made.append(make_directory(directory / name))
    ignore = directory / ".gitignore"
    ignored_names = ("/.cache/", "/isos/", "/keys/*", "/artifacts/*", "/templates/site.yml")
    ignore.write_text("".join(f"{name}\n" for name in ignored_names), encoding="ascii")
    return [*made, ignore]
