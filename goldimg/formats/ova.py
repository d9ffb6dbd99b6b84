"""OVA: a ustar archive of envelope, manifest and disk, in that order.

Source: DMTF DSP0243 (OVF 1.1), sections 5.1 "Manifest" and 5.2 "Packaging".
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from goldimg.errors import GoldimgError, VerificationFailed
from goldimg.formats import Heed, Progress, Region, Written, ovf, ovf_check, round_up, tarball, vmdk
from goldimg.formats.clusters import pour
from goldimg.formats.ovf import DiskFile, Machine
from goldimg.formats.source import Disk
from goldimg.formats.stream import Ticker, draft, sha256_of
from goldimg.run import Runner

DIGITS = 10  # of the size of a file below 8 GiB
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
    ticker = Ticker(source.claimed, progress, runner)
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
        out.write(tarball.padding(size) + tarball.END)
        out.write(tarball.padding(out.position, tarball.RECORD))
        # last, since it also brings what waits to be written into the file, which is hashed next
        out.patch(0, _front(machine, text, digest, disk_name, size, epoch))
        return made.done(capacity, sha256_of(made.temporary, ticker.heed, is_new=True))


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
    return members(path)[2][1]


def capacity_of(path: Path) -> int:
    """Bytes of the disk in the OVA at `path`, as its envelope says."""
    return described(path, members(path)[0][1]).capacity


def described(path: Path, envelope: Region) -> DiskFile:
    """The disk that the envelope in `envelope` names; VerificationFailed where a rule is broken."""
    return ovf_check.parse(
        text_of(envelope).decode("utf-8", "replace"),
        lambda message: VerificationFailed(f"{path}: offset {envelope.offset}: OVF: {message}"),
    )


def members(path: Path) -> list[tuple[str, Region]]:
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


def check(path: Path, heed: Heed | None = None) -> None:
    """Validates archive, manifest, envelope and disk; VerificationFailed names offset and rule."""
    from goldimg.formats import ova_check

    ova_check.check(path, heed)


def text_of(region: Region) -> bytes:
    """An envelope or a manifest; of anything larger, its beginning."""
    with region.path.open("rb") as stream:
        stream.seek(region.offset)
        return stream.read(min(region.size, LARGEST_TEXT))
