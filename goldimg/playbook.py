"""What a run of the playbooks is given: variables, of which some are secret, and an environment."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from goldimg.config.secrets import crypt_hash, random_password
from goldimg.packer.template import Ansible
from goldimg.project import Site, write_text
from goldimg.shop import Shop


def root_hash(shop: Shop) -> str:
    """The hash of the site's root password, or of a random one that nobody ever sees."""
    password = shop.settings.root_pass or random_password()
    salt = shop.settings.site.root_salt if shop.settings.root_pass else None
    hashed = crypt_hash(password, salt)
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
) -> Ansible:
    """The playbooks' `stage` (base, layer or all) as Packer runs it.

    The variables are in a file of mode 0600 in `work`, for as long as the run takes.
    """
    settings = shop.settings
    variables = {
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
    }
    path = work / "ansible-vars.json"
    write_text(path, json.dumps(variables), mode=0o600)
    return Ansible(
        playbook=shop.site.ansible / "site.yml",
        variables=path,
        environment=tuple(sorted(ansible_environment(shop.site, temporary).items())),
    )


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
    }
    mitogen = importlib.util.find_spec("ansible_mitogen")
    if mitogen and mitogen.submodule_search_locations:
        plugins = Path(mitogen.submodule_search_locations[0]) / "plugins" / "strategy"
        environment |= {
            "ANSIBLE_STRATEGY": "mitogen_linear",
            "ANSIBLE_STRATEGY_PLUGINS": str(plugins),
        }
    return environment
