"""Packer templates as values: what a build asks of Packer, as JSON that 1.6 and newer take.

The builders' options are in the modules of their names; the provisioner's are at
https://developer.hashicorp.com/packer/integrations/hashicorp/ansible.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from goldimg.packer import qemu, virtualbox, vmware
from goldimg.packer.spec import Ansible, Freeze, Machine, Native, Ovmf, Spec

__all__ = ["Ansible", "Freeze", "Machine", "Native", "Ovmf", "Spec", "exported_disk",
           "make_template"]  # fmt: skip

Template = dict[str, object]

BUILDERS = {
    "qemu": qemu.builder,
    "virtualbox-iso": virtualbox.builder,
    "vmware-iso": vmware.builder,
}
DISKS = {
    "qemu": qemu.exported_disk,
    "virtualbox-iso": virtualbox.exported_disk,
    "vmware-iso": vmware.exported_disk,
}


def make_template(spec: Spec) -> Template:
    """The template of one run. It holds no secret: the kickstart's URL is a user variable."""
    return {
        "variables": {"ks_url": ""},
        "sensitive-variables": ["ks_url"],
        "builders": [BUILDERS[spec.builder](spec)],
        "provisioners": [
            _provisioner(spec.ansible),
            *([_freezer(spec.freeze)] if spec.freeze else []),
        ],
    }


def exported_disk(spec: Spec) -> Path:
    """Where the run leaves its disk: qcow2 from QEMU, VMDK from the others."""
    return DISKS[spec.builder](spec)


def _provisioner(ansible: Ansible) -> dict[str, object]:
    return {
        "type": "ansible",
        "playbook_file": str(ansible.playbook),
        # Packer's own SSH proxy offers only ssh-rsa, which OpenSSH 9 refuses
        "use_proxy": False,
        "user": "root",
        "extra_arguments": ["--extra-vars", f"@{ansible.variables}"],
        "ansible_env_vars": [f"{name}={value}" for name, value in ansible.environment],
    }


def _freezer(freeze: Freeze) -> dict[str, object]:
    words = [sys.executable, "-m", "goldimg.packer.freeze", str(freeze.socket), str(freeze.state)]
    return {"type": "shell-local", "inline": [shlex.join(words)]}
