#!/usr/bin/python
"""Writes many small files in one call."""

DOCUMENTATION = r"""
module: goldimg_files
short_description: Write, link and remove many small files in one call
description:
  - Brings every file of a list into the wanted state, in the order of the list.
  - One call to a guest without hardware virtualization takes seconds, however small the file;
    a provider needs up to ten files. That is all that this module is for. Where a file is alone,
    ansible.builtin.copy and ansible.builtin.template do the same.
  - A file appears whole or not at all (temporary name beside it, then rename), with SELinux's
    label of its place where the guest has SELinux.
options:
  files:
    description: The files, each with its state.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path in the guest. Missing parent directories are made, mode 0755.
        type: path
        required: true
      content:
        description: The text of a file. A final newline is added where it is missing.
        type: str
      target:
        description: What a symbolic link points to.
        type: str
      state:
        description:
          - V(present) writes O(files[].content), V(link) a symbolic link to O(files[].target).
          - V(absent) removes a file or a link; a directory is an error.
        type: str
        choices: [present, link, absent]
        default: present
      mode:
        description: Permissions as an octal string.
        type: str
        default: "0644"
      replace:
        description: Whether an existing file is brought to this content.
        type: bool
        default: true
      owner:
        description: Name of the owner; its own group is the file's group.
        type: str
        default: root
      directory_mode:
        description: Permissions of the parent directory, where they matter (.ssh).
        type: str
author:
  - the goldimg authors
"""

EXAMPLES = r"""
- name: Write the files
  goldimg_files:
    files:
      - path: /etc/ssh/sshd_config.d/10-goldimg.conf
        content: "UseDNS no"
        mode: "0600"
      - path: /etc/cloud/cloud-init.disabled
        state: absent
"""

RETURN = r"""
paths:
  description: The paths that were changed.
  returned: always
  type: list
  elements: str
"""

import os
import pwd
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_bytes

OPTIONS = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "target": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "link", "absent"], "default": "present"},
    "mode": {"type": "str", "default": "0644"},
    "replace": {"type": "bool", "default": True},
    "owner": {"type": "str", "default": "root"},
    "directory_mode": {"type": "str"},
}


class Wrong(Exception):
    """The guest or the playbook is not as it must be."""


def read(path):
    """The bytes of a regular file, None where there is none."""
    if not os.path.isfile(path) or os.path.islink(path):
        return None
    with open(path, "rb") as stream:
        return stream.read()


def owner_of(name):
    """Numeric user and group of `name`."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Wrong("no user " + name)
    return entry.pw_uid, entry.pw_gid


def is_attributed(path, mode, owner):
    """Whether the permissions and the owner are already as wanted."""
    found = os.lstat(path)
    return found.st_mode & 0o7777 == mode and (found.st_uid, found.st_gid) == owner


def attribute(path, mode, owner):
    """Sets permissions and owner; True where something changed."""
    if is_attributed(path, mode, owner):
        return False
    os.chown(path, owner[0], owner[1])
    os.chmod(path, mode)
    return True


def ensure_parent(item, owner):
    """Makes the directory of the file; only a directory with a mode of its own gets an owner."""
    parent = os.path.dirname(item["path"])
    changed = not os.path.isdir(parent)
    if changed:
        os.makedirs(parent, 0o755)
    if item["directory_mode"]:
        changed = attribute(parent, int(item["directory_mode"], 8), owner) or changed
    return changed


def write(item):
    """The file with this content, owner and mode."""
    path, owner, mode = item["path"], owner_of(item["owner"]), int(item["mode"], 8)
    content = to_bytes(item["content"])
    if content and not content.endswith(b"\n"):
        content += b"\n"
    if not item["replace"] and os.path.lexists(path):
        return False
    changed = ensure_parent(item, owner)
    if read(path) == content:
        return attribute(path, mode, owner) or changed
    handle, temporary = tempfile.mkstemp(prefix=".goldimg-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        attribute(temporary, mode, owner)
        os.rename(temporary, path)
    except Exception:
        os.unlink(temporary)
        raise
    return True


def link(item):
    """The symbolic link; an existing file at its place is replaced."""
    path, target = item["path"], item["target"]
    if os.path.islink(path) and os.readlink(path) == target:
        return False
    ensure_parent(item, owner_of(item["owner"]))
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)
    return True


def remove(item):
    """No file and no link at this path."""
    if not os.path.lexists(item["path"]):
        return False
    os.unlink(item["path"])
    return True


ACTIONS = {"present": write, "link": link, "absent": remove}


def would_change(item):
    """Check mode: whether a run would touch the file (owners and modes are not looked at)."""
    path = item["path"]
    if item["state"] == "absent":
        return os.path.lexists(path)
    if item["state"] == "link":
        return not os.path.islink(path) or os.readlink(path) != item["target"]
    if not item["replace"] and os.path.lexists(path):
        return False
    return (read(path) or b"").rstrip(b"\n") != to_bytes(item["content"]).rstrip(b"\n")


def label(module, item):
    """Gives the file, and a directory that is its own, the labels that their places want."""
    if module.check_mode or item["state"] == "absent":
        return
    if item["directory_mode"]:
        module.set_default_selinux_context(os.path.dirname(item["path"]), False)
    module.set_default_selinux_context(item["path"], False)


def main():
    """Ansible calls this in the guest."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": OPTIONS,
                "required_if": [("state", "present", ["content"]), ("state", "link", ["target"])],
            }
        },
        supports_check_mode=True,
    )
    changed = []
    for item in module.params["files"]:
        action = would_change if module.check_mode else ACTIONS[item["state"]]
        try:
            if action(item):
                changed.append(item["path"])
                label(module, item)
        except (Wrong, EnvironmentError) as error:
            module.fail_json(msg=item["path"] + ": " + str(error), paths=changed)
    module.exit_json(changed=bool(changed), paths=changed)


if __name__ == "__main__":
    main()
