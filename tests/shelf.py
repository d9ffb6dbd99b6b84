"""Finished images without a build: small disks, real formats, in a site directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from goldimg.artifacts import finish
from goldimg.config.models import SiteFile
from goldimg.formats import Progress, Written
from goldimg.formats.source import Disk
from goldimg.layout import lay_out
from goldimg.project import Site
from goldimg.providers import Conversion, JobFields, all_providers
from goldimg.run import Runner

GOLDIMG = Path(sys.executable).parent / "goldimg"
OS = "CentOS-7.2.1511"


class Asked(JobFields):
    """All fields of a Job."""

    runner: Runner
    progress: Progress


class Shelf:
    """A site in `root` with finished images; the virtual machine in them is a few bytes."""

    def __init__(self, root: Path) -> None:
        if not root.exists():
            lay_out(root)
        self.site = Site(root=root)
        self.artifacts = self.site.artifacts
        self.disk = root.parent / "disk.raw"
        if not self.disk.exists():
            with self.disk.open("wb") as stream:
                stream.truncate(3 << 20)
                stream.write(b"a machine of sorts " * 5000)

    def directory(self, provider: str, version: str = "1.0.0") -> Path:
        return self.site.artifact_dir(version, OS, provider)

    def job(self, target: Path, version: str, site: SiteFile | None = None) -> Asked:
        return {
            "os_name": OS,
            "version": version,
            "target": target,
            "cpus": 1,
            "memory_mib": 1024,
            "guest": None,
            "firmware": "bios",
            "site": site or SiteFile(),
            "runner": Runner(),
            "progress": lambda done, total: None,
        }

    def convert(self, provider: str, target: Path, site: SiteFile | None = None) -> list[Written]:
        """What the provider's `convert` makes of the disk."""
        target.mkdir(parents=True, exist_ok=True)
        with Disk(self.disk) as disk:
            job = Conversion(disk=disk, seed="seed", **self.job(target, "1.0.0", site))
            return all_providers()[provider].convert(job)

    def finish(self, provider: str = "virtualbox", version: str = "1.0.0") -> Path:
        """A finished image of `provider`, not listed anywhere yet."""
        directory = self.directory(provider, version)
        staging = directory / ".staging"
        staging.mkdir(parents=True)
        with Disk(self.disk) as disk:
            job = Conversion(disk=disk, seed=version, **self.job(staging, version))
            written = all_providers()[provider].convert(job)
        described = {"os": OS, "version": version, "provider": provider, "layer": "key"}
        finish(directory, staging, written, described)
        return directory

    def goldimg(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [GOLDIMG, *arguments],
            cwd=self.site.root,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
