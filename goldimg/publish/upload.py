"""Drives publishers: check, find, publish, record; on a failure undo, and say what is kept."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from goldimg.errors import GoldimgError, Interrupted, VerificationFailed
from goldimg.events import Bus
from goldimg.project import locked
from goldimg.publish.image import Image
from goldimg.publish.job import Job, Rejected, Session, brief
from goldimg.publish.journal import Journal, Resource, journal_path
from goldimg.publish.proof import BUILD_AGAIN, Proof
from goldimg.publish.publisher import Preview, Publication, Publisher
from goldimg.publish.records import Record, keep, now
from goldimg.publish.retry import Policy
from goldimg.run import Runner

Status = Literal["published", "already there", "checked", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """An image, the publisher that takes it, and the environment whose settings that has."""

    image: Image
    publisher: Publisher[Any]
    environment: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one task ended; `kept` and `left` are what remains of an unfinished one."""

    provider: str
    target: str
    status: Status
    seconds: float
    preview: Preview | None = None
    record: Record | None = None
    error: BaseException | None = None
    kept: tuple[Resource, ...] = ()  # for the next run to go on with
    left: tuple[Resource, ...] = ()  # that could not be removed


def new_session(
    provider: str, runner: Runner, events: Bus, policy: Policy | None = None
) -> Session:
    """What a publisher is made with."""
    return Session(provider=provider, runner=runner, events=events, policy=policy or Policy())


def upload(
    tasks: Sequence[Task],
    *,
    force: bool = False,
    dry_run: bool = False,
    guard: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> list[Outcome]:
    """Publishes every task, side by side; one that fails stops no other. In the order of `tasks`.

    A dry run ends after the checks: nothing is created, sent or written.
    """
    with guard(), ThreadPoolExecutor(max(1, len(tasks)), "publish") as pool:
        futures = [pool.submit(_one, task, force=force, dry_run=dry_run) for task in tasks]
        return [future.result() for future in futures]


def _one(task: Task, *, force: bool, dry_run: bool) -> Outcome:
    publisher, image = task.publisher, task.image
    session, started = publisher.session, time.monotonic()
    session.is_transient = publisher.is_transient
    artifact = image.file(publisher.artifact)
    journal = Journal(journal_path(image.directory, publisher.target), artifact.sha256)
    job = Job(
        provider=session.provider,
        runner=session.runner,
        events=session.events,
        policy=session.policy,
        is_transient=publisher.is_transient,
        image=image,
        journal=journal,
        run_id=secrets.token_hex(8),
        force=force,
        environment=task.environment,
    )
    job.proof = Proof(artifact, journal, publisher.check_format, publisher.digests)
    preview: Preview | None = None

    def ended(status: Status, **more: Any) -> Outcome:
        return Outcome(
            provider=session.provider,
            target=publisher.target,
            status=status,
            seconds=time.monotonic() - started,
            preview=preview,
            **more,
        )

    lock = image.directory / f".publish-{session.provider}.lock"
    is_ours = False  # the journal, and what it names: not another run's that is going on
    try:
        with contextlib.nullcontext() if dry_run else locked(
            lock, what=image.name, doing="published"
        ):  # fmt: skip
            is_ours = not dry_run
            job.phase("checking")
            preview = publisher.check(job)
            if dry_run:
                job.proof.begin(is_noted=False)
                job.proven()
                session.events.emit(session.provider, "done", "checked; nothing was sent")
                return ended("checked")
            record, was_there = _publish(publisher, job)
            session.events.emit(
                session.provider, "done", "already there" if was_there else "published"
            )
            return ended("already there" if was_there else "published", record=record)
    except BaseException as error:
        return _failed(publisher, job, error, ended, is_ours=is_ours)
    finally:
        job.proof.close()
        journal.close()


def _publish(publisher: Publisher[Any], job: Job) -> tuple[Record, bool]:
    """The record of the publication, and whether it was there before."""
    started, clock = now(), time.monotonic()
    if job.journal.other_image:
        job.phase("cleaning up")
        job.say("an unfinished upload of another image of this version is removed first")
        if left := _remove(publisher, job, list(reversed(job.journal.created))):
            raise GoldimgError(
                f"{publisher.name}: {left[0]} of an earlier upload cannot be removed",
                hint="remove it by hand, or try 'goldimg gc'",
            )
        job.journal.restart()
    found = publisher.find(job)
    publication = found or _made(publisher, job)
    temporary = [it for it in job.journal.created if it.is_temporary]
    for resource in _remove(publisher, job, temporary, workers=publisher.removers):
        job.warn(f"{resource} is left and could not be removed; 'goldimg gc' tries again")
    for resource in [it for it in job.journal.created if not it.is_temporary]:
        job.journal.remove(resource)  # published: what a journal still holds, gc removes
    record = _record(publisher, job, publication, started, time.monotonic() - clock)
    keep(job.image.directory, record)
    if not [it for it in job.journal.created if it.is_temporary]:
        job.journal.finish()
    return record, found is not None


def _made(publisher: Publisher[Any], job: Job) -> Publication:
    if job.proof:
        job.proof.begin()
    publication = publisher.publish(job)
    job.proven()  # it waits for this itself before it makes anything; here none can forget it
    return publication


def _record(
    publisher: Publisher[Any], job: Job, publication: Publication, started: str, seconds: float
) -> Record:
    return Record(
        provider=job.provider,
        os_name=job.image.os_name,
        version=job.image.version,
        target=publisher.target,
        image=job.journal.image,
        run_id=job.run_id,
        started=started,
        published=now(),
        seconds=round(seconds, 1),
        publication=publication,
        environment=job.environment,
    )


def _failed(
    publisher: Publisher[Any],
    job: Job,
    error: BaseException,
    ended: Callable[..., Outcome],
    *,
    is_ours: bool,
) -> Outcome:
    is_stopped = isinstance(error, Interrupted | KeyboardInterrupt)
    told = error if is_stopped else _explained(publisher, error)
    status: Status = "interrupted" if is_stopped else "failed"
    job.events.emit(job.provider, "failed", status if is_stopped else str(told))
    if not is_ours:
        return ended(status, error=told)
    is_final = isinstance(told, Rejected | VerificationFailed)
    if job.proof:
        job.proof.close()  # nothing is noted any more
    created = job.journal.created
    unwanted = [it for it in created if is_final or not it.is_resumable]
    publisher.session.is_undoing = True
    left = _remove(publisher, job, list(reversed(unwanted)))
    kept = tuple(it for it in job.journal.created if it not in left)
    if not job.journal.created:
        job.journal.finish()
    return ended(status, error=told, kept=kept, left=tuple(left))


def _explained(publisher: Publisher[Any], error: BaseException) -> GoldimgError:
    try:
        told = publisher.explain(error)
    except Exception:  # an explanation must not hide what it explains
        return GoldimgError(f"{publisher.name}: {type(error).__name__}: {brief(error)}")
    if isinstance(told, VerificationFailed) and not told.hint:
        told.hint = BUILD_AGAIN  # formats know what is wrong with a file, not where it came from
    return told


def _remove(
    publisher: Publisher[Any], job: Job, resources: Sequence[Resource], *, workers: int = 1
) -> list[Resource]:
    """Removes them in their order, noted in the journal; returns those that stay.

    `workers` at once, where none depends on another.
    """

    def one(resource: Resource) -> bool:
        if job.runner.hurry.is_set():
            return False
        try:
            publisher.delete(resource)
        except Exception as error:
            job.warn(f"{resource} could not be removed: {brief(error)}")
            return False
        job.journal.remove(resource)
        return True

    with ThreadPoolExecutor(workers, "remove") as pool:
        is_gone = list(pool.map(one, resources))
    return [it for it, gone in zip(resources, is_gone, strict=True) if not gone]
