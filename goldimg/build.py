"""`goldimg build`: from settings to finished artifact directories, told as it goes."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from goldimg.artifacts import Status, finish, read_finished, status_of
from goldimg.config.models import Settings
from goldimg.errors import BuildFailed, GoldimgError, Interrupted, MissingTool
from goldimg.events import Bus, JsonLines
from goldimg.host import Host, choose_accelerator
from goldimg.inputs import Recipe, base_key, layer_key, make_recipe, tool_versions
from goldimg.iso.obtain import Iso, obtain_iso
from goldimg.keys import ensure_keys
from goldimg.kickstart.progress import InstallListener
from goldimg.kickstart.server import KickstartServer
from goldimg.packages import package_of
from goldimg.packer.template import Machine
from goldimg.plan import Install, Plan, digest_files
from goldimg.project import Site, free_bytes, locked, make_directory
from goldimg.providers import Provider
from goldimg.run import Runner, has_program, reap
from goldimg.schedule import Task, run_tasks
from goldimg.stages import (
    GUEST_GATEWAY,
    Made,
    Shop,
    convert_layer,
    install_base,
    provision_layer,
)

BASE_MIB = 1500  # what a base takes on disk, roughly, and what a layer and its artifacts do
LAYER_MIB = 2500
TOOLS = ("packer", "qemu-system-x86_64", "qemu-img", "ansible-playbook", "ksvalidator", "ssh")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for. `jobs` 0: as many as the host allows."""

    providers: tuple[Provider, ...]
    version: str
    force: bool = False
    update: bool = False
    use_base_cache: bool = True
    jobs: int = 0
    headless: bool | None = None


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


def build(
    site: Site, settings: Settings, request: Request, *, host: Host, runner: Runner, events: Bus
) -> list[Outcome]:
    """Builds the images asked for and returns how each ended, in the order of their names.

    Everything that can be known to fail is checked before a VM starts. One provider's failure
    stops no other. Raises GoldimgError for what concerns all of them.
    """
    check_tools(request.providers, settings)
    names = [provider.name for provider in request.providers]
    make_directory(site.artifacts)
    make_directory(site.cache)
    log = JsonLines(make_directory(site.cache / "logs") / "events.jsonl")
    events.subscribe(log)
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        for name in names:
            directory = site.artifact_dir(request.version, settings.name, name)
            what = f"{settings.name} {request.version} for {name}"
            stack.enter_context(locked(lock_path(site, directory), what=what))
        session = stack.enter_context(open_session(site, settings, request, host, runner, events))
        return run_session(session)


def lock_path(site: Site, directory: Path) -> Path:
    """The lock of an artifact directory: in the cache, where it litters nothing."""
    place = digest_files([(str(directory), b"")])[:8]
    return site.cache / "locks" / f"{'-'.join(directory.parts[-3:])}-{place}.lock"


def check_tools(providers: Sequence[Provider], settings: Settings) -> None:
    """Raises MissingTool with every program that this build needs and this host lacks."""
    wanted = dict.fromkeys(TOOLS)
    for provider in providers:
        wanted |= dict.fromkeys(provider.tools())
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
    packer_key, vagrant_key = ensure_keys(site.keys, runner)
    if settings.root_pass:
        runner.redact.add(settings.root_pass.get_secret_value())
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
    listeners: dict[str, InstallListener] = {}

    def hear(build: str, kind: str, data: Mapping[str, str]) -> None:
        if build in listeners:
            listeners[build].hear(kind, data)

    iso = obtain_iso(settings, recipe.mirrors, site.cache, runner, events)
    tools = tool_versions(runner)
    headless = settings.site.headless if request.headless is None else request.headless
    with KickstartServer(hear, port=settings.site.ks_port, advertise=GUEST_GATEWAY) as server:
        shop = Shop(
            site=site,
            settings=settings,
            version=request.version,
            runner=runner,
            events=events,
            machine=Machine(
                accelerator=accelerator.name,
                cpus=settings.site.cpus,
                memory_mib=settings.site.memory,
                disk_mib=settings.site.disk_size,
                headless=headless,
            ),
            packer_key=packer_key,
            vagrant_key=vagrant_key,
            iso=iso.path,
            iso_sha256=iso.sha256,
            server=server,
            listeners=listeners,
            qemu_version=tools["qemu"],
        )
        yield Session(
            site=site,
            settings=settings,
            request=request,
            recipe=recipe,
            shop=shop,
            iso=iso,
            tools=tools,
        )


def _summary(recipe: Recipe) -> str:
    plan = recipe.plan
    count = len(plan.installs)
    layers = len(plan.layers)
    return (
        f"{layers} image{'s' * (layers != 1)} from {count} install{'s' * (count != 1)}, "
        f"{plan.jobs} at once"
    )


def check_space(site: Site, plan: Plan, wanted: Sequence[str]) -> None:
    """Raises GoldimgError where building `wanted` cannot fit, and says by how much."""
    installs = [item for item in plan.installs if any(name in wanted for name in item.providers)]
    need = BASE_MIB * len(installs) + LAYER_MIB * len(wanted)
    for where in (site.cache, site.artifacts):
        free = free_bytes(where) >> 20
        if free < need:
            raise GoldimgError(
                f"not enough disk space in {site.shown(where)}",
                why=f"the build takes about {need} MiB, {free} MiB are free",
                hint="free some space, set cache_dir, or build fewer providers with --only",
            )


def run_session(session: Session) -> list[Outcome]:
    """Runs every step that is not done yet, and gathers how each provider ended."""
    providers = {provider.name: provider for provider in session.request.providers}
    statuses = decide(session)
    wanted = [name for name, status in statuses.items() if status != "current"]
    check_space(session.site, session.recipe.plan, wanted)
    tasks = []
    for install in session.recipe.plan.installs:
        if any(name in wanted for name in install.providers):
            tasks.append(_install_task(session, install))
    pairs = [
        (install, providers[name])
        for install in session.recipe.plan.installs
        for name in install.providers
        if name in wanted
    ]
    pairs.sort(key=lambda pair: not pair[1].is_long)
    tasks += [_layer_task(session, install, provider) for install, provider in pairs]
    ended = run_tasks(
        tasks, jobs=session.recipe.plan.jobs, is_cancelled=session.shop.runner.cancel.is_set
    )
    reap(session.shop.bases)
    reap(session.shop.layers)
    return [_outcome(session, name, statuses[name], ended) for name in sorted(providers)]


def decide(session: Session) -> dict[str, Status]:
    """What has to be done for each provider; GoldimgError where --force would be needed."""
    request, found = session.request, {}
    refused = []
    for install in session.recipe.plan.installs:
        machine = session.shop.machine.as_inputs()
        base = base_key(install, session.iso.key, machine, session.site)
        session.base_keys[install.name] = base
        for layer in install.layers:
            key = layer_key(base, layer.provider, request.version, session.settings, session.site)
            session.layer_keys[layer.provider] = key
            status = status_of(session.directory(layer.provider), key, layer.artifacts)
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
    if request.force:
        for key in session.layer_keys.values():
            (session.shop.layers / f"{key}.qcow2").unlink(missing_ok=True)
    return found


def _install_task(session: Session, install: Install) -> Task:
    def run() -> None:
        name, shop = install.name, session.shop
        key = session.base_keys[name]
        if not session.request.use_base_cache:
            shutil.rmtree(shop.bases / key, ignore_errors=True)

        def text(report_url: str) -> str:
            return session.recipe.kickstart(session.site, install, report_url)

        with _told(session, name):
            session.bases[name] = install_base(shop, install, text, key)

    return Task(name=f"install {install.name}", run=run)


def _layer_task(session: Session, install: Install, provider: Provider) -> Task:
    def run() -> None:
        with _told(session, provider.name, is_last=True):
            make_layer(session, install, provider)

    return Task(name=provider.name, run=run, needs=(f"install {install.name}",))


def make_layer(session: Session, install: Install, provider: Provider) -> None:
    """Provisions, converts and finishes one provider's image."""
    directory = make_directory(session.directory(provider.name))
    key = session.layer_keys[provider.name]
    base = session.bases[install.name]
    log = directory / "build.log"
    layer = provision_layer(session.shop, provider, base, key, log)
    session.events.emit(provider.name, "phase", "converting", phase="converting")
    began = time.monotonic()
    written = convert_layer(session.shop, provider, layer.disk, key, directory)
    seconds = {**layer.seconds, "converting and hashing": round(time.monotonic() - began, 1)}
    described = manifest(session, install, provider, seconds)
    finish(directory, directory / ".staging", written, described)
    layer.disk.unlink(missing_ok=True)
    size = sum(file.size for file in written)
    text = f"{', '.join(file.path.name for file in written)} ({size >> 20} MiB)"
    session.events.emit(provider.name, "done", text)


@contextlib.contextmanager
def _told(session: Session, name: str, *, is_last: bool = False) -> Iterator[None]:
    """Measures a step and tells of its failure."""
    session.started[name] = time.monotonic()
    try:
        yield
    except Interrupted:
        session.events.emit(name, "failed", "interrupted")
        raise
    except GoldimgError as error:
        session.events.emit(name, "failed", str(error))
        raise
    except Exception as error:
        session.events.emit(name, "failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        session.seconds[name] = time.monotonic() - session.started[name]
    if not is_last and name not in session.layer_keys:
        session.events.emit(name, "done", f"base ready in {session.seconds[name]:.0f} s")


def manifest(
    session: Session, install: Install, provider: Provider, seconds: Mapping[str, float]
) -> dict[str, object]:
    """What a finished directory says of itself; it holds no secret."""
    layer = next(entry for entry in install.layers if entry.provider == provider.name)
    base = session.bases[install.name]
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
        "inputs": {
            "iso": {
                "name": session.iso.path.name,
                "sha256": session.iso.sha256,
                "packages": session.iso.package_count,
            },
            "kickstart": digest_files([("kickstart", install.kickstart.encode())]),
            "playbooks": playbooks,
            "disk_mib": session.recipe.plan.disk_mib,
        },
        "tools": dict(session.tools),
        "seconds": {"base": dict(base.seconds), "layer": dict(seconds)},
    }


def _outcome(
    session: Session,
    name: str,
    status: Status,
    ended: Mapping[str, BaseException | None],
) -> Outcome:
    directory = session.directory(name)
    error = ended.get(name)
    text: Literal["built", "up to date", "failed", "interrupted"] = "built"
    if isinstance(error, Interrupted):
        text = "interrupted"
    elif error is not None:
        text = "failed"
    elif status == "current":
        text = "up to date"
    size = 0
    if error is None and (finished := read_finished(directory)):
        size = sum(int(str(file["size"])) for file in finished.files)
    return Outcome(
        provider=name,
        status=text,
        seconds=session.seconds.get(name, 0.0),
        size=size,
        directory=directory,
        error=error,
    )
