"""The last step of a build: a provider's files, made of its disk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from goldimg.artifacts import STAGING
from goldimg.config.models import Settings
from goldimg.formats import Written
from goldimg.formats.ovf import GuestOs
from goldimg.formats.source import flattened
from goldimg.project import make_directory
from goldimg.providers import Conversion, Provider
from goldimg.shop import Shop


def convert_layer(
    shop: Shop, provider: Provider, disk: Path, key: str, directory: Path
) -> list[Written]:
    """Every artifact of the provider, written into the staging directory in `directory`."""
    staging = directory / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    make_directory(staging)

    def progress(done: int, total: int) -> None:
        shop.runner.check_cancelled()
        fraction = done / total if total else 1.0
        shop.events.emit(provider.name, "progress", "", phase="converting", fraction=fraction)

    for left in shop.layers.glob(f".{disk.stem}.*.raw"):
        left.unlink(missing_ok=True)  # of a build that was killed here
    with _removed_unless_whole(staging), flattened(disk, shop.layers, shop.runner) as raw:
        job = Conversion(
            os_name=shop.settings.name,
            version=shop.version,
            disk=raw,
            target=staging,
            cpus=shop.machine.cpus,
            memory_mib=shop.machine.memory_mib,
            seed=key,
            guest=guest_os(shop.settings),
            firmware=shop.settings.firmware,
            runner=shop.runner,
            progress=progress,
        )
        return provider.convert(job)


@contextlib.contextmanager
def _removed_unless_whole(staging: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def guest_os(settings: Settings) -> GuestOs:
    """How hypervisors name the OS, by the ids in its file."""
    ids = settings.os.guest_os
    unknown = GuestOs()
    vmware = ids.get("vmware", "")
    return GuestOs(
        vmware=vmware.replace("-", "_") + "Guest" if vmware else unknown.vmware,
        virtualbox=ids.get("virtualbox", unknown.virtualbox),
        name=f"{settings.os.os_name} {settings.os.os_version}",
    )
