"""`goldimg build --verify-reproducible`: builds images once more, and finds what differs.

The second build stands on the same bases. It goes to a scratch directory of the cache, which is
removed at the end; what is finished is only read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from goldimg.artifacts import Finished, read_finished, stem_of
from goldimg.boxing import disk_in
from goldimg.build import Request, build
from goldimg.config.models import Settings
from goldimg.errors import BuildFailed, GoldimgError, Interrupted
from goldimg.events import Bus
from goldimg.formats import rootfs, tree
from goldimg.formats.chain import opened
from goldimg.formats.tree import Different
from goldimg.host import Host
from goldimg.inventory import Inventory
from goldimg.inventory.describe import inventory_in
from goldimg.inventory.diff import Changed, diff
from goldimg.orphans import on_trial
from goldimg.project import Site, locked, make_directory
from goldimg.providers import Provider
from goldimg.run import Runner
from goldimg.session import lock_path


@dataclass(frozen=True, kw_only=True)
class Compared:
    """An image that was built twice. `artifacts`: SHA-256s of both, by file name.

    `packages` and `files` are what differs; `files` is None where the artifacts are the same, or
    `fault` says why nobody looked.
    """

    provider: str
    artifacts: Mapping[str, tuple[str, str]]
    packages: tuple[Changed, ...] = ()
    files: tuple[Different, ...] | None = None
    fault: str = ""

    @property
    def is_identical(self) -> bool:
        """Whether every artifact is the same, byte for byte."""
        return all(first == second for first, second in self.artifacts.values())

    @property
    def is_same(self) -> bool:
        """Whether all files are the same in everything but the times that they changed."""
        if self.is_identical:
            return True
        return self.files is not None and all(it.is_time for it in self.files)


def build_again(
    site: Site, settings: Settings, request: Request, *, host: Host, runner: Runner, events: Bus
) -> list[Compared]:
    """Builds what is finished once more and compares; by provider, in the order of their names.

    BuildFailed where the second build of one fails.
    """
    once_more = Request(
        providers=request.providers,
        version=request.version,
        jobs=request.jobs,
        headless=request.headless,
    )
    with on_trial(site) as trial:
        outcomes = build(
            trial, _unsigned(settings), once_more, host=host, runner=runner, events=events
        )
        for outcome in outcomes:
            if outcome.error:
                raise _failed(outcome.provider, outcome.error)
        return [
            _compared(site, trial, settings, once_more, provider, runner)
            for provider in sorted(request.providers, key=lambda it: it.name)
        ]


def _unsigned(settings: Settings) -> Settings:
    """The same settings without signatures: those of the second build would be thrown away."""
    sign = settings.site.sign.model_copy(update={"using": "none"})
    return replace(settings, site=settings.site.model_copy(update={"sign": sign}))


def _failed(provider: str, error: BaseException) -> BaseException:
    if isinstance(error, Interrupted) or not isinstance(error, GoldimgError):
        return error
    return BuildFailed(
        f"{provider}: the second build failed: {error.what}",
        why=error.why,
        details=error.details,
        hint="the first one is finished and stays",
    )


def _compared(
    site: Site,
    trial: Site,
    settings: Settings,
    request: Request,
    provider: Provider,
    runner: Runner,
) -> Compared:
    first = site.artifact_dir(request.version, settings.name, provider.name)
    second = trial.artifact_dir(request.version, settings.name, provider.name)
    with locked(lock_path(site, first), what=f"{settings.name} for {provider.name}"):
        pair = [_finished(first), _finished(second)]
        if pair[0].manifest.get("layer") != pair[1].manifest.get("layer"):
            raise BuildFailed(
                f"{provider.name}: the inputs have changed between the two builds",
                hint="run it again",
            )
        names = provider.artifacts(settings.name, request.version)
        digests = [{str(it["file"]): str(it["sha256"]) for it in one.files} for one in pair]
        compared = Compared(
            provider=provider.name,
            artifacts={name: (digests[0][name], digests[1][name]) for name in names},
            packages=_packages(inventory_in(first), inventory_in(second)),
        )
        if compared.is_identical:
            return compared
        try:
            return replace(compared, files=_files(provider, pair, second.parent, runner))
        except Interrupted:
            raise
        except GoldimgError as error:
            return replace(compared, fault=str(error))


def _finished(directory: Path) -> Finished:
    finished = read_finished(directory)
    if finished is None:
        raise BuildFailed(f"{directory} is not finished", hint="run it again")
    return finished


def _packages(before: Inventory | None, after: Inventory | None) -> tuple[Changed, ...]:
    return diff(before, after).packages if before and after else ()


def _files(
    provider: Provider, pair: list[Finished], scratch: Path, runner: Runner
) -> tuple[Different, ...]:
    """What differs among the files of two finished images."""
    found = []
    for finished in pair:
        with _archive(provider, finished, make_directory(scratch / "files"), runner) as archive:
            found.append(tree.read(archive))
    return tuple(tree.differences(*found))


@contextlib.contextmanager
def _archive(
    provider: Provider, finished: Finished, scratch: Path, runner: Runner
) -> Iterator[Path]:
    """All files of a finished image as an archive, which may be its artifact."""
    extension = provider.source or provider.extensions[0]
    path = finished.directory / f"{stem_of(finished.manifest)}.{extension}"
    if provider.ships_files:
        yield path
        return
    archive = scratch / "files.tar.gz"
    reading = opened if path.suffix == ".qcow2" else disk_in
    try:
        with reading(path, scratch, runner) as disk:
            yield rootfs.write(disk, archive, runner=runner).path
    finally:
        archive.unlink(missing_ok=True)
