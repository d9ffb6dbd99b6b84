"""Kills `goldimg build` at random moments, builds again, and compares what comes of it.

    .venv/bin/python benchmarks/kill.py [--times 25] [--seed 1] [--real]

Each round starts a build, an install of its own in every other round, and sends SIGKILL to goldimg
alone after a random part of the time that a whole build took: Packer, its VM and Ansible stay
behind, as after a crash. The next build must finish by itself, leave nothing running and nothing
half done, and its manifest must be the reference's. Without --real, Packer is the stand-in of the
tests, whose images are the same in every byte, so the digests of the artifacts are compared too.
With --real it is the real one, whose images differ in times and keys: the digests of their inputs,
names and tools are compared, and each finished image is verified.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.packing import PackingSite  # noqa: E402


class RealPacking(PackingSite):
    """The same with the real Packer, and goldimg's own installer, whose ISO is in the cache."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.env["PATH"] = self.env["PATH"].partition(":")[2]
        self.os = "Debian-12"
        self.iso = ()
        (self.root / ".cache").mkdir()
        (self.root / ".cache/iso").symlink_to(ROOT / ".cache/iso")

    def described(self, provider: str, version: str = "1.0.0") -> dict[str, object]:
        found = super().described(provider, version)
        files = found.pop("artifacts")
        names = [file["file"] for file in files] if isinstance(files, list) else []
        return {**found, "names": names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=25, help="how often a build is killed")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("--real", action="store_true", help="use the real Packer and QEMU")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311 - moments, not secrets
    with tempfile.TemporaryDirectory(prefix="goldimg-kill-") as name:
        site = (RealPacking if arguments.real else PackingSite)(Path(name))
        began = time.monotonic()
        first = site.build("--only", "gcp")
        if first.returncode:
            raise SystemExit(first.stderr)
        whole = time.monotonic() - began
        reference = site.described("gcp")
        print(f"a whole build takes {whole:.1f} s", flush=True)
        try:
            for number in range(1, arguments.times + 1):
                is_install = number % 2 == 0
                moment = chance.uniform(0.1, 1.0 if is_install else 0.6) * whole
                print(f"{number:3}: {one_round(site, reference, moment, is_install)}", flush=True)
        finally:
            site.end()
    print(f"{arguments.times} builds killed, all finished by the next, all manifests equal")


def one_round(
    site: PackingSite, reference: dict[str, object], moment: float, is_install: bool
) -> str:
    """Kills a build after `moment` seconds and checks the next one; what happened, in a line."""
    shutil.rmtree(site.directory("gcp"))
    process = site.start("--only", "gcp", *(["--no-base-cache"] if is_install else []))
    try:
        process.wait(moment)
        how = "it had ended before"
    except subprocess.TimeoutExpired:
        process.kill()
        how = "killed"
    process.communicate()
    phases = [str(event["text"]) for event in site.events() if event["kind"] == "phase"]
    left = len(site.processes())
    began = time.monotonic()
    done = site.build("--only", "gcp")
    if done.returncode:
        raise SystemExit(f"not finished after a kill at {moment:.2f} s:\n{done.stderr}")
    if (found := site.described("gcp")) != reference:
        raise SystemExit(f"another manifest after a kill at {moment:.2f} s:\n{found}")
    if leftovers := site.leftovers():
        raise SystemExit(f"left over after a kill at {moment:.2f} s: {leftovers}")
    verified = site.goldimg("verify", "-O", site.os, "--only", "gcp")
    if verified.returncode:
        raise SystemExit(verified.stderr)
    kind = "install" if is_install else "layer"
    took = time.monotonic() - began
    return (
        f"{kind} {how} at {moment:5.2f} s in '{phases[-1]}', {left:2} processes left, "
        f"finished in {took:.1f} s"
    )


if __name__ == "__main__":
    main()
