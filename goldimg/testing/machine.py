"""A QEMU machine over a throw-away disk, with a provider's bus, card, firmware and strings."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.packer.console import QmpScreen
from goldimg.packer.spec import Ovmf
from goldimg.run import Runner
from goldimg.testing.background import Background
from goldimg.testing.bench import MAC, Bench, Bus

# How a provider shows the root disk. https://www.qemu.org/docs/master/system/qemu-manpage.html
BUSES: dict[Bus, tuple[str, ...]] = {
    "ide": ("-device", "ide-hd,drive=disk,bus=ide.0,bootindex=1"),
    "nvme": ("-device", "nvme,drive=disk,serial=goldimg,bootindex=1"),
    "pvscsi": ("-device", "pvscsi", "-device", "scsi-hd,drive=disk,bootindex=1"),
    "virtio": ("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
    "virtio-scsi": ("-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=disk,bootindex=1"),
}
MEMORY_MIB = 1024
POWER_OFF = 180.0  # seconds that a machine may take to shut down


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What the machine is made of; `socket` is where QMP is spoken, `port` where SSH answers."""

    bench: Bench
    disk: Path
    console: Path
    socket: Path
    port: int
    accelerator: str
    memory_mib: int = MEMORY_MIB
    seed: Path | None = None
    ovmf: Ovmf | None = None  # None: BIOS
    variables: Path | None = None  # of the firmware, this machine's own
    network: str = ""  # more members of the user network


def arguments(spec: Spec) -> list[str]:
    """QEMU's command line."""
    is_emulated = spec.accelerator != "kvm"
    bench = spec.bench
    words = ["qemu-system-x86_64", "-machine", "pc", "-nodefaults", "-vga", "std"]
    words += ["-display", "none", "-smp", "1", "-m", f"{spec.memory_mib}M"]
    words += ["-accel", "tcg,thread=multi" if is_emulated else "kvm"]
    words += ["-cpu", "max" if is_emulated else "host"]
    words += ["-serial", f"file:{_value(spec.console)}", "-device", "virtio-rng-pci"]
    words += ["-qmp", f"unix:{_value(spec.socket)},server=on,wait=off"]
    words += ["-drive", f"file={_value(spec.disk)},if=none,id=disk,cache=unsafe,discard=unmap"]
    words += BUSES[bench.bus]
    if spec.ovmf and spec.variables:
        flash = "if=pflash,format=raw"
        words += ["-drive", f"{flash},unit=0,readonly=on,file={_value(spec.ovmf.code)}"]
        words += ["-drive", f"{flash},unit=1,file={_value(spec.variables)}"]
    if spec.seed:
        words += ["-drive", f"file={_value(spec.seed)},if=none,id=cd,format=raw,readonly=on"]
        words += ["-device", "ide-cd,drive=cd,bus=ide.1"]
    if bench.smbios:
        words += ["-smbios", f"type=1,{bench.smbios}"]
    # No IPv6: cloud-init asks EC2's service by both, and waits 50 s for the one that is silent.
    forward = f"hostfwd=tcp:127.0.0.1:{spec.port}-:22"
    words += ["-netdev", ",".join(filter(None, [f"user,id=net,ipv6=off,{forward}", spec.network]))]
    return [*words, "-device", f"{bench.card},netdev=net,mac={MAC},romfile="]


def _value(path: Path) -> str:
    """A path as an option's value, where a comma would begin the next option."""
    return str(path).replace(",", ",,")


def free_port() -> int:
    """A port of the loopback address that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Machine:
    """A machine that runs; `screen` takes its picture."""

    def __init__(self, spec: Spec, process: Background) -> None:
        self.spec, self._process = spec, process
        self.screen = QmpScreen(socket=spec.socket)

    def check_alive(self) -> None:
        """Raises GoldimgError where QEMU has ended."""
        if not self._process.is_running:
            said = self._process.said().splitlines()
            raise GoldimgError("QEMU ended", details=said[-4:])

    def power_off(self, seconds: float = POWER_OFF) -> bool:
        """Presses the power button; whether the machine went off within `seconds`."""
        with contextlib.suppress(OSError):  # it may be going off already
            command(self.spec.socket, "system_powerdown")
        return self._process.wait(seconds)


def command(path: Path, name: str, patience: float = 10.0) -> None:
    """Gives QEMU a command over QMP; OSError where it does not take it within `patience` seconds.

    https://www.qemu.org/docs/master/interop/qmp-spec.html
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience)
        connection.connect(str(path))
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.readline()  # its greeting
            for execute in ("qmp_capabilities", name):
                stream.write(json.dumps({"execute": execute}) + "\n")
                stream.flush()
                while (answer := stream.readline()) and "return" not in json.loads(answer):
                    if "error" in json.loads(answer):
                        raise OSError(answer)


@contextlib.contextmanager
def running(spec: Spec, runner: Runner) -> Iterator[Machine]:
    """The machine, switched on; when the block ends it is gone."""
    if spec.ovmf and spec.variables:
        shutil.copyfile(spec.ovmf.variables, spec.variables)
    reason = "start a machine from an image"
    with Background(runner, arguments(spec), reason=reason) as process:
        yield Machine(spec, process)
