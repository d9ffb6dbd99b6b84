"""What a build notes of its circumstances, for the manifest and the provenance. Never a secret."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from goldimg.additions import scripts_directory
from goldimg.config.models import Settings
from goldimg.plan import digest, digest_files
from goldimg.project import Site
from goldimg.run import Runner, has_program

# What of site.yml shapes an image and can be told to anybody. A list of what may be told, not of
# what may not: a key that is new stays untold until somebody has thought of it.
PARAMETERS = ("namespace", "disk_size", "lang", "keyboard", "timezone", "memory", "cpus",
              "accelerator", "updates", "warm_layers", "boxes", "guest_additions",
              "hardware_version", "secure_boot", "tpm", "ova_writer",
              "qcow2_compression")  # fmt: skip
SECRETIVE = re.compile(r"pass|secret|token|key|auth|cred", re.IGNORECASE)


def build_facts(site: Site, settings: Settings, runner: Runner) -> dict[str, object]:
    """Parameters, digests of templates, and the state of the site's repository, as they are now."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": parameters(settings),
        "templates": template_digests(site, settings),
        "repository": repository(site, runner),
    }


def parameters(settings: Settings) -> dict[str, object]:
    """The settings that shape an image; of variables that are free to hold anything, the names."""
    dumped = settings.site.model_dump(mode="json", include=set(PARAMETERS))
    return {
        **dumped,
        "firmware": settings.firmware,
        "boot_options": [_told(option) for option in settings.boot_options],
        "extra_vars": sorted(settings.site.extra_vars),
        "vmx_data": sorted({*settings.site.vmx_data, *settings.site.vmx_data_post}),
    }


def _told(option: str) -> str:
    name, equals, _ = option.partition("=")
    return f"{name}=***" if equals and SECRETIVE.search(name) else option


def template_digests(site: Site, settings: Settings) -> dict[str, str]:
    """Digests of what a build reads in templates/, kickstart/ and scripts/.

    site.yml may hold a password, which its digest would let people try out: it is not among them.
    """
    directories = {
        "templates/packer/": site.templates / "packer",
        "kickstart/": site.kickstart,
        "scripts/": scripts_directory(site),
    }
    found = {f"templates/os/{settings.name}": digest({"os": settings.packer_os()})}
    for name, directory in directories.items():
        files = [
            (path.relative_to(directory).as_posix(), path.read_bytes())
            for path in sorted(directory.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
        if files:
            found[name] = digest_files(files)
    return found


def repository(site: Site, runner: Runner) -> Mapping[str, object] | None:
    """The commit of the site's Git repository, and whether anything differs from it.

    None where the site is in none, or Git is not here. Credentials in a remote's URL are left out.
    """
    if not has_program("git"):
        return None

    def git(*words: str) -> str | None:
        argv = ["git", "-C", str(site.root), *words]
        done = runner.run(argv, check=False, timeout=60, env={"GIT_OPTIONAL_LOCKS": "0"})
        return done.stdout if done.code == 0 else None

    commit = git("rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    status = git("status", "--porcelain", "--", ".")
    remote = (git("config", "--get", "remote.origin.url") or "").strip()
    return {
        "commit": commit.strip(),
        "dirty": status is None or bool(status.strip()),
        "remote": re.sub(r"//[^/@]*@", "//", remote).partition("?")[0],
    }


def kickstart_sha256(text: str) -> str:
    """The SHA-256 of a kickstart as it was rendered, without the token that a build adds."""
    return hashlib.sha256(text.encode()).hexdigest()
