"""The playbooks' EL branches, run against a root that stands for an EL machine (el_root.py)."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from goldimg.config import load_settings
from goldimg.project import Site
from goldimg.providers import all_providers
from tests.el_root import ROOT, ElRoot, Guest, prepare, remove
from tests.verified import note, systems

pytestmark = pytest.mark.real

PROVIDERS = sorted(all_providers())
RELEASES = dict.fromkeys(PROVIDERS, "9.6") | {"openstack": "8.10", "gcp": "7.9", "aws": "10.0"}
LIST = "chroot merged rpm -qa --queryformat '%{NAME}\\n' >merged/rpms"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElRoot]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to change into another root directory")
    made = prepare(tmp_path_factory.mktemp("el"))
    yield made
    remove(made)


@pytest.fixture(scope="module")
def guests(root: ElRoot) -> dict[str, Guest]:
    """Base and provider's part in one, as native builds have it, for every provider."""
    guests = {}
    for name in PROVIDERS:
        version = RELEASES[name]
        variables = {
            "packer_build_name": name,
            "goldimg_stage": "all",
            "goldimg_base_providers": [name],
            "goldimg_root_key": "ssh-ed25519 AAAA packer",
            "goldimg_vagrant_key": "ssh-ed25519 BBBB vagrant",
            "packer_os": {
                "os_name": "AlmaLinux",
                "os_version": version,
                "python": "3.9",
                "package_manager": "dnf",
                "kickstart": {"family": "el"},
                "repositories": {"base": "file:///repo"},
            },
            # this interpreter is in the other root
            "ansible_python_interpreter": str(root.scratch / name / "python"),
        }
        guests[name] = root.run(name, variables, LIST)
    return guests


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_has_its_packages_and_no_others(guests: dict[str, Guest], name: str) -> None:
    found = guests[name].packages()
    cloud = {"cloud-init", "cloud-utils-growpart"}
    own = {
        "aws": cloud,
        "azure": cloud | {"WALinuxAgent", "hyperv-daemons"},
        "docker": set(),
        "gcp": cloud | {"gdisk", "google-compute-engine", "google-guest-agent"},
        "openstack": cloud | {"qemu-guest-agent", "acpid"},
        "virtualbox": set(),
        "vmware": cloud | {"open-vm-tools", "lvm2"},
    }[name]
    everybody = {"ca-certificates", "chrony", "dracut-config-generic"}
    kept = {
        *("NetworkManager", "audit", "bash", "dbus-broker", "dracut", "grub2-pc", "grubby"),
        *("kernel", "kernel-core", "linux-firmware", "openssh-server", "sudo", "systemd"),
        *("selinux-policy-targeted", "systemd-udev"),
    }
    kept |= set() if name == "docker" else {"cronie", "firewalld", "rsyslog"}
    assert found - {"gpg-pubkey"} == own | everybody | kept


@pytest.mark.parametrize("name", PROVIDERS)
def test_only_the_installations_repository_is_left(guests: dict[str, Guest], name: str) -> None:
    repo = guests[name].text("/etc/yum.repos.d/goldimg.repo")
    assert "baseurl=file:///repo\n" in repo
    assert "gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-tests\n" in repo
    assert "[" not in guests[name].text("/etc/yum.repos.d/almalinux.repo")


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_initramfs_has_every_driver_that_the_kernel_has(
    guests: dict[str, Guest], name: str
) -> None:
    image = guests[name].find("/boot/initramfs-5.14.0.img")
    assert image
    for driver in ("ena", "nvme", "hv_vmbus", "hv_storvsc", "hv_netvsc", "xen_blkfront"):
        assert f"/{driver}.ko" in image.read_text()


@pytest.mark.parametrize("name", PROVIDERS)
def test_sshd_takes_keys_only_and_finds_its_settings_right(
    guests: dict[str, Guest], name: str
) -> None:
    guest, is_old = guests[name], RELEASES[name] in ("7.9", "8.10")
    place = "/etc/ssh/sshd_config" if is_old else "/etc/ssh/sshd_config.d/90-goldimg.conf"
    text = guest.text(place)
    assert "PasswordAuthentication no" in text
    assert ("PermitRootLogin without-password" in text) == (RELEASES[name] == "7.9")
    if is_old:
        assert text.index("UseDNS no") < text.index("Include ")  # the first value counts
    key = guest.find("/root/.ssh/authorized_keys")
    assert key
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", PROVIDERS)
def test_kernel_arguments_and_units_are_the_providers(guests: dict[str, Guest], name: str) -> None:
    guest = guests[name]
    options = guest.text("/boot/loader/entries/one.conf")
    if name == "azure":
        assert "rootdelay=300" in options
    if name == "gcp":
        assert options.rstrip().endswith("console=tty0 console=ttyS0,38400n8d")
        assert "MTUBytes=1460" in guest.text("/etc/systemd/network/10-gcp-mtu.link")
    assert ("quiet" in options) == (name in ("docker", "virtualbox"))
    assert guest.text("/etc/kernel/cmdline").split() == options.split()[1:]
    wanted = {"azure": "waagent", "gcp": "google-guest-agent", "openstack": "acpid"}
    wanted["vmware"] = "vmtoolsd"
    if name in wanted:
        unit = f"/etc/systemd/system/multi-user.target.wants/{wanted[name]}.service"
        assert guest.find(unit)


def test_time_servers_of_a_provider_replace_the_distributions(guests: dict[str, Guest]) -> None:
    aws = guests["aws"].text("/etc/chrony.conf")
    assert "\nserver 169.254.169.123 prefer iburst minpoll 4 maxpoll 4\n" in aws
    assert "# pool " in aws
    assert "# server ntp.example.com" in aws
    assert guests["azure"].text("/etc/chrony.conf").startswith("pool ")


def test_azure_is_deprovisioned_last_but_for_the_clean_up(guests: dict[str, Guest]) -> None:
    calls = guests["azure"].calls()
    names = [call.split()[0] for call in calls]
    assert "waagent -force -deprovision" in calls
    assert names.index("waagent") > names.index("dracut")
    assert names.index("waagent") < names.index("restorecon")
    conf = guests["azure"].text("/etc/waagent.conf")
    assert (
        conf == "Provisioning.Agent=cloud-init\nResourceDisk.Format=n\nResourceDisk.EnableSwap=n\n"
    )


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_clean_up_leaves_nothing_of_the_installation(
    guests: dict[str, Guest], name: str
) -> None:
    guest = guests[name]
    assert guest.find("/root/anaconda-ks.cfg") is None
    assert "HWADDR" not in guest.text("/etc/sysconfig/network-scripts/ifcfg-eth1")
    assert guest.text("/etc/machine-id") == ""
    upper = guest.upper / "etc/ssh"
    assert not [path for path in upper.glob("ssh_host_*") if not path.is_char_device()]
    assert any(call.startswith("restorecon -RF /etc") for call in guest.calls())


@pytest.mark.parametrize("name", PROVIDERS)
def test_it_is_noted_what_ran(root: ElRoot, guests: dict[str, Guest], name: str) -> None:
    """For the release that the provider's run stood for, and no other."""
    assert "failed=0" in guests[name].output
    site = Site(root=ROOT)
    settings = {it: load_settings(site, it, environ={}) for it in systems()}
    major = RELEASES[name].partition(".")[0]
    stood_for = [
        it
        for it, found in settings.items()
        if found.os.kickstart.family == "el" and found.os_major == major
    ]
    assert stood_for
    said = subprocess.run(
        ["chroot", root.path, "dpkg-query", "-W", "-f", "${Version}", "dnf"],
        capture_output=True,
        text=True,
        check=True,
    )
    core = importlib.metadata.version("ansible-core")
    note("tasks", stood_for, [name], {"ansible-core": core, "dnf": said.stdout.partition("-")[0]})


def test_a_container_loses_what_only_a_machine_has(root: ElRoot, guests: dict[str, Guest]) -> None:
    """The script that systemd runs last of all, over what the playbook has left."""
    script = guests["docker"].find("/usr/lib/systemd/system-shutdown/goldimg-container")
    freeze = root.path / "usr/sbin/fsfreeze"
    assert script
    assert "standins.log" in freeze.read_text()  # never the real one: it would stop this machine
    left = finish_container(root, script)
    gone = ("kernel", "grub", "dracut", "systemd", "openssh", "linux-firmware", "selinux-policy")
    assert [name for name in left if name.startswith(gone)] == []
    assert {"bash", "sudo"} <= set(left)


def finish_container(root: ElRoot, script: Path) -> list[str]:
    place = root.scratch / "docker"
    lower = f"{place}/upper:{root.path}"
    for part in ("upper2", "work2", "merged2"):
        (place / part).mkdir()
    commands = f"""
        mount -t overlay none -o lowerdir={lower},upperdir={place}/upper2,workdir={place}/work2 \
            {place}/merged2
        cd {place}/merged2
        mount -t proc proc proc
        mount -t tmpfs none run
        mkdir -p run/systemd
        chmod +x usr/lib/systemd/system-shutdown/goldimg-container
        sed -i 's/^mount -o remount.*//; s/command -v apt-get/false/' \
            usr/lib/systemd/system-shutdown/goldimg-container
        chroot . /usr/lib/systemd/system-shutdown/goldimg-container poweroff
        chroot . rpm -qa --queryformat '%{{NAME}}\\n'
    """
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-ec", commands],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    return done.stdout.split()
