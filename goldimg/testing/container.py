"""The files that an image ships, as a container: namespaces and another root, without an engine.

What an engine adds, its network, its storage, its isolation, is no part of the image.
unshare(1), chroot(1).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from goldimg.config.publish.docker import PATH
from goldimg.errors import GoldimgError
from goldimg.project import make_directory
from goldimg.run import Runner
from goldimg.testing.facts import parsed, script

UNPACKING = 900.0  # seconds
ASKING = 300.0
# Devices are the engine's; $0 is the new root.
WITH_DEVICES = 'mount --rbind /dev "$0/dev" && exec "$@"'


@dataclass(frozen=True, kw_only=True)
class Container:
    """An unpacked root file system."""

    root: Path
    runner: Runner

    @property
    def prefix(self) -> list[str]:
        """Words before a command that is to run beside the container, as its root."""
        own = ["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net"]
        inside = [f"--mount-proc={self.root}/proc", "sh", "-c", WITH_DEVICES, str(self.root)]
        return [*namespace(), *own, *inside]

    def facts(self) -> dict[str, str]:
        """What it says of itself; GoldimgError where it cannot even run a shell."""
        words = [*self.prefix, "chroot", str(self.root), "/bin/sh", "-s", "container"]
        done = self.runner.run(
            words, check=False, stdin=script().encode(), timeout=ASKING, env={"PATH": _path()}
        )
        found = parsed(done.stdout)
        if "release" not in found:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise GoldimgError("the container runs no shell", details=said[-4:])
        return found


def namespace() -> list[str]:
    """How root's rights over the container's files are had: by root they are there."""
    if os.geteuid() == 0:
        return ["unshare"]
    return ["unshare", "--user", "--map-root-user", "--map-auto"]  # newuidmap(1)


def _path() -> str:
    return os.pathsep.join([PATH, os.environ.get("PATH", os.defpath)])


@contextlib.contextmanager
def unpacked(archive: Path, scratch: Path, runner: Runner) -> Iterator[Container]:
    """The archive's files in a directory of `scratch`, gone when the block ends."""
    root = make_directory(scratch / "rootfs")
    reason = "try an image as a container"
    unpack = ["tar", "-C", str(root), "--numeric-owner", "-xpzf", str(archive)]
    try:
        runner.run([*namespace(), *unpack], reason=reason, timeout=UNPACKING)
        yield Container(root=root, runner=runner)
    finally:
        # what cancelled the test must not keep its files here
        Runner(redactor=runner.redact).run(
            [*namespace(), "rm", "-rf", root], check=False, timeout=UNPACKING
        )
