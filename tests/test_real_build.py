"""The whole of it for real: an ISO, Packer, QEMU and Ansible in, images out, images booted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from goldimg.inventory.describe import EXTENSIONS, inventory_in
from goldimg.layout import lay_out
from goldimg.providers import all_providers
from tests.images.inspect import CHECKING, COLLECT, GROWN_BYTES, Image, asked, in_container
from tests.support import needs
from tests.test_trust import check_documents
from tests.verified import RECORD, load, note

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parent.parent
GOLDIMG = Path(sys.executable).parent / "goldimg"
PASSWORD = "Xq7-real-test-Pw9"
BUILT = tuple(all_providers())
SHARED = {  # the bases, and who shares them: a plain root; LVM without swap; LVM, /boot, swap
    "plain": ("docker", "gcp", "openstack"),
    "azure": ("azure",),
    "lvm": ("aws", "virtualbox", "vmware"),
}
CLOUDS = ("aws", "azure", "gcp", "openstack", "vmware")
VERSION = "1.0.0"
VARIABLES = ("--var", "extra_vars.colour=blue")
MARK = """\
- name: Every image
  hosts: all
  gather_facts: false
  tasks:
    - name: Leave a mark
      ansible.builtin.copy:
        dest: /etc/goldimg-mark
        content: "{{ packer_template }} {{ packer_version }} {{ packer_build_name }} {{ colour }}"
        mode: "0644"
"""
REBOOT = """\
- name: One provider's, with a reboot and facts
  hosts: all
  gather_facts: true
  tasks:
    - name: Remember this boot
      ansible.builtin.command: cat /proc/sys/kernel/random/boot_id
      register: before
      changed_when: false

    - name: Reboot
      ansible.builtin.reboot:
        reboot_timeout: 900

    - name: Look at this boot
      ansible.builtin.command: cat /proc/sys/kernel/random/boot_id
      register: after
      changed_when: false

    - name: Say whether it is another one
      ansible.builtin.copy:
        dest: /etc/goldimg-rebooted
        content: "{{ before.stdout != after.stdout }} {{ ansible_distribution }}\\n"
        mode: "0644"
"""
SCRIPT = """\
#!/bin/bash
set -eu
echo "$PACKER_BUILD_NAME $PACKER_VERSION $PACKER_OS_VERSION $COLOUR" >/etc/goldimg-script
"""
FAILS = """\
- name: A failure
  hosts: all
  gather_facts: false
  tasks:
    - name: Give up
      ansible.builtin.command: /bin/false
      changed_when: false
"""


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

    def add(self, name: str, text: str) -> Path:
        """One of the site's additions."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def goldimg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [GOLDIMG, *arguments],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=5400,
        )

    def build(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.goldimg("build", "-O", "Debian-12", *VARIABLES, *arguments)

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
    made = RealSite(tmp_path_factory.mktemp("real") / "site")
    made.add("ansible/site.d/10-mark.yml", MARK)
    made.add("ansible/site.d/openstack/10-reboot.yml", REBOOT)
    made.add("scripts/10-mark.sh", SCRIPT)
    return made


@pytest.fixture(scope="module")
def built(site: RealSite) -> RealSite:
    done = site.build("--only", ",".join(BUILT))
    print(done.stderr)
    print(done.stdout)
    assert done.returncode == 0
    return site


def test_every_artifact_is_there_and_checks(built: RealSite, tmp_path: Path) -> None:
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
    lines = [line for line in verified.stdout.splitlines() if "/Debian-12/" in line]
    files = [line for line in lines if line.endswith(": OK")]
    # virtualbox has two; each has what describes it
    assert len(files) == len(BUILT) * (1 + len(EXTENSIONS)) + 1
    # sums, provenance, manifest and two bills of materials of each
    assert len([line for line in lines if ": OK (signed by " in line]) == len(BUILT) * 5
    assert len(lines) == len(files) + len(BUILT) * 5
    for provider in BUILT:
        check_documents(built.directory(provider), tmp_path)


def test_one_install_served_all_that_share_a_kickstart(built: RealSite) -> None:
    described = {
        name: json.loads((built.directory(name) / "manifest.json").read_text()) for name in BUILT
    }
    bases = {base: {described[name]["base"] for name in names} for base, names in SHARED.items()}
    assert {len(found) for found in bases.values()} == {1}
    assert len(set.union(*bases.values())) == len(SHARED)
    assert len({manifest["layer"] for manifest in described.values()}) == len(BUILT)
    made = [path for path in (built.cache / "bases").iterdir() if path.is_dir()]
    assert len(made) == len(SHARED)


def test_what_is_finished_is_not_built_again(built: RealSite) -> None:
    before = {name: built.path(name).stat().st_mtime_ns for name in BUILT}
    done = built.build("--only", ",".join(BUILT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("up to date") == len(BUILT)
    assert before == {name: built.path(name).stat().st_mtime_ns for name in BUILT}


def test_a_container_built_twice_is_the_same_to_the_byte(built: RealSite) -> None:
    before = built.path("docker").stat().st_mtime_ns
    done = built.build("--only", "docker", "--verify-reproducible", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)
    assert found["identical"], found
    assert built.path("docker").stat().st_mtime_ns == before
    assert not (built.cache / "again").exists()


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


@pytest.fixture(scope="module")
def images(built: RealSite) -> dict[str, Image]:
    """Every image, tested in its shipped form; and all but docker's, as they were asked then."""
    needs("ssh", "ssh-keygen", "tar", "qemu-img", "xorriso", "unshare")
    built.add("tests.d/collect.py", COLLECT)
    began = time.monotonic()
    done = built.goldimg("test", "-O", "Debian-12", "--check-timeout", CHECKING)
    print(done.stderr, done.stdout, f"{time.monotonic() - began:.0f} s for all", sep="\n")
    (built.root / "tests.d/collect.py").unlink()
    assert done.returncode == 0
    return {name: asked(name, built.cache, built.directory(name)) for name in MACHINES}


MACHINES = tuple(name for name in BUILT if name != "docker")


@pytest.mark.parametrize("name", MACHINES)
def test_an_image_takes_keys_only_and_offers_nothing_but_ssh(
    images: dict[str, Image], name: str
) -> None:
    image = images[name]
    assert "Permission denied (publickey)" in image.refused
    sshd = image.lines("sshd")
    for line in ("passwordauthentication no", "permitrootlogin without-password", "usedns no"):
        assert line in sshd
    listening = [line.split() for line in image.lines("sockets")]
    reachable = [
        (kind, place.rpartition(":")[2], who)
        for kind, place, *rest in listening
        for who in ["".join(rest)]
        if not place.startswith(("127.", "[::1]"))
    ]
    # the client's end of DHCP takes no requests
    offered = {
        port for kind, port, _ in reachable if (kind, port) not in (("udp", "68"), ("udp", "546"))
    }
    assert offered == {"22"}, reachable


@pytest.mark.parametrize("name", MACHINES)
def test_an_image_starts_without_failures_and_leftovers(
    images: dict[str, Image], name: str
) -> None:
    image = images[name]
    assert image.facts["failed"] == ""
    # what the first boot itself writes: bash's files are the packages', the keys are cloud-init's
    allowed = {"/root/.bashrc", "/root/.profile", "/root/.ssh/authorized_keys"}
    allowed.add("/var/cache/apt/archives/lock")
    left = [line for line in image.lines("leftovers") if line not in allowed]
    left = [line for line in left if not line.startswith(("/var/tmp/systemd-", "/tmp/systemd-"))]
    assert [line for line in left if not line.startswith("/var/lib/waagent/")] == []
    assert image.facts["secret"] == ""


def test_every_image_has_passed_and_everybody_knows(
    built: RealSite, images: dict[str, Image]
) -> None:
    listed = json.loads(built.goldimg("list", "--json").stdout)
    assert [it["tested"] for it in listed] == [True] * len(BUILT)
    for name in BUILT:
        manifest = json.loads((built.directory(name) / "manifest.json").read_text())
        assert manifest["tests"]["artifacts"].keys() == {built.path(name).name}
        assert not (built.directory(name) / "test/failure.png").exists()
        suite = (built.directory(name) / f"Debian-12-{VERSION}_{name}.junit.xml").read_text()
        assert 'failures="0"' in suite
    verified = built.goldimg("verify", "-O", "Debian-12", "--only", "docker,openstack")
    assert verified.returncode == 0, verified.stderr
    assert "no signature covers it" not in verified.stdout + verified.stderr
    key = (built.root / "keys/packer.pub").read_text().split()[1]
    assert all(key in image.facts["root_keys"] for image in images.values())


def dead_image(built: RealSite, version: str) -> Path:
    """The openstack image as another version, with a disk that holds nothing."""
    directory = built.directory("openstack", version)
    directory.mkdir(parents=True)
    artifact = built.path("openstack", version)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", artifact, "1G"], check=True)
    manifest = json.loads((built.directory("openstack") / "manifest.json").read_text())
    manifest["version"] = version
    manifest.pop("tests", None)
    manifest["artifacts"] = [
        {
            "file": artifact.name,
            "size": artifact.stat().st_size,
            "sha256": hashlib.sha256(artifact.read_bytes()).hexdigest(),
            "virtual_size": 1 << 30,
        }
    ]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def test_an_image_that_never_starts_is_shown_and_named(built: RealSite) -> None:
    directory = dead_image(built, "8.8.8")
    try:
        done = built.goldimg("test", "openstack", "--version", "8.8.8", "--timeout", "300")
        assert done.returncode == 1, done.stderr
        assert "it does not start; the firmware found nothing to boot" in done.stderr
        place = "artifacts/8.8.8/Debian-12/openstack/test"
        assert f"  screen: {place}/failure.png" in done.stderr
        assert f"  log: {place}/console.log" in done.stderr
        assert (directory / "test/failure.png").read_bytes().startswith(b"\x89PNG")
        (check,) = json.loads((directory / "manifest.json").read_text())["tests"]["checks"]
        assert (check["name"], check["outcome"]) == ("starts", "failed")
        done = built.goldimg("test", "openstack", "--version", "8.8.8", "--timeout", "10")
        assert "SSH did not answer within 10 s" in done.stderr
    finally:
        shutil.rmtree(built.root / "artifacts/8.8.8")
    assert built.processes() == []


def test_a_build_that_is_also_tested_fails_where_the_test_does(built: RealSite) -> None:
    own = built.add("tests.d/docker/own.py", "def test_it():\n    assert False, 'not yet'\n")
    done = built.build("--only", "docker", "--test")
    own.unlink()
    assert done.returncode == 1
    assert "tests.d/docker/own.py::test_it: not yet" in done.stderr
    assert "the artifacts are kept" in done.stderr
    assert built.path("docker").exists()
    done = built.build("--only", "docker", "--test")
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout


def test_ctrl_c_ends_the_machine_under_test(built: RealSite) -> None:
    process = subprocess.Popen(
        [GOLDIMG, "test", "openstack", "-O", "Debian-12"],
        cwd=built.root,
        env=built.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    try:
        while time.monotonic() < end and not any("-netdev" in it for it in built.processes()):
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert built.processes() == []
    assert not list((built.cache / "tests").iterdir())


def test_no_two_images_share_an_identity(images: dict[str, Image]) -> None:
    facts = []
    for image in images.values():
        assert len(image.facts["machine_id"]) == 32
        keys = [line.split()[1] for line in image.lines("host_keys")]
        assert len(keys) == 2
        facts += [image.facts["machine_id"], *keys]
    assert len(facts) == len(set(facts))


@pytest.mark.parametrize("name", MACHINES)
def test_the_initramfs_has_the_drivers_of_every_provider(
    images: dict[str, Image], name: str
) -> None:
    """The image has also found its root on its provider's own bus, or it would not be here."""
    image = images[name]
    wanted = {"ata_piix", "ena", "hv_netvsc", "hv_storvsc", "hv_vmbus", "nvme", "virtio_blk"}
    wanted |= {"virtio_scsi", "xen_blkfront", "vmw_pvscsi", "sr_mod"}
    present = {*image.words("initramfs"), *image.words("builtin")}
    assert wanted <= present, wanted - present


@pytest.mark.parametrize("name", MACHINES)
def test_the_serial_console_is_the_providers_and_has_a_login(
    images: dict[str, Image], name: str
) -> None:
    image = images[name]
    speed = {"gcp": "38400n8d", "openstack": "115200n8", "azure": "115200n8"}.get(name, "115200")
    assert f"console=ttyS0,{speed}" in image.words("cmdline")
    assert {"tty0", "ttyS0"} <= set(image.words("consoles"))
    assert "login:" in image.console
    assert "net.ifnames=0" in image.words("cmdline")


@pytest.mark.parametrize("name", CLOUDS)
def test_cloud_init_does_its_work_from_a_seed(images: dict[str, Image], name: str) -> None:
    image = images[name]
    assert image.facts["hostname"].partition(".")[0] == f"trial-{name}"
    assert image.lines("users")[0].startswith("tester:")
    source, size = image.words("root_disk")
    is_lvm = source == "/dev/mapper/rootvg-rootvol"
    assert is_lvm == (name not in SHARED["plain"])
    assert int(image.facts["disk_size"]) == GROWN_BYTES
    # 8 GiB were installed, of which LVM's swap and /boot take their shares
    assert int(image.facts["free_extents"] or 0) <= 1  # of 32 MiB
    swap = 0 if name not in SHARED["lvm"] else 2 << 20
    assert int(size) > (10 << 20) * 0.93 - swap - (400 << 10), "the root file system has not grown"


def test_roots_password_is_locked_where_the_provider_asks_for_it(
    images: dict[str, Image],
) -> None:
    hashes = {name: image.facts["root_hash"] for name, image in images.items()}
    for name in ("aws", "azure", "gcp", "openstack"):
        assert not hashes[name].startswith("$"), name
    for name in ("virtualbox", "vmware"):
        assert hashes[name].startswith("$6$"), name
    assert hashes["virtualbox"] != hashes["vmware"]


def test_each_image_is_right_for_its_provider(images: dict[str, Image]) -> None:
    packages = {name: set(image.lines("packages")) for name, image in images.items()}
    agents = {"azure": "waagent", "gcp": "google-guest-agent", "openstack": "qemu-guest-agent"}
    agents["vmware"] = "open-vm-tools"
    for name, found in packages.items():
        assert {agent for agent in agents.values() if agent in found} == (
            {agents[name]} if name in agents else set()
        )
        assert ("cloud-init" in found) == (name in CLOUDS)
    assert "NTP=169.254.169.123" in images["aws"].facts["timesync"]
    assert "nvme_core.io_timeout=4294967295" in images["aws"].words("cmdline")
    azure = images["azure"]
    assert azure.facts["swap"] == ""
    assert "earlyprintk=ttyS0,115200" in azure.words("cmdline")
    for line in ("ResourceDisk.Format=n", "ResourceDisk.EnableSwap=n"):
        assert line in azure.lines("waagent")
    assert "Provisioning.Agent=cloud-init" in azure.lines("waagent")
    assert "walinuxagent.service" in azure.facts["enabled"]
    assert "clientaliveinterval 180" in azure.lines("sshd")
    gcp = images["gcp"]
    assert gcp.facts["mtu"] == "1460"
    assert "kernel.panic = 10" in gcp.lines("sysctl")
    assert "NTP=metadata.google.internal" in gcp.facts["timesync"]
    assert "clientaliveinterval 420" in gcp.lines("sshd")
    assert not [line for line in images["openstack"].lines("routes") if line.startswith("169.254")]
    (vagrant,) = images["virtualbox"].lines("users")
    assert vagrant.startswith("vagrant:")
    assert "open-vm-tools.service" in images["vmware"].facts["enabled"]


@pytest.mark.parametrize("name", MACHINES)
def test_the_sites_own_additions_are_in_every_image(images: dict[str, Image], name: str) -> None:
    mark, script = images[name].lines("mark")
    assert mark == f"Debian-12 {VERSION} {name} blue"
    assert script == f"{name} {VERSION} 12 blue"
    rebooted = images[name].facts["rebooted"]
    assert (rebooted == "True Debian") == (name == "openstack")


def check_inventory(built: RealSite, name: str, packages: Sequence[str]) -> None:
    """What is told of an image is what its own dpkg says; that also names what left settings."""
    inventory = inventory_in(built.directory(name))
    assert inventory
    told = {package.name for package in inventory.packages}
    assert {"apt", "bash", "libc6"} <= told <= set(packages)
    assert len(told) >= 0.95 * len(set(packages))
    assert "/etc/passwd" in inventory.files
    assert ("ssh.service" in inventory.services) == (name != "docker")


def test_the_container_has_what_a_container_needs_and_nothing_of_a_machine(
    built: RealSite, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to change into the container's files")
    listed, mark, gone = (
        "dpkg-query -W -f '${Package}\\n'",
        "awk 1 /etc/goldimg-mark /etc/goldimg-script",
        "ls -d /boot/* /usr/lib/modules /etc/ssh /usr/lib/systemd /root/.ssh 2>/dev/null; "
        "find /usr/lib/python3/dist-packages -type d -empty",
    )
    works = "python3 -c 'print(6 * 7)'; dpkg --audit; apt-get --version | head -n 1; du -sxm /"
    said = in_container(built.path("docker"), tmp_path, [listed, mark, gone, works])
    packages = said[listed].split()
    check_inventory(built, "docker", packages)
    machine = ("linux-image", "grub", "initramfs", "systemd-sysv", "openssh-server", "firmware")
    assert [name for name in packages if name.startswith((*machine, "cloud-init"))] == []
    assert said[mark].splitlines() == [
        f"Debian-12 {VERSION} docker blue",
        f"docker {VERSION} 12 blue",
    ]
    assert said[gone] == ""
    answer, version, used = said[works].splitlines()
    assert answer == "42"
    assert version.startswith("apt ")
    describe(built, "docker", packages=len(packages), used=int(used.split()[0]))


def describe(built: RealSite, name: str, *, packages: int, used: int) -> None:
    """Notes that an image was looked at, and its size, which must not grow unseen."""
    size = built.path(name).stat()
    artifact = (size.st_blocks * 512 if built.path(name).suffix == ".vhd" else size.st_size) >> 20
    print(f"{name}: {packages} packages, {used} MiB of files, artifact {artifact} MiB")
    manifest = json.loads((built.directory(name) / "manifest.json").read_text())
    note(
        "booted",
        ["Debian-12"],
        [name],
        manifest["tools"],
        packages=packages,
        used_mib=used,
        artifact_mib=artifact,
    )
    before = load(RECORD).get("booted", {}).get(f"Debian-12 {name}")
    if before:
        assert used <= before["used_mib"] * 1.1, f"{name} has grown from {before['used_mib']} MiB"


@pytest.mark.parametrize("name", MACHINES)
def test_an_image_is_no_larger_than_it_was(
    built: RealSite, images: dict[str, Image], name: str
) -> None:
    image = images[name]
    used = int(image.facts["used"].splitlines()[-1].split()[0])
    describe(built, name, packages=len(image.lines("packages")), used=used)
    check_inventory(built, name, image.lines("packages"))


def test_an_addition_that_fails_is_named_and_the_base_is_kept(built: RealSite) -> None:
    bases = {path.name: path.stat().st_mtime_ns for path in (built.cache / "bases").iterdir()}
    path = built.add("ansible/site.d/gcp/99-fails.yml", FAILS)
    try:
        done = built.build("--only", "gcp", "--version", "9.9.9")
    finally:
        path.unlink()
    assert done.returncode == 1
    assert "gcp: Ansible task 'Give up' failed" in done.stderr
    assert "at: ansible/site.d/gcp/99-fails.yml:5" in done.stderr
    assert not built.path("gcp", "9.9.9").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (built.cache / "bases").iterdir()}
    assert {name: kept.get(name) for name in bases} == bases


@pytest.mark.parametrize("phase", ["kickstart fetched", "provisioning", "converting"])
def test_ctrl_c_leaves_nothing_running_and_nothing_half_done(built: RealSite, phase: str) -> None:
    """The first phase interrupts a base of its own, the others a layer over the shared base."""
    version = f"9.0.{len(phase)}"
    events = built.cache / "logs/events.jsonl"
    already = events.read_text().count("\n")
    base = ["--no-base-cache"] if phase == "kickstart fetched" else []
    provider = "azure" if phase == "kickstart fetched" else "gcp"  # which no addition reboots
    process = subprocess.Popen(
        [
            *(GOLDIMG, "build", "-O", "Debian-12", *VARIABLES),
            *("--only", provider, "--version", version, *base),
        ],
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
    done = built.build("--only", "gcp", "--version", version)
    assert done.returncode == 0, done.stderr
    assert "provisioned disk found in the cache" in done.stderr
    assert built.path("gcp", version).exists()


def test_a_second_build_of_the_same_thing_is_refused(built: RealSite) -> None:
    import fcntl

    (lock,) = (built.cache / "locks").glob(f"{VERSION}-Debian-12-gcp-*")
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        done = built.build("--only", "gcp", "--force")
    assert done.returncode == 1
    assert "Debian-12 1.0.0 for gcp is already being built" in done.stderr
