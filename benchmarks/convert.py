"""Writes every provider's files with the original's commands and with goldimg, and compares.

    .venv/bin/python benchmarks/convert.py [--image DISK.qcow2] [--repeat N] [--skip-original]

Needs root (loop mounts), qemu-utils, libguestfs-tools and pigz; for libguestfs on a host without a
kernel the SUPERMIN_* variables that its manual names. The image is a provisioned one (the newest
base or layer in `.cache` unless given), filled up with this host's own /usr to 1.7 GiB. Both sides
get what they would have in a build: the original one compressed qcow2, as its Packer leaves it;
goldimg a base and a small layer over it for each provider.

What counts is wall-clock time, CPU seconds of all descendants (this process adopts those that lose
their parent), the sum of their resident memory at its highest, and what the files took on disk at
most. Where a tool exists that is quicker than the original's, it runs too, as `best tool`. The page
cache is warm on both sides. goldimg's files are on the disk when they are done (fsync); nobody
else's are.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30
FILLED = int(1.7 * GIB)
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
# the providers that share an installation: docs/how-it-works.md
BASES = {"lvm": ("aws", "virtualbox", "vmware"), "azure": ("azure",),
         "plain": ("docker", "gcp", "openstack")}  # fmt: skip
# As a build may have them: what takes long first, and those of one base not at once.
ORDER = ("docker", "azure", "aws", "openstack", "virtualbox", "gcp", "vmware")
GUESTFISH = "LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One way to one file: `script` runs in an empty directory with `$image`, `$raw`, `$vmdk`,
    `$files`; `times` is how often the original runs it for its seven providers' files."""

    what: str
    script: str
    times: int = 1


ORIGINAL = [
    Job(what="qcow2", script="qemu-img convert -c -O qcow2 $image disk.qcow2"),
    Job(what="vmdk", script="qemu-img convert -O vmdk -o subformat=streamOptimized $image d.vmdk",
        times=3),
    Job(what="vhd",
        script="qemu-img convert -o subformat=fixed,force_size -O vpc $image disk.vhd"),
    Job(what="gcp", script="qemu-img convert -O raw $image disk.raw\n"
        "tar -Sczf disk.tar.gz disk.raw\nrm disk.raw"),
    Job(what="docker", script=f"{GUESTFISH} virt-tar-out -a $image / - | gzip > disk.tar.gz"),
    Job(what="box", script="ln -s $vmdk box-disk001.vmdk\ntar -hczf disk.box box-disk001.vmdk"),
    Job(what="sums", script="cd $files\nsha256sum * > SHA256SUMS"),
]  # fmt: skip
BEST = [
    Job(what="qcow2", script="qemu-img convert -c -W -m 16 -O qcow2 $image disk.qcow2"),
    Job(what="qcow2 zstd", script="qemu-img convert -c -W -m 16 -o compression_type=zstd"
        " -O qcow2 $image disk.qcow2"),
    Job(what="vhd", script="qemu-img convert -W -m 16 -o subformat=fixed,force_size"
        " -O vpc $layer disk.vhd"),
    Job(what="gcp", script="qemu-img convert -W -m 16 -O raw $layer disk.raw\n"
        "tar -Scf - disk.raw | pigz -1 > disk.tar.gz\nrm disk.raw"),
    Job(what="docker", script=f"{GUESTFISH} virt-tar-out -a $layer / - | pigz -1 > disk.tar.gz"),
    Job(what="box", script="ln -s $vmdk b.vmdk\ntar -hcf - b.vmdk | pigz -1 > disk.box"),
    Job(what="sums", script="cd $files\nfor f in *; do openssl dgst -r -sha256 $f; done > SUMS"),
]  # fmt: skip
OURS = {"qcow2": "openstack", "qcow2 zstd": "openstack", "vmdk": "aws", "vhd": "azure",
        "gcp": "gcp", "docker": "docker", "box": "virtualbox"}  # fmt: skip


@dataclass(kw_only=True)
class Cost:
    """Seconds, seconds, MiB, MiB, and bytes of what was written."""

    wall: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    size: int = 0

    def plus(self, other: Cost, times: int = 1) -> Cost:
        """One after the other: times add up, peaks do not."""
        return Cost(
            wall=self.wall + times * other.wall,
            cpu=self.cpu + times * other.cpu,
            memory=max(self.memory, other.memory),
            disk=self.disk + times * other.disk,
            size=self.size + times * other.size,
        )


def descendants() -> list[int]:
    """Processes below this one, those that were adopted included."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(") ")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, queue = [], [os.getpid()]
    while queue:
        below = parents.get(queue.pop(), [])
        found += below
        queue += below
    return found


def resident(pids: Sequence[int]) -> float:
    """MiB that the processes share out among themselves: their proportional set sizes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(text.partition("\nPss:")[2].split()[0])
    return total / 1024


def allocated(directory: Path) -> int:
    """Bytes that the files below `directory` take on disk."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


def measured(argv: Sequence[str | Path], place: Path, env: dict[str, str]) -> Cost:
    """Runs `argv` in `place`, with everything it starts, to its end."""
    cost, done, before = Cost(), threading.Event(), allocated(place)

    def watch() -> None:
        while not done.wait(0.1):
            cost.memory = max(cost.memory, resident(descendants()))
            cost.disk = max(cost.disk, (allocated(place) - before) / (1 << 20))

    watcher = threading.Thread(target=watch)
    used = os.times()
    start = time.monotonic()
    process = subprocess.Popen(argv, cwd=place, env={**os.environ, **env}, start_new_session=True)
    watcher.start()
    try:
        code = process.wait()
    except BaseException:  # Ctrl-C reaches this process only
        os.killpg(process.pid, signal.SIGKILL)
        done.set()
        raise
    with contextlib.suppress(ChildProcessError):
        while True:  # what was left to us counts too
            os.wait()
    cost.wall = time.monotonic() - start
    now = os.times()
    cost.cpu = now[2] + now[3] - used[2] - used[3]
    done.set()
    watcher.join()
    cost.disk = max(cost.disk, (allocated(place) - before) / (1 << 20))
    if code:
        raise SystemExit(f"{argv}: exit code {code}")
    return cost


@contextlib.contextmanager
def mounted(raw: Path, work: Path) -> Iterator[Path]:
    """The first partition of `raw`, writable."""
    point = work / "mount"
    point.mkdir()
    table = json.loads(subprocess.check_output(["sfdisk", "-J", raw]))
    offset = table["partitiontable"]["partitions"][0]["start"] * 512
    subprocess.run(["mount", "-o", f"loop,offset={offset}", raw, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
        point.rmdir()


def fill(point: Path) -> None:
    """Copies files of this host, in order, until the file system holds 1.7 GiB."""
    stat = os.statvfs(point)
    if stat.f_blocks * stat.f_frsize < FILLED:
        raise SystemExit("the image's first partition is no root: name one without LVM, --image")
    room = FILLED - (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    for top in ("/usr/share", "/usr/include", "/usr/lib"):
        for directory, below, names in os.walk(top):
            below.sort()
            copy = point / "opt/filler" / directory.lstrip("/")
            copy.mkdir(parents=True, exist_ok=True)
            for name in sorted(names):
                path = Path(directory) / name
                if path.is_symlink() or not path.is_file() or path.stat().st_size > room:
                    continue
                shutil.copy2(path, copy / name)
                room -= -(-path.stat().st_size // 4096) * 4096
                if room < 1 << 20:
                    return


@contextlib.contextmanager
def exported(image: Path, work: Path) -> Iterator[Path]:
    """`image` as a writable raw file, by qemu-storage-daemon."""
    raw, pid = work / "export.raw", work / "export.pid"
    raw.touch()
    daemon = subprocess.Popen(
        ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=f,filename={image}",
         "--blockdev", "driver=qcow2,node-name=q,file=f", "--pidfile", pid, "--export",
         f"type=fuse,id=e,node-name=q,mountpoint={raw},writable=on"]
    )  # fmt: skip
    while not pid.exists():
        time.sleep(0.05)
    try:
        yield raw
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
        raw.unlink()


def prepare(image: Path, work: Path) -> None:
    """Makes base.<name>.qcow2, <provider>.qcow2 over them, and what the original starts from."""
    raw = work / "fill.raw"
    subprocess.run(["qemu-img", "convert", "-W", "-O", "raw", image, raw], check=True)
    with mounted(raw, work) as point:
        fill(point)
    for base, providers in BASES.items():
        path = work / f"base.{base}.qcow2"
        subprocess.run(["qemu-img", "convert", "-W", "-O", "qcow2", raw, path], check=True)
        for provider in providers:
            layer = work / f"{provider}.qcow2"
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", path,
                            layer], check=True)  # fmt: skip
            with exported(layer, work) as disk, mounted(disk, work) as point:
                (point / "etc/hostname").write_text(provider + "\n")
                random = hashlib.shake_128(provider.encode()).digest(30 << 20)
                (point / "opt/agent").write_bytes(random)
    raw.unlink()
    # What Packer's disk_compression leaves to the original's commands.
    subprocess.run(["qemu-img", "convert", "-c", "-W", "-m", "8", "-O", "qcow2",
                    work / "docker.qcow2", work / "finished.qcow2"], check=True)  # fmt: skip


def ours(what: str, work: Path, target: Path) -> None:
    """Writes files with goldimg into `target`: those of one provider, or of `all` seven."""
    from goldimg.boxing import virtualbox_machine
    from goldimg.config.models import SiteFile
    from goldimg.formats import Region, Written, box, vmdk
    from goldimg.formats.chain import opened
    from goldimg.project import write_text
    from goldimg.providers import Conversion, JobFields
    from goldimg.run import Runner
    from goldimg.workers import Order, Workers

    runner = Runner()
    bases = {provider: base for base, providers in BASES.items() for provider in providers}
    site = SiteFile(qcow2_compression="zstd" if what == "qcow2 zstd" else "zlib")

    def fields(provider: str) -> JobFields:
        return {
            "os_name": "Debian-12", "version": "1.0.0", "target": target / provider, "cpus": 1,
            "memory_mib": 1024, "guest": None, "firmware": "bios", "site": site,
        }  # fmt: skip

    def write(provider: str, workers: Workers) -> None:
        order = Order(
            provider=provider, disk=work / f"{provider}.qcow2", scratch=target, seed="benchmark",
            newest=None, fields=fields(provider),
        )  # fmt: skip
        finish(provider, workers.make(bases[provider], order, lambda done, total: None))

    def finish(provider: str, written: Sequence[Written]) -> None:
        sums = [f"{file.sha256}  {file.path.name}\n" for file in written]
        write_text(target / provider / "SHA256SUMS", "".join(sorted(sums)))

    if what == "all":
        images = {base: len(providers) for base, providers in BASES.items()}
        # as a build has so many jobs at once
        with Workers(runner, images) as workers, ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(write, ORDER, [workers] * len(ORDER)))
    elif what == "vmdk":
        provider = OURS[what]
        with opened(work / f"{provider}.qcow2", target, runner) as disk:
            finish(provider, [vmdk.write(disk, target / provider / "d.vmdk", runner=runner)])
    elif what == "box":
        with opened(work / "virtualbox.qcow2", target, runner) as disk:
            job = Conversion(disk=disk, seed="benchmark", runner=runner,
                             progress=lambda done, total: None, **fields("virtualbox"))  # fmt: skip
            made = box.write_virtualbox(
                Region.whole(work / "d.vmdk"), target / "virtualbox/d.box", virtual_size=disk.size,
                machine=virtualbox_machine(job, "virtualbox"),
            )  # fmt: skip
        finish("virtualbox", [made])
    else:
        with Workers(runner, {bases[OURS[what]]: 1}) as workers:
            write(OURS[what], workers)


class Bench:
    """Measures in `work`, repeatedly, and keeps the best of each."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.best: dict[tuple[str, str], Cost] = {}

    def run(self, side: str, what: str, argv: Sequence[str | Path], keep: str = "") -> None:
        """`argv` in a directory of its own; `keep` is what the directory is then called."""
        place = Path(tempfile.mkdtemp(dir=self.work))
        env = {
            "image": str(self.work / "finished.qcow2"),
            "layer": str(self.work / "docker.qcow2"),
            "vmdk": str(self.work / "d.vmdk"),
            "files": str(self.work / "files"),
            "LC_ALL": "C",
        }
        os.sync()
        cost = measured(argv, place, env)
        if what == "sums":
            cost.size = sum(path.stat().st_size for path in (self.work / "files").iterdir())
        else:
            files = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
            cost.size = sum(path.stat().st_size for path in files)
            for path in files if keep else ():
                path.replace(self.work / keep)
        shutil.rmtree(place)
        tell(side, what, cost)
        found = self.best.get((side, what))
        if found is None or cost.wall < found.wall:
            self.best[side, what] = cost

    def job(self, side: str, job: Job) -> None:
        keep = {"vmdk": "d.vmdk", "qcow2": "files/disk.qcow2", "vhd": "files/disk.vhd"}
        script = f"set -eu -o pipefail\n{job.script}\nsync -f .\n"
        self.run(side, job.what, ["bash", "-c", script],
                 keep.get(job.what, "") if side == "original" else "")  # fmt: skip

    def ours(self, what: str) -> None:
        self.run("goldimg", what, [sys.executable, __file__, "--ours", what, "--work", self.work])


def floor(work: Path) -> float:
    """Seconds to read what one layer has allocated, and for one core to hash what goldimg wrote."""
    start, size = time.monotonic(), 0
    for path in (work / "base.plain.qcow2", work / "docker.qcow2"):
        with path.open("rb", buffering=0) as stream:
            while chunk := stream.read(1 << 20):
                size += len(chunk)
    return time.monotonic() - start


def hash_rate() -> float:
    """Bytes a second that one core puts through SHA-256, at its best of three."""
    data, rates = bytes(1 << 20), []
    for _ in range(3):
        start = time.monotonic()
        sha = hashlib.sha256()
        for _ in range(512):
            sha.update(data)
        rates.append((512 << 20) / (time.monotonic() - start))
    return max(rates)


def tell(side: str, what: str, cost: Cost) -> None:
    print(f"{side:<10} {what:<18} wall {cost.wall:7.1f} s  cpu {cost.cpu:7.1f} s  "
          f"memory {cost.memory:6.0f} MiB  disk {cost.disk:7.0f} MiB  "
          f"size {cost.size / 1e6:7.0f} MB  load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip


def report(bench: Bench) -> None:
    """The best of each, side by side, and the totals."""
    best = bench.best
    print("\nbest of each: seconds of wall clock (CPU)")
    for job in ORIGINAL:
        cells = []
        for side in ("original", "best tool", "goldimg"):
            cost = best.get((side, job.what))
            cells.append(f"{side} {cost.wall:6.1f} ({cost.cpu:6.1f})" if cost else f"{side} -")
        print(f"  {job.what:<8} " + "   ".join(cells))
    everything = best.get(("goldimg", "all"))
    if not everything:
        return
    least = floor(bench.work) + everything.size / hash_rate()
    tell("goldimg", "all seven", everything)
    print(f"floor {least:.1f} s: goldimg takes {everything.wall / least:.1f} times that (aim: 3)")
    total = Cost()
    for job in ORIGINAL:
        if ("original", job.what) not in best:
            return
        total = total.plus(best["original", job.what], job.times)
    tell("original", "the same files", total)
    print(f"ratio {total.wall / everything.wall:.1f} by wall clock, "
          f"{total.cpu / everything.cpu:.1f} by CPU (aim: 25)")  # fmt: skip


def newest_image() -> Path:
    """The newest disk that a build here has left."""
    cache = Path(os.environ.get("GOLDIMG_CACHE", ROOT / ".cache"))
    found = [*cache.glob("layers/*.qcow2"), *cache.glob("bases/*/disk.qcow2")]
    if not found:
        raise SystemExit("no image in .cache: name one with --image")
    return max(found, key=lambda path: path.stat().st_mtime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--image", type=Path, help="a provisioned qcow2 (default: the newest)")
    parser.add_argument("--repeat", type=int, default=1, help="rounds; the best of each counts")
    parser.add_argument("--only", action="append", help="this format only (may be repeated)")
    parser.add_argument("--skip-original", action="store_true", help="measure goldimg only")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        ours(arguments.ours, arguments.work, Path.cwd())
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wanted = set(arguments.only or [*(job.what for job in ORIGINAL), "qcow2 zstd", "all"])
    if arguments.skip_original:
        wanted.discard("box")  # it is made around the original's VMDK, as VirtualBox leaves one
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="goldimg-convert-", dir="/var/tmp") as name:
        work = Path(name)
        (work / "files").mkdir()
        prepare(arguments.image or newest_image(), work)
        bench = Bench(work)
        for _ in range(arguments.repeat):
            for job in ORIGINAL:
                if job.what not in wanted:
                    continue
                if not arguments.skip_original:
                    bench.job("original", job)
                    for other in (it for it in BEST if it.what == job.what):
                        bench.job("best tool", other)
                if job.what in OURS:
                    bench.ours(job.what)
            if "qcow2 zstd" in wanted:
                bench.job("best tool", BEST[1])
                bench.ours("qcow2 zstd")
            if "all" in wanted:
                bench.ours("all")
        report(bench)


if __name__ == "__main__":
    main()
