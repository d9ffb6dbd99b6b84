#!/usr/bin/python
"""Sets kernel arguments in GRUB's configuration without running grub-mkconfig."""

DOCUMENTATION = r"""
module: goldimg_kernel_args
short_description: Set kernel arguments in GRUB's defaults and in the menu at once
description:
  - Changes the C(linux) lines of an existing grub.cfg and the arguments in /etc/default/grub in
    the same way, so that the next boot and the next C(update-grub) agree.
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
  defaults:
    description: The file with C(GRUB_CMDLINE_LINUX).
    type: path
    default: /etc/default/grub
  menu:
    description: The menu that GRUB reads at boot.
    type: path
    default: /boot/grub/grub.cfg
author:
  - the goldimg authors
"""

EXAMPLES = r"""
- name: Set the kernel arguments
  goldimg_kernel_args:
    args: [console=tty0, "console=ttyS0,38400n8d"]
"""

RETURN = r"""
paths:
  description: The files that were changed.
  returned: always
  type: list
  elements: str
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule

# https://www.gnu.org/software/grub/manual/grub/html_node/Simple-configuration.html
DEFAULT = re.compile(r"""^(GRUB_CMDLINE_LINUX=)(["']?)(.*?)\2[ \t]*$""", re.MULTILINE)
QUIET = re.compile(r"""^(GRUB_CMDLINE_LINUX_DEFAULT=)(["']?)(.*?)\2[ \t]*$""", re.MULTILINE)
# a boot entry: everything from the kernel to its root file system stays
ENTRY = re.compile(r"^([ \t]*linux(?:16|efi)?[ \t]+\S+(?:[ \t].*?)?[ \t]root=\S+)(.*)$", re.M)


def name_of(argument):
    """`console` of `console=ttyS0`."""
    return argument.split("=", 1)[0]


def without(line, names):
    """The arguments in `line` whose name is none of `names`."""
    return [argument for argument in line.split() if name_of(argument) not in names]


def merged(line, args):
    """The arguments in `line` without those that `args` replaces, then `args`."""
    return " ".join(without(line, set(map(name_of, args))) + args)


def with_defaults(text, args):
    """/etc/default/grub with the arguments; the variable is added where it is missing."""
    names = set(map(name_of, args))
    text = QUIET.sub(
        lambda found: found.group(1) + '"' + " ".join(without(found.group(3), names)) + '"', text
    )
    if not DEFAULT.search(text):
        return text.rstrip("\n") + '\nGRUB_CMDLINE_LINUX="' + " ".join(args) + '"\n'
    return DEFAULT.sub(
        lambda found: found.group(1) + '"' + merged(found.group(3), args) + '"', text
    )


def with_menu(text, args):
    """grub.cfg with the arguments in every boot entry."""
    return ENTRY.sub(lambda found: found.group(1) + " " + merged(found.group(2), args), text)


def update(path, change, args, write):
    """Rewrites one file; True where it differs from what it was."""
    with open(path) as stream:
        before = stream.read()
    after = change(before, args)
    if after != before and write:
        temporary = path + ".goldimg"
        with open(temporary, "w") as stream:
            stream.write(after)
        os.chmod(temporary, os.stat(path).st_mode & 0o7777)
        os.rename(temporary, path)
    return after != before


def main():
    """Ansible calls this in the guest."""
    module = AnsibleModule(
        argument_spec={
            "args": {"type": "list", "elements": "str", "required": True},
            "defaults": {"type": "path", "default": "/etc/default/grub"},
            "menu": {"type": "path", "default": "/boot/grub/grub.cfg"},
        },
        supports_check_mode=True,
    )
    args, changed = module.params["args"], []
    for path, change in (
        (module.params["defaults"], with_defaults),
        (module.params["menu"], with_menu),
    ):
        try:
            if update(path, change, args, not module.check_mode):
                changed.append(path)
        except EnvironmentError as error:
            module.fail_json(msg=path + ": " + str(error), paths=changed)
    module.exit_json(changed=bool(changed), paths=changed)


if __name__ == "__main__":
    main()
