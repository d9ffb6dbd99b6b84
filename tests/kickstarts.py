"""Kickstarts in tests: their scripts taken out and run for real, in a directory for a machine."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

OWN_FILES = re.compile(r"> /tmp/goldimg-[a-z-]+\.ks")


def scripts_of(text: str, section: str) -> list[str]:
    """The bodies of the sections called `section`, such as `%pre`, in order."""
    pattern = rf"^{re.escape(section)}(?: [^\n]*)?\n(.*?)^%end$"
    return re.findall(pattern, text, re.MULTILINE | re.DOTALL)


class Machine:
    """A machine as its scripts see it: its files below `root`, and what is in /sys and /proc."""

    def __init__(self, root: Path, *, cmdline: str = "quiet", mounts: Iterable[str] = ()) -> None:
        self.root = root
        for name in ("sys/block", "sys/class/net", "proc", "tmp", "dev", "bin", "etc"):
            (root / name).mkdir(parents=True)
        (root / "proc/cmdline").write_text(f"{cmdline}\n")
        (root / "proc/mounts").write_text("".join(f"{it} / ext4 rw 0 0\n" for it in mounts))
        # What is reported lands in a file; nothing here may reach for the network.
        curl = root / "bin/curl"
        curl.write_text(
            f'#!/bin/sh\nfor url; do :; done\n{{ echo "URL $url"; cat; }} >> {root}/said\n'
        )
        curl.chmod(0o755)

    def disk(
        self, name: str, mib: int, *, rotational: int = 0, removable: int = 0, ro: int = 0
    ) -> None:
        """A disk as sysfs shows it; its size is in MiB."""
        directory = self.root / "sys/block" / name
        (directory / "queue").mkdir(parents=True)
        values = {"size": mib * 2048, "removable": removable, "ro": ro}
        for key, value in {**values, "queue/rotational": rotational}.items():
            (directory / key).write_text(f"{value}\n")

    def run(
        self, script: str, shell: Sequence[str] = ("dash",)
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script with its /tmp, /sys, /proc, /dev and /etc below this machine's root."""
        local = re.sub(
            r"(?<![\w.-])/(tmp|sys|proc|dev(?=/console)|etc)\b", rf"{self.root}/\1", script
        )
        path = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "LC_ALL": "C"}
        return subprocess.run(
            [*shell, "-c", local], env=path, capture_output=True, text=True, check=False, timeout=20
        )

    def expand(self, text: str) -> str:
        """The kickstart as the installer reads it once its %pre scripts have been run."""
        for script in scripts_of(text, "%pre"):
            done = self.run(script)
            assert done.returncode == 0, done.stderr
        kept = re.sub(
            r"^%pre(?: [^\n]*)?\n(.*?)^%end\n",
            lambda match: "" if OWN_FILES.search(match[1]) else match[0],
            text,
            flags=re.MULTILINE | re.DOTALL,
        )
        return re.sub(
            r"^%include (/tmp/goldimg-[a-z-]+\.ks)\n",
            lambda match: (self.root / match[1][1:]).read_text(),
            kept,
            flags=re.MULTILINE,
        )

    @property
    def said(self) -> str:
        """What was reported over HTTP: a line with the URL, then the body, for each report."""
        path = self.root / "said"
        return path.read_text() if path.exists() else ""


def words_of(text: str, command: str) -> list[list[str]]:
    """The words of each line of one command."""
    return [shlex.split(line) for line in text.splitlines() if line.split(" ")[0] == command]
