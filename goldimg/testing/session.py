"""`goldimg test`: the images of a version, several at once, each recorded when it is done."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from goldimg.artifacts import Finished, read_finished
from goldimg.config.models import Settings
from goldimg.errors import GoldimgError, Interrupted, UsageError, VerificationFailed
from goldimg.events import Bus
from goldimg.formats.stream import sha256_of
from goldimg.host import Host, choose_accelerator, find_ovmf
from goldimg.orphans import claim, reap, reap_orphans, sweep
from goldimg.project import Site, artifact_name, in_use_lock, locked, waiting_lock
from goldimg.providers import Provider, all_providers
from goldimg.publish.image import newest
from goldimg.run import Runner, find_program
from goldimg.schedule import Task, run_tasks
from goldimg.session import lock_path
from goldimg.testing.machine import MEMORY_MIB
from goldimg.testing.results import Outcome, keep, now
from goldimg.testing.subject import Found, Hold, Laboratory, Subject, phase
from goldimg.testing.suite import Check, check_installed
from goldimg.testing.trial import try_out

STARTING = {"kvm": 300.0, "tcg": 900.0}  # seconds that a start may take, unless somebody says
CHECKING = 300.0  # seconds that one check may take
TOOLS = ("qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen", "tar", "xorriso")
REASON = "start and look at images"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be tested. No `version`: each provider's newest; no `jobs`: what fits."""

    providers: tuple[Provider, ...] = ()  # none: all that are finished
    version: str | None = None
    jobs: int = 0
    seconds: float = 0.0  # that a start may take; 0: by the accelerator
    check_seconds: float = CHECKING
    boxes: bool = False
    hold: Hold | None = None


def try_images(
    site: Site, settings: Settings, request: Request, *, host: Host, runner: Runner, events: Bus
) -> list[Outcome]:
    """Tests every image asked for, side by side; one that fails stops no other.

    Results are in the manifests when this returns. Raises GoldimgError for what concerns all.
    """
    check_installed()
    finished = find_finished(site, settings.name, request)
    for name in TOOLS:
        find_program(name, reason=REASON)
    accelerator = choose_accelerator(settings.site.accelerator, host).name
    lab = Laboratory(
        site=site,
        runner=runner,
        events=events,
        accelerator=accelerator,
        seconds=request.seconds or STARTING[accelerator],
        check_seconds=request.check_seconds,
        ovmf=find_ovmf(),
        hold=request.hold,
    )
    outcomes: dict[str, Outcome] = {}
    with waiting_lock(in_use_lock(site), runner.check_cancelled, shared=True):
        reap_orphans()
        sweep(scratch_root(site))

        def task(provider: Provider, image: Finished) -> Task:
            def run() -> None:
                outcomes[provider.name] = _one(lab, settings, request, provider, image)

            return Task(name=provider.name, run=run)

        ended = run_tasks(
            [task(provider, image) for provider, image in finished],
            jobs=request.jobs or host.jobs(MEMORY_MIB, 1),
            is_cancelled=runner.cancel.is_set,
        )
    for provider, image in finished:
        error = ended.get(provider.name)
        if provider.name not in outcomes:
            outcomes[provider.name] = _untested(settings, provider, image, error or Interrupted())
    return [outcomes[provider.name] for provider, _ in finished]


def scratch_root(site: Site) -> Path:
    """Where machines under test have their disks."""
    return site.cache / "tests"


def find_finished(site: Site, os_name: str, request: Request) -> list[tuple[Provider, Finished]]:
    """The images asked for; UsageError names one that is not finished."""
    found = []
    for provider in request.providers or tuple(all_providers().values()):
        version = request.version or newest(site, os_name, provider.name)
        directory = site.artifact_dir(version, os_name, provider.name) if version else None
        image = read_finished(directory) if directory else None
        if image:
            found.append((provider, image))
        elif request.providers:
            wanted = f"{os_name} {version}" if version else os_name
            raise UsageError(
                f"{wanted} is not built for {provider.name}",
                hint=f"build it: goldimg build -O {os_name} --only {provider.name}"
                + (f" --version {version}" if request.version else ""),
            )
    if not found:
        wanted = f"{os_name} {request.version}" if request.version else os_name
        raise UsageError(
            f"nothing is finished of {wanted}", hint=f"build it: goldimg build -O {os_name}"
        )
    return found


def _untested(
    settings: Settings, provider: Provider, image: Finished, error: BaseException
) -> Outcome:
    return Outcome(
        provider=provider.name,
        os_name=settings.name,
        version=str(image.manifest.get("version", "")),
        directory=image.directory,
        status="interrupted" if isinstance(error, Interrupted) else "not tested",
        artifacts={},
        how={},
        errors=(error,),
    )


def _one(
    lab: Laboratory, settings: Settings, request: Request, provider: Provider, image: Finished
) -> Outcome:
    """Tests one image and records the result; what keeps it from being tested is its error."""
    name = provider.name
    began = time.monotonic()
    try:
        outcome = _tested(lab, settings, request, provider, image)
    except Interrupted as error:
        lab.events.emit(name, "failed", "interrupted")
        return _untested(settings, provider, image, error)
    except GoldimgError as error:
        lab.events.emit(name, "failed", str(error))
        return _untested(settings, provider, image, error)
    seconds = time.monotonic() - began
    if outcome.status == "passed":
        lab.events.emit(name, "done", f"passed in {seconds:.0f} s")
    else:
        lab.events.emit(name, "failed", str(outcome.errors[0]))
    return outcome


def _tested(
    lab: Laboratory, settings: Settings, request: Request, provider: Provider, image: Finished
) -> Outcome:
    directory, began = image.directory, time.monotonic()
    subjects = list(_subjects(settings, request, provider, image))
    if not subjects or subjects[0].path.suffix == ".box":
        raise VerificationFailed(f"{lab.site.shown(directory)}: the manifest lists no artifact")
    what = f"{settings.name} {subjects[0].version} for {provider.name}"
    with locked(lock_path(lab.site, directory), what=what, doing="tested"):
        found: dict[str, Found] = {}
        sums = {}
        for subject in subjects:
            sums[subject.path.name] = _check_sum(lab, subject, image)
            with _scratch(lab, subject) as scratch:
                found[subject.path.name] = try_out(subject, lab, scratch)
        errors = tuple(it.error for it in found.values() if it.error)
        outcome = Outcome(
            provider=provider.name,
            os_name=settings.name,
            version=subjects[0].version,
            directory=directory,
            status="failed" if errors else "passed",
            seconds=time.monotonic() - began,
            finished=now(),
            artifacts=sums,
            how={name: it.how for name, it in found.items()},
            checks=_all_checks(subjects[0].path.name, found),
            errors=errors,
        )
        keep(outcome)
    return outcome


def _all_checks(first: str, found: Mapping[str, Found]) -> tuple[Check, ...]:
    """The checks of all files; those of boxes are told by the box's name."""
    return tuple(
        check if name == first else replace(check, name=f"{name}: {check.name}")
        for name, it in found.items()
        for check in it.checks
    )


def _subjects(
    settings: Settings, request: Request, provider: Provider, image: Finished
) -> Iterator[Subject]:
    """The artifact, and where they are wanted, the boxes that hold a disk."""
    version = str(image.manifest["version"])
    publish = getattr(settings.site.publish, provider.name, None)
    command = (*getattr(publish, "entrypoint", ()), *getattr(publish, "cmd", ())) or ("/bin/sh",)
    first = artifact_name(settings.name, version, provider.name, provider.extensions[0])
    for file in sorted(image.files, key=lambda it: it["file"] != first):
        name = str(file["file"])
        is_box = name.endswith(".box") and request.boxes and not provider.ships_files
        if name != first and not is_box:
            continue
        yield Subject(
            provider=provider,
            os_name=settings.name,
            version=version,
            path=image.directory / name,
            virtual_size=int(str(file.get("virtual_size") or 0)),
            firmware=str(image.manifest.get("firmware", "bios")),
            directory=image.directory,
            command=command,
        )


def _check_sum(lab: Laboratory, subject: Subject, image: Finished) -> str:
    """The artifact's SHA-256; VerificationFailed where it is not the one that was built."""
    phase(lab, subject, "hashing")
    expected = {str(it["file"]): str(it["sha256"]) for it in image.files}[subject.path.name]
    shown = lab.site.shown(subject.path)
    if not subject.path.exists():
        raise VerificationFailed(f"{shown} is missing", hint="build it again with --force")
    found = sha256_of(subject.path, lab.runner.check_cancelled).hex()
    if found != expected:
        raise VerificationFailed(
            f"{shown} has changed: it is not started",
            why=f"its sha256 is {found}, not {expected}",
            hint="build it again with --force",
        )
    return found


@contextlib.contextmanager
def _scratch(lab: Laboratory, subject: Subject) -> Iterator[Path]:
    """A directory for the machine's disk, gone with all that works in it when the block ends."""
    path = scratch_root(lab.site) / f"{subject.version}-{subject.path.name}.work"
    claim(path)
    try:
        yield path
    finally:
        reap(path)
        shutil.rmtree(path, ignore_errors=True)
