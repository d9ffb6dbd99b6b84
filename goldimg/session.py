"""A running build: what is found out and decided before its first VM starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from goldimg.artifacts import Status, status_of
from goldimg.config.models import Settings
from goldimg.cpu import check_cpu
from goldimg.epoch import source_date
from goldimg.errors import BuildFailed, MissingTool
from goldimg.events import Bus
from goldimg.host import Accelerator, Host, choose_accelerator, find_ovmf
from goldimg.inputs import Recipe, base_key, layer_key, make_recipe, tool_versions
from goldimg.iso.obtain import Iso, obtain_iso
from goldimg.keys import ensure_keys
from goldimg.kickstart.progress import InstallListener
from goldimg.kickstart.server import KickstartServer
from goldimg.native import check_free, host_address, tools_of
from goldimg.packages import package_of
from goldimg.packer.policy import Hold, OnError, Policy, at_once
from goldimg.packer.template import Machine
from goldimg.plan import Install, Plan, choose_builder, digest_files
from goldimg.playbook import prepare_additions
from goldimg.project import Site
from goldimg.providers import Provider
from goldimg.run import Runner, has_program
from goldimg.shop import Made, Shop, drop_disk
from goldimg.timeline import usual_seconds
from goldimg.trust.facts import build_facts, kickstart_sha256
from goldimg.trust.signer import Signer, site_signer
from goldimg.workers import Workers

TOOLS = ("packer", "qemu-img", "ansible-playbook", "ksvalidator", "ssh")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for. `jobs` 0: as many as the host allows.

    `hold` waits while VMs are looked at that `on_error` keeps. With `keep_layers`, `force` makes
    artifacts again, but provisions no disk that is there.
    """

    providers: tuple[Provider, ...]
    version: str
    force: bool = False
    update: bool = False
    use_base_cache: bool = True
    jobs: int = 0
    headless: bool | None = None
    on_error: OnError = "cleanup"
    hold: Hold = at_once
    keep_layers: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one provider's build ended; `size` in bytes of all its artifacts."""

    provider: str
    status: Literal["built", "up to date", "failed", "interrupted"]
    seconds: float
    size: int
    directory: Path
    error: BaseException | None = None


@dataclass
class Session:
    """A running build: what was found out before it, and what it has come to."""

    site: Site
    settings: Settings
    request: Request
    recipe: Recipe
    shop: Shop
    iso: Iso
    tools: Mapping[str, str]
    facts: Mapping[str, object] = field(default_factory=dict)
    signer: Signer | None = None
    layer_keys: dict[str, str] = field(default_factory=dict)
    base_keys: dict[str, str] = field(default_factory=dict)
    bases: dict[str, Made] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def events(self) -> Bus:
        return self.shop.events

    def directory(self, provider: str) -> Path:
        return self.site.artifact_dir(self.request.version, self.settings.name, provider)


def lock_path(site: Site, directory: Path) -> Path:
    """The lock of an artifact directory: in the cache, where it litters nothing."""
    place = digest_files([(str(directory), b"")])[:8]
    return site.cache / "locks" / f"{'-'.join(directory.parts[-3:])}-{place}.lock"


def check_tools(providers: Sequence[Provider], settings: Settings, host: Host) -> None:
    """Raises MissingTool with every program that this build needs and this host lacks."""
    chosen = settings.site.builder
    builders = {
        choose_builder(provider, chosen.get(provider.name, "auto"), host).builder
        for provider in providers
    }
    wanted = dict.fromkeys([*TOOLS, *tools_of(builders)])
    if "qemu" in builders:
        wanted |= dict.fromkeys(["qemu-system-x86_64"])
    for provider in providers:
        wanted |= dict.fromkeys(provider.tools(settings.site))
    if settings.os.installer.kind == "debian-packages" and not settings.iso_path:
        wanted |= dict.fromkeys(("mmdebstrap", "xorriso", "apt-get"))
    missing = [name for name in wanted if not has_program(name)]
    if missing:
        packages = " ".join(sorted({package_of(name) for name in missing}))
        raise MissingTool(
            "missing on this host: " + ", ".join(missing),
            hint=f"on Debian: apt-get install {packages}; 'goldimg doctor' shows all tools",
        )


@contextlib.contextmanager
def open_session(
    site: Site,
    settings: Settings,
    request: Request,
    host: Host,
    runner: Runner,
    events: Bus,
) -> Iterator[Session]:
    """Keys, plan, kickstart server and ISO: everything before the first VM."""
    source_date()  # raises for one that nobody can read, before a VM starts
    packer_key, vagrant_key = ensure_keys(site.keys, runner)
    if settings.root_pass:
        runner.redact.add(settings.root_pass.get_secret_value())
    facts = build_facts(site, settings, runner)
    signer = site_signer(site, settings.site.sign, runner)
    if signer:
        signer.probe()
    recipe = make_recipe(
        site,
        settings,
        request.providers,
        version=request.version,
        jobs=request.jobs,
        host=host,
        public_key=packer_key.public_text,
        runner=runner,
    )
    accelerator = choose_accelerator(settings.site.accelerator, host)
    events.emit("", "note", f"{settings.name} {request.version}: {_summary(recipe)}")
    events.emit("", "note", f"accelerator: {accelerator.name} ({accelerator.reason})")
    check_free(recipe.plan.groups, accelerator.name)
    prepare_additions(site, [provider.name for provider in request.providers], runner, events)
    listeners: dict[str, InstallListener] = {}
    tools = tool_versions(runner)
    builders = {install.builder for install in recipe.plan.installs}
    check_cpu(settings.name, settings.os.cpu, builders, accelerator.name, tools.get("qemu", ""))
    iso = obtain_iso(settings, recipe.mirrors, site.cache, runner, events)
    images = {install.name: len(install.layers) for install in recipe.plan.installs}
    with contextlib.ExitStack() as stack:
        shop = Shop(
            site=site,
            settings=settings,
            version=request.version,
            runner=runner,
            events=events,
            machine=_machine(settings, request, accelerator),
            packer_key=packer_key,
            vagrant_key=vagrant_key,
            iso=iso.path,
            iso_sha256=iso.sha256,
            servers=stack.enter_context(_servers(recipe.plan, settings, listeners)),
            listeners=listeners,
            workers=stack.enter_context(Workers(runner, images)),
            qemu_version=tools.get("qemu", ""),
            policy=Policy(
                on_error=request.on_error,
                hold=request.hold,
                usual=usual_seconds(site, settings.name),
            ),
        )
        yield Session(
            site=site,
            settings=settings,
            request=request,
            recipe=recipe,
            shop=shop,
            iso=iso,
            tools=tools,
            facts=facts,
            signer=signer,
        )


def _summary(recipe: Recipe) -> str:
    plan = recipe.plan
    count = len(plan.installs)
    layers = len(plan.layers)
    return (
        f"{layers} image{'s' * (layers != 1)} from {count} install{'s' * (count != 1)}, "
        f"{plan.jobs} at once"
    )


def _machine(settings: Settings, request: Request, accelerator: Accelerator) -> Machine:
    site = settings.site
    ovmf = find_ovmf() if settings.firmware == "efi" else None
    return Machine(
        accelerator=accelerator.name,
        cpus=site.cpus,
        memory_mib=settings.memory_mib,
        disk_mib=site.disk_size,
        headless=site.headless if request.headless is None else request.headless,
        firmware=settings.firmware,
        ovmf=ovmf,
    )


@contextlib.contextmanager
def _servers(
    plan: Plan, settings: Settings, listeners: Mapping[str, InstallListener]
) -> Iterator[dict[str, KickstartServer]]:
    """A kickstart server for each builder of the plan; those with the same address share one."""

    def hear(build: str, kind: str, data: Mapping[str, str]) -> None:
        if build in listeners:
            listeners[build].hear(kind, data)

    with contextlib.ExitStack() as stack:
        running: dict[str, KickstartServer] = {}
        servers = {}
        for builder in dict.fromkeys(install.builder for install in plan.installs):
            host, advertise = host_address(builder)
            if host not in running:
                server = KickstartServer(
                    hear, host=host, port=settings.site.ks_port, advertise=advertise
                )
                running[host] = stack.enter_context(server)
            servers[builder] = running[host]
        yield servers


def machine_inputs(session: Session, install: Install) -> dict[str, object]:
    """What of the machine, and of how it is started, shapes the disk of `install`."""
    inputs = session.shop.machine.as_inputs()
    if install.is_native:
        site = session.settings.site
        inputs |= {"bus": install.builder, "hardware_version": site.hardware_version}
        inputs |= {"vmx_data": site.vmx_data, "guest_additions": site.guest_additions}
    if session.settings.boot_options:
        inputs["boot_options"] = session.settings.boot_options
    return inputs


def decide(session: Session) -> dict[str, Status]:
    """What has to be done for each provider; GoldimgError where --force would be needed."""
    request, found = session.request, {}
    providers = {provider.name: provider for provider in request.providers}
    refused = []
    for install in session.recipe.plan.installs:
        machine = machine_inputs(session, install)
        base = base_key(install, session.iso.key, machine, session.settings, session.site)
        session.base_keys[install.name] = base
        for layer in install.layers:
            key = layer_key(base, layer.provider, request.version, session.settings, session.site)
            session.layer_keys[layer.provider] = key
            directory = session.directory(layer.provider)
            options = dict(providers[layer.provider].options(session.settings.site))
            status = status_of(directory, key, layer.artifacts, layer.boxes, options)
            found[layer.provider] = "missing" if request.force else status
            is_allowed = request.force or (request.update and status == "stale")
            if status in ("stale", "foreign") and not is_allowed:
                refused.append((layer.provider, status))
    if refused:
        reasons = {
            "stale": "a finished image of other inputs is there",
            "foreign": "files are there that goldimg did not finish",
        }
        raise BuildFailed(
            f"{session.settings.name} {request.version} exists already for "
            + ", ".join(name for name, _ in refused),
            details=[f"{name}: {reasons[status]}" for name, status in refused],
            hint="build another --version, or replace them: --update those whose inputs changed, "
            "--force all that are selected",
        )
    if request.force and not request.keep_layers:
        for key in session.layer_keys.values():
            drop_disk(session.shop.layers / f"{key}.qcow2")
    return found


def manifest(
    session: Session, install: Install, provider: Provider, seconds: Mapping[str, float]
) -> dict[str, object]:
    """What a finished directory says of itself; it holds no secret."""
    layer = next(entry for entry in install.layers if entry.provider == provider.name)
    base = session.bases.get(install.name)
    playbooks = digest_files(
        (str(path.relative_to(session.site.ansible)), path.read_bytes())
        for path in session.site.ansible.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    return {
        "os": session.settings.name,
        "version": session.request.version,
        "provider": provider.name,
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": session.base_keys[install.name],
        "layer": session.layer_keys[provider.name],
        "builder": {"name": layer.choice.builder, "reason": layer.choice.reason},
        "firmware": session.settings.firmware,
        "options": dict(provider.options(session.settings.site)),
        "inputs": {
            "iso": {
                "name": session.iso.path.name,
                "sha256": session.iso.sha256,
                "packages": session.iso.package_count,
            },
            "kickstart": digest_files([("kickstart", install.kickstart.encode())]),
            "kickstart_sha256": kickstart_sha256(install.kickstart),
            "playbooks": playbooks,
            "templates": session.facts.get("templates", {}),
            "disk_mib": session.recipe.plan.disk_mib,
        },
        "parameters": session.facts.get("parameters", {}),
        "repository": session.facts.get("repository"),
        "started": session.facts.get("started"),
        "tools": dict(session.tools),
        "seconds": {
            "base": dict(base.seconds) if base else {},
            "layer": dict(seconds),
        },
    }
