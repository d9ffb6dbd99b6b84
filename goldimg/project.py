"""Where things are in a site directory, and how files appear there: whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from goldimg.errors import GoldimgError, UsageError

MARKERS = ("templates", "kickstart", "ansible")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A site directory: what its people write, and what goldimg makes of it."""

    root: Path
    cache_override: Path | None = None
    trial: Path | None = None  # holds what a build on trial makes, in place of the usual places

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def os_dir(self) -> Path:
        return self.templates / "os"

    @property
    def kickstart(self) -> Path:
        return self.root / "kickstart"

    @property
    def ansible(self) -> Path:
        return self.root / "ansible"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def artifacts(self) -> Path:
        return (self.trial or self.root) / "artifacts"

    @property
    def cache(self) -> Path:
        """ISOs, bases and unfinished work: safe to delete when nothing is building."""
        return self.cache_override or self.root / ".cache"

    @property
    def layers(self) -> Path:
        """Provisioned disks that are not converted yet."""
        return (self.trial or self.cache) / "layers"

    def shown(self, path: Path) -> str:
        """`path` as a person in the site directory would type it."""
        return shown_from(self.root, path)

    def artifact_dir(self, version: str, os_name: str, provider: str) -> Path:
        return self.artifacts / version / os_name / provider


def shown_from(root: Path, path: Path) -> str:
    try:
        return str(path.relative_to(root))
    except ValueError:
        return str(path)


def artifact_name(os_name: str, version: str, provider: str, extension: str = "") -> str:
    """`<OS>-<version>_<provider>[.<extension>]`: the one place where artifacts get their names."""
    stem = f"{os_name}-{version}_{provider}"
    return f"{stem}.{extension}" if extension else stem


def find_site(start: Path, *, cache: Path | None = None) -> Site:
    """The site directory that holds `start`: the nearest parent with templates/ and ansible/."""
    for candidate in (start, *start.parents):
        if all((candidate / marker).is_dir() for marker in MARKERS):
            return Site(root=candidate, cache_override=cache)
    raise UsageError(
        f"{start} is not inside a goldimg site",
        why="no directory here or above holds " + ", ".join(f"{name}/" for name in MARKERS),
        hint="cd into the site, or name it: goldimg --site DIR …",
    )


def make_directory(path: Path) -> Path:
    """Creates `path` and its parents; a GoldimgError says why it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise GoldimgError(f"{path} is not writable", hint=f"check the owner and mode of {path}")
    return path


def _unwritable(path: Path, error: OSError) -> GoldimgError:
    return GoldimgError(
        f"cannot write {path}",
        why=(error.strerror or str(error)).lower(),
        hint="free some space or check the owner and mode of the directory",
    )


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, renamed to it when the block ends well.

    After a failure or an interruption nothing of it remains, and whatever stood at `target`
    before is untouched. The data is on disk before the name is.
    """
    make_directory(target.parent)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(target)
        _sync_directory(target.parent)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):
            raise _unwritable(target, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Puts the data of a file on the disk, before a name says that it is whole."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def short_directory(key: str) -> Iterator[Path]:
    """A private directory with a short path, for sockets (whose paths have at most 107 bytes).

    It is named by `key`, so that what a killed run left in it is removed by the next.
    """
    path = Path(tempfile.gettempdir()) / f"goldimg-{os.geteuid()}-{key}"
    if len(str(path)) > 60:
        path = Path("/tmp") / path.name  # noqa: S108 - made below, and only if nobody else has it
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            raise GoldimgError(f"{path} belongs to somebody else", hint="remove it")
        shutil.rmtree(path)
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_text(target: Path, text: str, *, mode: int = 0o644) -> None:
    """Writes `text` to `target` whole or not at all, with `mode` from the first byte on."""
    with writing(target) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)


@contextlib.contextmanager
def locked(path: Path, *, what: str, doing: str = "built") -> Iterator[None]:
    """Holds the lock file `path`; GoldimgError at once when another run holds it.

    The kernel drops the lock with its holder, so a killed run never leaves it behind.
    """
    make_directory(path.parent)
    with path.open("a+", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise GoldimgError(
                f"{what} is already being {doing}",
                why=f"process {holder} holds {path}",
                hint="wait for it to end" + (", or build another version" * (doing == "built")),
            ) from None
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextlib.contextmanager
def waiting_lock(
    path: Path, on_wait: Callable[[], None], *, shared: bool = False
) -> Iterator[None]:
    """Holds the lock file `path`; calls `on_wait` twice a second while another run holds it.

    Any number of runs can hold it `shared`, while none holds it alone.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    make_directory(path.parent)
    with path.open("a+", encoding="ascii") as stream:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(stream, kind | fcntl.LOCK_NB)
                break
            on_wait()
            time.sleep(0.5)
        yield


def in_use_lock(site: Site) -> Path:
    """The lock that builds hold shared while they use the cache, and `prune` holds alone."""
    return site.cache / "in-use.lock"


def free_bytes(path: Path) -> int:
    """Free space of the file system that holds `path` or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
