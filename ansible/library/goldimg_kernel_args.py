#!/usr/bin/python
"""Sets kernel arguments in GRUB's configuration without running grub-mkconfig."""

DOCUMENTATION = r"""
module: goldimg_kernel_args
short_description: Set kernel arguments in GRUB's defaults and in the menu at once
description:
  - Changes the boot entries that there are and the places that future entries are made from in the
    same way, so that the next boot and the next kernel agree.
  - grub-mkconfig takes 12 to 20 s in a guest without hardware virtualization; this takes none.
    Only what follows C(root=...) is touched.
  - An argument replaces those of the same name (all C(console=) by the given ones, in their
    order); all others stay.
options:
  args:
    description: The arguments, as C(name) or C(name=value).
    type: list
    elements: str
    required: true
  absent:
    description: Names of arguments that are taken away.
    type: list
    elements: str
    default: []
  defaults:
    description: The file with C(GRUB_CMDLINE_LINUX).
    type: path
    default: /etc/default/grub
  menus:
    description: The menus that GRUB reads at boot, as paths or patterns; one of them must be there.
    type: list
    elements: str
    default: [/boot/grub/grub.cfg]
  entries:
    description: A directory of entries by the Boot Loader Specification, one a kernel (EL8 on).
    type: path
  environment:
    description: GRUB's environment block, where the entries name its C(kernelopts) (EL8).
    type: path
  cmdline:
    description: The file that kernels to come take their arguments from (EL9 on).
    type: path
author:
  - the goldimg authors
"""

EXAMPLES = r"""
- name: Set the kernel arguments
  goldimg_kernel_args:
    args: [console=tty0, "console=ttyS0,38400n8d"]
    absent: [quiet]
"""

RETURN = r"""
paths:
  description: The files that were changed.
  returned: always
  type: list
  elements: str
"""

import glob
import os
import re

from ansible.module_utils.basic import AnsibleModule

# https://www.gnu.org/software/grub/manual/grub/html_node/Simple-configuration.html
DEFAULT = re.compile(r"""^(GRUB_CMDLINE_LINUX=)(["']?)(.*?)\2[ \t]*$""", re.MULTILINE)
QUIET = re.compile(r"""^(GRUB_CMDLINE_LINUX_DEFAULT=)(["']?)(.*?)\2[ \t]*$""", re.MULTILINE)
# a boot entry: everything from the kernel to its root file system stays
ENTRY = re.compile(r"^([ \t]*linux(?:16|efi)?[ \t]+\S+(?:[ \t].*?)?[ \t]root=\S+)(.*)$", re.M)
# https://uapi-group.org/specifications/specs/boot_loader_specification/
OPTIONS = re.compile(r"^(options[ \t]+)(.*)$", re.M)
# https://www.gnu.org/software/grub/manual/grub/html_node/Environment-block.html
KERNELOPTS = re.compile(r"^(kernelopts=)(.*)$", re.M)
BLOCK = 1024  # bytes of an environment block, filled up with '#'


class Change:
    """Which arguments to set, and the names of those that go."""

    def __init__(self, args, absent):
        self.args = args
        self.names = set(map(name_of, args)) | set(absent)

    def without(self, line):
        """The arguments in `line` that this change has nothing to do with."""
        return [argument for argument in line.split() if name_of(argument) not in self.names]

    def merged(self, line):
        """The arguments in `line` without those that go, then those that are set."""
        return " ".join(self.without(line) + self.args)


def name_of(argument):
    """`console` of `console=ttyS0`."""
    return argument.split("=", 1)[0]


def with_defaults(text, change):
    """/etc/default/grub with the arguments; the variable is added where it is missing."""
    text = QUIET.sub(
        lambda found: found.group(1) + '"' + " ".join(change.without(found.group(3))) + '"', text
    )
    if not DEFAULT.search(text):
        return text.rstrip("\n") + '\nGRUB_CMDLINE_LINUX="' + " ".join(change.args) + '"\n'
    return DEFAULT.sub(
        lambda found: found.group(1) + '"' + change.merged(found.group(3)) + '"', text
    )


def with_menu(text, change):
    """grub.cfg with the arguments in every boot entry."""
    return ENTRY.sub(lambda found: found.group(1) + " " + change.merged(found.group(2)), text)


def with_entry(text, change):
    """One entry's file; where it takes its options from the environment they are changed there."""

    def replaced(found):
        if "$kernelopts" in found.group(2):
            return found.group(1) + " ".join(change.without(found.group(2)))
        return found.group(1) + change.merged(found.group(2))

    return OPTIONS.sub(replaced, text)


def with_environment(text, change):
    """GRUB's environment block, which keeps its size."""
    body = KERNELOPTS.sub(
        lambda found: found.group(1) + change.merged(found.group(2)), text.rstrip("#")
    )
    if len(body) > BLOCK:
        raise EnvironmentError("the arguments do not fit into GRUB's environment block")
    return body + "#" * (BLOCK - len(body)) if body != text.rstrip("#") else text


def with_cmdline(text, change):
    """/etc/kernel/cmdline: one line of arguments."""
    return change.merged(text) + "\n"


def update(path, edit, change, write):
    """Rewrites one file; True where it differs from what it was."""
    path = os.path.realpath(path)  # a link to the EFI system partition stays one
    with open(path) as stream:
        before = stream.read()
    after = edit(before, change)
    if after != before and write:
        temporary = path + ".goldimg"
        with open(temporary, "w") as stream:
            stream.write(after)
        mode = os.stat(path).st_mode & 0o7777
        if os.stat(temporary).st_mode & 0o7777 != mode:
            os.chmod(temporary, mode)
        os.rename(temporary, path)
    return after != before


def places(params):
    """Each file that has kernel arguments, with what changes it. The first two must be there."""
    found = [(params["defaults"], with_defaults)]
    menus = [path for pattern in params["menus"] for path in sorted(glob.glob(pattern))]
    found += [(path, with_menu) for path in menus or params["menus"][:1]]
    if params["entries"]:
        found += [(path, with_entry) for path in sorted(glob.glob(params["entries"] + "/*.conf"))]
    for name, edit in (("environment", with_environment), ("cmdline", with_cmdline)):
        if params[name] and os.path.exists(params[name]):
            found.append((params[name], edit))
    return found


def main():
    """Ansible calls this in the guest."""
    module = AnsibleModule(
        argument_spec={
            "args": {"type": "list", "elements": "str", "required": True},
            "absent": {"type": "list", "elements": "str", "default": []},
            "defaults": {"type": "path", "default": "/etc/default/grub"},
            "menus": {"type": "list", "elements": "str", "default": ["/boot/grub/grub.cfg"]},
            "entries": {"type": "path"},
            "environment": {"type": "path"},
            "cmdline": {"type": "path"},
        },
        supports_check_mode=True,
    )
    change = Change(module.params["args"], module.params["absent"])
    changed = []
    for path, edit in places(module.params):
        try:
            if update(path, edit, change, not module.check_mode):
                changed.append(path)
                module.set_default_selinux_context(path, False)
        except EnvironmentError as error:
            module.fail_json(msg=path + ": " + str(error), paths=changed)
    module.exit_json(changed=bool(changed), paths=changed)


if __name__ == "__main__":
    main()
