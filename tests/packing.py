"""A site whose Packer is a stand-in, for what a build does when it is stopped, killed or fails.

The stand-in answers as Packer 1.6.6 does, with a process in place of each VM, and leaves small
disks whose bytes depend on nothing but the build's name: two builds of one site give the same.
What real guests and the real Packer do is shown by test_real_build.py and benchmarks/kill.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from goldimg.layout import lay_out
from tests.support import needs

GOLDIMG = Path(sys.executable).parent / "goldimg"
OS = "CentOS-7.2.1511"
PACKER = """\
import gzip, json, os, signal, subprocess, sys, time, urllib.request
from pathlib import Path

here, words = Path(__file__).parent, sys.argv[1:]
if words[0] == "version":
    print("Packer v1.6.6")
    sys.exit()
template = json.loads(Path(words[-1]).read_text())
builder = template["builders"][0]
secret = next(word for word in words if word.startswith("-var-file=")).partition("=")[2]
url = json.loads(Path(secret).read_text()).get("ks_url", "")
name, output, vm = builder["name"], Path(builder["output_directory"]), None
arguments = dict(builder["qemuargs"])
console = Path(arguments["-serial"].partition(":")[2])


def say(text, seconds=0.08):
    print(f"1700000000,,ui,say,==> {name}: {text}".replace("\\n", "\\\\n"), flush=True)
    time.sleep(seconds)


def end(code):
    if "-on-error=abort" not in words or code == 0:
        if vm:
            vm.kill()
            vm.wait()
        if code:
            subprocess.run(["rm", "-rf", output])
    sys.exit(code)


def stop(number, frame):
    if not (here / "stubborn").exists():
        end(1)


signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
with (here / "calls").open("a") as stream:
    stream.write(f"{words[0]} {name}\\n")
if words[0] == "validate":
    time.sleep(0.3)
    sys.exit()
say("Found port for communicator (SSH, WinRM, etc): 3333.", 0)
say("Starting VM, booting")
output.mkdir()
machine = [sys.executable, here / "qemu-system-fake", output / "disk.qcow2"]
vm = subprocess.Popen(machine, start_new_session=False)
console.write_text("Loading kernel... ok\\n")
say("connect via VNC without a password to\\nvnc://127.0.0.1:11", 0)
say("Typing the boot command over VNC...")
say("Waiting for SSH to become available...")
if url and not (here / "unfetched").exists():
    urllib.request.urlopen(url.replace("10.0.2.2", "127.0.0.1")).read()
time.sleep(0.4)
say("Connected to SSH!")
for task in ("Write the files", "Bring the agent", "Clean the image"):
    say(f"TASK [{task}] ****", 0.3)
    if (here / f"fail-{name}").exists() and task == "Bring the agent":
        say('fatal: [default]: FAILED! => {"msg": "No package matching agent", "rc": 1}')
        end(1)
while (here / f"slow-{name}").exists():
    time.sleep(0.1)
say("PLAY RECAP ****", 0)
say("Gracefully halting virtual machine...", 0.2)
variables = json.loads(Path(template["provisioners"][0]["extra_arguments"][1][1:]).read_text())
if variables["goldimg_inventory"]:
    told = {"schema": 1, "taken": 1700000000, "os": {"ID": "centos", "VERSION_ID": "7"},
            "manager": "rpm", "packages": [], "files": []}
    Path(variables["goldimg_inventory"]).write_bytes(gzip.compress(json.dumps(told).encode()))
raw = output / "raw"
with raw.open("wb") as stream:
    stream.truncate(64 << 20)
    stream.write(name.encode() * 400_000)
if builder.get("use_backing_file"):
    base = ["-b", builder["iso_url"], "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, output / "disk.qcow2"])
    subprocess.run(["qemu-io", "-c", "write -P 7 1M 3M", output / "disk.qcow2"], stdout=-3)
else:
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, output / "disk.qcow2"])
raw.unlink()
say(f"Build '{name}' finished.")
end(0)
"""
MACHINE = "import time\nwhile True:\n    time.sleep(1)\n"


class PackingSite:
    """A site in `root` whose builds take seconds; `fake` holds the stand-in and what steers it."""

    def __init__(self, root: Path) -> None:
        needs("qemu-img", "qemu-io", "qemu-system-x86_64", "ksvalidator", "ansible-playbook", "ssh")
        self.os, self.root, self.fake = OS, root / "site", root / "fake"
        lay_out(self.root)
        self.fake.mkdir()
        (self.fake / "packer.py").write_text(PACKER)
        (self.fake / "qemu-system-fake").write_text(MACHINE)
        packer = self.fake / "packer"
        packer.write_text(f'#!/bin/sh\nexec {sys.executable} {self.fake}/packer.py "$@"\n')
        packer.chmod(0o755)
        iso = root / "tiny.iso"
        iso.write_bytes(b"not much of an ISO" * 1000)
        digest = hashlib.sha256(iso.read_bytes()).hexdigest()
        self.iso: tuple[str, ...] = ("--var", f"iso_path={iso}", "--var", f"iso_checksum={digest}",
                                     "--var", "check_sources=false")  # fmt: skip
        # the programs of the virtual environment come first in goldimg's own search path
        self.env = {
            **{name: it for name, it in os.environ.items() if not name.startswith("GOLDIMG_")},
            "PATH": f"{self.fake}:{os.environ['PATH']}",
            "GOLDIMG_ROOT_PASS": "a password that changes nothing",
        }

    def words(self, *arguments: str) -> list[str | Path]:
        return [GOLDIMG, "build", "-O", self.os, *self.iso, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A build that is going on, with everything it says on its stdout."""
        return subprocess.Popen(
            self.words(*arguments),
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.goldimg(*(str(word) for word in self.words(*arguments)[1:]))

    def goldimg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [GOLDIMG, *arguments],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )

    def directory(self, provider: str, version: str = "1.0.0") -> Path:
        return self.root / "artifacts" / version / self.os / provider

    def events(self) -> list[dict[str, object]]:
        path = self.root / ".cache/logs/events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def wait_for(self, process: subprocess.Popen[str], text: str, build: str = "") -> None:
        """Waits until an event of the running build says `text`."""
        end = time.monotonic() + 180
        run = f"-{process.pid}"
        while time.monotonic() < end:
            for event in self.events():
                is_own = str(event.get("run")).endswith(run)
                if is_own and event["text"] == text and build in ("", event["build"]):
                    return
            if process.poll() is not None:
                said = process.stdout.read() if process.stdout else ""
                raise AssertionError(f"the build has ended:\n{said}")
            time.sleep(0.01)
        raise AssertionError(f"no '{text}' within three minutes")

    def calls(self) -> list[str]:
        """What the stand-in was asked for since the last time."""
        path = self.fake / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def processes(self) -> list[str]:
        """Command lines of everything that works on files of this site."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (entry / "stat").read_text().rpartition(") ")[2][0]
            except OSError:
                continue
            if str(self.root.parent) in text and state != "Z":
                found.append(text)
        return found

    def leftovers(self) -> list[str]:
        """What a build that has ended must not leave: partial files, secrets, sockets, locks."""
        found = [*self.processes()]
        for pattern in ("*.part", ".*.part", ".*.raw", "variables.json", "ansible-vars.json",
                        ".staging", ".unfinished", "disk.qcow2"):  # fmt: skip
            for path in self.root.rglob(pattern):
                if path.parent.parent.name != "bases" or path.parent.suffix == ".work":
                    found.append(str(path.relative_to(self.root)))
        keys = {path.stem for path in (self.root / ".cache").glob("*/*.work")}
        found += [str(path) for key in keys for path in Path("/tmp").glob(f"goldimg-*-{key}")]
        for lock in (self.root / ".cache").rglob("*.lock"):
            done = subprocess.run(["flock", "-n", lock, "true"], check=False)
            found += [f"held: {lock.name}"] if done.returncode else []
        return found

    def described(self, provider: str, version: str = "1.0.0") -> dict[str, object]:
        """The manifest, without what differs between two builds of the same."""
        manifest = json.loads((self.directory(provider, version) / "manifest.json").read_text())
        return {
            key: it for key, it in manifest.items() if key not in ("built", "seconds", "started")
        }

    def end(self) -> None:
        """Ends whatever a failed test has left running here."""
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                is_ours = str(self.root.parent).encode() in entry.read_bytes()
            except OSError:
                continue
            if is_ours:
                os.kill(int(entry.parent.name), signal.SIGKILL)
