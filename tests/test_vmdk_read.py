"""The disk in a VMDK, read at any place: the same bytes as the disk that it was written from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goldimg.errors import VerificationFailed
from goldimg.formats import Region, ova, ovf, vmdk
from goldimg.formats.source import CLUSTER, Disk
from goldimg.formats.vmdk_read import VmdkDisk
from tests.publishing import make_disk

MACHINE = ovf.Machine(
    name="read", flavour="virtualbox", hardware=ovf.Hardware(controller="ide", nic="virtio")
)
SIZE = 33 * (1 << 20)  # not a whole grain table


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_disk(tmp_path_factory.mktemp("disk") / "disk.raw", mib=33)


@pytest.fixture(scope="module")
def archive(raw: Path) -> Path:
    target = raw.with_name("disk.ova")
    with Disk(raw) as disk:
        ova.write(disk, target, machine=MACHINE)
    return target


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(offset=st.integers(0, SIZE + CLUSTER), length=st.integers(1, 9 * CLUSTER))
def test_any_range_is_that_of_the_disk(raw: Path, archive: Path, offset: int, length: int) -> None:
    with VmdkDisk(ova.disk_region(archive)) as found, Disk(raw) as disk:
        assert found.pread(offset, length) == disk.pread(offset, length)


def test_extents_are_those_of_the_disk(raw: Path, archive: Path) -> None:
    with VmdkDisk(ova.disk_region(archive)) as found, Disk(raw) as disk:
        assert found.size == disk.size
        assert list(found.extents()) == list(disk.extents())


def test_threads_read_side_by_side(raw: Path, archive: Path) -> None:
    with VmdkDisk(ova.disk_region(archive)) as found, ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda at: found.pread(at, 524288), range(0, SIZE, 524288)))
    assert b"".join(parts) == raw.read_bytes()


@pytest.mark.parametrize("at", [0, 512 * 128 + 600, -1024, -2048])
def test_a_damaged_file_is_told(raw: Path, tmp_path: Path, at: int) -> None:
    target = tmp_path / "disk.vmdk"
    with Disk(raw) as disk:
        vmdk.write(disk, target)
        extents = list(disk.extents())
    data = bytearray(target.read_bytes())
    data[at : at + 4 if at + 4 else None] = b"\xff\xff\xff\x7f"
    target.write_bytes(data)
    with pytest.raises(VerificationFailed, match="VMDK"), VmdkDisk(Region.whole(target)) as found:
        for offset, length in extents:
            found.pread(offset, length)


def test_a_file_that_ends_early_is_told(archive: Path, tmp_path: Path) -> None:
    region = ova.disk_region(archive)
    short = tmp_path / "short.vmdk"
    short.write_bytes(archive.read_bytes()[region.offset : region.offset + region.size // 2])
    with pytest.raises(VerificationFailed):
        VmdkDisk(Region.whole(short))
