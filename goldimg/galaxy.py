"""Roles and collections that a site's playbooks use, fetched before the first VM starts.

The requirements file is ansible-galaxy's own:
https://docs.ansible.com/ansible/latest/galaxy/user_guide.html#install-multiple-collections-with-a-requirements-file
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from goldimg.additions import REQUIREMENTS
from goldimg.errors import ConfigError, GoldimgError, Problem
from goldimg.plan import digest_files
from goldimg.project import Site, make_directory, waiting_lock
from goldimg.run import Runner

SECONDS = 900.0  # that fetching may take
KINDS = ("roles", "collections")


def galaxy_directory(site: Site) -> Path | None:
    """Where the roles and collections of this very requirements file are, or will be."""
    path = site.ansible / REQUIREMENTS
    if not path.is_file():
        return None
    return site.cache / "galaxy" / digest_files([(REQUIREMENTS, path.read_bytes())])[:20]


def fetch_requirements(site: Site, runner: Runner) -> bool:
    """Fetches what `ansible/requirements.yml` names; False where it was all here, or none is.

    What is here is not asked for again, so that builds work offline: a requirement without a
    version stays at the one that was fetched first. Raises ConfigError, naming the requirement as
    far as ansible-galaxy does.
    """
    final = galaxy_directory(site)
    if final is None or final.is_dir():
        return False
    wanted = _kinds(site)
    make_directory(final.parent)
    with waiting_lock(final.with_suffix(".lock"), runner.check_cancelled):
        if final.is_dir():
            return False
        draft = final.with_suffix(".part")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for kind in KINDS:
                make_directory(draft / kind)
                if kind in wanted:
                    _install(site, kind, draft, runner)
            shutil.rmtree(draft / "home", ignore_errors=True)
            draft.rename(final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return True


def _kinds(site: Site) -> set[str]:
    """What the file asks for; a bare list is of roles, as ansible-galaxy has it."""
    path = site.ansible / REQUIREMENTS
    shown = site.shown(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"is not YAML: {' '.join(str(error).split())}"
        raise ConfigError.of([Problem(shown, None, None, "", message, None)]) from None
    if isinstance(data, list):
        return {"roles"} if data else set()
    if data is None:
        return set()
    if not isinstance(data, Mapping) or not set(data) <= set(KINDS):
        message = "must hold 'roles' and 'collections'"
        raise ConfigError.of([Problem(shown, None, None, "", message, None)])
    return {kind for kind in KINDS if data.get(kind)}


def _install(site: Site, kind: str, draft: Path, runner: Runner) -> None:
    path = site.ansible / REQUIREMENTS
    noun = kind.removesuffix("s")
    option = {"roles": "--roles-path", "collections": "--collections-path"}[kind]
    said: list[str] = []
    try:
        result = runner.run(
            ["ansible-galaxy", noun, "install", "-r", path, option, draft / kind],
            reason=f"fetch the {kind} of {site.shown(path)}",
            cwd=site.ansible,
            env={
                "ANSIBLE_HOME": str(draft / "home"),
                "ANSIBLE_LOCAL_TEMP": str(draft / "home"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_GALAXY_DISPLAY_PROGRESS": "0",
                "ANSIBLE_DEPRECATION_WARNINGS": "0",
                "GIT_TERMINAL_PROMPT": "0",
            },
            on_line=said.append,
            check=False,
            timeout=SECONDS,
        )
    except GoldimgError as error:
        if error.code != 1:
            raise
        raise _failed(site, noun, [str(error)]) from None
    if result.code != 0 or any("was NOT installed successfully" in line for line in said):
        raise _failed(site, noun, said)


def _failed(site: Site, noun: str, said: list[str]) -> ConfigError:
    """What ansible-galaxy had to say, without its advice on how to go on in spite of it."""
    noise = ("--ignore-errors", "Starting galaxy", "Process install")
    lines = [line.strip() for line in said if not any(words in line for words in noise)]
    error = ConfigError(
        f"{site.shown(site.ansible / REQUIREMENTS)}: a {noun} cannot be fetched",
        hint="check its name, version and source; what was fetched once is used offline",
    )
    error.details = tuple(dict.fromkeys(line for line in lines if line))[-6:]
    return error
