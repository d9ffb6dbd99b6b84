"""The whole of it for real: an ISO, Packer, QEMU and Ansible in, images out, images booted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from goldimg.layout import lay_out
from goldimg.providers import all_providers
from tests.support import needs
from tests.vm import booted

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parent.parent
GOLDIMG = Path(sys.executable).parent / "goldimg"
PASSWORD = "Xq7-real-test-Pw9"
SHARED = ("docker", "gcp", "openstack")  # one base: a plain root
BUILT = (*SHARED, "virtualbox")  # and one of the other: LVM, /boot, swap
VERSION = "1.0.0"


class RealSite:
    """A site of its own whose assembled ISO comes from, and stays in, the checkout's cache."""

    def __init__(self, root: Path) -> None:
        lay_out(root)
        self.root = root
        self.cache = root / ".cache"
        iso = Path(os.environ.get("GOLDIMG_CACHE", ROOT / ".cache")).resolve() / "iso"
        iso.mkdir(parents=True, exist_ok=True)
        self.cache.mkdir()
        (self.cache / "iso").symlink_to(iso)
        self.env = {
            **{name: value for name, value in os.environ.items() if name != "GOLDIMG_CACHE"},
            "GOLDIMG_ROOT_PASS": PASSWORD,
        }

    def goldimg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [GOLDIMG, *arguments],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=3000,
        )

    def build(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.goldimg("build", "-O", "Debian-12", *arguments)

    def directory(self, provider: str, version: str = VERSION) -> Path:
        return self.root / "artifacts" / version / "Debian-12" / provider

    def path(self, provider: str, version: str = VERSION) -> Path:
        name = all_providers()[provider].artifacts("Debian-12", version)[0]
        return self.directory(provider, version) / name

    def processes(self) -> list[str]:
        """Command lines of everything that works on files of this site."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = entry.read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.root) in text:
                found.append(text)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> RealSite:
    needs("packer", "qemu-system-x86_64", "qemu-img", "mmdebstrap", "xorriso", "ssh")
    return RealSite(tmp_path_factory.mktemp("real") / "site")


@pytest.fixture(scope="module")
def built(site: RealSite) -> RealSite:
    done = site.build("--only", ",".join(BUILT))
    print(done.stderr)
    print(done.stdout)
    assert done.returncode == 0
    return site


def test_every_artifact_is_there_and_checks(built: RealSite) -> None:
    for provider in BUILT:
        directory = built.directory(provider)
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=directory, check=True)
        manifest = json.loads((directory / "manifest.json").read_text())
        assert manifest["provider"] == provider
        assert manifest["inputs"]["iso"]["packages"] > 100
        assert manifest["tools"]["packer"]
        assert (directory / "build.log").stat().st_size > 1000
        names = {path.name for path in directory.iterdir()}
        assert not [name for name in names if name.endswith(".part") or name == ".staging"]
    verified = built.goldimg("verify", "-O", "Debian-12", "--only", ",".join(BUILT))
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count(": OK") == len(BUILT) + 1  # virtualbox has two


def test_one_install_served_them_all(built: RealSite) -> None:
    manifests = [
        json.loads((built.directory(name) / "manifest.json").read_text()) for name in SHARED
    ]
    assert len({manifest["base"] for manifest in manifests}) == 1
    assert len({manifest["layer"] for manifest in manifests}) == len(SHARED)
    assert len([path for path in (built.cache / "bases").iterdir() if path.is_dir()]) == 2


def test_what_is_finished_is_not_built_again(built: RealSite) -> None:
    before = {name: built.path(name).stat().st_mtime_ns for name in BUILT}
    done = built.build("--only", ",".join(BUILT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("up to date") == len(BUILT)
    assert before == {name: built.path(name).stat().st_mtime_ns for name in BUILT}


def test_a_finished_artifact_is_not_overwritten_unasked(built: RealSite) -> None:
    playbook = built.root / "ansible/gcp.yml"
    text = playbook.read_text()
    before = built.path("gcp").stat().st_mtime_ns
    playbook.write_text(text + "\n# changed\n")
    try:
        done = built.build("--only", "gcp")
    finally:
        playbook.write_text(text)
    assert done.returncode == 1
    assert "--update" in done.stderr
    assert built.path("gcp").stat().st_mtime_ns == before


def test_no_password_in_any_file_of_the_site(built: RealSite) -> None:
    for path in built.root.rglob("*"):
        if not path.is_file() or path.suffix in (".qcow2", ".iso", ".vhd", ".gz"):
            continue
        content = path.read_bytes()
        assert PASSWORD.encode() not in content, path
        assert b"$6$rounds=100000$" not in content, path


def bootable_disks(built: RealSite, scratch: Path) -> dict[str, tuple[Path, str]]:
    """The disks that are in the artifacts, with their QEMU format."""
    subprocess.run(["tar", "-xSzf", built.path("gcp"), "-C", scratch], check=True)
    subprocess.run(["tar", "-xf", built.path("virtualbox"), "-C", scratch], check=True)
    (vmdk,) = scratch.glob("*.vmdk")
    # a compressed VMDK cannot be read at random quickly: QEMU boots a plain copy
    disk = scratch / "virtualbox.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", vmdk, disk], check=True)
    return {
        "openstack": (built.path("openstack"), "qcow2"),
        "gcp": (scratch / "disk.raw", "raw"),
        "virtualbox": (disk, "qcow2"),
    }


def test_images_boot_take_the_key_and_refuse_passwords(built: RealSite, tmp_path: Path) -> None:
    needs("ssh", "tar", "qemu-img")
    facts: dict[str, list[str]] = {}
    for provider, (disk, disk_format) in bootable_disks(built, tmp_path).items():
        with booted(disk, disk_format, built.root / "keys/packer", tmp_path / provider) as vm:
            only_password = ("PubkeyAuthentication=no", "PreferredAuthentications=password")
            options = tuple(word for option in only_password for word in ("-o", option))
            refused = vm.ssh("true", options=options)
            assert refused.returncode != 0
            assert "Permission denied (publickey)" in refused.stderr
            machine_id = vm.said("cat /etc/machine-id")
            assert len(machine_id) == 32
            keys = [line.split()[1] for line in vm.said("cat /etc/ssh/*_key.pub").splitlines()]
            assert keys
            facts[provider] = [machine_id, *keys]
            assert vm.said("systemctl --failed --no-legend") == ""
            left = set(vm.said("find /root /tmp -mindepth 1 -type f").splitlines())
            assert left <= {"/root/.bashrc", "/root/.profile", "/root/.ssh/authorized_keys"}
            assert vm.said("grep -rl Xq7-real-test /etc /var/log /root || true") == ""
            is_lvm = "rootvg-rootvol" in vm.said("findmnt -no SOURCE /")
            assert is_lvm == (provider == "virtualbox")
            has_swap = vm.said("swapon --noheadings --show=NAME") != ""
            assert has_swap == (provider == "virtualbox")
    everything = [fact for found in facts.values() for fact in found]
    assert len(everything) == len(set(everything)), "two images share a machine-id or a host key"


def test_the_container_has_files_and_no_secret_of_a_machine(built: RealSite) -> None:
    with tarfile.open(built.path("docker")) as archive:
        names = {name.removeprefix("./").rstrip("/") for name in archive.getnames()}
    assert {"etc/os-release", "usr/bin/dpkg", "tmp", "proc"} <= names
    assert not [name for name in names if name.startswith("etc/ssh/ssh_host_")]
    assert not [name for name in names if name.startswith(("boot/vmlinuz", "lib/modules/6"))]


@pytest.mark.parametrize("phase", ["kickstart fetched", "provisioning", "converting"])
def test_ctrl_c_leaves_nothing_running_and_nothing_half_done(built: RealSite, phase: str) -> None:
    """The first phase interrupts a base of its own, the others a layer over the shared base."""
    version = f"9.0.{len(phase)}"
    events = built.cache / "logs/events.jsonl"
    already = events.read_text().count("\n")
    base = ["--no-base-cache"] if phase == "kickstart fetched" else []
    provider = "azure" if phase == "kickstart fetched" else "openstack"
    process = subprocess.Popen(
        [GOLDIMG, "build", "-O", "Debian-12", "--only", provider, "--version", version, *base],
        cwd=built.root,
        env=built.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wanted = f'"text": "{phase}"'
    try:
        while process.poll() is None:
            if wanted in "\n".join(events.read_text().splitlines()[already:]):
                break
            time.sleep(0.2)
        assert process.poll() is None, "the build ended before it could be interrupted"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert built.processes() == []
    assert not built.path(provider, version).exists()
    assert not (built.directory(provider, version) / "SHA256SUMS").exists()
    assert not list(built.directory(provider, version).rglob("*.part"))
    assert not list(built.cache.rglob("ansible-vars.json"))


def test_an_interrupted_build_goes_on_from_what_is_done(built: RealSite) -> None:
    """The layer that was interrupted while converting is provisioned already."""
    version = f"9.0.{len('converting')}"
    done = built.build("--only", "openstack", "--version", version)
    assert done.returncode == 0, done.stderr
    assert "provisioned disk found in the cache" in done.stderr
    assert built.path("openstack", version).exists()


def test_a_second_build_of_the_same_thing_is_refused(built: RealSite) -> None:
    import fcntl

    (lock,) = (built.cache / "locks").glob(f"{VERSION}-Debian-12-gcp-*")
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        done = built.build("--only", "gcp", "--force")
    assert done.returncode == 1
    assert "Debian-12 1.0.0 for gcp is already being built" in done.stderr
