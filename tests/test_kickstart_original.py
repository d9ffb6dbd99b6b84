"""Our kickstarts against what the original PHP server rendered; each difference has its reason."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from goldimg.kickstart.model import load_options
from goldimg.kickstart.render import render
from tests.kickstarts import Machine
from tests.support import needs
from tests.test_kickstart import GOLDEN, ROOT, make_target


def canonical(text: str) -> set[str]:
    """The commands, packages and scripts of a kickstart, as pykickstart writes them for RHEL 7."""
    needs("ksvalidator")  # the same package
    from pykickstart.parser import KickstartParser  # type: ignore[import-untyped]
    from pykickstart.version import makeVersion  # type: ignore[import-untyped]

    handler = makeVersion("RHEL7")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the original uses what RHEL 7 deprecated
        KickstartParser(handler).readKickstartFromString(text)
    return {line for line in str(handler).splitlines() if line and not line.startswith("#")}


# What differs on purpose, wherever it occurs: the original's line, then ours and why.
DIFFERENCES = {
    # --nobase does nothing since RHEL 7; an empty %post is left out.
    "%packages --nobase": "%packages",
    "%post": None,
    # The package's name since RHEL 7; firewalld replaced the other and is in @core.
    "man": "man-db",
    "system-config-firewall-base": None,
    # The disk is not `sda` on every bus, and an image has one disk.
    "ignoredisk --only-use=sda": None,
    "clearpart --all --initlabel --drives=sda": "clearpart --all --initlabel",
    # A volume group's name is never without a host: images are `rootvg`.
    "volgroup _rootvg --pesize=32768 pv.01": "volgroup rootvg --pesize=32768 pv.01",
    'logvol swap --fstype="swap" --recommended --name=swap --vgname=_rootvg': (
        'logvol swap --fstype="swap" --recommended --name=swap --vgname=rootvg'
    ),
    # A root of 1 MiB is below what newer releases' mkfs takes; it grows either way.
    'logvol / --fstype="xfs" --grow --size=1 --name=rootvol --vgname=_rootvg': (
        'logvol / --fstype="xfs" --grow --size=1024 --name=rootvol --vgname=rootvg'
    ),
    'logvol / --fstype="xfs" --grow --size=1 --name=rootvol --vgname=node01_rootvg': (
        'logvol / --fstype="xfs" --grow --size=1024 --name=rootvol --vgname=node01_rootvg'
    ),
    'part / --fstype="xfs" --grow --ondisk=sda --size=1': (
        'part / --fstype="xfs" --grow --size=1024'
    ),
    'part / --fstype="ext4" --grow --ondisk=sda --size=1': (
        'part / --fstype="ext4" --grow --ondisk=sda --size=1024'
    ),
    "part pv.01 --grow --ondisk=sda --size=1": "part pv.01 --grow --size=1",
    # /boot is ext4, which every release's GRUB reads and which has a living driver.
    'part /boot --fstype="ext3" --ondisk=sda --size=400': 'part /boot --fstype="ext4" --size=400',
    'part /boot --fstype="ext3" --ondisk=sda --size=1024': (
        'part /boot --fstype="ext4" --ondisk=sda --size=1024'
    ),
    # The device need not be called eth0 in the installer; the network is up after it.
    "network  --bootproto=dhcp --device=eth0": "network  --bootproto=dhcp --device=link --activate",
    # dracut's and anaconda's names since RHEL 7; images get both consoles and eth0.
    'bootloader --append="rdblacklist=nouveau nouveau.modeset=0" --location=mbr'
    ' --driveorder="sda"': (
        'bootloader --append="rd.driver.blacklist=nouveau nouveau.modeset=0 console=tty0'
        ' console=ttyS0,115200 net.ifnames=0" --location=mbr --timeout=1'
    ),
}
# Of machines: their disk stays `sda`, and so on.
METAL = {
    "ignoredisk --only-use=sda": "ignoredisk --only-use=sda",
    "clearpart --all --initlabel --drives=sda": "clearpart --all --initlabel --drives=sda",
    "part pv.01 --grow --ondisk=sda --size=1": "part pv.01 --grow --ondisk=sda --size=1",
    'bootloader --append="rdblacklist=nouveau nouveau.modeset=0" --location=mbr'
    ' --driveorder="sda"': (
        'bootloader --append="rd.driver.blacklist=nouveau nouveau.modeset=0" --location=mbr'
        " --boot-drive=sda"
    ),
    "network  --bootproto=static --device=em1 --gateway=192.0.2.1 --hostname=node01.lab.example.com"
    " --ip=192.0.2.11 --nameserver=192.0.2.53,192.0.2.54 --netmask=255.255.255.0": (
        "network  --bootproto=static --device=em1 --gateway=192.0.2.1"
        " --hostname=node01.lab.example.com --ip=192.0.2.11 --nameserver=192.0.2.53,192.0.2.54"
        " --netmask=255.255.255.0 --activate"
    ),
    # Without a device the original left the choice to the installer; the first link has a cable.
    "network  --bootproto=static --gateway=192.0.2.1 --hostname=nolvm01.lab.example.com"
    " --ip=192.0.2.13 --nameserver=192.0.2.53 --netmask=255.255.255.0": (
        "network  --bootproto=static --device=link --gateway=192.0.2.1"
        " --hostname=nolvm01.lab.example.com --ip=192.0.2.13 --nameserver=192.0.2.53"
        " --netmask=255.255.255.0 --activate"
    ),
    # The same file in one command, a failure of which is seen; no directory for keys not given.
    "%post": "%post --erroronfail",
    "mkdir -p /root/.ssh": None,
    "chmod -R u+rwX,go-rwx /root/.ssh": None,
    'echo "blacklist nouveau" > /etc/modprobe.d/blacklist-nouveau.conf': "set -e",
    'echo "options nouveau modeset=0" >> /etc/modprobe.d/blacklist-nouveau.conf': (
        "printf '%s\\n' 'blacklist nouveau' 'options nouveau modeset=0'"
        " > /etc/modprobe.d/blacklist-nouveau.conf"
    ),
}
# Whatever the firmware needs: an ESP, a BIOS boot partition.
ADDED = {"reqpart"}
# Of images: what no virtual machine has a use for; kdump is off.
SPARED = {
    *("-iwl*-firmware", "-aic94xx-firmware", "-alsa-firmware", "-ivtv-firmware"),
    *("-dracut-config-rescue", "%addon com_redhat_kdump --disable"),
}
NOLVM01 = """
fqdn: nolvm01.lab.example.com
ipaddr: 192.0.2.13
netmask: 255.255.255.0
nameserver: 192.0.2.53
gateway: 192.0.2.1
lvm: 0
boot: 0
fstype: ext4
"""


@pytest.mark.parametrize("name", [path.stem for path in sorted((GOLDEN / "original").glob("*.ks"))])
def test_the_originals_commands_are_kept_but_for_what_is_listed(tmp_path: Path, name: str) -> None:
    site = Path(shutil.copytree(ROOT, tmp_path / "kickstart"))
    shutil.copy(site / "builds/metal/example.yml.example", site / "builds/metal/node01.yml")
    (site / "builds/metal/nolvm01.yml").write_text(NOLVM01)
    build = name.replace("_", "/")
    target = make_target("RHEL7", build=build, ssh_keys=())
    text = render(site, load_options(site, build, {}), target)
    # As it is once the %pre has read the boot options, of which there are none.
    ours = canonical(Machine(tmp_path / "machine").expand(text))
    original = canonical((GOLDEN / "original" / f"{name}.ks").read_text())
    known: dict[str, str | None] = dict(DIFFERENCES)
    if build.startswith("metal/"):
        known.update(METAL)
    wanted = {known.get(line, line) for line in original} - {None}
    assert ours == wanted | ADDED | (SPARED if build.startswith("virtual/") else set())
