"""The root file system of a disk as a gzipped tar, as `docker import` takes it.

Everything that a container can use is in it: owners by number, modes, hard links, ACLs, extended
attributes and capabilities. Left out: device nodes, sockets, what is in /dev /proc /sys /run,
lost+found, and SELinux labels, which belong to the host's policy.

Source: docker's documentation of `docker import`; guestfish(1), "tar-out".
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from goldimg.errors import GoldimgError, Interrupted, MissingTool, VerificationFailed
from goldimg.formats import Heed, Progress, Written, partitions, tarball, walk
from goldimg.formats.direct import Windows
from goldimg.formats.gz import GzipReader, GzipWriter
from goldimg.formats.partitions import Partition
from goldimg.formats.source import Disk, flattened
from goldimg.formats.stream import Ticker, draft
from goldimg.run import PACKAGES, Runner, has_program

# The mount lives in a mount namespace of its own and ends with the last process in it, even if that
# is killed. The loop device is read-only: a file system that was not unmounted cleanly then refuses
# to be mounted, instead of showing what its journal has not yet written. A disk that is no raw file
# is shown as one by QEMU's storage daemon, which ends with the script, even if that is killed.
EXPORT = r"""
set -eu
disk=$1 daemon=
end() {
    cd /
    umount "$2/root" 2>/dev/null || :
    [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || :
}
trap 'end "$@"' EXIT
trap 'exit 1' INT TERM HUP
if [ "$5" != raw ]; then
    disk=$2/disk
    : > "$disk"
    setpriv --pdeathsig KILL qemu-storage-daemon \
        --blockdev driver=file,node-name=file,read-only=on,filename="$1" \
        --blockdev driver="$5",node-name=disk,read-only=on,file=file --pidfile "$2/pid" \
        --export type=fuse,id=disk,node-name=disk,mountpoint="$disk" &
    daemon=$!
    until [ -e "$2/pid" ]; do
        kill -0 "$daemon"
        sleep 0.05
    done
fi
mount -o "$3" -- "$disk" "$2/root"
# -P: nothing is imported from a directory just because it is the current one
PYTHONPATH=$7 "$4" -P -m goldimg.formats.walk "$2/root" $6
"""
NOT_KEPT = frozenset(it.decode().removeprefix("./") for it in walk.RUNTIME)
EXCLUDED = (*(f"{it.decode()}/*" for it in walk.RUNTIME), walk.LOST_FOUND.decode())
FUSE = Path("/dev/fuse")
WINDOWS = 16  # of the disk, in memory
TREE = ("./etc/", "./usr/")  # what no root file system lacks


def write(
    source: Disk,
    target: Path,
    *,
    runner: Runner,
    progress: Progress | None = None,
    has_kvm: bool = False,
    newest: int | None = None,
) -> Written:
    """Writes the root file system in `source` to `target` as tar.gz.

    What changed after `newest`, in seconds since 1970, is told to have changed then, so that the
    hour of a build leaves no trace in it.

    As root, a disk with one plain ext4 or XFS file system is mounted read-only, for the kernel to
    tell what is in it and where; what files hold is read from the disk itself. Any other way
    libguestfs reads it (slower, but it knows LVM and needs no rights). `has_kvm` says that its
    virtual machine may use KVM. A file system that was cut off while it was written is refused.
    MissingTool where libguestfs is needed and absent.
    """
    root = partitions.plain_root(source)
    if root and partitions.was_cut_short(source, root):
        # What removes the last of a machine runs as the power goes: a system that was cut off there
        # still holds half of it, and no journal tells which half.
        raise GoldimgError(
            f"{source.path.name}: the machine was cut off before it had shut down",
            why="the journal of its root file system holds changes that are not written",
            hint="provision it again: --from layer",
        )
    if root is None or os.geteuid() != 0:
        return _by_guestfish(source, target, runner, progress, newest, has_kvm=has_kvm)
    try:
        if source.image_format == "raw" or _can_export():
            return _by_mount(source, root, target, runner, progress, newest)
        with flattened(source.path, target.parent, runner) as raw:
            return _by_mount(raw, root, target, runner, progress, newest)
    except (Interrupted, MissingTool):
        raise
    except GoldimgError:
        if not has_program("guestfish"):
            raise
        return _by_guestfish(source, target, runner, progress, newest, has_kvm=has_kvm)


def _can_export() -> bool:
    """Whether this host shows an image as a raw file without copying it; containers may not."""
    return FUSE.exists() and all(map(has_program, ("qemu-storage-daemon", "setpriv")))


def _by_mount(
    source: Disk,
    root: Partition,
    target: Path,
    runner: Runner,
    progress: Progress | None,
    newest: int | None,
) -> Written:
    options = f"ro,nosuid,nodev,noexec,loop,offset={root.offset},sizelimit={root.size}"
    if root.kind == "xfs":
        options += ",nouuid"  # the host itself may run from a clone of this file system
    with tempfile.TemporaryDirectory(prefix="goldimg-rootfs-") as directory:
        (Path(directory) / "root").mkdir()
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", EXPORT, "sh"]
        name = str(source.path.absolute())
        if source.image_format != "raw":
            name = name.replace(",", ",,")  # as QEMU's option syntax wants it
        argv += [name, directory, options, sys.executable, source.image_format]
        argv += ["" if newest is None else str(newest), str(PACKAGES)]

        def start(stream: GzipWriter, ticker: Ticker) -> Callable[[bytes], None]:
            return Assembly(source, root, stream, ticker).take

        return _compress(source, target, runner, progress, argv, {}, start)


class Assembly:
    """Puts an archive together from what `walk` tells of it, `root` being where on `source`."""

    def __init__(self, source: Disk, root: Partition, stream: GzipWriter, ticker: Ticker) -> None:
        self._source, self._root = source, root
        self._stream, self._ticker = stream, ticker
        # Files of a directory mostly lie together, and most are small.
        self._windows = Windows(self._from_disk, WINDOWS)
        self._rest = b""  # of what was told: not a whole item yet

    def take(self, chunk: bytes) -> None:
        """Takes the next bytes that walk has written."""
        told, at = self._rest + chunk, 0
        while at + walk.ITEM.size <= len(told):
            place, length = walk.ITEM.unpack_from(told, at)
            start = at + walk.ITEM.size
            if place == walk.HERE:
                if start + length > len(told):
                    break
                self._stream.write(told[start : start + length])
                start += length
            else:
                self._content(place, length)
            at = start
        self._rest = told[at:]

    def _from_disk(self, into: memoryview, offset: int) -> int:
        self._source.read_into(into, offset)
        return len(into)

    def _content(self, place: int, length: int) -> None:
        if place != walk.ZEROS and place + length > self._root.size:
            raise GoldimgError(
                f"{self._source.path.name}: a file lies beyond the end of its file system",
                hint="the disk is damaged: build it again",
            )
        start = self._root.offset + place

        def read(into: memoryview, done: int) -> None:
            if place == walk.ZEROS:
                into[:] = bytes(len(into))
            else:
                self._windows.copy(into, start + done)

        self._stream.fill(length, read)
        self._ticker.advance(length)


def _by_guestfish(
    source: Disk,
    target: Path,
    runner: Runner,
    progress: Progress | None,
    newest: int | None,
    *,
    has_kvm: bool,
) -> Written:
    environment = {"LIBGUESTFS_BACKEND": "direct"}
    if not has_kvm:
        environment["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    argv = [
        "guestfish",
        "--ro",
        f"--format={source.image_format}",
        "--add",
        str(source.path.absolute()),
    ]
    argv += ["--inspector", "tar-out", "/", "-", "numericowner:true", "xattrs:true", "acls:true"]
    argv += ["excludes:" + " ".join(EXCLUDED)]

    def start(stream: GzipWriter, ticker: Ticker) -> Callable[[bytes], None]:
        sieve = tarball.DeviceSieve(stream.write, newest)

        def take(chunk: bytes) -> None:
            sieve.take(chunk)
            ticker.advance(len(chunk))

        return take

    return _compress(source, target, runner, progress, argv, environment, start)


def _compress(
    source: Disk,
    target: Path,
    runner: Runner,
    progress: Progress | None,
    argv: list[str],
    environment: Mapping[str, str],
    start: Callable[[GzipWriter, Ticker], Callable[[bytes], None]],
) -> Written:
    """Runs `argv`; what `start` gives makes a tar of its standard output, kept compressed."""
    ticker = Ticker(source.claimed, _at_most(progress), runner)
    with draft(target) as made:
        with GzipWriter(made.output) as stream:
            take = start(stream, ticker)
            runner.run(argv, reason="read the root file system", env=environment, on_chunk=take)
            if stream.position < tarball.RECORD:
                raise GoldimgError(f"{source.path}: the root file system is empty")
        return made.done(None)


def _at_most(progress: Progress | None) -> Progress | None:
    """The size of the tar is a guess from the disk's: never report more than all."""
    if progress is None:
        return None
    report: Callable[[int, int], None] = progress
    return lambda done, total: report(min(done, total), total)


def check(
    path: Path, heed: Heed | None = None, tap: Callable[[bytes], object] | None = None
) -> None:
    """Reads the whole archive; VerificationFailed names the first offset that breaks a rule.

    One gzip member, valid tar headers to the end, no device nodes, nothing in /dev /proc /sys /run,
    and an /etc and a /usr. `tap` is called with all of the tar in it, piece by piece.
    """
    missing = set(TREE)
    with GzipReader(path, heed, tap) as stream:
        while any(block := stream.exactly(tarball.BLOCK)):
            name = _check_member(stream, block)
            missing.discard(name.rstrip("/") + "/")
        while rest := stream.read(1 << 20):
            if any(rest):
                raise stream.fail("bytes after the end of the archive")
        stream.finish()
        if missing:
            raise stream.fail("not a root file system: no " + ", ".join(sorted(missing)))


def _check_member(stream: GzipReader, block: bytes) -> str:
    """Passes over one member and returns its name."""
    try:
        entry = tarball.parse(block)
    except VerificationFailed as error:
        raise stream.fail(str(error)) from error
    if entry.type in (b"3", b"4"):
        raise stream.fail(f"'{entry.name}' is a device node")
    parts = Path(entry.name).parts
    if len(parts) > 1 and parts[0] in NOT_KEPT and entry.type not in b"xgLK":
        raise stream.fail(f"'{entry.name}' belongs to the running system")
    stream.skip(entry.size + -entry.size % tarball.BLOCK)
    return entry.name
