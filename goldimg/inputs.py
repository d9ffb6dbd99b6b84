"""What shapes a build: rendered kickstarts, playbooks, tool versions; and digests of them."""

from __future__ import annotations

import hmac
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from goldimg.additions import additions_digest, is_addition
from goldimg.config.models import Settings
from goldimg.errors import ConfigError
from goldimg.host import Host, choose_accelerator
from goldimg.iso.debian.mirror import Mirrors
from goldimg.kickstart.answer import check_answers, render_answer
from goldimg.kickstart.layout import Volume, disk_layout
from goldimg.kickstart.model import Options, load_options
from goldimg.kickstart.target import Target, find_mirrors, make_target
from goldimg.plan import Install, Plan, Rendered, digest, digest_files, make_plan
from goldimg.playbook import extra_variables
from goldimg.project import Site
from goldimg.providers import Provider, all_providers
from goldimg.run import Runner, has_program


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A plan with what its kickstarts are rendered from, by provider."""

    plan: Plan
    settings: Settings
    mirrors: Mirrors | None
    options: Mapping[str, Options]
    targets: Mapping[str, Target]

    def kickstart(self, site: Site, install: Install, report_url: str) -> str:
        """The kickstart of `install` as it is served to the installer."""
        name = install.providers[0]
        target = replace(self.targets[name], report_url=report_url)
        return render_answer(site.kickstart, self.settings, self.options[name], target)


def make_recipe(
    site: Site,
    settings: Settings,
    providers: Sequence[Provider],
    *,
    version: str,
    jobs: int | None,
    host: Host,
    public_key: str,
    runner: Runner,
) -> Recipe:
    """The plan of a build and its kickstarts, each checked by ksvalidator for its release.

    Raises ConfigError with the problems of all kickstarts at once.
    """
    for provider in providers:
        provider.refuse(settings)
    mirrors = find_mirrors(settings, runner)
    options, targets, texts = {}, {}, {}
    selected = [provider.name for provider in providers]
    for name, provider in all_providers().items():
        build = provider.kickstart
        try:
            options[name] = build_options(site, settings, build)
        except ConfigError:
            if name in selected:
                raise
            continue  # another provider's fault is told when that one is built
        targets[name] = make_target(settings, build, mirrors=mirrors, ssh_keys=(public_key,))
        texts[name] = render_answer(site.kickstart, settings, options[name], targets[name])
    check_kickstarts({name: texts[name] for name in selected}, settings, runner)
    disk = settings.site.disk_size
    plan = make_plan(
        os_name=settings.name,
        version=version,
        disk_mib=disk,
        jobs=jobs or settings.site.jobs or host.jobs(settings.memory_mib, settings.site.cpus),
        providers=providers,
        builders=settings.site.builder,
        kickstarts={
            name: Rendered(
                text=text,
                volumes=tuple(_shown(volume) for volume in disk_layout(options[name], disk)),
            )
            for name, text in texts.items()
        },
        host=host,
        accelerator=choose_accelerator(settings.site.accelerator, host).name,
        firmware=settings.firmware,
        boxes=settings.site.boxes,
    )
    return Recipe(plan=plan, settings=settings, mirrors=mirrors, options=options, targets=targets)


def build_options(site: Site, settings: Settings, build: str) -> Options:
    """The options of an image's kickstart; for a build VM with EFI there always is an ESP."""
    options = load_options(
        site.kickstart, build, settings.os.kickstart.options, os_file=settings.os_shown
    )
    if settings.firmware == "efi" and options.efi == "auto":
        return options.model_copy(update={"efi": True})
    return options


def check_kickstarts(texts: Mapping[str, str], settings: Settings, runner: Runner) -> None:
    """Raises ConfigError with what ksvalidator and our own rules have against the kickstarts."""
    names: dict[str, str] = {}
    for name, text in texts.items():
        names.setdefault(text, name)
    problems = [
        replace(problem, file=f"kickstart virtual/{names[text]}")
        for text, found in check_answers(names, settings, runner)
        for problem in found
    ]
    if problems:
        raise ConfigError.of(
            problems,
            hint=f"the kickstart is checked as {settings.os.kickstart.syntax}; "
            "its parts are in kickstart/builds/ and kickstart/ks/",
        )


def _shown(volume: Volume) -> str:
    size = f"{volume.size} MiB" if volume.size else "by the installer"
    if volume.grows:
        size = f"the rest ({size})" if volume.size else "the rest"
    return f"{volume.mount} {volume.fstype}, {size}" + (", LVM" if volume.lvm else "")


def base_key(
    install: Install,
    iso_key: str,
    machine: Mapping[str, object],
    settings: Settings,
    site: Site,
) -> str:
    """The digest of everything that shapes a base."""
    parts = {
        "iso": iso_key,
        "kickstart": install.kickstart,
        "serves": install.serves,
        "machine": machine,
        "playbooks": playbook_digest(site, "base"),
        "updates": settings.site.updates,
        "extra_vars": extra_variables(settings.site.extra_vars, "base"),
    }
    return digest(parts)[:20]


def layer_key(base: str, provider: str, version: str, settings: Settings, site: Site) -> str:
    """The digest of everything that shapes a provider's disk."""
    parts = {
        "base": base,
        "provider": provider,
        "version": version,
        "namespace": settings.site.namespace,
        "keys": [
            (site.keys / name).read_text(encoding="ascii") for name in ("packer.pub", "vagrant.pub")
        ],
        "root_pass": _mark_of(settings, site),
        "os": settings.packer_os(),
        "playbooks": playbook_digest(site, provider),
        "additions": additions_digest(site, provider),
        "extra_vars": settings.site.extra_vars,
    }
    return digest(parts)[:20]


def _mark_of(settings: Settings, site: Site) -> str:
    """What changes with the root password and tells nothing of it without the site's own key."""
    if settings.root_pass is None:
        return ""
    secret = (site.keys / "packer").read_bytes()
    password = settings.root_pass.get_secret_value().encode()
    return hmac.new(secret, password, "sha256").hexdigest()[:16]


def playbook_digest(site: Site, name: str) -> str:
    """The digest of the playbooks of one stage: `<name>.yml` and what all stages share.

    What the site has added is not in it.
    """
    shared = [
        path
        for path in sorted(site.ansible.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not is_addition(site, path)
    ]
    wanted = (f"{name}.yml", "site.yml", "additions.yml", "ansible.cfg")
    return digest_files(
        (str(path.relative_to(site.ansible)), path.read_bytes())
        for path in shared
        if path.parent != site.ansible or path.name in wanted
    )


def tool_versions(runner: Runner) -> dict[str, str]:
    """The versions of what a build runs, for its manifest."""
    versions = {"goldimg": importlib.metadata.version("goldimg")}
    for name, argv in (
        ("packer", ["packer", "version"]),
        ("qemu", ["qemu-system-x86_64", "--version"]),
        ("qemu-img", ["qemu-img", "--version"]),
    ):
        if not has_program(argv[0]):
            continue
        said = runner.run(argv, check=False, timeout=30, env={"CHECKPOINT_DISABLE": "1"}).stdout
        match = re.search(r"\d+\.\d+(\.\d+)?", said)
        versions[name] = match.group(0) if match else "unknown"
    for package in ("ansible-core", "mitogen", "pykickstart"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def public_key_of(site: Site) -> str:
    """The packer key's public half; before it is made, a key that nobody has stands in for it."""
    path = site.keys / "packer.pub"
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    return "ssh-ed25519 " + "A" * 68 + " not-made-yet"


def render_build(
    site: Site, settings: Settings, build: str, public_key: str, runner: Runner
) -> str:
    """The kickstart of one build as text, without token and with root's password locked."""
    options = load_options(
        site.kickstart, build, settings.os.kickstart.options, os_file=settings.os_shown
    )
    mirrors = find_mirrors(settings, runner)
    target = make_target(settings, build, mirrors=mirrors, ssh_keys=(public_key,))
    return render_answer(site.kickstart, settings, options, target)
