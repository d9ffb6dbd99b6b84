"""Boots a finished image in QEMU over a throw-away layer, and talks to it over SSH."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BOOT_SECONDS = 600  # a host that others use, too, takes long


@dataclass(frozen=True, kw_only=True)
class Vm:
    """A running guest whose SSH answers on `port` of the loopback address."""

    port: int
    key: Path
    console: Path

    def ssh(
        self,
        command: str,
        *,
        options: tuple[str, ...] = (),
        user: str = "root",
        key: Path | None = None,
        stdin: str | None = None,
        seconds: int = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the guest, as root where no other user is named."""
        fixed = (
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"),
        )
        place = ("-i", str(key or self.key), "-p", str(self.port), f"{user}@127.0.0.1")
        return subprocess.run(
            ["ssh", *fixed, *options, *place, command],
            capture_output=True,
            text=True,
            check=False,
            input=stdin or "",
            timeout=seconds,
        )

    def said(self, command: str) -> str:
        """What a command prints; it has to end well."""
        done = self.ssh(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


# How a hypervisor shows the disk, after QEMU's -drive.
BUSES = {
    "virtio": ("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
    "virtio-scsi": ("-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=disk,bootindex=1"),
    "pvscsi": ("-device", "pvscsi", "-device", "scsi-hd,drive=disk,bootindex=1"),
    "nvme": ("-device", "nvme,drive=disk,serial=1,bootindex=1"),
    "ide": ("-device", "ide-hd,drive=disk,bootindex=1"),
}


@contextlib.contextmanager
def booted(
    disk: Path,
    disk_format: str,
    key: Path,
    scratch: Path,
    *,
    bus: str = "virtio",
    size: str = "",
    seed: Path | None = None,
) -> Iterator[Vm]:
    """A guest running from `disk`, which is not written to; it is killed when the block ends.

    The disk is shown on a bus of BUSES, grown to `size` (such as 10G); `seed` is an ISO beside it.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    overlay, console = scratch / "overlay.qcow2", scratch / "console.log"
    overlaid = ("-f", "qcow2", "-F", disk_format, "-b", disk, overlay)
    grown = (size,) if size else ()
    subprocess.run(["qemu-img", "create", "-q", *overlaid, *grown], check=True)
    beside = ("-drive", f"file={seed},if=virtio,readonly=on,format=raw") if seed else ()
    port = free_port()
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "max"),
            *("-smp", "1", "-m", "1024", "-display", "none", "-serial", f"file:{console}"),
            *("-drive", f"file={overlay},if=none,id=disk,cache=unsafe,discard=unmap"),
            *BUSES[bus],
            *beside,
            *("-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22"),
            *("-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci"),
        ],
        stdin=subprocess.DEVNULL,
    )
    vm = Vm(port=port, key=key, console=console)
    try:
        wait_for_ssh(vm, process)
        yield vm
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        overlay.unlink(missing_ok=True)


def wait_for_ssh(vm: Vm, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "QEMU ended"
        with contextlib.suppress(subprocess.TimeoutExpired):
            if vm.ssh("true").returncode == 0:
                return
        time.sleep(2)
    tail = vm.console.read_text(errors="replace")[-3000:] if vm.console.exists() else ""
    raise AssertionError(f"no SSH within {BOOT_SECONDS} s; the console ends with:\n{tail}")
