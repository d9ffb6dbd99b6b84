"""The root file system of a disk as a gzipped tar, as `docker import` takes it.

Everything that a container can use is in it: owners by number, modes, hard links, ACLs, extended
attributes and capabilities. Left out: device nodes, sockets, what is in /dev /proc /sys /run,
lost+found, and SELinux labels, which belong to the host's policy.

Source: docker's documentation of `docker import`; GNU tar manual, "Controlling Extended PAX
Headers"; guestfish(1), "tar-out".
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from goldimg.errors import GoldimgError, Interrupted, MissingTool, VerificationFailed
from goldimg.formats import Heed, Progress, Written, partitions, tarball
from goldimg.formats.gz import GzipReader, GzipWriter
from goldimg.formats.partitions import Partition
from goldimg.formats.source import Disk, flattened
from goldimg.formats.stream import Ticker, draft
from goldimg.run import Runner, has_program

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
cd "$2/root"
find . -xdev \( -path './dev/*' -o -path './proc/*' -o -path './sys/*' -o -path './run/*' \
    -o -path ./lost+found \) -prune -o ! -type b ! -type c ! -type s -print0 > "$2/names"
sort -z -o "$2/names" "$2/names"
tar --create --file=- --null --no-recursion --files-from="$2/names" \
    --format=posix --pax-option="$4" --numeric-owner --blocking-factor=128 \
    --xattrs --xattrs-include='*' --xattrs-exclude=security.selinux --acls
"""
# tar would put its process id and the times of reading into the archive: the same disk must give
# the same bytes. Whole seconds are enough for mtime.
PAX = "exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime,delete=mtime"
EXCLUDED = ("./dev/*", "./proc/*", "./sys/*", "./run/*", "./lost+found")
FUSE = Path("/dev/fuse")
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

    As root, a disk with one plain ext4 or XFS file system is mounted read-only and read by GNU tar,
    where it is: nothing is copied. Any other way libguestfs reads it (slower, but it knows LVM and
    needs no rights). `has_kvm` says that its virtual machine may use KVM. A file system that was
    cut off while it was written is refused. MissingTool where
    libguestfs is needed and absent.
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
        argv += [name, directory, options, PAX, source.image_format]
        return _compress(source, target, runner, progress, newest, argv, {"LC_ALL": "C"})


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
    return _compress(source, target, runner, progress, newest, argv, environment)


def _compress(
    source: Disk,
    target: Path,
    runner: Runner,
    progress: Progress | None,
    newest: int | None,
    argv: list[str],
    environment: Mapping[str, str],
) -> Written:
    """Runs `argv`, which writes a tar to its standard output, and keeps that compressed."""
    total = source.allocated
    ticker = Ticker(total, _at_most(progress), runner)
    with draft(target) as made:
        with GzipWriter(made.output) as stream:
            sieve = tarball.DeviceSieve(stream.write, newest)

            def take(chunk: bytes) -> None:
                sieve.take(chunk)
                ticker.advance(len(chunk))

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
    if len(parts) > 1 and parts[0] in ("dev", "proc", "sys", "run") and entry.type not in b"xgLK":
        raise stream.fail(f"'{entry.name}' belongs to the running system")
    stream.skip(entry.size + -entry.size % tarball.BLOCK)
    return entry.name
