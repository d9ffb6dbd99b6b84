"""Every way to a root file system's archive gives the same members, and Docker runs them."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from goldimg.errors import GoldimgError, Interrupted
from goldimg.formats import gz, partitions, rootfs, stream, tarball, walk
from goldimg.formats.chain import opened
from goldimg.formats.source import Disk
from goldimg.run import Runner
from tests.clouds.docker import dockerd
from tests.guestfs import kernel
from tests.root_disks import MIB, ext4_disk, make_tree
from tests.support import needs
from tests.test_formats import run

PARTITION = partitions.Partition(offset=MIB, size=46 * MIB, kind="ext")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("root") / "tree")


@pytest.fixture(scope="module")
def raw(tree: Path) -> Path:
    return ext4_disk(tree, tree.parent / "root.raw")


@pytest.fixture
def layer(raw: Path, tmp_path: Path) -> Path:
    """The disk as a build leaves it: a qcow2 over a qcow2, in a directory with an odd name."""
    needs("qemu-img")
    directory = tmp_path / "a, b"
    directory.mkdir()
    base, layer = directory / "base.qcow2", directory / "layer.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", raw, base)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, layer)
    return layer


@pytest.mark.parametrize("has_fuse", [True, False])
def test_a_qcow2_is_read_where_it_is_or_flattened(
    has_fuse: bool, raw: Path, layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_fuse:
        needs("qemu-storage-daemon")
    else:
        monkeypatch.setattr(rootfs, "FUSE", tmp_path / "no such device")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with Disk(raw) as disk:
        plain = rootfs.write(disk, tmp_path / "a" / "rootfs.tar.gz", runner=Runner())
    scratch = tmp_path / "scratch"
    with opened(layer, scratch, Runner()) as disk:
        written = rootfs.write(disk, tmp_path / "b" / "rootfs.tar.gz", runner=Runner())
        assert not scratch.exists()
    assert written.sha256 == plain.sha256
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["rootfs.tar.gz"]
    rootfs.check(written.path)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert str(tmp_path) not in run("losetup", "--list")
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _names(path, layer)]


def _names(path: Path, layer: Path) -> bool:
    try:
        return str(layer.parent).replace(",", ",,").encode() in path.read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("step", [1, 511, 512, 513, 100_000])
def test_device_nodes_are_sieved_out(step: int) -> None:
    def archive(*, with_devices: bool) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, kind in (("a" * 120, b"4"), ("b" * 300, b"0"), ("c", b"3"), ("d", b"6")):
                member = tarfile.TarInfo(name)
                member.type, member.size = kind, 700 if kind == b"0" else 0
                member.pax_headers = {"SCHILY.xattr.user.a": "1" * 900}
                if with_devices or kind not in (b"3", b"4"):
                    tar.addfile(member, io.BytesIO(b"7" * 700))
        return buffer.getvalue()

    passed: list[bytes] = []
    sieve, data = tarball.DeviceSieve(passed.append), archive(with_devices=True)
    for start in range(0, len(data), step):
        sieve.take(data[start : start + step])
    found = b"".join(passed)
    assert found.rstrip(b"\0") == archive(with_devices=False).rstrip(b"\0")
    assert len(found) % 512 == 0


def test_a_file_beyond_its_file_system_is_refused(raw: Path, tmp_path: Path) -> None:
    """What the kernel tells is believed only inside the partition."""
    with Disk(raw) as disk, stream.draft(tmp_path / "a.gz") as made:
        with gz.GzipWriter(made.output) as packed:
            assembly = rootfs.Assembly(disk, PARTITION, packed, stream.Ticker(1, None, None))
            assembly.take(walk.ITEM.pack(PARTITION.size - 512, 512))
            with pytest.raises(GoldimgError, match="beyond the end of its file system"):
                assembly.take(walk.ITEM.pack(PARTITION.size - 512, 513))
        made.done(None)


@pytest.mark.parametrize("step", [1, 15, 16, 17, 100_000])
def test_what_walk_tells_may_come_in_any_pieces(step: int, raw: Path, tmp_path: Path) -> None:
    told = b"".join(
        (walk.ITEM.pack(walk.HERE, 3), b"abc", walk.ITEM.pack(walk.ZEROS, 5),
         walk.ITEM.pack(0, 2048), walk.ITEM.pack(walk.HERE, 1), b"d")
    )  # fmt: skip
    with Disk(raw) as disk, stream.draft(tmp_path / "a.gz") as made:
        with gz.GzipWriter(made.output) as packed:
            assembly = rootfs.Assembly(disk, PARTITION, packed, stream.Ticker(1, None, None))
            for start in range(0, len(told), step):
                assembly.take(told[start : start + step])
        made.done(None)
        expected = b"abc" + bytes(5) + disk.pread(PARTITION.offset, 2048) + b"d"
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == expected


def test_a_file_system_that_cannot_be_mounted_leaves_no_daemon(
    layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("qemu-storage-daemon", "qemu-io")
    argv = ("qemu-io", "-f", "qcow2", "-c", "write -P 255 1049600 16", "-c", "write -P 1 1049656 2")
    run(*argv, layer)
    monkeypatch.setattr(partitions, "plain_root", lambda _: PARTITION)
    monkeypatch.setattr(rootfs, "has_program", lambda name: name != "guestfish")
    with (
        opened(layer, tmp_path, Runner()) as disk,
        pytest.raises(GoldimgError, match="exit code 32"),
    ):
        rootfs.write(disk, tmp_path / "out" / "rootfs.tar.gz", runner=Runner())
    assert list((tmp_path / "out").iterdir()) == []
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _names(path, layer)]


def test_an_interrupted_export_leaves_no_daemon(layer: Path, tmp_path: Path) -> None:
    needs("qemu-storage-daemon")
    runner = Runner()
    with opened(layer, tmp_path, runner) as disk, pytest.raises(Interrupted):
        rootfs.write(
            disk,
            tmp_path / "out" / "rootfs.tar.gz",
            runner=runner,
            progress=lambda *_: runner.cancel.set(),
        )
    assert list((tmp_path / "out").iterdir()) == []
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _names(path, layer)]


def test_docker_runs_what_was_written(raw: Path, tmp_path: Path) -> None:
    with Disk(raw) as disk:
        written = rootfs.write(disk, tmp_path / "rootfs.tar.gz", runner=Runner())
    with dockerd() as engine:
        client = docker.DockerClient(base_url=engine.url)
        try:
            client.api.import_image_from_file(str(written.path), repository="golden", tag="1")
            said = client.containers.run(
                "golden:1",
                ["/bin/busybox", "sh", "-c",
                 "bb=/bin/busybox; $bb cat /etc/debian_version; $bb stat -c '%u %g' /tmp; "
                 "$bb stat -c %h /usr/bin/ping2; $bb sha256sum < /tmp/holes; "
                 "[ -p /tmp/pipe ] && [ ! -e /tmp/disk ] && [ -c /dev/null ] && $bb echo well"],
                network_mode="none", hostname="other", remove=True,
            )  # fmt: skip
        finally:
            client.close()
    holes = hashlib.sha256(bytes(3 * MIB) + b"after a hole").hexdigest()
    assert said.decode().split() == ["12.1", "1234", "4321", "2", holes, "-", "well"]


@pytest.fixture(scope="module")
def guestfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """libguestfs, able to start."""
    directory = tmp_path_factory.mktemp("guestfs")
    with kernel(directory / "kernel") as told, pytest.MonkeyPatch.context() as patch:
        for name, value in {**told, "LIBGUESTFS_CACHEDIR": str(directory)}.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def other_disks(tree: Path, guestfs: pytest.MonkeyPatch) -> dict[str, Path]:
    """The same tree on XFS, and on ext4 in a volume group, both written by libguestfs."""
    needs("tar")
    archive = tree.parent / "tree.tar"
    flags = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"]
    run("tar", "-C", tree, *flags, "-cf", archive, ".")
    disks = {kind: tree.parent / f"{kind}.raw" for kind in ("xfs", "lvm")}
    for path in disks.values():
        with path.open("wb") as file:
            file.truncate(400 * MIB)
    unpack = f"tar-in {archive} / xattrs:true acls:true\numount-all\n"
    script = (
        "part-disk /dev/sda mbr\nmkfs xfs /dev/sda1\nmount /dev/sda1 /\n" + unpack +
        "part-disk /dev/sdb mbr\npvcreate /dev/sdb1\nvgcreate vg /dev/sdb1\n"
        "lvcreate-free root vg 100\nmkfs ext4 /dev/vg/root\n"
        "mount-options acl,user_xattr /dev/vg/root /\n" + unpack
    )  # fmt: skip
    argv = ["guestfish", *(f"--add={disks[kind]}" for kind in ("xfs", "lvm"))]
    subprocess.run(argv, input=f"run\n{script}".encode(), check=True)
    return disks


def members(path: Path) -> dict[str, tuple[object, ...]]:
    """Everything that the archive says of each name; a name's content, wherever that is stored."""
    found: dict[str, tuple[object, ...]] = {}
    firsts: dict[str, str] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./").rstrip("/") or "."
            target = member.linkname.removeprefix("./") if member.islnk() else name
            firsts[name] = target
            kind = b"0" if member.isreg() else member.type
            if member.islnk():
                kind = found[target][0]  # type: ignore[assignment]
            stream = archive.extractfile(member) if kind == b"0" else None
            digest = hashlib.sha256(stream.read()).hexdigest() if stream else ""
            kept = {key: value for key, value in member.pax_headers.items()
                    if key.startswith("SCHILY.") and "selinux" not in key}  # fmt: skip
            link = member.linkname if member.issym() else ""
            if member.islnk():
                link = found[target][5]  # type: ignore[assignment]
                kept = dict(found[target][7])  # type: ignore[call-overload]
            found[name] = (kind, member.mode, member.uid, member.gid, int(member.mtime),
                           link, digest, tuple(sorted(kept.items())))  # fmt: skip
    groups: dict[str, list[str]] = {}
    for name, first in firsts.items():
        groups.setdefault(first, []).append(name)
    return {name: (*it, tuple(sorted(groups[firsts[name]]))) for name, it in found.items()}


def portable(member: tuple[object, ...]) -> list[object]:
    """Without what XFS shows a second time, under a name of its own: the ACLs."""
    return [
        tuple(pair for pair in part if "trusted.SGI_" not in str(pair))
        if isinstance(part, tuple)
        else part
        for part in member
    ]


@pytest.mark.real
@pytest.mark.parametrize("kind", ["ext", "xfs", "lvm"])
def test_libguestfs_gives_the_same_members(
    kind: str, raw: Path, other_disks: dict[str, Path], tmp_path: Path
) -> None:
    """The fast way is compared with the slow one, and the layout only that one reads with both."""
    path = raw if kind == "ext" else other_disks[kind]
    with Disk(raw) as disk:
        rootfs.write(disk, tmp_path / "expected.tar.gz", runner=Runner())
    with Disk(path) as disk:
        fast = partitions.plain_root(disk)
        assert (fast.kind if fast else "lvm") == kind
        rootfs._by_guestfish(disk, tmp_path / "slow.tar.gz", Runner(), None, None, has_kvm=False)
        rootfs.write(disk, tmp_path / "fast.tar.gz", runner=Runner())
    slow = members(tmp_path / "slow.tar.gz")
    assert {"SCHILY.xattr.security.capability"} == {key for key, _ in slow["usr/bin/ping"][7]}  # type: ignore[attr-defined]
    assert slow == members(tmp_path / "fast.tar.gz")
    for name, expected in members(tmp_path / "expected.tar.gz").items():
        # mke2fs makes two symbolic links of one with two names
        assert portable(slow[name]) == portable(expected) or name in (".", "tmp/far", "tmp/far too")
    rootfs.check(tmp_path / "slow.tar.gz")


def test_a_machine_that_was_cut_off_is_refused(raw: Path, tmp_path: Path) -> None:
    """Its journal says so; no other way to read it may hide that."""
    cut = tmp_path / "cut.raw"
    cut.write_bytes(raw.read_bytes())
    with cut.open("r+b") as stream:
        stream.seek(MIB + 1024 + 0x60)
        flags = int.from_bytes(stream.read(4), "little")
        stream.seek(-4, 1)
        stream.write((flags | 0x4).to_bytes(4, "little"))
    with Disk(cut) as disk, pytest.raises(GoldimgError, match="cut off") as caught:
        rootfs.write(disk, tmp_path / "out" / "rootfs.tar.gz", runner=Runner())
    assert "--from layer" in caught.value.hint
    assert not (tmp_path / "out").exists()
