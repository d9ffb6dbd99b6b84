#!/usr/bin/python
"""Tells what is in a guest: packages and files."""

DOCUMENTATION = r"""
module: goldimg_inventory
short_description: Tell which packages and files a guest has
description:
  - Reads the package manager's database and the file system, and changes nothing.
  - The answer is one string, gzip and base64 of JSON, because it is large. An action plugin of
    the same name writes it to a file of the controller's, so that it takes one round trip.
  - Places that differ from run to run, or that the clean-up empties, are left out.
  - Only files that people configure have a digest, up to 1 MiB each, and only those that everybody
    may read. Reading all files takes half a minute without hardware virtualization, and a
    package's version says what is in its own.
options:
  dest:
    description: The file of the controller's that the action plugin writes.
    type: path
  manager:
    description: The package manager that the guest's distribution has.
    type: str
    choices: [dpkg, rpm]
    required: true
  root:
    description: The directory that stands for the root of the guest.
    type: path
    default: /
  leaving:
    description:
      - RPM, regular expressions for whole names of packages that go after this, when the guest
        powers off. They are not told of.
    type: list
    elements: str
    default: []
author:
  - the goldimg authors
"""

EXAMPLES = r"""
- name: Take the inventory
  goldimg_inventory:
    dest: /srv/build/inventory.json.gz
    manager: dpkg
"""

RETURN = r"""
content:
  description: base64 of gzip of JSON; its members are in docs/inventory.md.
  returned: without the action plugin
  type: str
"""

import base64
import gzip
import hashlib
import io
import json
import os
import re
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_bytes, to_text

# What is not looked into: no part of the image, different in every instance, or an index of what
# is there.
SKIPPED = frozenset(
    [
        "/boot/efi/loader", "/dev", "/etc/insights-client", "/lost+found", "/mnt/sysimage",
        "/proc", "/root/.ansible", "/root/.cache", "/run", "/sys", "/tmp",  # noqa: S108 - nothing is written there
        "/usr/lib/sysimage/rpm", "/var/backups", "/var/cache", "/var/lib/NetworkManager",
        "/var/lib/apt", "/var/lib/chrony", "/var/lib/cloud", "/var/lib/dbus",
        "/var/lib/dhclient", "/var/lib/dhcp", "/var/lib/dnf", "/var/lib/dpkg", "/var/lib/rhsm",
        "/var/lib/rpm", "/var/lib/systemd", "/var/lib/tuned", "/var/lib/waagent", "/var/lib/yum",
        "/var/log", "/var/tmp",  # noqa: S108
    ]
)  # fmt: skip
SKIPPED_NAMES = frozenset(["__pycache__", "lost+found", ".bash_history", "known_hosts"])
# Files that files/clean.sh removes or empties, and such as hold what each instance makes anew.
FLEETING = re.compile(
    r"/etc/(machine-id|resolv\.conf|ssh/ssh_host_.*|(passwd|shadow|group|gshadow|subuid|subgid)-"
    r"|iscsi/initiatorname\.iscsi|ld\.so\.cache|adjtime|mtab"
    r"|network/interfaces\.d/50-cloud-init.*|netplan/50-cloud-init\.yaml"
    r"|systemd/network/10-cloud-init-.*|ssh/sshd_config\.d/50-cloud-init\.conf)$"
    r"|/root/(anaconda|original|initial-setup)-ks\.cfg$|/boot/grub2?/grubenv$"
)
# Where people, and goldimg, configure.
CONFIGURED = ("/etc/", "/usr/local/", "/opt/", "/srv/", "/root/", "/home/", "/boot/")
LARGEST = 1 << 20  # bytes of a file that gets a digest

# Tab-separated: man dpkg-query(1), https://rpm-software-management.github.io/rpm/manual/tags.html
DPKG = "\t".join(
    ["${db:Status-Status}", "${Package}", "${Version}", "${Architecture}", "${source:Package}",
     "${source:Version}", "${Installed-Size}"]
)  # fmt: skip
RPM = "\t".join(
    ["%{NAME}", "%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}", "%{ARCH}", "%{SOURCERPM}", "%{SIZE}",
     "%{LICENSE}"]
)  # fmt: skip


def plain(name):
    """A name as text that JSON takes, whatever bytes it has on the disk."""
    return to_text(to_bytes(name, errors="surrogateescape"), errors="replace")


def os_release(root):
    """os-release(5) as a dictionary; empty where there is none."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            with io.open(os.path.join(root, name), encoding="utf-8", errors="replace") as stream:
                pairs = [line.strip().split("=", 1) for line in stream if "=" in line]
        except EnvironmentError:
            continue
        return {pair[0]: pair[1].strip("\"'") for pair in pairs if pair[0][:1] != "#"}
    return {}


def rows_of(module, argv):
    """The fields of each line that a package manager says."""
    code, said, complaint = module.run_command(argv, check_rc=False)
    if code != 0:
        module.fail_json(msg=argv[0] + " failed: " + complaint.strip())
    return [line.split("\t") for line in to_text(said, errors="replace").splitlines() if line]


def debs(module, root):
    """What dpkg has installed."""
    argv = [module.get_bin_path("dpkg-query", required=True)]
    argv += ["--admindir=" + os.path.join(root, "var/lib/dpkg")]
    argv += ["--show", "--showformat=" + DPKG + "\n"]
    return [
        {
            "name": row[1],
            "version": row[2],
            "arch": row[3],
            "source": row[4],
            "source_version": row[5],
            "size": int(row[6] or 0) * 1024,
        }
        for row in rows_of(module, argv)
        if row[0] == "installed"
    ]


def rpms(module, root, leaving):
    """What rpm has installed and what does not go, keys of repositories aside."""
    argv = [module.get_bin_path("rpm", required=True), "-qa", "--queryformat", RPM + "\n"]
    if root != "/":
        argv[1:1] = ["--root", root]
    goes = re.compile("(?:" + "|".join(leaving) + ")$") if leaving else None
    return [
        {
            "name": row[0],
            "version": row[1],
            "arch": row[2],
            "source": row[3],
            "size": int(row[4]),
            "licence": row[5],
        }
        for row in rows_of(module, argv)
        if row[0] != "gpg-pubkey" and not (goes and goes.match(row[0]))
    ]


def is_told(path):
    """Whether a file, by its path in the guest, belongs into an inventory."""
    if path in SKIPPED or path.rsplit("/", 1)[1] in SKIPPED_NAMES:
        return False
    return not FLEETING.match(path)


def digest_of(path, found):
    """SHA-256 in hex; None for a file that is large or that not everybody may read.

    The latter may hold a password or a key, and a digest is enough to try guesses.
    """
    if found.st_size > LARGEST or not found.st_mode & stat.S_IROTH:
        return None
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except EnvironmentError:
        return None


def files_below(root, directory):
    """[path, mode, size, owner, digest or target] of every file and link, by name."""
    try:
        names = sorted(os.listdir(root + directory + "/"))
    except EnvironmentError:
        return
    for name in names:
        path = directory + "/" + name
        if not is_told(path):
            continue
        try:
            found = os.lstat(root + path)
        except EnvironmentError:
            continue
        if stat.S_ISDIR(found.st_mode):
            for entry in files_below(root, path):
                yield entry
            continue
        mode = "%04o" % (found.st_mode & 0o7777)
        owner = "%d:%d" % (found.st_uid, found.st_gid)
        if stat.S_ISLNK(found.st_mode):
            yield [plain(path), "link", 0, owner, plain(os.readlink(root + path))]
        elif stat.S_ISREG(found.st_mode):
            has_digest = path.startswith(CONFIGURED)
            digest = digest_of(root + path, found) if has_digest else None
            yield [plain(path), mode, found.st_size, owner, digest]


def main():
    """Ansible calls this in the guest."""
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path"},
            "manager": {"type": "str", "choices": ["dpkg", "rpm"], "required": True},
            "root": {"type": "path", "default": "/"},
            "leaving": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    root, manager = module.params["root"], module.params["manager"]
    if manager == "rpm":
        packages = rpms(module, root, module.params["leaving"])
    else:
        packages = debs(module, root)
    told = {
        "schema": 1,
        "os": os_release(root),
        "manager": manager,
        "packages": packages,
        "files": list(files_below(root.rstrip("/"), "")),
    }
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as stream:
        stream.write(to_bytes(json.dumps(told)))
    module.exit_json(changed=False, content=to_text(base64.b64encode(buffer.getvalue())))


if __name__ == "__main__":
    main()
