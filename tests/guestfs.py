"""A kernel for libguestfs on hosts that have none, such as containers."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support import needs

META = "linux-image-cloud-amd64"
MODULES = Path("/lib/modules")  # supermin lists it, even when it is told of another


@contextlib.contextmanager
def kernel(directory: Path) -> Iterator[dict[str, str]]:
    """What the environment of libguestfs has to say; with a kernel installed, next to nothing."""
    needs("guestfish", "depmod")
    told = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    if list(Path("/boot").glob("vmlinuz-*")) or "SUPERMIN_KERNEL" in os.environ:
        yield told
        return
    needs("apt-get")
    image = _unpacked(directory)
    version = image.name.removeprefix("vmlinuz-")
    modules = next(directory.glob("**/lib/modules")) / version
    told |= {
        "SUPERMIN_KERNEL": str(image),
        "SUPERMIN_KERNEL_VERSION": version,
        "SUPERMIN_MODULES": str(modules),
    }
    is_new = not MODULES.exists()
    MODULES.mkdir(exist_ok=True)
    try:
        yield told
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                MODULES.rmdir()


def _unpacked(directory: Path) -> Path:
    """The kernel out of Debian's package, which is not installed."""
    directory.mkdir(parents=True, exist_ok=True)
    shown = subprocess.run(
        ["apt-cache", "depends", "--important", META], check=True, capture_output=True, text=True
    ).stdout
    name = next(line.split()[-1] for line in shown.splitlines() if "linux-image-" in line and
                "Depends:" in line)  # fmt: skip
    for argv in (["apt-get", "download", "-q", name], ["sh", "-c", "dpkg -x *.deb ."]):
        subprocess.run(argv, cwd=directory, check=True, capture_output=True)
    image = next((directory / "boot").glob("vmlinuz-*"))
    version = image.name.removeprefix("vmlinuz-")
    subprocess.run(["depmod", "-b", directory, version], check=True)
    return image
