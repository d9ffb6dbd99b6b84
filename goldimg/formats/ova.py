"""OVA: a ustar archive of envelope, manifest and disk, in that order.

Source: DMTF DSP0243 (OVF 1.1), sections 5.1 "Manifest" and 5.2 "Packaging".
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from goldimg.errors import GoldimgError, VerificationFailed
from goldimg.formats import Progress, Region, Written, ovf, ovf_check, round_up, tarball, vmdk
from goldimg.formats.clusters import pour
from goldimg.formats.ovf import DiskFile, Machine
from goldimg.formats.source import Disk
from goldimg.formats.stream import Ticker, draft, pieces, sha256_of
from goldimg.run import Runner

DIGITS = 10  # of the size of a file below 8 GiB
MANIFEST = re.compile(
    r"SHA256\((?P<ovf>[^)\n]+)\)= (?P<ovf_sum>[0-9a-f]{64})\n"
    r"SHA256\((?P<disk>[^)\n]+)\)= (?P<disk_sum>[0-9a-f]{64})\n"
)
LARGEST_TEXT = 1 << 20  # bytes of an envelope or manifest that `check` reads


def write(
    source: Disk,
    target: Path,
    *,
    machine: Machine,
    seed: str = "",
    epoch: int = 0,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Written:
    """Writes `source` to `target` as an OVA: `<name>.ovf`, `<name>.mf` and `<name>-disk1.vmdk`.

    The disk goes straight to its place in the archive, so nothing is written beside the OVA. `seed`
    gives the disk's content id, `epoch` (seconds since 1970) the members' time. GoldimgError where
    the deflated disk is 8 GiB or more, which ustar cannot hold.
    """
    if machine.flavour == "virtualbox" and machine.hardware.firmware == "efi":
        raise GoldimgError("an OVA for VirtualBox cannot ask for EFI", hint="use BIOS firmware")
    disk_name = f"{machine.name}-disk1.vmdk"
    capacity = vmdk.capacity_of(source.size) * vmdk.SECTOR
    # The envelope tells the size of the disk's file, known last: it is given room to grow.
    room = len(_envelope(machine, disk_name, 0, capacity)) + DIGITS
    start = len(_front(machine, bytes(room), b"", disk_name, 0, epoch))
    ticker = Ticker(source.allocated, progress, runner)
    with draft(target, hashed=False) as made:
        out = made.output
        out.skip(start)
        out.begin_hash()
        hardware = machine.hardware
        sink = vmdk.VmdkSink(
            out,
            source.size,
            name=disk_name,
            adapter=hardware.adapter,
            hardware=hardware.version,
            seed=seed,
        )
        pour(source, [sink], ticker)
        sink.finish()
        digest, size = out.digest(), out.position - start
        text = _envelope(machine, disk_name, size, capacity).ljust(room)
        out.patch(0, _front(machine, text, digest, disk_name, size, epoch))
        out.write(tarball.padding(size) + tarball.END)
        out.write(tarball.padding(out.position, tarball.RECORD))
        return made.done(capacity, sha256_of(made.temporary, Ticker(0, None, runner)))


def _envelope(machine: Machine, disk_name: str, size: int, capacity: int) -> bytes:
    return ovf.render(machine, DiskFile(name=disk_name, size=size, capacity=capacity)).encode()


def _front(
    machine: Machine, text: bytes, digest: bytes, disk_name: str, size: int, epoch: int
) -> bytes:
    """Everything before the disk's bytes. Its length does not depend on `digest` and `size`."""
    sums = (hashlib.sha256(text).hexdigest(), digest.hex().rjust(64, "0"))
    names = (f"{machine.name}.ovf", disk_name)
    # No blank before the parenthesis: some importers refuse it.
    manifest = "".join(
        f"SHA256({name})= {value}\n" for name, value in zip(names, sums, strict=True)
    ).encode()
    parts = []
    for name, data in ((names[0], text), (f"{machine.name}.mf", manifest)):
        parts += [tarball.ustar_header(name, len(data), epoch=epoch), data]
        parts.append(tarball.padding(len(data)))
    return b"".join([*parts, tarball.ustar_header(disk_name, size, epoch=epoch)])


def disk_region(path: Path) -> Region:
    """Where the VMDK is inside the OVA at `path`; nothing but headers is read."""
    return _members(path)[2][1]


def _members(path: Path) -> list[tuple[str, Region]]:
    """Name and place of the three members; VerificationFailed where the archive is another."""
    found: list[tuple[str, Region]] = []
    size, position = path.stat().st_size, 0
    with path.open("rb") as stream:
        while any(block := stream.read(tarball.BLOCK)):
            try:
                entry = tarball.parse(block)
            except VerificationFailed as error:
                raise VerificationFailed(f"{path}: offset {position}: {error}") from error
            if entry.magic != tarball.USTAR_MAGIC or entry.type != b"0":
                raise VerificationFailed(f"{path}: offset {position}: not a plain ustar member")
            position += tarball.BLOCK
            found.append((entry.name, Region(path=path, offset=position, size=entry.size)))
            position += round_up(entry.size, tarball.BLOCK)
            stream.seek(position)
        rest = block + stream.read(tarball.RECORD)
    if any(rest) or len(rest) < len(tarball.END) or position + len(rest) != size:
        raise VerificationFailed(f"{path}: offset {position}: the archive does not end properly")
    if [Path(name).suffix for name, _ in found] != [".ovf", ".mf", ".vmdk"]:
        raise VerificationFailed(f"{path}: the members must be .ovf, .mf and .vmdk, in this order")
    return found


def check(path: Path) -> None:
    """Validates archive, manifest, envelope and disk; VerificationFailed names offset and rule."""
    (ovf_name, ovf_at), (_, manifest_at), (disk_name, disk_at) = _members(path)
    text, manifest = _text(ovf_at), _text(manifest_at)
    sums = MANIFEST.fullmatch(manifest.decode("utf-8", "replace"))
    if not sums or (sums["ovf"], sums["disk"]) != (ovf_name, disk_name):
        raise VerificationFailed(
            f"{path}: offset {manifest_at.offset}: the manifest must name {ovf_name}, {disk_name}"
        )
    for region, expected in ((ovf_at, sums["ovf_sum"]), (disk_at, sums["disk_sum"])):
        if _sha256(region) != expected:
            raise VerificationFailed(
                f"{path}: offset {region.offset}: the member's SHA256 is not the manifest's"
            )
    described = ovf_check.parse(
        text.decode("utf-8", "replace"),
        lambda message: VerificationFailed(f"{path}: offset {ovf_at.offset}: OVF: {message}"),
    )
    capacity = vmdk.check(disk_at)
    if described != DiskFile(name=disk_name, size=disk_at.size, capacity=capacity):
        raise VerificationFailed(
            f"{path}: offset {ovf_at.offset}: OVF: name, size or capacity is not the disk's"
        )


def _text(region: Region) -> bytes:
    with region.path.open("rb") as stream:
        stream.seek(region.offset)
        return stream.read(min(region.size, LARGEST_TEXT))


def _sha256(region: Region) -> str:
    sha = hashlib.sha256()
    file = os.open(region.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for data in pieces(file, region.offset, region.size):
            sha.update(data)
    finally:
        os.close(file)
    return sha.hexdigest()
