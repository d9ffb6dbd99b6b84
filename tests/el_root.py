"""A root directory in which the playbooks' EL branches run for real, without one package of EL.

dnf, rpm, systemctl, sshd and Python are real, Debian's builds of them. The packages that dnf
installs and removes are made here, nearly empty, and signed. What only a booted EL has is a
stand-in that notes how it was called (dracut, lsinitrd, restorecon, waagent). So the tasks, their
order, names of variables, dnf's transactions, files, units and GRUB's places are proven, and
nothing that a package of EL brings: names of files and units are from the distributions' lists.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import needs

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
INCLUDED = ("python3", "python3-dnf", "dnf", "rpm", "createrepo-c", "gnupg", "systemd",
            "openssh-server", "sudo", "lvm2", "kmod", "procps", "findutils", "file")  # fmt: skip

# Installed as the installer leaves them, and offered for installation, with their files.
THERE = (
    "NetworkManager", "audit", "cronie", "dbus-broker", "dracut", "dracut-config-rescue",
    "firewalld", "grub2-pc", "grubby", "iwl7260-firmware", "kernel", "kernel-core",
    "linux-firmware", "openssh-server", "plymouth", "plymouth-scripts", "rsyslog",
    "selinux-policy-targeted", "sudo", "systemd", "systemd-udev", "bash",
)  # fmt: skip
UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
OFFERED: dict[str, dict[str, str]] = {
    "acpid": {"/usr/lib/systemd/system/acpid.service": UNIT},
    "ca-certificates": {},
    "chrony": {
        "/etc/chrony.conf": "pool 2.almalinux.pool.ntp.org iburst\nserver ntp.example.com\n"
    },
    "cloud-init": {
        f"/usr/lib/systemd/system/{name}.service": UNIT
        for name in (
            *("cloud-init-local", "cloud-init", "cloud-config", "cloud-final"),
            *("cloud-init-main", "cloud-init-network"),
        )
    },
    "cloud-utils-growpart": {},
    "dracut-config-generic": {},
    "gdisk": {},
    "google-compute-engine": {},
    "google-guest-agent": {
        f"/usr/lib/systemd/system/google-{name}.service": UNIT
        for name in ("guest-agent", "startup-scripts", "shutdown-scripts")
    },
    "hyperv-daemons": {},
    "lvm2": {},
    "open-vm-tools": {"/usr/lib/systemd/system/vmtoolsd.service": UNIT},
    "qemu-guest-agent": {},
    "WALinuxAgent": {
        "/etc/waagent.conf": "Provisioning.Agent=auto\nResourceDisk.Format=y\n"
        "ResourceDisk.EnableSwap=y\n",
        "/usr/lib/systemd/system/waagent.service": UNIT,
    },
}
NOTE = '#!/bin/sh\necho "${0##*/} $*" >>/standins.log\n'
STANDINS = {
    "waagent": NOTE,
    "fstrim": NOTE,
    "fsfreeze": NOTE,
    "restorecon": NOTE,
    "selinuxenabled": NOTE,
    "chpasswd": NOTE + "cat >>/etc/chpasswd.said\n",
    # what an initramfs holds is in the file that stands for it
    "lsinitrd": NOTE + 'cat "$1"\n',
    "dracut": NOTE.replace("/bin/sh", "/bin/bash")
    + ". /etc/dracut.conf.d/90-goldimg.conf\n"
    + "for name in $add_drivers; do\n"
    + '    found=$(find /lib/modules -name "$name.ko*" -o -name "$(echo "$name" | tr _ -).ko*")\n'
    + '    if [ -n "$found" ]; then echo "lib/modules/x/$name.ko.xz"; fi\n'
    + "done >>/boot/initramfs-5.14.0.img\n",
}
# no vmw_pvscsi: not every kernel has all of them
DRIVERS = ("ata_piix", "hv_storvsc", "hv_vmbus", "nvme", "virtio_blk", "virtio_scsi",
           "xen-blkfront", "ena", "hv_netvsc")  # fmt: skip
KEY = "%no-protection\nKey-Type: RSA\nKey-Length: 2048\nName-Real: Tests\nExpire-Date: 0\n%commit\n"


@dataclass(frozen=True, kw_only=True)
class ElRoot:
    """The prepared root; each run of the playbooks gets a layer of its own over it."""

    path: Path
    scratch: Path

    def run(self, name: str, variables: Mapping[str, object], *after: str) -> Guest:
        """Runs site.yml, then the commands `after`, in a layer called `name`."""
        place = self.scratch / name
        for part in ("upper", "work", "merged", "tmp"):
            (place / part).mkdir(parents=True)
        (place / "vars.json").write_text(json.dumps(variables))
        (place / "python").write_text(
            f'#!/bin/sh\nexec chroot {place}/merged /usr/bin/python3 "$@"\n'
        )
        (place / "python").chmod(0o755)
        book = f"ansible-playbook -i guest, -c local {ROOT}/ansible/site.yml -e @{place}/vars.json"
        script = "\n".join(
            [
                "set -e",
                f"mount -t overlay none -o lowerdir={self.path},upperdir={place}/upper,"
                f"workdir={place}/work {place}/merged",
                f"cd {place}",
                "mount -t proc proc merged/proc",
                "mount -t tmpfs none merged/run",
                "mount -t tmpfs none merged/dev",
                "mknod -m 666 merged/dev/null c 1 3",
                "mknod -m 666 merged/dev/urandom c 1 9",
                f"mkdir -p merged/run/sshd merged/run/systemd merged{place}/tmp",
                f"mount --bind tmp merged{place}/tmp",
                book,
                *after,
            ]
        )
        done = subprocess.run(
            ["unshare", "--mount", "/bin/sh", "-c", script],
            env={
                "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(place),
                "LANG": "C.UTF-8",
                "ANSIBLE_CONFIG": str(ROOT / "ansible/ansible.cfg"),
                "ANSIBLE_REMOTE_TMP": str(place / "tmp/remote"),
                "ANSIBLE_LOCAL_TEMP": str(place / "local"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_PIPELINING": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return Guest(upper=place / "upper", lower=self.path, output=done.stdout)


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What a run has left."""

    upper: Path
    lower: Path
    output: str

    def find(self, path: str) -> Path | None:
        """The file as it is now: overlayfs keeps a character device 0/0 for one that is gone."""
        for layer in (self.upper, self.lower):
            found = layer / path.lstrip("/")
            if found.is_symlink() or found.exists():
                return None if found.is_char_device() else found
        return None

    def text(self, path: str) -> str:
        found = self.find(path)
        assert found, f"no {path}"
        return found.read_text()

    def packages(self) -> set[str]:
        """What rpm says is installed, in the layer's own database."""
        listed = self.find("/rpms")
        assert listed
        return set(listed.read_text().split())

    def calls(self) -> list[str]:
        """How the stand-ins were called."""
        found = self.find("/standins.log")
        return found.read_text().splitlines() if found else []


def prepare(scratch: Path) -> ElRoot:
    """Makes the root in `scratch`; a minute, most of it mmdebstrap's."""
    needs("mmdebstrap", "unshare", "chroot")
    path = scratch / "root"
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(INCLUDED)}"),
            *("bookworm", path),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    write_system(path)
    make_packages(path)
    return ElRoot(path=path, scratch=scratch / "runs")


def write(root: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def write_system(root: Path) -> None:
    """What an EL machine has beside packages: kernel, initramfs, boot menu, repositories."""
    for name, text in STANDINS.items():
        write(root, f"/usr/sbin/{name}", text, 0o755)
    for name in DRIVERS:
        write(root, f"/lib/modules/5.14.0/kernel/{name}.ko.xz", "")
    write(root, "/lib/modules/5.14.0/modules.builtin", "kernel/drivers/ata/ahci.ko\n")
    write(root, "/boot/initramfs-5.14.0.img", "usr/lib/modules/5.14.0/virtio_blk.ko.xz\n")
    write(root, "/boot/grub2/grub.cfg", "set timeout=1\nblscfg\n")
    write(root, "/boot/loader/entries/one.conf", "options root=UUID=a ro rhgb quiet\n")
    write(root, "/etc/kernel/cmdline", "root=UUID=a ro rhgb quiet\n")
    write(root, "/etc/default/grub", 'GRUB_CMDLINE_LINUX="rhgb quiet"\n')
    write(root, "/etc/selinux/config", "SELINUX=enforcing\n")
    write(root, "/etc/dnf/vars/releasever", "9")
    write(root, "/etc/rpm/macros", "%_dbpath /var/lib/rpm\n%_gpg_name Tests\n%__gpg /usr/bin/gpg\n")
    write(root, "/etc/yum.repos.d/almalinux.repo", "[baseos]\nbaseurl=http://127.0.0.1:9/\n")
    write(root, "/root/anaconda-ks.cfg", "rootpw secret\n")
    write(root, "/etc/sysconfig/network-scripts/ifcfg-eth1", "DEVICE=eth1\nHWADDR=52:54:00:0:0:1\n")
    (root / "etc/dracut.conf.d").mkdir(parents=True)


def make_packages(root: Path) -> None:
    """Builds and signs the packages, makes a repository of them, installs those of THERE."""
    spec = ["Name: stand-in", "Version: 1", "Release: 1", "Summary: x", "License: MIT"]
    spec += ["BuildArch: noarch", "%description", "x", "%install"]
    for files in OFFERED.values():
        for path, text in files.items():
            spec += [f"mkdir -p %{{buildroot}}{Path(path).parent}"]
            spec += [f"cat >%{{buildroot}}{path} <<'END'", text.rstrip("\n"), "END"]
    for name in dict.fromkeys([*OFFERED, *THERE]):
        spec += [f"%package -n {name}", "Summary: x", f"%description -n {name}", "x"]
        spec += [f"%files -n {name}", *OFFERED.get(name, {})]
    write(root, "/build/stand-in.spec", "\n".join(spec) + "\n")
    write(root, "/build/key", KEY)
    commands = """
        cd /build
        export HOME=/build GPG_TTY=none
        rpmbuild --quiet --define '_topdir /build' --define '_build_id_links none' -bb stand-in.spec
        gpg --quiet --batch --gen-key key
        gpg --quiet --armor --export Tests >RPM-GPG-KEY-tests
        rpmsign --addsign RPMS/noarch/*.rpm >/dev/null
        mkdir -p /etc/pki/rpm-gpg /repo
        mv RPM-GPG-KEY-tests /etc/pki/rpm-gpg/
        echo no key >/etc/pki/rpm-gpg/RPM-GPG-KEY-testing
        mv RPMS/noarch/*.rpm /repo/
        createrepo_c --quiet /repo
        for name in THERE; do echo "/repo/$name-1-1.noarch.rpm"; done |
            xargs rpm -i --force-debian --nodeps --nosignature --noscripts
        cd / && rm -rf /build
    """.replace("THERE", " ".join(THERE))
    subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-ec",
         f"mount -t proc proc {root}/proc; exec chroot {root} /bin/sh -ec \"$0\"", commands],
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def remove(root: ElRoot) -> None:
    shutil.rmtree(root.path.parent, ignore_errors=True)
