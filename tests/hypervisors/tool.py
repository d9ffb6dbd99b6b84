"""The hypervisors' tools as Packer 1.6.6 uses them: VBoxManage; vmrun, vmware, vmware-vdiskmanager.

Every call is recorded in `calls.jsonl` of the state directory, a list of words each. Arguments
that the real tools would refuse are refused, as far as this knows them. What cannot be proven this
way: that a real hypervisor takes these settings, starts a machine with them, and lets a guest reach
the kickstart; and what its exported disk looks like inside (qemu-img writes it here, as VMDK of the
kind that VirtualBox and VMware document).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

VBOX_VERSION = "7.0.20r163906"
VMWARE_VERSION = "VMware Workstation 17.6.3 build-24583834"
# `modifyvm` of VirtualBox 7.0, as far as we and Packer use it
MODIFY = {
    "--boot1", "--boot2", "--boot3", "--boot4", "--cpus", "--memory", "--usb", "--usbehci",
    "--audio", "--nic1", "--natpf1", "--nictype1", "--uart1", "--uartmode1", "--firmware",
    "--nat-localhostreachable1", "--vrdeaddress", "--vrdeauthtype", "--vrde", "--vrdeport",
}  # fmt: skip
# one black pixel: https://www.w3.org/TR/png-3/
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010100000000376ef9240000000a494441"
    "54789c636000000002000148afa4710000000049454e44ae426082"
)
LEASES = Path("/etc/vmware/vmnet8/dhcpd/dhcpd.leases")
ROOT = Path(__file__).resolve().parents[2]


class Refused(Exception):
    """What the real tool would say on stderr."""


class Store:
    """The hypervisor's machines, in a JSON file under a lock."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.path = state / "machines.json"

    @contextlib.contextmanager
    def machines(self) -> Any:
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = json.loads(self.path.read_text()) if self.path.exists() else {}
            yield found
            self.path.write_text(json.dumps(found, indent=1))

    def record(self, words: list[str]) -> None:
        with (self.state / "calls.jsonl").open("a") as stream:
            stream.write(json.dumps({"time": time.time(), "words": words}) + "\n")

    def start(self, name: str, machine: dict[str, Any], described: dict[str, Any]) -> None:
        """Starts the machine's guest; it outlives this tool."""
        place = self.state / f"{name}.json"
        described["home"] = str(self.state / f"{name}.home")
        place.write_text(json.dumps(described))
        with (self.state / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.hypervisors.guest", str(place)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        machine["pid"] = process.pid


def is_running(machine: dict[str, Any]) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{machine['pid']}/status").read_text()
    except (KeyError, OSError):
        return False


def stop(machine: dict[str, Any]) -> None:
    if is_running(machine):
        os.kill(machine["pid"], signal.SIGKILL)
    machine.pop("pid", None)


def vboxmanage(store: Store, words: list[str]) -> str:
    if words == ["--version"]:
        return VBOX_VERSION
    if words[0] == "setextradata":
        return ""
    if words[0] in ("createhd", "createmedium"):
        options = dict(zip(words[1::2], words[2::2], strict=True))
        make = ["qemu-img", "create", "-q", "-f", "vdi", options["--filename"]]
        subprocess.run([*make, f"{options['--size']}M"], check=True)
        return ""
    with store.machines() as machines:
        if words[:2] == ["list", "vms"]:
            return "\n".join(f'"{name}" {{0000}}' for name in machines)
        if words[0] == "createvm":
            options = dict(zip(words[1::2], words[2::2], strict=False))
            machines[options["--name"]] = {"ostype": options["--ostype"], "settings": []}
            return ""
        name = words[1]
        if name not in machines:
            raise Refused(f"Could not find a registered machine named '{name}'")
        return vbox_machine(store, machines, name, words)


def vbox_machine(store: Store, machines: Any, name: str, words: list[str]) -> str:
    machine, verb = machines[name], words[0]
    if verb == "modifyvm":
        unknown = [word for word in words[2:] if word.startswith("--") and word not in MODIFY]
        if unknown:
            raise Refused(f"Unknown option: {unknown[0]}")
        machine["settings"].append(words[2:])
    elif verb == "storageattach" and "hdd" in words:
        machine["disk"] = words[words.index("--medium") + 1]
    elif verb == "startvm":
        (store.state / f"{name}.keys").unlink(missing_ok=True)
        store.start(name, machine, vbox_guest(store, name, machine))
    elif verb == "controlvm" and words[2] == "keyboardputscancode":
        with (store.state / f"{name}.keys").open("a") as stream:
            stream.write(" ".join(words[3:]) + "\n")
    elif verb == "controlvm" and words[2] == "screenshotpng":
        if not is_running(machine):
            raise Refused("The machine is not running")
        Path(words[3]).write_bytes(PICTURE)
    elif verb == "controlvm" and words[2] == "poweroff":
        stop(machine)
    elif verb == "controlvm":
        raise Refused(f"Invalid parameter '{words[2]}'")
    elif verb == "showvminfo":
        return f'VMState="{"running" if is_running(machine) else "poweroff"}"'
    elif verb == "export":
        vbox_export(machine, Path(words[words.index("--output") + 1]))
    elif verb == "unregistervm":
        if is_running(machine):
            raise Refused("Cannot unregister the machine while it is running")
        Path(machine["disk"]).unlink(missing_ok=True)
        del machines[name]
    return ""


def vbox_guest(store: Store, name: str, machine: dict[str, Any]) -> dict[str, Any]:
    settings = list(machine["settings"])
    forward = next(words[1] for words in settings if words[0] == "--natpf1")
    console = next(words[2] for words in settings if words[0] == "--uartmode1")
    is_open = ["--nat-localhostreachable1", "on"] in settings
    return {
        "disk": machine["disk"],
        "disk_format": "vdi",
        "keys": str(store.state / f"{name}.keys"),
        "ssh_host": "127.0.0.1",
        "ssh_port": forward.split(",")[3],
        # without leave the guest does not reach the host's loopback
        "host_alias": "10.0.2.2" if is_open else None,
        "console": console,
    }


def vbox_export(machine: dict[str, Any], ovf: Path) -> None:
    disk = ovf.with_name(f"{ovf.stem}-disk001.vmdk")
    convert = ["qemu-img", "convert", "-f", "vdi", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run([*convert, machine["disk"], str(disk)], check=True)
    ovf.write_text(f'<Envelope><References><File href="{disk.name}"/></References></Envelope>\n')


def vmrun(store: Store, words: list[str]) -> str:
    words = words[2:] if words[:1] == ["-T"] else words
    with store.machines() as machines:
        if words[0] == "list":
            running = [name for name in machines if is_running(machines[name])]
            return "\n".join([f"Total running VMs: {len(running)}", *running])
        machine = machines.setdefault(words[1], {})
        if words[0] == "start":
            vmware_start(store, Path(words[1]), machine, len(machines))
        elif words[0] == "stop":
            stop(machine)
        else:
            raise Refused(f"Unrecognized command: {words[0]}")
    return ""


def vmware_start(store: Store, vmx: Path, machine: dict[str, Any], number: int) -> None:
    """Starts the guest of a VMX file, and gives it an address by VMware's own DHCP server."""
    text = vmx.read_text()
    lines = [line.partition(" = ") for line in text.splitlines() if " = " in line]
    settings = {key.strip().lower(): value.strip().strip('"') for key, _, value in lines}
    (store.state / f"{vmx.stem}.vmx").write_text(text)
    mac, address = f"00:0c:29:00:00:{number:02x}", f"192.168.77.{127 + number}"
    vmx.write_text(text + f'ethernet0.generatedAddress = "{mac}"\n')
    with LEASES.open("a") as stream:
        stream.write(
            f"lease {address} {{\n\tstarts 1 2020/01/06 00:00:00;\n\tends 1 2035/01/01 00:00:00;\n"
            f"\thardware ethernet {mac};\n}}\n"
        )
    subprocess.run(["ip", "address", "add", f"{address}/24", "dev", "vmnet8"], check=True)
    described = {
        "disk": str(vmx.parent / settings["scsi0:0.filename"]),
        "disk_format": "vmdk",
        "vnc_port": settings["remotedisplay.vnc.port"],
        "ssh_host": address,
        "ssh_port": 22,
        "console": settings["serial0.filename"],
    }
    store.start(vmx.stem, machine, described)
    ready = store.state / f"{vmx.stem}.home/ready"  # the real one, too, returns when VNC answers
    while not ready.exists() and is_running(machine):
        time.sleep(0.05)
    ready.unlink(missing_ok=True)


def vdiskmanager(store: Store, words: list[str]) -> str:
    if words[0] != "-c":
        return ""
    size, kind, path = words[words.index("-s") + 1], words[words.index("-t") + 1], words[-1]
    if kind != "0":
        raise Refused("only single growable files here")
    make = ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicSparse", path]
    subprocess.run([*make, size], check=True)
    return ""


def vmware(store: Store, words: list[str]) -> str:
    sys.stderr.write(VMWARE_VERSION + "\n")  # where vmware-vmx says it
    return VMWARE_VERSION


TOOLS = {
    "VBoxManage": vboxmanage,
    "vmrun": vmrun,
    "vmware": vmware,
    "vmware-vmx": vmware,
    "vmware-vdiskmanager": vdiskmanager,
}


def main() -> int:
    """Entry point: `python tool.py STATE TOOL ARGUMENTS...`."""
    store, name, words = Store(Path(sys.argv[1])), sys.argv[2], sys.argv[3:]
    store.record([name, *words])
    try:
        print(TOOLS[name](store, words))
    except Refused as refused:
        print(f"{name}: error: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
