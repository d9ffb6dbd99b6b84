"""An OVA by VMware's own ovftool, for sites that want exactly what it writes.

Source: VMware, "OVF Tool User's Guide": `--shaAlgorithm`, `--acceptAllEulas`, exit codes. ovftool
cannot be had where goldimg's tests run: they use a stand-in that takes the same arguments and
refuses what the guide says is refused. It proves that goldimg calls it in that way and checks what
comes back, not that ovftool's own files are as the stand-in's.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from goldimg.formats import Progress, Written, ovf, vmdk
from goldimg.formats.ovf import DiskFile, Machine
from goldimg.formats.source import Disk
from goldimg.formats.stream import sha256_of
from goldimg.project import make_directory, writing
from goldimg.run import Runner

_PROGRESS = re.compile(r"Disk progress: (\d{1,3})%")


def write(
    source: Disk,
    target: Path,
    *,
    machine: Machine,
    algorithm: str,
    seed: str = "",
    runner: Runner,
    progress: Progress | None = None,
) -> Written:
    """Writes `source` to `target` as an OVA, its manifest of sha1, sha256 or sha512 `algorithm`.

    The same envelope and disk as of the OVA that goldimg writes, given to ovftool as an OVF package
    beside `target`, which takes the space of one more VMDK meanwhile. GoldimgError with ovftool's
    own words where it refuses it. The same disk need not give the same bytes.
    """
    make_directory(target.parent)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
        package = Path(work) / f"{machine.name}.ovf"
        disk = vmdk.write(
            source,
            package.with_name(f"{machine.name}-disk1.vmdk"),
            adapter=machine.hardware.adapter,
            hardware=machine.hardware.version,
            seed=seed,
            runner=runner,
            progress=progress,
        )
        capacity = disk.virtual_size or source.size
        described = DiskFile(name=disk.path.name, size=disk.size, capacity=capacity)
        package.write_text(ovf.render(machine, described), encoding="utf-8")
        made = Path(work) / target.name  # ovftool names the members after it
        _pack(package, made, algorithm, runner, progress)
        with writing(target) as temporary:
            made.replace(temporary)
            digest = sha256_of(temporary, runner.check_cancelled if runner else None)
            size = temporary.stat().st_size
    return Written(path=target, size=size, sha256=digest.hex(), virtual_size=capacity)


def _pack(
    package: Path, made: Path, algorithm: str, runner: Runner, progress: Progress | None
) -> None:
    def hear(line: str) -> None:
        if progress and (found := _PROGRESS.search(line)):
            progress(int(found[1]), 100)

    runner.run(
        [
            "ovftool",
            "--acceptAllEulas",
            f"--shaAlgorithm={algorithm.upper()}",
            package,
            made,
        ],
        reason="write the OVA, as 'ova_writer: ovftool' asks",
        on_line=hear,
    )
