"""The last step of a build: a provider's files, made of its disk; and boxes, made of its files."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from goldimg.artifacts import STAGING, add_files, read_finished
from goldimg.boxing import disk_in
from goldimg.config.models import Settings
from goldimg.epoch import source_date
from goldimg.errors import BuildFailed
from goldimg.formats import Progress, Written
from goldimg.formats.ovf import GuestOs
from goldimg.inventory.describe import describe
from goldimg.project import artifact_name, make_directory
from goldimg.providers import Boxing, JobFields, Provider
from goldimg.shop import Made, Shop
from goldimg.workers import Order


def convert_layer(
    shop: Shop, provider: Provider, layer: Made, base: str, key: str, directory: Path
) -> list[Written]:
    """Every artifact of the provider, and what describes them, written into the staging directory
    in `directory`. `base` names the install that the layer stands on."""
    staging, disk = _empty_staging(directory), layer.disk
    for left in shop.layers.glob(f".{disk.stem}.*.raw"):
        left.unlink(missing_ok=True)  # of a build that was killed here
    with _removed_unless_whole(staging):
        newest = source_date()
        order = Order(
            provider=provider.name,
            disk=disk,
            scratch=shop.layers,
            seed=key,
            newest=layer.since if newest is None else newest,
            fields=_described(shop, staging),
        )
        written = shop.workers.make(base, order, _progress(shop, provider))
        return written + _descriptions(shop, provider, layer, staging, written)


def _descriptions(
    shop: Shop, provider: Provider, layer: Made, staging: Path, written: Sequence[Written]
) -> list[Written]:
    """Inventory and bills of materials; none for a disk that came without an inventory."""
    if layer.inventory is None:
        shop.events.emit(provider.name, "warning", "no inventory was taken in the guest")
        return []
    named = provider.artifacts(shop.settings.name, shop.version)
    artifacts = [file for file in written if file.path.name in named]
    return describe(
        layer.inventory,
        staging,
        name=artifact_name(shop.settings.name, shop.version, provider.name),
        version=shop.version,
        artifacts=artifacts,
        archive=artifacts[0].path if provider.ships_files else None,
    )


def add_boxes(shop: Shop, provider: Provider, directory: Path) -> list[Written]:
    """Gives a finished image its debugging boxes, made of its artifacts; these are not touched."""
    finished = read_finished(directory)
    if finished is None:
        raise BuildFailed(f"{directory} is not finished")
    staging = _empty_staging(directory)
    name = artifact_name(shop.settings.name, shop.version, provider.name, provider.source)
    with _removed_unless_whole(staging):
        boxing = Boxing(
            directory=directory,
            open_disk=lambda: disk_in(directory / name, shop.layers, shop.runner),
            runner=shop.runner,
            progress=_progress(shop, provider),
            **_described(shop, staging),
        )
        written = provider.write_boxes(boxing)
        add_files(finished, staging, written)
    return written


def _empty_staging(directory: Path) -> Path:
    staging = directory / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    return make_directory(staging)


def _described(shop: Shop, staging: Path) -> JobFields:
    """What every job of this build says."""
    return {
        "os_name": shop.settings.name,
        "version": shop.version,
        "target": staging,
        "cpus": shop.machine.cpus,
        "memory_mib": shop.machine.memory_mib,
        "guest": guest_os(shop.settings),
        "firmware": shop.settings.firmware,
        "site": shop.settings.site,
    }


def _progress(shop: Shop, provider: Provider) -> Progress:
    def tell(done: int, total: int) -> None:
        shop.runner.check_cancelled()
        fraction = done / total if total else 1.0
        shop.events.emit(provider.name, "progress", "", phase="converting", fraction=fraction)

    return tell


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
