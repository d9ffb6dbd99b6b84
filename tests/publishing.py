"""A site with finished artifacts that are small, and the publishing of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldimg.artifacts import MANIFEST, SUMS, finish
from goldimg.config import load_settings
from goldimg.events import Bus, Event
from goldimg.formats import Written
from goldimg.formats.source import Disk
from goldimg.layout import lay_out
from goldimg.project import Site, find_site
from goldimg.providers import Conversion, all_providers
from goldimg.publish.image import Image, find_image
from goldimg.publish.job import Session
from goldimg.publish.publisher import Publisher
from goldimg.publish.records import records_in
from goldimg.publish.retry import Policy
from goldimg.publish.upload import Outcome, Task, upload
from goldimg.run import Runner

GOLDIMG = Path(sys.executable).parent / "goldimg"
OS = "Debian-12"
QUICK = Policy(attempts=4, budget=30.0, first=0.01, longest=0.05)
MIB = 1 << 20


@dataclass(kw_only=True)
class Shop:
    """A site directory with one finished image, and ways to publish it."""

    root: Path
    provider: str
    version: str

    @property
    def site(self) -> Site:
        return find_site(self.root)

    @property
    def directory(self) -> Path:
        return self.site.artifact_dir(self.version, OS, self.provider)

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / MANIFEST).read_text())
        return found

    @property
    def publications(self) -> list[dict[str, Any]]:
        return records_in(self.directory)

    @property
    def journals(self) -> list[Path]:
        return sorted(self.directory.glob(".publish-*.journal"))

    def image(self, *variables: str) -> Image:
        settings = load_settings(self.site, OS, variables=variables, environ={})
        return find_image(self.site, settings, self.provider, self.version)

    def exchange(self, other: Shop, extension: str) -> None:
        """Puts the other's artifact in place of this one's; of it the manifest tells the size."""
        path = self.image().file(extension).path
        before = path.stat().st_size
        path.write_bytes(other.image().file(extension).path.read_bytes())
        sizes = (f'"size": {before}', f'"size": {path.stat().st_size}')
        manifest = self.directory / MANIFEST
        manifest.write_text(manifest.read_text().replace(*sizes))

    def goldimg(
        self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line in the site, as a user does."""
        return subprocess.run(
            [GOLDIMG, *arguments],
            cwd=self.root,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )


class Told:
    """A sink that keeps what was said."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def text(self) -> str:
        """Everything that people saw, a line each."""
        return "\n".join(f"{it.kind}: {it.text}" for it in self.events if it.kind != "progress")


def session(provider: str, policy: Policy = QUICK) -> tuple[Session, Told]:
    """A session whose retries do not wait, and what is said in it."""
    bus, told = Bus(), Told()
    bus.subscribe(told)
    runner = Runner(cancel=threading.Event())
    return Session(provider=provider, runner=runner, events=bus, policy=policy), told


def publish(
    shop: Shop, publisher: Publisher[Any], *, force: bool = False, dry_run: bool = False
) -> Outcome:
    """One upload in this process, as the command line does it."""
    task = Task(image=shop.image(), publisher=publisher)
    return upload([task], force=force, dry_run=dry_run)[0]


def make_disk(path: Path, *, mib: int = 32, seed: int = 1, fill: float = 0.3) -> Path:
    """A raw disk with a boot sector, data in a third of its MiB, and holes."""
    numbers = random.Random(seed)  # noqa: S311 - content, not a secret
    with path.open("wb") as stream:
        stream.truncate(mib * MIB)
        for at in range(mib):
            if at == 0 or numbers.random() < fill:
                stream.seek(at * MIB)
                stream.write(numbers.randbytes(700_000))
        stream.seek(510)
        stream.write(b"\x55\xaa")
    return path


def make_rootfs(path: Path, *, seed: int = 1) -> Written:
    """A root file system's tar.gz with a static shell, as docker's artifact is."""
    numbers = random.Random(seed)  # noqa: S311 - content, not a secret
    busybox = Path("/bin/busybox").read_bytes() if Path("/bin/busybox").exists() else b""
    with tarfile.open(path, "w:gz") as archive:
        for name in ("bin", "etc", "usr", "tmp"):
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        contents = {
            "bin/sh": busybox,
            "etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
            "usr/data": numbers.randbytes(3 * MIB),
        }
        for name, data in contents.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    data = path.read_bytes()
    return Written(
        path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), virtual_size=None
    )


def make_shop(
    root: Path,
    provider: str,
    *,
    version: str = "1.0.0",
    mib: int = 32,
    seed: int = 1,
    firmware: str = "bios",
    site_yml: str = "",
) -> Shop:
    """A new site in `root` (or the one there), with a finished image of `provider`."""
    if not (root / "templates").is_dir():
        lay_out(root)
    if site_yml:
        (root / "templates/site.yml").write_text(site_yml)
    shop = Shop(root=root, provider=provider, version=version)
    finish_image(shop, mib=mib, seed=seed, firmware=firmware)
    return shop


def finish_image(shop: Shop, *, mib: int = 32, seed: int = 1, firmware: str = "bios") -> None:
    """Writes the provider's real formats around a small disk, with sums and manifest."""
    staging = shop.directory / ".staging"
    staging.mkdir(parents=True, exist_ok=True)
    written = _write(shop, staging, mib=mib, seed=seed, firmware=firmware)
    finish(
        shop.directory,
        staging,
        written,
        {
            "os": OS,
            "version": shop.version,
            "provider": shop.provider,
            "built": "2026-01-01T00:00:00+00:00",
            "base": "b" * 20,
            "layer": hashlib.sha256(f"{shop.provider}{seed}".encode()).hexdigest()[:20],
            "builder": {"name": "qemu", "reason": "native builder"},
            "firmware": firmware,
        },
    )
    assert (shop.directory / SUMS).exists()


def _write(shop: Shop, staging: Path, *, mib: int, seed: int, firmware: str) -> list[Written]:
    provider = all_providers()[shop.provider]
    name = provider.artifacts(OS, shop.version)[0]
    if name.endswith(".tar.gz") and shop.provider == "docker":
        return [make_rootfs(staging / name, seed=seed)]
    size = -(-mib // 1024) * 1024 if shop.provider == "gcp" else mib  # whole GiB
    raw = make_disk(staging / ".disk.raw", mib=min(mib, size), seed=seed)
    with raw.open("r+b") as stream:
        stream.truncate(size * MIB)
    try:
        return convert(shop, staging, raw, seed=f"{shop.provider}{seed}", firmware=firmware)
    finally:
        raw.unlink()


def convert(
    shop: Shop, staging: Path, raw: Path, *, seed: str, firmware: str = "bios"
) -> list[Written]:
    """The provider's own files around the disk in `raw`."""
    with Disk(raw) as disk:
        job = Conversion(
            os_name=OS,
            version=shop.version,
            disk=disk,
            target=staging,
            cpus=1,
            memory_mib=1024,
            seed=seed,
            guest=None,
            firmware="efi" if firmware == "efi" else "bios",
            runner=Runner(),
            progress=lambda _done, _total: None,
        )
        return all_providers()[shop.provider].convert(job)
