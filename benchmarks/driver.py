"""What goldimg itself costs while it drives builds: time, CPU and memory.

    .venv/bin/python benchmarks/driver.py [--skip-real]

One provider is built for real, from its ISO to its artifacts, and goldimg's process is looked at
twenty times a second. Time in which none of its programs runs, and nothing is converted, is its own
(aim: below 2 s). Its CPU while Packer runs is that of pictures, events, logs and the kickstart
server (aim: below 2 % of the time). Then fourteen builds run at once under the stand-in Packer of
the tests, as two runs of goldimg with seven providers each (aim: below 200 MiB together).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from goldimg.providers import all_providers  # noqa: E402
from tests.packing import PackingSite  # noqa: E402

EVERY = 0.05  # seconds between two looks
PROVIDER = "azure"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Watched:
    """A goldimg that runs, and what it was seen to cost: seconds, of which some nobody else ran."""

    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.time)
    alone: list[tuple[float, float]] = field(default_factory=list)  # when, and for how long
    packer_seconds: float = 0.0
    packer_cpu: float = 0.0
    _cpu: float = 0.0

    def look(self, since: float) -> None:
        """Counts the time since the last look as what the process does now."""
        words = _children(self.process.pid)
        if words is None:
            return
        cpu = cpu_of(self.process.pid)
        if not words:
            self.alone.append((time.time(), since))
        elif "packer" in words:
            self.packer_seconds += since
            self.packer_cpu += cpu - self._cpu
        self._cpu = cpu


def _children(pid: int) -> list[str] | None:
    """The names of the programs that a process has started and that run; None if it has ended."""
    found = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                name, _, rest = Path(f"/proc/{child}/stat").read_text().rpartition(") ")
                if rest[0] != "Z":
                    found.append(name.partition("(")[2])
    except OSError:
        return found if Path(f"/proc/{pid}/stat").exists() else None
    return found


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, without those of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid: int) -> float:
    """The most memory that a process has had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def spans(site: PackingSite, run: str) -> Mapping[str, float]:
    """Seconds of each phase of a run with one build at a time, and of its conversion's beginning.

    What Packer does before its first phase (it validates the template and starts its plugins) is in
    no phase.
    """
    found: dict[str, float] = {}
    phase, since = "", 0.0
    for event in site.events():
        if not str(event.get("run")).endswith(run):
            continue
        at = float(str(event["time"]))
        if phase and event["kind"] in ("phase", "done", "failed"):
            found[phase] = found.get(phase, 0.0) + at - since
            phase = ""
        if event["kind"] == "phase":
            phase, since = str(event["text"]), at
            found.setdefault(f"{phase} began", at)
    return found


def real(root: Path) -> None:
    """One provider, the real Packer, no base."""
    from kill import RealPacking

    site = RealPacking(root)
    log = (root / "said").open("wb")
    process = subprocess.Popen(
        site.words("--only", PROVIDER),
        cwd=site.root, env=site.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
    )  # fmt: skip
    watched = Watched(process)
    last = time.monotonic()
    while process.poll() is None:
        time.sleep(EVERY)
        now = time.monotonic()
        watched.look(now - last)
        last = now
    wall = time.time() - watched.began
    log.close()
    if process.returncode:
        raise SystemExit((root / "said").read_text())
    found = spans(site, f"-{process.pid}")
    phases = {name: it for name, it in found.items() if not name.endswith(" began")}
    converting = found["converting began"]
    iso = found["iso began"], found["iso began"] + phases["iso"]
    alone = [(at, it) for at, it in watched.alone if at < converting]
    checking = sum(it for at, it in alone if iso[0] <= at <= iso[1] + EVERY)
    own = sum(it for _, it in alone) - checking
    print(f"{'wall clock':<44} {wall:7.1f} s")
    for name, seconds in phases.items():
        print(f"  {name:<42} {seconds:7.1f} s")
    print(f"{'sum of the phases':<44} {sum(phases.values()):7.1f} s")
    rest = wall - sum(phases.values())
    print(f"{'between them, Packer starting up included':<44} {rest:7.1f} s")
    print(f"{'nothing but goldimg running':<44} {own:7.1f} s (aim: below 2)")
    share = watched.packer_cpu / watched.packer_seconds
    print(
        f"{'goldimg while Packer runs':<44} {watched.packer_cpu:7.1f} s of CPU in "
        f"{watched.packer_seconds:.0f} s, {share:.1%} of a core (aim: below 2 %)"
    )


def many(root: Path) -> None:
    """Fourteen builds at once; each waits in its last task until all of them are there."""
    site = PackingSite(root)
    names = sorted(all_providers())
    if (made := site.build("--version", "0.0.1")).returncode not in (0, 1):
        raise SystemExit(made.stderr)
    for name in names:
        (site.fake / f"slow-{name}").touch()
    versions = ("1.0.0", "2.0.0")
    running = [site.start("--jobs", "7", "--version", version) for version in versions]
    for process in running:
        for name in names:
            site.wait_for(process, "cleaning", name)
    time.sleep(10)  # two pictures of each, and a few looks
    before = [cpu_of(process.pid) for process in running]
    time.sleep(20)
    cpu = sum(cpu_of(it.pid) - at for it, at in zip(running, before, strict=True)) / 20
    peaks = [peak_mib(process.pid) for process in running]
    for name in names:
        (site.fake / f"slow-{name}").unlink()
    ended = [process.communicate(timeout=900)[0] for process in running]
    statuses = [text.count(" built ") for text in ended]
    site.end()
    print(
        f"{'fourteen builds at once, goldimg itself':<44} {sum(peaks):7.0f} MiB "
        f"(aim: below 200), {cpu:.1%} of a core; {sum(statuses)} built"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--skip-real", action="store_true", help="only the fourteen at once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="goldimg-driver-") as name:
        for part in ("real", "many"):
            (Path(name) / part).mkdir()
        if not arguments.skip_real:
            real(Path(name) / "real")
        many(Path(name) / "many")


if __name__ == "__main__":
    main()
