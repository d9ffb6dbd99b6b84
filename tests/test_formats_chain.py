"""Conversion reads a build's qcow2 where it is, and compresses what layers share once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goldimg.config.models import SiteFile
from goldimg.errors import GoldimgError, Interrupted, VerificationFailed
from goldimg.formats import deflate, direct, gcptar, qcow2, stream, vmdk
from goldimg.formats.chain import Chain, opened
from goldimg.formats.clusters import Cluster
from goldimg.formats.source import CLUSTER, Disk
from goldimg.formats.store import Store
from goldimg.providers import Conversion
from goldimg.providers.openstack import OpenStack
from goldimg.run import Runner
from tests.support import needs
from tests.test_formats import CHECKS, WRITERS, content, make_disk, run, sample

__all__ = ["sample"]  # a fixture
MIB, GIB = 1 << 20, 1 << 30
NOISE = random.Random(5).randbytes(4 * MIB)  # noqa: S311 - the same each time
NOISE_CLUSTERS = 16  # of the base below
formats = pytest.mark.parametrize("kind", list(WRITERS))


def create(path: Path, size: int | str, *options: str | Path) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, path, str(size))
    return path


def overlay(base: Path, path: Path, size: int, *options: str) -> Path:
    return create(path, size, "-F", "qcow2", "-b", base, *options)


def write(image: Path, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "qcow2", *words, image)


def raw_of(image: Path, work: Path) -> Path:
    """The disk as qemu-img reads it."""
    raw = work / f"{image.stem}.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
    return raw


def first_cluster(image: Path) -> int:
    """Where the compressed first cluster is in the file: by way of the L1 and an L2 table."""
    data = image.read_bytes()
    (l1,) = struct.unpack_from(">Q", data, 40)
    (l2,) = struct.unpack_from(">Q", data, l1)
    (entry,) = struct.unpack_from(">Q", data, l2 & ((1 << 56) - 1))
    return int(entry) & ((1 << 54) - 1)


changes = st.lists(
    st.tuples(
        st.sampled_from(["write -P 7", "write -P 200", "write -z", "write -z -u", "discard"]),
        st.integers(0, 60),  # in units of 16 KiB
        st.integers(1, 24),
    ),
    max_size=6,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    layers=st.lists(changes, min_size=1, max_size=3),
    kind=st.sampled_from([(), ("-o", "compat=0.10"), ("-o", "compression_type=zstd")]),
    shrinks=st.booleans(),
    is_packed=st.booleans(),
)
def test_any_chain_is_read_as_qemu_reads_it(
    layers: list[list[tuple[str, int, int]]],
    kind: tuple[str, ...],
    shrinks: bool,
    is_packed: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    needs("qemu-img", "qemu-io")
    work = tmp_path_factory.mktemp("chain")
    path = None
    for number, commands in enumerate(layers):
        below, path = path, work / f"{number}.qcow2"
        # the first is half as long as the next: what follows its end is zero
        size = MIB // 2 if shrinks and number == 0 and len(layers) > 1 else MIB
        made = overlay(below, path, size, *kind) if below else create(path, size, *kind)
        for what, at, length in commands:
            if (at + length) << 14 <= size:
                write(made, f"{what} {at << 14} {length << 14}")
        if is_packed and number == 0:
            unpacked, options = made.rename(work / "unpacked.qcow2"), kind or ("-o", "compat=1.1")
            run("qemu-img", "convert", "-c", "-O", "qcow2", *options, unpacked, made)
    assert path is not None
    expected = raw_of(path, work).read_bytes()
    with Chain(path) as disk:
        assert disk.size == len(expected)
        assert disk.pread(0, disk.size + 100) == expected + bytes(100)
        for offset, length in ((1, 5), (CLUSTER - 1, 2), (100_000, 300_000), (MIB - 1, 9)):
            assert disk.pread(offset, length) == expected[offset : offset + length].ljust(
                length, b"\0"
            )
        with Disk(work / f"{path.stem}.raw") as plain:
            assert list(disk.extents()) == list(plain.extents())


@formats
def test_a_chain_gives_the_same_file_as_a_raw_disk(kind: str, sample: Path, tmp_path: Path) -> None:
    needs("qemu-img", "qemu-io")
    base = tmp_path / "base.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", sample, base)
    layer = overlay(base, tmp_path / "layer.qcow2", 5 * MIB + 512)
    write(layer, "write -P 9 1M 200k", "write -z 2M 64k")
    scratch = tmp_path / "scratch"
    with opened(layer, scratch, Runner(), Store()) as disk:
        written = WRITERS[kind](disk, tmp_path / "a" / f"image.{kind}")
        assert not scratch.exists()  # no copy
    with Disk(raw_of(layer, tmp_path)) as disk:
        assert WRITERS[kind](disk, tmp_path / "b" / f"image.{kind}").sha256 == written.sha256


@pytest.mark.parametrize(
    "options", [("-o", "cluster_size=4k"), ("-o", "extended_l2=on"), ("-F", "raw", "-b")]
)
def test_an_unusual_image_is_read_by_qemu_img(
    options: tuple[str, ...], sample: Path, tmp_path: Path
) -> None:
    needs("qemu-img", "qemu-io")
    words: list[str | Path] = [*options, *([sample] if options[-1] == "-b" else [])]
    image = create(tmp_path / "odd.qcow2", 5 * MIB + 512, *words)
    write(image, "write -P 5 100k 300k")
    scratch = tmp_path / "scratch"
    with opened(image, scratch, Runner()) as disk:
        assert disk.image_format == "raw"
        assert disk.pread(0, disk.size) == raw_of(image, tmp_path).read_bytes()
    assert list(scratch.iterdir()) == []


def test_a_damaged_image_is_an_error(sample: Path, tmp_path: Path) -> None:
    needs("qemu-img")
    image = tmp_path / "packed.qcow2"
    run("qemu-img", "convert", "-c", "-O", "qcow2", sample, image)
    with Chain(image) as disk:
        place = first_cluster(image)
        with image.open("r+b") as file:
            file.seek(place)
            file.write(b"\xff" * 64)
        with pytest.raises(GoldimgError, match=f"offset {place}"):
            qcow2.write(disk, tmp_path / "out" / "image.qcow2")
    assert not (tmp_path / "out" / "image.qcow2").exists()
    with pytest.raises(GoldimgError), opened(Path(__file__), tmp_path / "s", Runner()):
        pass


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Two layers over one base of 4 MiB, each with its own 128 KiB."""
    needs("qemu-img", "qemu-io")
    raw = make_disk(
        tmp_path / "base.raw", 16 * MIB, [(MIB, NOISE[:MIB]), (8 * MIB, b"x" * 3 * MIB)]
    )
    base = tmp_path / "base.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", raw, base)
    found = []
    for number in (1, 2):
        layer = overlay(base, tmp_path / f"layer{number}.qcow2", 16 * MIB)
        write(layer, f"write -P {number} 9M 128k")
        found.append(layer)
    return found


def test_what_layers_share_is_compressed_once(
    layers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def counted(data: bytes) -> int:
        counts.append(len(data))
        return deflate_adler(data)

    deflate_adler = deflate.adler32
    store, sums = Store(), []
    monkeypatch.setattr(deflate, "adler32", counted)
    for number, layer in enumerate(layers):
        counts.clear()
        with opened(layer, tmp_path / "scratch", Runner(), store) as disk:
            sums.append(qcow2.write(disk, tmp_path / f"{number}.qcow2").sha256)
        assert len(counts) == (64 if number == 0 else 2 + NOISE_CLUSTERS)
    # VMDK grains hold the same streams, and those that do not shrink, too
    for number, made in enumerate((2 + NOISE_CLUSTERS, 2)):
        counts.clear()
        with opened(layers[number], tmp_path / "scratch", Runner(), store) as disk:
            vmdk.write(disk, tmp_path / f"{number}.vmdk")
        assert len(counts) == made
        vmdk.check(tmp_path / f"{number}.vmdk")
    # and GCP's archive joins them
    counts.clear()
    with opened(layers[1], tmp_path / "scratch", Runner(), store) as disk:
        archive = gcptar.write(disk, tmp_path / "shared.tar.gz").sha256
    assert len(counts) == 2
    gcptar.check(tmp_path / "shared.tar.gz")
    store.close()
    for layer, digest in zip(layers, sums, strict=True):
        with opened(layer, tmp_path / "scratch", Runner()) as disk:
            assert qcow2.write(disk, tmp_path / "alone.qcow2").sha256 == digest
    with opened(layers[1], tmp_path / "scratch", Runner()) as disk:
        assert gcptar.write(disk, tmp_path / "alone.tar.gz").sha256 == archive


def test_layers_converted_at_once_share_and_stay_the_same(
    layers: list[Path], tmp_path: Path
) -> None:
    store, sums = Store(), {}

    def convert(number: int) -> None:
        with opened(layers[number % 2], tmp_path / "scratch", Runner(), store) as disk:
            sums[number] = qcow2.write(disk, tmp_path / f"{number}.qcow2").sha256

    threads = [threading.Thread(target=convert, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sums) == 6
    assert len(set(sums.values())) == 2
    assert sums[0] == sums[2] == sums[4]


def test_an_artifact_that_was_cut_off_since_is_not_relied_upon(
    layers: list[Path], tmp_path: Path
) -> None:
    store, sums = Store(), set()
    for number in (0, 1):
        with opened(layers[0], tmp_path / "scratch", Runner(), store) as disk:
            sums.add(qcow2.write(disk, tmp_path / f"{number}.qcow2").sha256)
        os.truncate(tmp_path / f"{number}.qcow2", 100_000)
    assert len(sums) == 1
    store.close()


@given(data=st.binary(max_size=70_000), cut=st.integers(min_value=0, max_value=70_000))
def test_pieces_join_to_one_stream(data: bytes, cut: int) -> None:
    one, two = data[:cut], data[cut:]
    joined = deflate.cluster(one) + deflate.piece(two) + deflate.LAST
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(joined) == data
    assert inflater.eof
    assert not inflater.unused_data
    crc = zlib.crc32(data)
    assert deflate.crc32_joined(zlib.crc32(one), zlib.crc32(two), len(two)) == crc
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deflate, "_engine", zlib)  # which cannot join checksums
        assert deflate.crc32_joined(zlib.crc32(one), zlib.crc32(two), len(two)) == crc


def test_a_file_reads_the_same_through_the_page_cache_and_past_it(tmp_path: Path) -> None:
    content = random.Random(3).randbytes(5 * MIB + 777)  # noqa: S311 - the same each time
    (tmp_path / "file").write_bytes(content)
    reader = direct.Reader(tmp_path / "file")
    numbers = random.Random(4)  # noqa: S311
    into = memoryview(direct.buffer())
    for number in range(200):
        whole = number % 2 * 3
        offset = numbers.randrange(0, 6 * MIB) >> 4 * whole << 4 * whole
        memory = into if number % 3 else memoryview(bytearray(MIB))  # not at a page's start
        part = memory[: numbers.randrange(1, MIB)] if number % 5 else memory
        assert part[: reader.read(part, offset)] == content[offset : offset + len(part)]
    windows = direct.Windows(reader.read, 2)
    for _ in range(200):
        offset, length = numbers.randrange(0, 6 * MIB), numbers.randrange(1, 100_000)
        part = memoryview(bytearray(length))
        assert part[: windows.copy(part, offset)] == content[offset : offset + length]
    reader.close()


def test_a_window_shows_what_came_later() -> None:
    there = bytearray(b"a" * 1000)

    def read(into: memoryview, offset: int) -> int:
        part = there[offset : offset + len(into)]
        into[: len(part)] = part
        return len(part)

    windows, part = direct.Windows(read, 1), memoryview(bytearray(600))
    assert windows.copy(part, 600) == 400
    there += b"b" * 1000
    assert windows.copy(part, 600) == 600
    assert bytes(part) == b"a" * 400 + b"b" * 200


def test_a_store_takes_no_memory_for_what_does_not_shrink(tmp_path: Path) -> None:
    needs("qemu-img")
    raw = make_disk(tmp_path / "disk.raw", 96 * MIB, [(at * 4 * MIB, NOISE) for at in range(24)])
    base, layer = tmp_path / "base.qcow2", tmp_path / "layer.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", raw, base)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, layer)
    store = Store()
    tracemalloc.start()
    with opened(layer, tmp_path / "scratch", Runner(), store) as disk:
        qcow2.write(disk, tmp_path / "image.qcow2")
        vmdk.write(disk, tmp_path / "image.vmdk")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    store.close()
    assert kept < 16 * MIB


def test_qcow2_with_zstd(sample: Path, tmp_path: Path) -> None:
    needs("qemu-img")
    target = tmp_path / "image.qcow2"
    with Disk(sample) as disk:
        written = qcow2.write(disk, target, compression="zstd")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == written.sha256
    qcow2.check(target)
    run("qemu-img", "check", target)
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", sample, target)
    info = json.loads(run("qemu-img", "info", "--output=json", target))
    assert info["format-specific"]["data"]["compression-type"] == "zstd"
    with Chain(target) as disk:
        assert disk.pread(0, disk.size) == content(sample, disk.size)
    whole = target.read_bytes()
    for at in (72, 79, 100, 103, 104, 105, 111, CLUSTER + 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0x08 if at != CLUSTER + 3 else 0xFF
        target.write_bytes(damaged)
        with pytest.raises(VerificationFailed):
            qcow2.check(target)


def test_the_site_file_chooses_the_compression(sample: Path, tmp_path: Path) -> None:
    needs("qemu-img")
    for name in ("zlib", "zstd"):
        with Disk(sample) as disk:
            job = Conversion(
                os_name="Debian-12",
                version="1.0.0",
                target=tmp_path / name,
                cpus=1,
                memory_mib=1024,
                guest=None,
                site=SiteFile.model_validate({"qcow2_compression": name}),
                runner=Runner(),
                progress=lambda done, total: None,
                disk=disk,
                seed="",
            )
            (written,) = OpenStack().convert(job)
        info = json.loads(run("qemu-img", "info", "--output=json", written.path))
        assert info["format-specific"]["data"]["compression-type"] == name
        OpenStack().check(written.path)


@formats
def test_without_isal_the_same_decisions_are_taken(
    kind: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("qemu-img")
    monkeypatch.setattr(deflate, "_engine", zlib)
    with Disk(sample) as disk:
        WRITERS[kind](disk, tmp_path / f"image.{kind}")
    monkeypatch.undo()
    CHECKS[kind](tmp_path / f"image.{kind}")
    if kind == "qcow2":
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", sample, tmp_path / "image.qcow2")
        stored = [_is_stored(tmp_path / "image.qcow2")]
        with Disk(sample) as disk:
            qcow2.write(disk, tmp_path / "isal.qcow2")
        assert stored == [_is_stored(tmp_path / "isal.qcow2")]


def _is_stored(image: Path) -> list[int]:
    """Offsets of the clusters that are not compressed."""
    parts = json.loads(run("qemu-img", "map", "--output=json", image))
    return [part["start"] for part in parts if part["data"] and "offset" in part]


@pytest.mark.parametrize("kind", ["vhd", "tar.gz"])
def test_a_disk_over_4_gib(kind: str, tmp_path: Path) -> None:
    needs("qemu-img", "tar")
    raw = make_disk(
        tmp_path / "disk.raw", 4 * GIB + 3 * MIB, [(7, b"a"), (4 * GIB + 9, b"b" * MIB)]
    )
    target = tmp_path / f"image.{kind}"
    with Disk(raw) as disk:
        written = WRITERS[kind](disk, target)
    CHECKS[kind](target)
    assert target.stat().st_blocks * 512 < 8 * MIB
    if kind == "vhd":
        assert written.size == 4 * GIB + 3 * MIB + 512
        run("qemu-img", "compare", "-f", "raw", "-F", "vpc", raw, target)
    else:
        run("tar", "-C", tmp_path, "--no-same-owner", "-xzf", target)
        assert written.virtual_size == (tmp_path / "disk.raw").stat().st_size == 5 * GIB
        with (tmp_path / "disk.raw").open("rb") as file:
            file.seek(4 * GIB + 8)
            assert file.read(MIB + 2) == b"\0" + b"b" * MIB + b"\0"


@pytest.mark.parametrize("kind", ["qcow2", "vmdk"])
def test_data_beyond_4_gib_of_the_file(kind: str, sample: Path, tmp_path: Path) -> None:
    """As after 4 GiB of other clusters, which a hole stands for."""
    needs("qemu-img")
    target = tmp_path / f"image.{kind}"
    with Disk(sample) as disk, stream.draft(target, hashed=False) as made:
        sink: qcow2.Qcow2Sink | vmdk.VmdkSink
        if kind == "qcow2":
            sink = qcow2.Qcow2Sink(made.output, disk.size)
        else:
            sink = vmdk.VmdkSink(made.output, disk.size, name="d")
        for number, offset in enumerate(at for at, length in disk.extents()
                                        for at in range(at, at + length, CLUSTER)):  # fmt: skip
            raw = disk.pread(offset, CLUSTER)
            packed = deflate.cluster(raw), deflate.adler32(raw), deflate.crc32(raw)
            sink.feed(Cluster(disk, offset, *packed))
            if number == 1:
                made.output.skip(4 * GIB + MIB)
        sink.finish()
    assert target.stat().st_size > 4 * GIB
    run("qemu-img", "compare", "-f", "raw", "-F", kind, sample, target)
    if kind == "qcow2":
        run("qemu-img", "check", target)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 1 MiB."""
    needs("mount")
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    point = tmp_path / "small"
    point.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point)
    try:
        yield point
    finally:
        run("umount", point)


@formats
def test_a_full_disk_is_one_error_and_leaves_nothing(
    kind: str, small_disk: Path, tmp_path: Path
) -> None:
    raw = make_disk(tmp_path / "disk.raw", 8 * MIB, [(0, NOISE)])
    target = small_disk / f"image.{kind}"
    with Disk(raw) as disk, pytest.raises(GoldimgError, match=r"cannot write .*no space") as failed:
        WRITERS[kind](disk, target)
    assert "free some space" in str(failed.value.hint)
    assert list(small_disk.iterdir()) == []


@formats
def test_ctrl_c_is_prompt(kind: str, tmp_path: Path) -> None:
    pieces = [(at * 8 * MIB, NOISE) for at in range(40)]
    raw = make_disk(tmp_path / "disk.raw", 300 * GIB, pieces)
    runner, started = Runner(), threading.Event()
    stopped = 0.0

    def stop() -> None:
        nonlocal stopped
        started.wait(60)
        time.sleep(0.05)
        stopped = time.monotonic()
        runner.cancel.set()

    thread = threading.Thread(target=stop)
    thread.start()
    started.set()
    with Disk(raw) as disk, pytest.raises(Interrupted):
        WRITERS[kind](disk, tmp_path / "out" / f"image.{kind}", runner=runner)
    assert time.monotonic() - stopped < 5  # 0.1 s on a quiet machine
    thread.join()
    assert list((tmp_path / "out").iterdir()) == []
