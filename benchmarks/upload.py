"""Publishing beside each SDK's own plain call, to services of this machine, in one run.

    .venv/bin/python benchmarks/upload.py [--image DISK] [PROVIDER …]

Without --image a disk of 8 GiB with 1.7 GiB of data is made. Prints, for each way: seconds from the
process's start to its end; of them those of sending, with the proof of what arrived (an SDK's plain
call does nothing else; goldimg also checks before, and imports afterwards); its CPU seconds; bytes
that were sent, and those times the allocated ones; the highest resident memory. The line below it
tells how long goldimg was in each phase.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from uploads import Row  # noqa: E402

PROVIDERS = ("aws", "azure", "gcp", "openstack", "docker")
MIB = 1 << 20


def main() -> None:
    """Runs every provider's measurement, and prints it as it comes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("providers", nargs="*", default=PROVIDERS, metavar="PROVIDER")
    parser.add_argument("--image", type=Path, help="a raw or qcow2 disk")
    parser.add_argument("--work", type=Path, help="where scratch files go (some 12 GiB)")
    parser.add_argument("--data", type=int, default=1741, help="MiB of data of a disk that is made")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as scratch:
        image = given.image or make_image(Path(scratch) / "disk.raw", given.data)
        allocated = image.stat().st_blocks * 512
        print(f"{image.name}: {allocated >> 20} MiB allocated")
        heads = f"{'wall':>9}{'sending':>10}{'CPU':>9}{'sent':>12}{'of alloc.':>11}{'memory':>11}"
        print(f"{'':50}{heads}")
        for provider in given.providers:
            module = importlib.import_module(f"uploads.{provider}")
            for row in module.measure(image):
                print(line(row, allocated), flush=True)


def make_image(path: Path, data: int) -> Path:
    """8 GiB, `data` MiB of them filled: two thirds as text compresses, one third as it does not."""
    numbers = random.Random(1)  # noqa: S311 - content, not a secret
    text = b" ".join(numbers.randbytes(3).hex().encode() for _ in range(MIB // 7 + 1))[:MIB]
    with path.open("wb") as stream:
        stream.truncate(8192 * MIB)
        for at in sorted(numbers.sample(range(8192), data)):
            stream.seek(at * MIB)
            stream.write(os.urandom(MIB) if numbers.random() < 1 / 3 else text)
    return path


def line(row: Row, allocated: int) -> str:
    """One row of the table, and the phases of it."""
    run = row.run
    text = (
        f"{row.provider:10} {row.what:38} {run.seconds:7.1f} s {run.sending:7.1f} s"
        f" {run.cpu:6.1f} s {row.sent / MIB:7.0f} MiB"
        f" {row.sent / allocated:10.3f} {run.rss / MIB:6.0f} MiB"
    )
    if run.phases:
        text += "\n" + " " * 12
        text += ", ".join(f"{name} {seconds:.1f}" for name, seconds in run.phases.items())
    return text


if __name__ == "__main__":
    main()
