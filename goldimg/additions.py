"""What a site adds to its images: playbooks, scripts, roles and collections of its own.

    ansible/site.d/*.yml               playbooks for every image, in the order of their names
    ansible/site.d/<provider>/*.yml    then those for one provider's
    scripts/*.sh                       then shell scripts, with the build's variables around them
    ansible/requirements.yml           roles and collections that the playbooks use, for
                                       ansible-galaxy: https://docs.ansible.com/ansible/latest/galaxy/user_guide.html

They run in a layer, after the provider's part and before the clean-up, so that bases stay shared.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from goldimg.errors import ConfigError, Problem
from goldimg.plan import digest_files
from goldimg.project import Site

DIRECTORY = "site.d"
REQUIREMENTS = "requirements.yml"
DEFAULT_SHELL = "/bin/sh"
# Where roles and tasks of the site's own may be, beside its playbooks: parts of layers only.
OWN_PLACES = (DIRECTORY, "roles", "collections")


@dataclass(frozen=True, kw_only=True)
class Additions:
    """What is run in the images of one provider, in this order: `playbooks`, then `scripts`."""

    playbooks: tuple[Path, ...] = ()
    scripts: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.playbooks or self.scripts)


def scripts_directory(site: Site) -> Path:
    return site.root / "scripts"


def find_additions(site: Site, provider: str) -> Additions:
    """The site's additions to the images of `provider`."""
    shared = site.ansible / DIRECTORY
    playbooks = [*sorted(shared.glob("*.yml")), *sorted((shared / provider).glob("*.yml"))]
    scripts = sorted(scripts_directory(site).glob("*.sh"))
    return Additions(playbooks=tuple(playbooks), scripts=tuple(scripts))


def is_addition(site: Site, path: Path) -> bool:
    """Whether a file below `ansible/` shapes layers only, and no base."""
    within = path.relative_to(site.ansible)
    return within.parts[0] in OWN_PLACES or within.name == REQUIREMENTS


def additions_digest(site: Site, provider: str) -> str:
    """The digest of whatever the site adds to the images of `provider`; empty for nothing.

    Files beside the playbooks count, too: what these include, and roles of the site's own.
    """
    found = dict(_named(site, _own_files(site, provider)))
    has_any = find_additions(site, provider)
    return digest_files(found.items()) if found and has_any else ""


def _own_files(site: Site, provider: str) -> Iterator[Path]:
    shared = site.ansible / DIRECTORY
    others = {path for path in shared.glob("*") if path.is_dir() and path.name != provider}
    is_provider = {path for path in others if (site.ansible / f"{path.name}.yml").is_file()}
    for name in OWN_PLACES:
        for path in sorted((site.ansible / name).rglob("*")):
            if not is_provider.intersection(path.parents) and "__pycache__" not in path.parts:
                yield path
    yield site.ansible / REQUIREMENTS
    yield from sorted(scripts_directory(site).rglob("*"))


def _named(site: Site, paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if path.is_file() and path.suffix != ".example":
            yield str(path.relative_to(site.root)), path.read_bytes()


def check_additions(site: Site, providers: Iterable[str]) -> None:
    """Raises ConfigError with every file of the additions that is no playbook or no script."""
    problems: dict[Problem, None] = {}
    for provider in providers:
        found = find_additions(site, provider)
        for path in found.playbooks:
            if problem := _playbook_problem(site, path):
                problems[problem] = None
        for path in found.scripts:
            if not path.read_bytes().strip():
                problems[Problem(site.shown(path), None, None, "", "is empty", None)] = None
    if problems:
        raise ConfigError.of(problems, hint="docs/playbooks.md shows what a site may add")


def _playbook_problem(site: Site, path: Path) -> Problem | None:
    """Why a file is no playbook: Ansible would say so only with the VM already running."""
    shown = site.shown(path)
    try:
        plays = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - safe
    except UnicodeDecodeError:
        return Problem(shown, None, None, "", "is not UTF-8 text", None)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        line, column = (at.line + 1, at.column + 1) if at else (None, None)
        return Problem(shown, line, column, "", error.problem or "is not YAML", None)
    if not isinstance(plays, list) or not plays:
        return Problem(shown, None, None, "", "must be a playbook: a list of plays", None)
    for play in plays:
        names = {"hosts", "import_playbook", "ansible.builtin.import_playbook"}
        if not isinstance(play, Mapping) or not names & set(play):
            message = "holds tasks and no play: write 'hosts: all' and put them under 'tasks:'"
            return Problem(shown, None, None, "", message, None)
    return None


class _Loader(yaml.SafeLoader):
    """YAML with Ansible's own tags, which are only looked over here."""


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> str:
    return suffix


_Loader.add_multi_constructor("!", _tagged)


def write_playbook(path: Path, additions: Additions, site: Site, around: Mapping[str, str]) -> None:
    """Writes the playbook that runs `additions`; scripts have `around` in their environment."""
    plays: list[dict[str, Any]] = [
        {"name": f"Run {site.shown(book)}", "ansible.builtin.import_playbook": str(book)}
        for book in additions.playbooks
    ]
    if additions.scripts:
        plays.append(
            {
                "name": "Run the site's scripts",
                "hosts": "all",
                "gather_facts": False,
                "environment": dict(around),
                "tasks": [_script_task(site, script) for script in additions.scripts],
            }
        )
    path.write_text(json.dumps(plays, indent=2) + "\n", encoding="utf-8")


def _script_task(site: Site, script: Path) -> dict[str, Any]:
    """The interpreter is named, for nothing may be run in the directory where scripts arrive."""
    first = script.read_bytes().partition(b"\n")[0].decode("utf-8", "replace").strip()
    interpreter = first.removeprefix("#!").strip() if first.startswith("#!") else DEFAULT_SHELL
    return {
        "name": site.shown(script),
        "ansible.builtin.script": {"cmd": shlex.quote(str(script)), "executable": interpreter},
    }


def environment_of(variables: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, str]:
    """The environment of scripts: PACKER_BUILD_NAME and the like, and the site's own variables.

    Only what is one word or line; lists and mappings are for playbooks.
    """
    known = {name: value for name, value in variables.items() if name.startswith("packer_")}
    os_file = variables["packer_os"]
    known |= {f"packer_{name}": os_file.get(name) for name in ("os_name", "os_version")}
    return {
        name.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in {**known, **extra}.items()
        if isinstance(value, str | int | float)
    }
