"""What a run of the playbooks is given: variables, of which some are secret, and an environment."""

from __future__ import annotations

import hmac
import importlib.util
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from goldimg.additions import (
    Additions,
    check_additions,
    environment_of,
    find_additions,
    write_playbook,
)
from goldimg.config.secrets import ROUNDS, crypt_hash, random_password
from goldimg.epoch import source_date
from goldimg.errors import ConfigError
from goldimg.events import Bus
from goldimg.galaxy import KINDS, fetch_requirements, galaxy_directory
from goldimg.packer.template import Ansible
from goldimg.project import Site, write_text
from goldimg.run import Runner
from goldimg.shop import Shop


def root_hash(shop: Shop, key: str) -> str:
    """The hash of the site's root password, or of a random one that nobody ever sees.

    The same for the same layer `key`; two images have different salts, where the site fixes none.
    """
    password, salt = shop.settings.root_pass, shop.settings.site.root_salt
    rounds = None
    if password is None:
        password, salt = random_password(), None
    elif salt is None:
        secret = shop.packer_key.private.read_bytes()
        salt = hmac.new(secret, f"salt {key}".encode(), "sha256").hexdigest()[:16]
        rounds = ROUNDS
    hashed = crypt_hash(password, salt, rounds=rounds)
    shop.runner.redact.add(hashed)
    return hashed


def playbook_run(
    shop: Shop,
    work: Path,
    temporary: Path,
    *,
    stage: str,
    provider: str = "",
    password_hash: str = "",
    serves: tuple[str, ...] = (),
    has_additions_iso: bool = False,
    inventory: Path | None = None,
    since: int | None = None,
) -> Ansible:
    """The playbooks' `stage` (base, layer or all) as Packer runs it.

    The variables are in a file of mode 0600 in `work`, for as long as the run takes. The site's
    additions run in layers only. The image's inventory is written to `inventory`. Programs that can
    note another time than that of the build are told `since`, in seconds since 1970.
    """
    settings = shop.settings
    epoch = source_date()
    epoch = since if epoch is None else epoch
    variables: dict[str, Any] = {
        "packer_build_name": provider,
        "packer_namespace": settings.site.namespace,
        "packer_version": shop.version,
        "packer_ks_server": settings.site.ks_server or "",
        "packer_template": settings.name,
        "packer_os": settings.packer_os(),
        "goldimg_stage": stage,
        "goldimg_base_providers": list(serves),
        "goldimg_root_hash": password_hash,
        "goldimg_root_key": shop.packer_key.public_text,
        "goldimg_vagrant_key": shop.vagrant_key.public_text,
        "goldimg_lang": settings.site.lang,
        "goldimg_keyboard": settings.site.keyboard,
        "goldimg_timezone": settings.site.timezone,
        "goldimg_updates": settings.site.updates,
        "goldimg_guest_additions": "iso" if has_additions_iso else "none",
        "goldimg_inventory": str(inventory or ""),
        "goldimg_epoch": "" if epoch is None else str(epoch),
    }
    extra = extra_variables(settings.site.extra_vars, stage)
    if stage != "base" and (additions := find_additions(shop.site, provider)):
        around = environment_of(variables, extra)
        variables["goldimg_additions"] = str(work / "additions.yml")
        write_playbook(work / "additions.yml", additions, shop.site, around)
    variables = {**extra, **variables}
    path = work / "ansible-vars.json"
    write_text(path, json.dumps(variables), mode=0o600)
    return Ansible(
        playbook=shop.site.ansible / "site.yml",
        variables=path,
        environment=tuple(sorted(ansible_environment(shop.site, temporary).items())),
    )


def extra_variables(given: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The site's variables for a stage: a base has those of the playbooks that goldimg brings only,
    so that changing another makes no new base."""
    if stage != "base":
        return dict(given)
    return {name: value for name, value in given.items() if name.startswith("goldimg_")}


def prepare_additions(site: Site, providers: Sequence[str], runner: Runner, events: Bus) -> None:
    """Fetches what the site's playbooks need, and checks these: all before the first VM.

    Raises ConfigError for a requirement that cannot be had and for files that are no playbooks.
    """
    check_additions(site, providers)
    if fetch_requirements(site, runner):
        events.emit("", "note", "roles and collections of ansible/requirements.yml fetched")
    found = [find_additions(site, provider) for provider in providers]
    if not any(found):
        return
    shown = dict.fromkeys(site.shown(path) for it in found for path in (*it.playbooks, *it.scripts))
    events.emit("", "note", f"site additions: {', '.join(shown)}")
    with tempfile.TemporaryDirectory(prefix="goldimg-") as scratch:
        check_syntax(site, providers, Path(scratch), runner)


def check_syntax(site: Site, providers: Iterable[str], scratch: Path, runner: Runner) -> None:
    """Has Ansible read the additions of `providers`, with all roles that these name.

    Raises ConfigError with Ansible's own words.
    """
    seen: set[Additions] = set()
    for provider in providers:
        additions = find_additions(site, provider)
        if not additions.playbooks or additions in seen:
            continue
        seen.add(additions)
        book = scratch / f"{provider}.yml"
        write_playbook(book, additions, site, {})
        result = runner.run(
            ["ansible-playbook", "-i", "guest,", "--syntax-check", book],
            env={**ansible_environment(site, scratch), "ANSIBLE_STRATEGY": "linear"},
            check=False,
            timeout=120,
        )
        if result.code != 0:
            error = ConfigError(
                f"the site's additions for {provider} are not right",
                hint="docs/playbooks.md shows what a site may add",
            )
            error.details = tuple(line for line in result.stderr.splitlines() if line.strip())[:12]
            raise error


def ansible_environment(site: Site, temporary: Path) -> dict[str, str]:
    """How ansible-playbook runs: pipelined, without colour, faster where Mitogen is installed."""
    environment = {
        "ANSIBLE_CONFIG": str(site.ansible / "ansible.cfg"),
        "ANSIBLE_PIPELINING": "1",
        # a guest without hardware virtualization on a busy host takes more than the usual 10 s
        "ANSIBLE_TIMEOUT": "90",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_LOCAL_TEMP": str(temporary),
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        # which file a failed task is in: errors name it (packer/output.py)
        "ANSIBLE_SHOW_TASK_PATH_ON_FAILURE": "1",
        **_own_content(site),
    }
    mitogen = importlib.util.find_spec("ansible_mitogen")
    if mitogen and mitogen.submodule_search_locations:
        plugins = Path(mitogen.submodule_search_locations[0]) / "plugins" / "strategy"
        environment |= {
            "ANSIBLE_STRATEGY": "mitogen_linear",
            "ANSIBLE_STRATEGY_PLUGINS": str(plugins),
        }
    return environment


def _own_content(site: Site) -> dict[str, str]:
    """Where the site's playbooks find roles and collections: its own, those of its requirements,
    and those of whoever runs the build."""
    fetched = galaxy_directory(site)
    usual = {
        "roles": ("~/.ansible/roles", "/usr/share/ansible/roles", "/etc/ansible/roles"),
        "collections": ("~/.ansible/collections", "/usr/share/ansible/collections"),
    }
    names = {"roles": "ANSIBLE_ROLES_PATH", "collections": "ANSIBLE_COLLECTIONS_PATH"}
    return {
        names[kind]: ":".join(
            str(place)
            for place in (
                site.ansible / kind,
                *((fetched / kind,) if fetched else ()),
                *usual[kind],
            )
        )
        for kind in KINDS
    }
