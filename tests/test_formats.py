"""Every format is read back by a tool that goldimg did not write."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import resource
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goldimg.errors import GoldimgError, Interrupted, VerificationFailed
from goldimg.formats import Region, Written, box, gcptar, ova, ovf, qcow2, rootfs, stream, vhd, vmdk
from goldimg.formats.source import CLUSTER, Disk, flattened
from goldimg.run import Runner
from tests.root_disks import ext4_disk, make_tree
from tests.support import needs

MIB, GIB = 1 << 20, 1 << 30
Writer = Callable[..., Written]
MACHINE = ovf.Machine(
    name="Debian-12-1.0.0_vmware",
    flavour="vmware",
    hardware=ovf.Hardware(cpus=2, memory=2048, controller="pvscsi", nic="vmxnet3", hot_add=True),
    properties=ovf.CLOUD_INIT,
)
VAGRANT = ovf.Machine(
    name="box", flavour="virtualbox", hardware=ovf.Hardware(controller="ide", nic="virtio")
)


def write_ova(disk: Disk, target: Path, *, runner: Runner | None = None) -> Written:
    return ova.write(disk, target, machine=MACHINE, seed="digest", runner=runner)


WRITERS: dict[str, Writer] = {
    "qcow2": qcow2.write,
    "vmdk": vmdk.write,
    "vhd": vhd.write,
    "tar.gz": gcptar.write,
    "ova": write_ova,
}
CHECKS: dict[str, Callable[[Path], object]] = {
    "qcow2": qcow2.check,
    "vmdk": vmdk.check,
    "vhd": vhd.check,
    "tar.gz": gcptar.check,
    "ova": ova.check,
}
FRONTS: dict[str, Callable[[Path], None]] = {
    "qcow2": qcow2.check_front,
    "tar.gz": gcptar.check_front,
}
HEEDING: dict[str, Callable[[Path, Callable[[], None]], object]] = {
    "qcow2": qcow2.check,
    "vmdk": vmdk.check,
    "tar.gz": gcptar.check,
    "ova": ova.check,
}
formats = pytest.mark.parametrize("kind", list(WRITERS))


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def make_disk(path: Path, size: int, pieces: list[tuple[int, bytes]]) -> Path:
    """A raw file with holes everywhere but at `pieces`."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data[: size - offset])
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """5 MiB and a sector: text, bytes that do not compress, holes, and data at the very end."""
    noise = random.Random(1).randbytes(3 * CLUSTER)  # noqa: S311 - the same each time
    pieces = [
        (0, b"\xeb\x63" + b"boot" * 100),
        (3 * CLUSTER + 17, noise),
        (40 * CLUSTER - 1, b"across a border"),
        (5 * MIB, b"the end".ljust(512, b".")),
    ]
    return make_disk(tmp_path / "disk.raw", 5 * MIB + 512, pieces)


def content(path: Path, size: int) -> bytes:
    return path.read_bytes().ljust(size, b"\0")


def unpacked(kind: str, written: Path, work: Path) -> Path:
    """The disk inside `written` as a raw file, made by another tool."""
    raw = work / "back.raw"
    if kind == "tar.gz":
        run("tar", "-C", work, "-xzf", written)
        return work / "disk.raw"
    if kind == "ova":
        run("tar", "-C", work, "-xf", written)
        written, kind = next(work.glob("*.vmdk")), "vmdk"
    driver = {"vhd": "vpc"}.get(kind, kind)
    run("qemu-img", "convert", "-f", driver, "-O", "raw", written, raw)
    return raw


@formats
def test_another_tool_reads_the_same_disk(kind: str, sample: Path, tmp_path: Path) -> None:
    needs("qemu-img", "tar", "sha256sum")
    target = tmp_path / f"image.{kind}"
    with Disk(sample) as disk:
        written = WRITERS[kind](disk, target)
    (tmp_path / "work").mkdir()
    back = unpacked(kind, target, tmp_path / "work")
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", sample, back)
    assert back.stat().st_size == written.virtual_size
    assert run("sha256sum", target).split()[0] == written.sha256
    assert target.stat().st_size == written.size
    CHECKS[kind](target)


disk_contents = st.tuples(
    st.one_of(st.integers(1, 9 * CLUSTER), st.sampled_from([512, CLUSTER, 3 * MIB, 3 * MIB + 1])),
    st.lists(
        st.tuples(
            st.integers(0, 3 * MIB),
            st.sampled_from([1, 511, CLUSTER - 1, CLUSTER, CLUSTER + 1, 3 * CLUSTER]),
            st.sampled_from(["text", "noise", "zero", "byte"]),
        ),
        max_size=6,
    ),
)


def piece(length: int, kind: str) -> bytes:
    if kind == "noise":
        return random.Random(length).randbytes(length)  # noqa: S311 - the same each time
    return {"text": b"golden image ", "zero": b"\0", "byte": b"x"}[kind] * length


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(layout=disk_contents)
def test_any_disk_survives_every_format(
    layout: tuple[int, list[tuple[int, int, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    needs("qemu-img")
    tmp_path = tmp_path_factory.mktemp("any")
    size, pieces = layout
    placed = [(at % size, piece(length, kind)[:length]) for at, length, kind in pieces]
    raw = make_disk(tmp_path / "disk.raw", size, placed)
    for kind in ("qcow2", "vmdk", "vhd", "ova"):
        with Disk(raw) as disk:
            WRITERS[kind](disk, tmp_path / f"image.{kind}")
        (tmp_path / kind).mkdir()
        back = unpacked(kind, tmp_path / f"image.{kind}", tmp_path / kind).read_bytes()
        assert back == content(raw, len(back))
        CHECKS[kind](tmp_path / f"image.{kind}")
    run("qemu-img", "check", tmp_path / "image.qcow2")
    with Disk(raw) as disk:
        gcptar.write(disk, tmp_path / "image.tar.gz")
    gcptar.check(tmp_path / "image.tar.gz")
    assert sparse_member_digest(tmp_path / "image.tar.gz") == sparse_digest(raw, GIB)


def sparse_member_digest(path: Path) -> str:
    """The digest of the data of `disk.raw` and where it is, as Python's tarfile sees it."""
    with tarfile.open(path) as archive:
        (member,) = archive.getmembers()
        assert member.size == GIB
        stored = gzip.decompress(path.read_bytes())[member.offset_data :]
        sha = hashlib.sha256()
        pairs: list[tuple[int, int]] = member.sparse  # type: ignore[assignment]
        for offset, length in pairs:
            data, stored = stored[:length], stored[length:]
            feed(sha, offset, data)
    return sha.hexdigest()


def sparse_digest(raw: Path, size: int) -> str:
    sha = hashlib.sha256()
    feed(sha, 0, raw.read_bytes())
    assert raw.stat().st_size <= size
    return sha.hexdigest()


def feed(sha: hashlib._Hash, offset: int, data: bytes) -> None:
    """Every byte that is not zero, with its place."""
    for at, value in enumerate(data):
        if value:
            sha.update(b"%d:%d," % (offset + at, value))


def test_an_empty_disk_is_small_in_every_format(tmp_path: Path) -> None:
    needs("qemu-img")
    raw = make_disk(tmp_path / "empty.raw", 64 * MIB, [])
    for kind, most in (("qcow2", 6 * CLUSTER), ("vmdk", 2 * CLUSTER), ("tar.gz", 1024)):
        target = tmp_path / f"image.{kind}"
        with Disk(raw) as disk:
            WRITERS[kind](disk, target)
        assert target.stat().st_size <= most
        CHECKS[kind](target)


@formats
def test_holes_of_the_file_do_not_matter(kind: str, sample: Path, tmp_path: Path) -> None:
    filled = tmp_path / "filled.raw"
    filled.write_bytes(sample.read_bytes())  # the same bytes, zeros written out
    sums = set()
    for number, raw in enumerate((sample, filled)):
        with Disk(raw) as disk:
            sums.add(WRITERS[kind](disk, tmp_path / str(number) / f"image.{kind}").sha256)
    assert len(sums) == 1


@formats
def test_the_number_of_threads_does_not_matter(
    kind: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = set()
    for count in (1, 7):
        monkeypatch.setattr(stream, "threads", lambda count=count: count)
        with Disk(sample) as disk:
            sums.add(WRITERS[kind](disk, tmp_path / str(count) / f"image.{kind}").sha256)
    assert len(sums) == 1


@given(parts=st.lists(st.tuples(st.booleans(), st.integers(1, 3 << 20)), max_size=6))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_digest_counts_holes_as_zeros(tmp_path: Path, parts: list[tuple[bool, int]]) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for is_hole, length in parts:
            if is_hole:
                file.seek(length, 1)
            else:
                file.write(b"x" * length)
        file.truncate(file.tell())
    expected = hashlib.sha256(path.read_bytes()).digest()
    assert stream.sha256_of(path) == expected
    assert stream.sha256_of(path, is_new=True) == expected


@formats
def test_an_interrupted_write_leaves_nothing(kind: str, sample: Path, tmp_path: Path) -> None:
    runner, target = Runner(), tmp_path / "out" / f"image.{kind}"
    calls = 0

    def progress(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        runner.cancel.set()

    with Disk(sample) as disk, pytest.raises(Interrupted):
        if kind == "ova":
            ova.write(disk, target, machine=MACHINE, runner=runner, progress=progress)
        else:
            WRITERS[kind](disk, target, runner=runner, progress=progress)
    assert calls == 1
    assert list(target.parent.iterdir()) == []


@formats
def test_a_file_that_cannot_grow_is_one_error_and_no_file(
    kind: str, sample: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / f"image.{kind}"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with Disk(sample) as disk, pytest.raises(GoldimgError, match="cannot write"):
            WRITERS[kind](disk, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(target.parent.iterdir()) == []


@formats
def test_progress_ends_at_all(kind: str, sample: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write = WRITERS[kind] if kind != "ova" else _ova_with_progress
    with Disk(sample) as disk:
        write(disk, tmp_path / f"image.{kind}", progress=lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def _ova_with_progress(
    disk: Disk, target: Path, *, progress: Callable[[int, int], None]
) -> Written:
    return ova.write(disk, target, machine=MACHINE, progress=progress)


def damaged(path: Path, offset: int) -> Iterator[None]:
    """Flips a bit of the byte at `offset`, and back."""
    with path.open("r+b") as file:
        for _ in range(2):
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes((byte ^ 1,)))
            file.flush()
            yield


@pytest.mark.parametrize(
    ("kind", "first", "count"),
    [
        ("qcow2", 0, 24),  # the header; the size itself may be any
        ("qcow2", 30, 74),
        ("vmdk", 0, 512),  # the header
        ("vmdk", -1024, 1024),  # footer and end of stream
        ("vhd", -512, 512),  # the footer
        ("ova", 0, 512),  # the first member's header
        ("tar.gz", 0, 3),  # magic and method
        ("tar.gz", -8, 8),  # checksum and size
    ],
)
def test_check_finds_every_damaged_byte_of_a_header(
    kind: str, first: int, count: int, sample: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"image.{kind}"
    with Disk(sample) as disk:
        size = WRITERS[kind](disk, target).size
    start = first if first >= 0 else size + first
    for offset in range(start, start + count):
        damage = damaged(target, offset)
        next(damage)
        with pytest.raises(VerificationFailed):
            CHECKS[kind](target)
        next(damage)
    CHECKS[kind](target)


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "ova", "tar.gz"])
def test_check_finds_damaged_data(kind: str, sample: Path, tmp_path: Path) -> None:
    target = tmp_path / f"image.{kind}"
    with Disk(sample) as disk:
        size = WRITERS[kind](disk, target).size
    # qcow2 keeps no checksum of what it could not compress, so ask only for what it deflated
    places = {"qcow2": [CLUSTER + 5, size - 2 * CLUSTER, size - 3 * CLUSTER]}
    for offset in places.get(kind, [size // 4, size // 2]):
        damage = damaged(target, offset)
        next(damage)
        with pytest.raises(VerificationFailed, match=r"offset \d+"):
            CHECKS[kind](target)
        next(damage)


@pytest.mark.parametrize("kind", list(FRONTS))
def test_a_front_is_checked_without_the_data(kind: str, sample: Path, tmp_path: Path) -> None:
    target = tmp_path / f"image.{kind}"
    with Disk(sample) as disk:
        size = WRITERS[kind](disk, target).size
    damage = damaged(target, {"qcow2": CLUSTER + 5}.get(kind, size // 2))
    next(damage)
    FRONTS[kind](target)
    next(damage)
    damage = damaged(target, 1)
    next(damage)
    with pytest.raises(VerificationFailed):
        FRONTS[kind](target)


@pytest.mark.parametrize("kind", list(HEEDING))
def test_a_check_can_be_stopped(kind: str, sample: Path, tmp_path: Path) -> None:
    target = tmp_path / f"image.{kind}"
    with Disk(sample) as disk:
        WRITERS[kind](disk, target)

    def stop() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        HEEDING[kind](target, stop)


@formats
def test_check_finds_a_cut_and_a_longer_file(kind: str, sample: Path, tmp_path: Path) -> None:
    target = tmp_path / f"image.{kind}"
    with Disk(sample) as disk:
        WRITERS[kind](disk, target)
    whole = target.read_bytes()
    for data in (whole[:-20000], whole + b"surplus!" * 64):
        target.write_bytes(data)
        with pytest.raises(VerificationFailed):
            CHECKS[kind](target)


def test_qcow2_has_no_errors_and_no_backing_file(sample: Path, tmp_path: Path) -> None:
    needs("qemu-img")
    target = tmp_path / "image.qcow2"
    with Disk(sample) as disk:
        qcow2.write(disk, target)
    report = json.loads(run("qemu-img", "check", "--output=json", target))
    assert [report.get(fault, 0) for fault in ("corruptions", "leaks", "check-errors")] == [0] * 3
    info = json.loads(run("qemu-img", "info", "--output=json", target))
    assert "backing-filename" not in info
    assert info["format-specific"]["data"]["compression-type"] == "zlib"
    assert info["virtual-size"] == 5 * MIB + 512


def test_qcow2_needs_more_than_one_l2_table_on_a_large_disk(tmp_path: Path) -> None:
    needs("qemu-img")
    raw = make_disk(tmp_path / "disk.raw", 5 * GIB, [(0, b"a"), (5 * GIB - 3, b"end")])
    for kind, driver in (("qcow2", "qcow2"), ("vmdk", "vmdk")):
        target = tmp_path / f"image.{kind}"
        with Disk(raw) as disk:
            WRITERS[kind](disk, target)
        run("qemu-img", "compare", "-f", "raw", "-F", driver, raw, target)
        CHECKS[kind](target)


def test_vmdk_ends_with_its_end_of_stream_marker(sample: Path, tmp_path: Path) -> None:
    needs("qemu-img")
    target = tmp_path / "image.vmdk"
    with Disk(sample) as disk:
        vmdk.write(disk, target, adapter="ide")
    info = json.loads(run("qemu-img", "info", "--output=json", target))
    assert info["format-specific"]["data"]["create-type"] == "streamOptimized"
    data = target.read_bytes()
    assert not any(data[-512:])
    assert data[-1024:-1020] == b"KDMV"  # the footer, with nothing but the marker after it
    assert b'ddb.adapterType = "ide"' in data[:12288]


@pytest.mark.parametrize(
    ("mib", "expected"),
    [  # computed with the pseudo-code of the specification's appendix
        (1, (30, 4, 17)),
        (100, (1003, 12, 17)),
        (504, (1024, 16, 63)),
        (8192, (16644, 16, 63)),
        (130558, (65535, 16, 255)),
    ],
)
def test_vhd_geometry(mib: int, expected: tuple[int, int, int]) -> None:
    if mib == 130558:
        mib = 65535 * 16 * 255 // 2048 + 1
    assert vhd.geometry(mib * 2048) == expected


def test_vhd_is_a_whole_number_of_mib_and_sparse(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "image.vhd"
    with Disk(sample) as disk:
        written = vhd.write(disk, target)
    assert written.virtual_size == 6 * MIB
    assert written.size == 6 * MIB + 512
    assert target.stat().st_blocks * 512 < MIB
    (tmp_path / "odd.vhd").write_bytes(target.read_bytes()[512:])
    with pytest.raises(VerificationFailed, match="whole number of MiB"):
        vhd.check(tmp_path / "odd.vhd")


def test_vhd_identity_comes_from_the_content(sample: Path, tmp_path: Path) -> None:
    other = make_disk(tmp_path / "other.raw", 5 * MIB + 512, [(9, b"other")])
    ids = set()
    for raw in (sample, other):
        with Disk(raw) as disk:
            vhd.write(disk, tmp_path / "image.vhd")
        ids.add((tmp_path / "image.vhd").read_bytes()[-444:-428])
    assert len(ids) == 2
    assert bytes(16) not in ids


def test_gcp_archive_is_what_gnu_tar_calls_sparse(sample: Path, tmp_path: Path) -> None:
    needs("tar")
    target = tmp_path / "image.tar.gz"
    with Disk(sample) as disk:
        gcptar.write(disk, target, epoch=86400)
    assert run("tar", "-tzf", target).split() == ["disk.raw"]
    assert "root/root 1073741824 1970-01-02" in run("tar", "--utc", "-tvzf", target)
    with tarfile.open(target) as archive:
        (member,) = archive.getmembers()
    assert member.type == tarfile.GNUTYPE_SPARSE


def test_ova_members_manifest_and_envelope(sample: Path, tmp_path: Path) -> None:
    needs("sha256sum")
    target = tmp_path / "image.ova"
    with Disk(sample) as disk:
        written = write_ova(disk, target)
    name = MACHINE.name
    with tarfile.open(target, "r:") as archive:
        assert archive.getnames() == [f"{name}.ovf", f"{name}.mf", f"{name}-disk1.vmdk"]
    (tmp_path / "x").mkdir()
    run("tar", "-C", tmp_path / "x", "-xf", target)
    lines = (tmp_path / "x" / f"{name}.mf").read_text().splitlines()
    for line, file in zip(lines, (f"{name}.ovf", f"{name}-disk1.vmdk"), strict=True):
        assert line == f"SHA256({file})= {run('sha256sum', tmp_path / 'x' / file).split()[0]}"
    region = ova.disk_region(target)
    disk_file = tmp_path / "x" / f"{name}-disk1.vmdk"
    assert region.size == disk_file.stat().st_size
    assert vmdk.check(region) == written.virtual_size
    text = (tmp_path / "x" / f"{name}.ovf").read_text()
    root = ElementTree.fromstring(text)  # noqa: S314 - our own
    space = {"o": ovf.NS, "r": ovf.RASD}
    file_element = root.find("o:References/o:File", space)
    assert file_element is not None
    assert file_element.attrib[f"{{{ovf.NS}}}size"] == str(region.size)
    kinds = [e.text for e in root.iterfind(".//o:Item/r:ResourceSubType", space)]
    assert kinds == ["VirtualSCSI", "VmxNet3"]
    keys = [e.attrib[f"{{{ovf.NS}}}key"] for e in root.iterfind(".//o:Property", space)]
    assert keys == ["instance-id", "hostname", "seedfrom", "public-keys", "user-data", "password"]
    assert 'ovf:transport="com.vmware.guestInfo"' in text


def test_names_are_escaped_in_the_envelope() -> None:
    machine = ovf.Machine(
        name='<a & "b">', flavour="vmware", hardware=ovf.Hardware(controller="lsilogic")
    )
    text = ovf.render(machine, ovf.DiskFile(name="d.vmdk", size=1, capacity=MIB))
    root = ElementTree.fromstring(text)  # noqa: S314 - our own
    system = root.find(f"{{{ovf.NS}}}VirtualSystem")
    assert system is not None
    assert system.attrib[f"{{{ovf.NS}}}id"] == '<a & "b">'


def test_hardware_that_a_reader_does_not_know_is_refused() -> None:
    machine = ovf.Machine(
        name="m", flavour="virtualbox", hardware=ovf.Hardware(controller="pvscsi")
    )
    with pytest.raises(GoldimgError, match="'pvscsi' does not exist on virtualbox"):
        ovf.render(machine, ovf.DiskFile(name="d.vmdk", size=1, capacity=MIB))


def test_virtualbox_box_around_the_disk_of_an_ova(sample: Path, tmp_path: Path) -> None:
    needs("qemu-img", "tar")
    with Disk(sample) as disk:
        appliance = ova.write(disk, tmp_path / "a.ova", machine=VAGRANT)
    target = tmp_path / "a.box"
    written = box.write_virtualbox(
        ova.disk_region(appliance.path), target, machine=VAGRANT, virtual_size=5 * MIB + 512
    )
    box.check(target)
    work = tmp_path / "work"
    work.mkdir()
    run("tar", "-C", work, "-xzf", target)
    assert sorted(path.name for path in work.iterdir()) == sorted(
        ["Vagrantfile", "box-disk001.vmdk", "box.ovf", "metadata.json"]
    )
    assert json.loads((work / "metadata.json").read_text()) == {"provider": "virtualbox"}
    assert 'config.vm.base_mac = "080027B00B00"' in (work / "Vagrantfile").read_text()
    run("qemu-img", "compare", "-F", "vmdk", "-f", "raw", sample, work / "box-disk001.vmdk")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == written.sha256


def test_libvirt_box_around_a_qcow2(sample: Path, tmp_path: Path) -> None:
    with Disk(sample) as disk:
        image = qcow2.write(disk, tmp_path / "a.qcow2")
    target = tmp_path / "a.box"
    box.write_libvirt(Region.whole(image.path), target, virtual_size=5 * GIB + 1)
    box.check(target)
    with tarfile.open(target) as archive:
        metadata = archive.extractfile("metadata.json")
        inside = archive.extractfile("box.img")
        assert metadata is not None
        assert inside is not None
        assert json.load(metadata) == {"provider": "libvirt", "format": "qcow2", "virtual_size": 6}
        assert inside.read() == image.path.read_bytes()


def test_a_box_without_its_disk_fails_the_check(tmp_path: Path) -> None:
    target = tmp_path / "a.box"
    (tmp_path / "metadata.json").write_text('{"provider": "libvirt"}')
    with tarfile.open(target, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tmp_path / "metadata.json", "metadata.json")
    with pytest.raises(VerificationFailed, match=r"box\.img"):
        box.check(target)


def test_flattened_reads_overlay_and_base_and_cleans_up(sample: Path, tmp_path: Path) -> None:
    needs("qemu-img")
    base, overlay = tmp_path / "base.qcow2", tmp_path / "layer.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", sample, base)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay)
    scratch = tmp_path / "scratch"
    with flattened(overlay, scratch, Runner()) as disk:
        assert disk.pread(0, disk.size) == content(sample, disk.size)
        assert disk.size == sample.stat().st_size
        assert list(scratch.iterdir()) == [disk.path]
    assert list(scratch.iterdir()) == []


def test_flattened_says_when_there_is_no_room(tmp_path: Path) -> None:
    needs("qemu-img")
    image = tmp_path / "full.qcow2"
    options = "preallocation=metadata,cluster_size=2M"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "15T")
    with (
        pytest.raises(GoldimgError, match="not enough disk space"),
        flattened(image, tmp_path / "scratch", Runner()),
    ):
        pass


@pytest.fixture
def root_disk(tmp_path: Path) -> Path:
    """A disk with one ext4 partition that holds everything a root file system can hold."""
    return ext4_disk(make_tree(tmp_path / "tree"), tmp_path / "root.raw")


def test_rootfs_is_complete_and_has_no_devices(root_disk: Path, tmp_path: Path) -> None:
    needs("tar", "getcap", "getfacl", "getfattr")
    target = tmp_path / "rootfs.tar.gz"
    with Disk(root_disk) as disk:
        written = rootfs.write(disk, target, runner=Runner())
        again = rootfs.write(disk, tmp_path / "again.tar.gz", runner=Runner())
    assert written.sha256 == again.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    rootfs.check(target)
    with tarfile.open(target) as archive:
        names = archive.getnames()
        owner = archive.getmember("./tmp")
        link = archive.getmember("./usr/bin/ping2")
    assert {"./dev", "./proc", "./etc/hostname", "./tmp/new\nline", "./tmp/-rf"} <= set(names)
    assert not {"./dev/null", "./tmp/disk", "./proc/left", "./lost+found"} & set(names)
    assert (owner.uid, owner.gid) == (1234, 4321)
    assert link.islnk()
    out = tmp_path / "out"
    out.mkdir()
    flags = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpzf"]
    run("tar", "-C", out, *flags, target)
    assert "cap_net_raw=ep" in run("getcap", out / "usr/bin/ping")
    assert "user:1234:r--" in run("getfacl", "--absolute-names", out / "etc/hostname")
    assert 'user.note="hi"' in run("getfattr", "--absolute-names", "-d", out / "etc/hostname")
    assert str(root_disk) not in Path("/proc/mounts").read_text()
    assert str(root_disk) not in run("losetup", "--list")


def test_an_interrupted_rootfs_leaves_no_file_and_no_mount(root_disk: Path, tmp_path: Path) -> None:
    runner, target = Runner(), tmp_path / "out" / "rootfs.tar.gz"
    with Disk(root_disk) as disk, pytest.raises(Interrupted):
        rootfs.write(disk, target, runner=runner, progress=lambda *_: runner.cancel.set())
    assert list(target.parent.iterdir()) == []
    assert str(root_disk) not in run("losetup", "--list")


def test_rootfs_check_refuses_device_nodes(tmp_path: Path) -> None:
    target = tmp_path / "rootfs.tar.gz"
    with tarfile.open(target, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        node = tarfile.TarInfo("./etc/node")
        node.type = tarfile.CHRTYPE
        archive.addfile(node)
    with pytest.raises(VerificationFailed, match="device node"):
        rootfs.check(target)
