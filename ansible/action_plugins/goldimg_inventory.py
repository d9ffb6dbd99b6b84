"""Runs the module of the same name in the guest and writes its answer here, in one round trip.

https://docs.ansible.com/ansible/latest/dev_guide/developing_plugins.html#action-plugins
"""

from __future__ import annotations

import base64
from pathlib import Path

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """With `dest`, the answer's content goes there and is not part of the result any more."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars))
        destination = self._task.args.get("dest")
        if destination and not result.get("failed"):
            try:
                Path(destination).write_bytes(base64.b64decode(result.pop("content")))
            except OSError as error:
                result.update(failed=True, msg=f"cannot write {destination}: {error.strerror}")
        return result
