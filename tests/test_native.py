"""Real Packer drives whole builds by VirtualBox and VMware, which are stand-ins here.

The stand-ins (tests/hypervisors) take Packer's calls, and their guests do what an installer does on
the network: the boot command's keys are decoded, the kickstart is fetched from the URL in them,
stages are reported, and SSH opens for the key that the kickstart names. Ansible runs one trivial
playbook. What is exported went through the real converters and checks.

Not proven: that a real VirtualBox or VMware takes these settings, that its guests find their disk,
card and kickstart, that trimmed blocks are gone from its export, or how long any of it takes.
docs/native-builders.md has the checklist for somebody who has the real ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from goldimg.layout import lay_out
from tests.support import needs
from tests.test_trust import check_provenance

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parent.parent
STANDIN = ROOT / "tests/hypervisors"
GOLDIMG = Path(sys.executable).parent / "goldimg"
OS = "CentOS-7.2.1511"
NATIVE = ("aws", "virtualbox", "vmware")
PLAYBOOK = """
- hosts: all
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  tasks:
    - name: Note who provisions
      ansible.builtin.raw: "echo {{ packer_build_name }} {{ goldimg_stage }} >> provisioned"
"""


class Hypervisors:
    """A site on a host that seems to have both hypervisors."""

    def __init__(self, scratch: Path) -> None:
        self.root, self.state, self.bin = scratch / "site", scratch / "state", scratch / "bin"
        self.scratch = scratch
        lay_out(self.root)
        (self.root / "ansible/site.yml").write_text(PLAYBOOK)
        (self.root / "my.iso").write_bytes(b"an ISO")
        self.state.mkdir()
        self.bin.mkdir()
        for name in ("VBoxManage", "vmrun", "vmware", "vmware-vmx", "vmware-vdiskmanager"):
            tool = self.bin / name
            words = f"{sys.executable} -m tests.hypervisors.tool {self.state} {name}"
            tool.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {words} "$@"\n')
            tool.chmod(0o755)

    def arguments(self, *words: str) -> list[str]:
        checksum = hashlib.sha256(b"an ISO").hexdigest()
        command = (
            *(
                "unshare",
                "--mount",
                "--net",
                STANDIN / "namespace.sh",
                self.bin,
                self.scratch / "o",
            ),
            *(GOLDIMG, *words, "-O", OS, "--var", "iso_path=my.iso"),
            *("--var", "check_sources=false"),
            *(
                "--var",
                f"iso_checksum={checksum}",
                "--var",
                "disk_size=2048",
                "--var",
                "ssh_timeout=3m",
            ),
        )
        return [str(word) for word in command]

    @property
    def env(self) -> dict[str, str]:
        own = {name: it for name, it in os.environ.items() if not name.startswith("GOLDIMG_")}
        return {**own, "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def goldimg(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*words),
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def calls(self, tool: str) -> list[list[str]]:
        lines = (self.state / "calls.jsonl").read_text().splitlines()
        words = [json.loads(line)["words"] for line in lines]
        return [call[1:] for call in words if call[0] == tool]

    def manifest(self, provider: str) -> dict[str, Any]:
        path = self.root / "artifacts/1.0.0" / OS / provider / "manifest.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def guests(self) -> list[str]:
        """Guests of this host that still run."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = entry.read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.state) in text and "hypervisors.guest" in text:
                found.append(text)
        return found


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisors]:
    needs("packer", "qemu-img", "qemu-io", "ansible-playbook", "ksvalidator", "unshare", "ip")
    if os.geteuid() != 0:
        pytest.skip("makes namespaces with VMware's own paths, which takes root")
    made = Hypervisors(tmp_path_factory.mktemp("native"))
    yield made
    for name in made.guests():
        raise AssertionError(f"left running: {name}")


@pytest.fixture(scope="module")
def built(host: Hypervisors) -> Hypervisors:
    done = host.goldimg("-v", "build", "--only", ",".join(NATIVE))
    print(done.stdout, done.stderr)
    for log in host.root.rglob("build.log"):
        print(log, log.read_text()[-3000:])
    for log in host.state.glob("*.log"):
        print(log, log.read_text()[-2000:])
    assert done.returncode == 0
    return host


def test_each_hypervisor_has_its_turn(built: Hypervisors) -> None:
    done = built.goldimg("plan", "--only", ",".join(NATIVE), "--json")
    groups = json.loads(done.stdout)["groups"]
    assert [group["providers"] for group in groups] == [["aws", "virtualbox"], ["vmware"]]
    calls = [
        (json.loads(line)["time"], json.loads(line)["words"])
        for line in (built.state / "calls.jsonl").read_text().splitlines()
    ]
    exports = [at for at, words in calls if words[:2] == ["VBoxManage", "export"]]
    starts = [at for at, words in calls if words[:4] == ["vmrun", "-T", "ws", "start"]]
    assert len(exports) == 2
    assert len(starts) == 1
    assert max(exports) < starts[0]


def test_artifacts_are_those_of_qemu_and_hold_the_installed_disk(
    built: Hypervisors, tmp_path: Path
) -> None:
    verified = built.goldimg("verify", "--only", ",".join(NATIVE))
    assert verified.returncode == 0, verified.stderr
    files = [line for line in verified.stdout.splitlines() if f"/{OS}/" in line]
    assert len([line for line in files if line.endswith(": OK")]) == 4  # virtualbox has two
    signed = [line for line in files if ": OK (signed by " in line]
    assert len(signed) == 3 * len(NATIVE)  # sums, provenance and manifest
    assert len(files) == 4 + len(signed)
    for provider in NATIVE:
        check_provenance(built.root / f"artifacts/1.0.0/{OS}/{provider}")
        manifest = built.manifest(provider)
        assert manifest["builder"]["name"] == ("vmware-iso" if provider == "vmware"
                                               else "virtualbox-iso")  # fmt: skip
        ova = built.root / f"artifacts/1.0.0/{OS}/{provider}/{OS}-1.0.0_{provider}.ova"
        scratch = tmp_path / provider
        scratch.mkdir()
        subprocess.run(["tar", "-xf", ova, "-C", scratch], check=True)
        (disk,) = scratch.glob("*.vmdk")
        raw = scratch / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
        assert raw.stat().st_size == 2048 << 20
        with raw.open("rb") as stream:
            stream.seek(1 << 20)
            assert stream.read(65537) == b"\x5a" * 65536 + b"\0"


def test_guests_were_provisioned_in_one_run_by_their_own_playbook(built: Hypervisors) -> None:
    said = {path.read_text() for path in built.state.glob("*.home/provisioned")}
    assert said == {f"{provider} all\n" for provider in NATIVE}


def test_virtualbox_is_told_what_the_original_told_it(built: Hypervisors) -> None:
    calls = [
        call
        for call in built.calls("VBoxManage")
        if call[1:] and call[1].startswith("goldimg-aws-")
    ]
    settings = {tuple(call[2:]) for call in calls if call[0] == "modifyvm"}
    wanted = {
        ("--memory", "1536"), ("--cpus", "1"), ("--usb", "off"), ("--usbehci", "off"),
        ("--audio", "none"), ("--nictype1", "virtio"), ("--nat-localhostreachable1", "on"),
    }  # fmt: skip
    assert wanted <= settings
    created = next(call for call in built.calls("VBoxManage") if call[0] == "createvm")
    assert created[created.index("--ostype") + 1] == "RedHat_64"


def test_vmware_is_told_what_the_original_told_it(built: Hypervisors) -> None:
    (vmx,) = built.state.glob("goldimg-vmware-*.vmx")
    text = vmx.read_text().lower()
    for line in (
        'virtualhw.version = "11"', 'guestos = "rhel7-64"', 'memsize = "1536"', 'numvcpus = "1"',
        'sound.present = "false"', 'usb.present = "false"', 'scsi0.virtualdev = "pvscsi"',
        'ethernet0.virtualdev = "vmxnet3"',
    ):  # fmt: skip
        assert line in text, line


def test_each_hypervisor_is_asked_what_its_screen_shows(built: Hypervisors) -> None:
    """VMware by VNC; the stand-in takes any password."""
    shot = [call for call in built.calls("VBoxManage") if call[2:3] == ["screenshotpng"]]
    assert {call[1].split("-")[1] for call in shot} == {"aws", "virtualbox"}
    assert [path.parent.name.split("-")[1] for path in built.state.glob("*/looked")] == ["vmware"]


def test_hypervisors_forget_the_machines(built: Hypervisors) -> None:
    machines = json.loads((built.state / "machines.json").read_text())
    assert not [name for name in machines if name.startswith("goldimg-")]
    assert built.guests() == []
    assert not list((built.root / ".cache/layers").iterdir())


def test_what_is_finished_is_not_built_again(built: Hypervisors) -> None:
    before = len(built.calls("VBoxManage"))
    done = built.goldimg("build", "--only", ",".join(NATIVE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("up to date") == 3
    assert not [call for call in built.calls("VBoxManage")[before:] if call[0] == "startvm"]


def test_a_failed_conversion_costs_no_install(built: Hypervisors) -> None:
    """The disk of a build that ended before it was converted is found by the next."""
    built.goldimg("build", "--only", "aws", "--version", "2.0.0", "--var", "cpus=1")
    target = built.root / f"artifacts/2.0.0/{OS}/aws"
    shutil.rmtree(target)
    target.parent.joinpath("aws").write_text("in the way")
    starts = len([call for call in built.calls("VBoxManage") if call[0] == "startvm"])
    assert built.goldimg("build", "--only", "aws", "--version", "2.0.0").returncode == 1
    target.unlink()
    assert len([call for call in built.calls("VBoxManage") if call[0] == "startvm"]) == starts


def test_one_hypervisors_failure_does_not_stop_the_next_group(host: Hypervisors) -> None:
    """VirtualBox refuses to start anything; VMware's build goes on and ends well."""
    tool = host.bin / "VBoxManage"
    text = tool.read_text()
    tool.write_text(text.replace("#!/bin/sh\n", '#!/bin/sh\n[ "$1" != startvm ] || exit 1\n'))
    try:
        done = host.goldimg("build", "--only", "aws,vmware", "--version", "3.0.0", "--json")
    finally:
        tool.write_text(text)
    assert done.returncode == 1
    status = {item["provider"]: item["status"] for item in json.loads(done.stdout)}
    assert status == {"aws": "failed", "vmware": "built"}
    assert host.guests() == []


def test_ctrl_c_leaves_no_machine_with_the_hypervisor(host: Hypervisors) -> None:
    process = subprocess.Popen(
        host.arguments("-v", "build", "--only", "virtualbox", "--version", "4.0.0"),
        cwd=host.root,
        env=host.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not host.guests() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
        assert host.guests() or process.poll() is None, process.communicate()[1]
        assert host.guests(), "the machine was never started"
        process.send_signal(signal.SIGINT)  # unshare has become namespace.sh, and that goldimg
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert host.guests() == []
    machines = json.loads((host.state / "machines.json").read_text())
    assert not [name for name in machines if name.startswith("goldimg-virtualbox-")]
