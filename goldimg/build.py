"""`goldimg build`: from settings to finished artifact directories, told as it goes."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from goldimg.artifacts import MANIFEST, Status, finish, read_finished, tidy
from goldimg.config.models import Settings
from goldimg.convert import add_boxes, convert_layer
from goldimg.errors import GoldimgError, Interrupted
from goldimg.events import Bus, JsonLines
from goldimg.formats import Written
from goldimg.host import Host
from goldimg.iso.reach import check_repositories
from goldimg.listing import list_images
from goldimg.native import build_native, check_free
from goldimg.orphans import reap_orphans, sweep, sweep_trial
from goldimg.packer.monitor import FAILURE
from goldimg.plan import Install
from goldimg.project import Site, in_use_lock, locked, make_directory, waiting_lock
from goldimg.providers import Provider
from goldimg.run import Runner
from goldimg.running import run_name
from goldimg.schedule import Task, run_groups, run_tasks
from goldimg.session import (
    Outcome,
    Request,
    Session,
    check_tools,
    decide,
    lock_path,
    manifest,
    open_session,
)
from goldimg.shop import drop_disk
from goldimg.space import check_space, space_taken
from goldimg.stages import base_in_use, install_base, is_base, provision_layer
from goldimg.timeline import events_path
from goldimg.trust.seal import is_sealed, seal, seal_version

__all__ = ["Outcome", "Request", "build"]


def build(
    site: Site, settings: Settings, request: Request, *, host: Host, runner: Runner, events: Bus
) -> list[Outcome]:
    """Builds the images asked for and returns how each ended, in the order of their names.

    Everything that can be known to fail is checked before a VM starts. One provider's failure
    stops no other. Raises GoldimgError for what concerns all of them.
    """
    check_tools(request.providers, settings, host)
    names = [provider.name for provider in request.providers]
    make_directory(site.artifacts)
    make_directory(site.cache)
    log = JsonLines(events_path(site), run=run_name(), os=settings.name, version=request.version)
    events.subscribe(log)
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        for name in names:
            directory = site.artifact_dir(request.version, settings.name, name)
            what = f"{settings.name} {request.version} for {name}"
            stack.enter_context(locked(lock_path(site, directory), what=what))
        stack.enter_context(waiting_lock(in_use_lock(site), runner.check_cancelled, shared=True))
        clear_leftovers(site, events)
        session = stack.enter_context(open_session(site, settings, request, host, runner, events))
        return run_session(session)


def clear_leftovers(site: Site, events: Bus) -> None:
    """Ends and removes what builds have left that were killed, by whomever."""
    orphans = reap_orphans()
    swept = [it for name in ("bases", "layers", "tests") for it in sweep(site.cache / name)]
    sweep_trial(site)
    if orphans or swept:
        text = (
            f"removed what a killed build had left: {len(orphans)} running processes, "
            f"{len(swept)} unfinished disks"
        )
        events.emit("", "note", text)


def run_session(session: Session) -> list[Outcome]:
    """Runs every step that is not done yet, and gathers how each provider ended."""
    providers = {provider.name: provider for provider in session.request.providers}
    statuses = decide(session)
    wanted = [name for name, status in statuses.items() if status not in ("current", "unboxed")]
    for name in (name for name in statuses if name not in wanted):
        tidy(session.directory(name))
        drop_disk(session.shop.layers / f"{session.layer_keys[name]}.qcow2")
    check_space(session.site, session.recipe.plan, wanted)
    check_packages(session, wanted)
    groups = [
        [name for name in group.providers if name in wanted] for group in session.recipe.plan.groups
    ]
    ended = run_groups(
        [group_tasks(session, names) for names in groups],
        jobs=session.recipe.plan.jobs,
        is_cancelled=session.shop.runner.cancel.is_set,
        before=lambda number: before_group(session, number, groups[number]),
    )
    ended |= run_tasks(
        [_box_task(session, providers[it]) for it in statuses if statuses[it] == "unboxed"],
        jobs=session.recipe.plan.jobs,
        is_cancelled=session.shop.runner.cancel.is_set,
    )
    if not session.shop.runner.cancel.is_set():
        _seal_the_rest(session, [name for name, it in statuses.items() if it == "current"])
    return [_outcome(session, name, statuses[name], ended) for name in sorted(providers)]


def _seal_the_rest(session: Session, current: Sequence[str]) -> None:
    """Lists what is finished, and signs the list; and images that a killed build left unsealed."""
    for name in current:
        finished = read_finished(session.directory(name))
        if finished and not is_sealed(finished, session.signer):
            seal(finished.directory, session.signer)
    list_images(session.shop)
    on_wait = session.shop.runner.check_cancelled
    seal_version(session.site, session.request.version, session.signer, on_wait=on_wait)


def check_packages(session: Session, wanted: Sequence[str]) -> None:
    """Asks the repositories for what is still to be installed; an ISO out of packages needs none.

    Where every base stands, a build goes on without them.
    """
    settings, recipe = session.settings, session.recipe
    if settings.os.installer.kind == "debian-packages" or not settings.site.check_sources:
        return
    for install in recipe.plan.installs:
        names = [name for name in install.providers if name in wanted]
        base = session.shop.bases / session.base_keys[install.name]
        stands = session.request.use_base_cache and not install.is_native and is_base(base)
        if names and not stands:
            proxy = recipe.options[names[0]].proxy
            check_repositories(settings, recipe.mirrors, proxy=proxy)
            return


def before_group(session: Session, number: int, names: Sequence[str]) -> None:
    """Tells of the group, and looks whether its hypervisor may have the CPU now."""
    groups = session.recipe.plan.groups
    if not names:
        return
    if len(groups) > 1:
        text = f"group {number + 1} of {len(groups)}, {groups[number].name}: {', '.join(names)}"
        session.events.emit("", "note", text)
    check_free([groups[number]], session.shop.machine.accelerator)


def group_tasks(session: Session, names: Sequence[str]) -> list[Task]:
    """The steps of one group's builds, in the order in which they should start."""
    providers = {provider.name: provider for provider in session.request.providers}
    installs = [
        install
        for install in session.recipe.plan.installs
        if any(name in names for name in install.providers)
    ]
    pairs = [
        (install, providers[name])
        for install in installs
        for name in install.providers
        if name in names
    ]
    pairs.sort(key=lambda pair: not pair[1].is_long)
    tasks = [_install_task(session, install) for install in installs if not install.is_native]
    return [*tasks, *(_layer_task(session, install, provider) for install, provider in pairs)]


def _install_task(session: Session, install: Install) -> Task:
    def run() -> None:
        name, shop = install.name, session.shop
        key = session.base_keys[name]

        def text(report_url: str) -> str:
            return session.recipe.kickstart(session.site, install, report_url)

        said = f"installing for {', '.join(install.providers)}"
        session.events.emit(name, "mark", said, providers=list(install.providers))
        with _told(session, name), _evidence(session, install, shop.bases / f"{key}.work"):
            session.bases[name] = install_base(
                shop, install, text, key, use_cache=session.request.use_base_cache
            )

    return Task(name=f"install {install.name}", run=run)


def _layer_task(session: Session, install: Install, provider: Provider) -> Task:
    def run() -> None:
        with _told(session, provider.name, is_last=True), _base_kept(session, install):
            make_layer(session, install, provider)

    needs = () if install.is_native else (f"install {install.name}",)
    return Task(name=provider.name, run=run, needs=needs)


def _box_task(session: Session, provider: Provider) -> Task:
    """Makes the boxes of an image that is finished, and current, without them."""

    def run() -> None:
        with _told(session, provider.name, is_last=True):
            session.events.emit(provider.name, "phase", "converting", phase="converting")
            written = add_boxes(session.shop, provider, session.directory(provider.name))
            seal(session.directory(provider.name), session.signer)
            _tell_made(session, provider, written)

    return Task(name=provider.name, run=run)


def _tell_made(session: Session, provider: Provider, written: Sequence[Written]) -> None:
    """Lists what was made, and says so."""
    list_images(session.shop, provider.name)
    size = sum(file.size for file in written)
    text = f"{', '.join(file.path.name for file in written)} ({size >> 20} MiB)"
    session.events.emit(provider.name, "done", text)


def _base_kept(session: Session, install: Install) -> contextlib.AbstractContextManager[None]:
    """Nobody replaces the base, where there is one, before its overlay is converted."""
    if install.is_native:
        return contextlib.nullcontext()
    return base_in_use(session.shop, session.base_keys[install.name])


def make_layer(session: Session, install: Install, provider: Provider) -> None:
    """Provisions, converts and finishes one provider's image."""
    directory = make_directory(session.directory(provider.name))
    key = session.layer_keys[provider.name]
    log = directory / "build.log"
    if install.is_native:

        def kickstart(report_url: str) -> str:
            return session.recipe.kickstart(session.site, install, report_url)

        layer = build_native(session.shop, install, provider, kickstart, key, log)
    else:
        base = session.bases[install.name]
        layer = provision_layer(session.shop, provider, base, key, log)
    session.events.emit(provider.name, "phase", "converting", phase="converting")
    began = time.monotonic()
    written = convert_layer(session.shop, provider, layer, install.name, key, directory)
    seconds = {**layer.seconds, "converting and hashing": round(time.monotonic() - began, 1)}
    base_disk = None if install.is_native else session.bases[install.name].disk
    space = space_taken(base_disk, layer.disk, [file.path for file in written])
    described = {**manifest(session, install, provider, seconds), "space_mib": dict(space)}
    finish(directory, directory / ".staging", written, described)
    (directory / FAILURE).unlink(missing_ok=True)
    seal(directory, session.signer)
    drop_disk(layer.disk)
    _tell_made(session, provider, written)


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
        _stop_others(session)
        raise
    except Exception as error:
        session.events.emit(name, "failed", f"{type(error).__name__}: {error}")
        _stop_others(session)
        raise
    finally:
        session.seconds[name] = time.monotonic() - session.started[name]
    if not is_last and name not in session.layer_keys:
        session.events.emit(name, "done", f"base ready in {session.seconds[name]:.0f} s")


def _stop_others(session: Session) -> None:
    """With --on-error abort, whatever else runs is killed where it stands."""
    if session.request.on_error == "abort":
        session.shop.runner.hurry.set()
        session.shop.runner.cancel.set()


@contextlib.contextmanager
def _evidence(session: Session, install: Install, work: Path) -> Iterator[None]:
    """Copies what tells of a failed install to the images that were to be built over it."""
    try:
        yield
    except GoldimgError as error:
        for name in install.providers:
            directory = make_directory(session.directory(name))
            if (directory / MANIFEST).exists():
                continue  # a finished image has logs of its own
            for file in ("build.log", "console.log", FAILURE):
                if (work / file).exists():
                    shutil.copyfile(work / file, directory / file)
            error.log = directory / "build.log" if error.log else None
            error.screen = directory / FAILURE if error.screen else None
        raise


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
