"""`goldimg prune`: which images, bases, disks and ISOs may go, and how they go safely.

A build holds the cache shared for as long as it runs, and its artifact directories alone; what is
to go is held alone before it goes. So nothing is taken away from a build or an upload.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from goldimg.artifacts import (
    MANIFEST,
    PUBLICATIONS,
    SUMS,
    UNFINISHED,
    Finished,
    index_lock,
    read_finished,
    unsign,
    write_version_sums,
)
from goldimg.catalog.local import base_url_of, update
from goldimg.catalog.version import sort_key
from goldimg.channels import Channels, held, read_channels
from goldimg.config.models import SiteFile
from goldimg.config.settings import list_oses, load_settings
from goldimg.errors import GoldimgError, VerificationFailed
from goldimg.orphans import working_in
from goldimg.project import Site, in_use_lock, locked, write_text
from goldimg.run import Runner
from goldimg.session import lock_path
from goldimg.stages import discard_base, is_base
from goldimg.trust.seal import seal_version
from goldimg.trust.signer import site_signer

FRESH = 24 * 3600.0  # seconds: what a failed build left today may be gone on with tomorrow


@dataclass(frozen=True, kw_only=True)
class Old:
    """Something that may go: `size` in bytes on the disk; `why` for people."""

    kind: str  # image, base, disk or iso
    path: Path
    size: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What may go, and what people should know of the rest."""

    old: tuple[Old, ...]
    notes: tuple[str, ...]


def find_old(
    site: Site, *, keep: int, oses: Collection[str] = (), providers: Collection[str] = ()
) -> Found:
    """What is older than the newest `keep` versions of each OS and provider, and what only it used.

    With `oses` or `providers` only their images are looked at. Nothing is changed.
    """
    old, kept, notes = _old_images(site, keep, oses, providers)
    found = [*old, *_old_bases(site, kept), *_old_disks(site)]
    isos, said = _old_isos(site, kept)
    return Found(old=(*found, *isos), notes=(*notes, *said))


def _old_images(
    site: Site, keep: int, oses: Collection[str], providers: Collection[str]
) -> tuple[list[Old], list[Finished], list[str]]:
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in site.artifacts.glob(f"*/*/*/{MANIFEST}"):
        provider, os_name = path.parent.name, path.parents[1].name
        groups.setdefault((os_name, provider), []).append(path.parent)
    old, kept, notes = [], [], []
    channels = {name: _channels(site, name) for name in sorted({it for it, _ in groups})}
    for (os_name, provider), found in sorted(groups.items()):
        is_meant = (not oses or os_name in oses) and (not providers or provider in providers)
        found.sort(key=lambda path: sort_key(path.parents[1].name), reverse=True)
        for number, directory in enumerate(found):
            finished, reason = _reason_to_keep(directory, channels[os_name])
            is_old = is_meant and number >= keep
            if finished and is_old and not reason:
                why = f"{keep} newer versions are kept"
                old.append(Old(kind="image", path=directory, size=size_of(directory), why=why))
            elif finished:
                kept.append(finished)
            if is_old and reason:
                notes.append(f"{site.shown(directory)} stays: {reason}")
    return old, kept, notes


def _channels(site: Site, os_name: str) -> Channels | None:
    """The channels of an OS; None where they cannot be read: then any image may be in one."""
    try:
        return read_channels(site, os_name)
    except VerificationFailed:
        return None


def _reason_to_keep(directory: Path, channels: Channels | None) -> tuple[Finished | None, str]:
    """The image, and why it stays however old it is; "" where nothing speaks for it."""
    try:
        finished = read_finished(directory)
    except GoldimgError:
        return None, f"its {MANIFEST} cannot be read"
    if finished is None:
        return None, "it is being built"
    if finished.manifest.get(PUBLICATIONS):
        return finished, "it is published ('goldimg unpublish' takes it back)"
    if list(directory.glob(".publish-*.journal")):
        return finished, "an upload of it is unfinished ('goldimg upload' goes on, 'gc' cleans up)"
    if channels is None:
        return finished, "the channels cannot be read ('goldimg channels' tells why)"
    if names := channels.pointing(directory.name, directory.parents[1].name):
        return finished, f"{', '.join(names)} points to it"
    return finished, ""


def _old_bases(site: Site, kept: Sequence[Finished]) -> Iterator[Old]:
    used = {str(finished.manifest.get("base")) for finished in kept}
    for path in _stale(site.cache / "bases", "*"):
        if path.is_dir() and path.suffix == ".work":
            yield Old(kind="base", path=path, size=size_of(path), why="left by a failed build")
        elif path.is_dir() and is_base(path) and path.name not in used:
            why = "no image that is kept stands on it"
            yield Old(kind="base", path=path, size=size_of(path), why=why)


def _old_disks(site: Site) -> Iterator[Old]:
    for pattern in ("*.qcow2", "*.work"):
        for path in _stale(site.cache / "layers", pattern):
            yield Old(kind="disk", path=path, size=size_of(path), why="left by a failed build")


def _old_isos(site: Site, kept: Sequence[Finished]) -> tuple[list[Old], list[str]]:
    """ISOs of the cache that no kept image was built from and no OS of the site names.

    Of assembled installers (debian-<suite>-<digest>.iso) the newest of each suite stays.
    """
    isos = _stale(site.cache / "iso", "*.iso")
    if not isos:
        return [], []
    used = {_iso_of(finished) for finished in kept}
    newest: dict[str, Path] = {}
    for path in sorted((site.cache / "iso").glob("debian-*-*.iso"), key=_changed):
        newest[path.name.rpartition("-")[0]] = path
    used |= {path.name for path in newest.values()}
    for name in list_oses(site):
        try:
            used.add(str(load_settings(site, name, environ={}).iso_file))
        except GoldimgError:
            return [], [f"ISOs stay: the file of {name} cannot be read"]
    why = "no image that is kept was built from it, and no OS file names it"
    return [
        Old(kind="iso", path=path, size=size_of(path), why=why)
        for path in isos
        if path.name not in used
    ], []


def _iso_of(finished: Finished) -> str:
    inputs = finished.manifest.get("inputs")
    iso = inputs.get("iso") if isinstance(inputs, dict) else None
    return str(iso.get("name")) if isinstance(iso, dict) else ""


def _stale(directory: Path, pattern: str) -> list[Path]:
    """What of this form has not changed for a day."""
    limit = time.time() - FRESH
    return [path for path in sorted(directory.glob(pattern)) if _changed(path) < limit]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def size_of(path: Path) -> int:
    """Bytes that a file, or a directory with all in it, takes on the disk."""
    total = 0
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with contextlib.suppress(FileNotFoundError):
            total += each.lstat().st_blocks * 512
    return total


def remove(
    site: Site, old: Sequence[Old], runner: Runner
) -> tuple[list[Old], list[tuple[Old, str]]]:
    """Removes what nobody uses; returns what went, and what stays with the reason.

    A removal that is cut short leaves nothing that looks finished.
    """
    removed: list[Old] = []
    stays: list[tuple[Old, str]] = []

    def attempt(item: Old, action: Callable[[Site, Old], None]) -> None:
        runner.check_cancelled()
        try:
            action(site, item)
            removed.append(item)
        except (GoldimgError, OSError) as error:
            stays.append((item, str(error)))

    for item in old:
        if item.kind == "image":
            attempt(item, _remove_image)
    cached = [item for item in old if item.kind != "image"]
    if not cached:
        return removed, stays
    try:
        with locked(in_use_lock(site), what=str(site.cache), doing="used"):
            for item in cached:
                attempt(item, _remove_cached)
    except GoldimgError as error:
        if error.code != 1:
            raise  # interrupted
        stays += [(item, "a build is running") for item in cached]
    return removed, stays


def _remove_image(site: Site, item: Old) -> None:
    directory = item.path
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(lock_path(site, directory), what=site.shown(directory)))
        upload = directory / f".publish-{directory.name}.lock"
        stack.enter_context(locked(upload, what=site.shown(directory), doing="published"))
        stack.enter_context(held(site, directory.parent.name))
        channels = _channels(site, directory.parent.name)
        # it may have been published or promoted meanwhile
        if reason := _reason_to_keep(directory, channels)[1]:
            raise GoldimgError(reason)
        write_text(directory / UNFINISHED, "null")
        (directory / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(directory)


def _remove_cached(site: Site, item: Old) -> None:
    if working_in(item.path):
        raise GoldimgError("a program is working in it")
    if item.kind == "base":
        discard_base(item.path)
    elif item.path.is_dir():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)
    if item.kind == "iso":
        for beside in item.path.parent.glob(f"{item.path.name}.*"):
            beside.unlink(missing_ok=True)  # indexes and sums of it


def refresh_lists(site: Site, site_file: SiteFile, removed: Sequence[Old], runner: Runner) -> None:
    """Brings the lists of versions, their signatures, and the catalogs up to date."""
    images = [item.path for item in removed if item.kind == "image"]
    if not images:
        return
    signer = site_signer(site, site_file.sign, runner)
    for version in sorted({path.parents[1] for path in images}):
        if any(version.glob(f"*/*/{MANIFEST}")):
            was_signed = any(version.glob(f"{SUMS}.*"))
            write_version_sums(site, version.name, runner.check_cancelled)
            if was_signed:
                seal_version(site, version.name, signer, on_wait=runner.check_cancelled)
        else:
            with index_lock(site, version / SUMS, runner.check_cancelled):
                unsign(version / SUMS)
                (version / SUMS).unlink(missing_ok=True)
        for directory in (*version.glob("*"), version):
            with contextlib.suppress(OSError):  # not empty
                directory.rmdir()
    url = base_url_of(site, site_file.catalog.url)
    for os_name in sorted({path.parent.name for path in images}):
        update(site, site_file.namespace, os_name, url, runner.check_cancelled)
