"""What the tests share."""

from __future__ import annotations

import os

import pytest

from goldimg.packages import package_of
from goldimg.run import has_program


def needs(*programs: str) -> None:
    """Fails in CI, skips with the reason elsewhere, where one of `programs` is missing."""
    missing = [name for name in programs if not has_program(name)]
    if not missing:
        return
    reason = "needs " + ", ".join(f"{name} (package {package_of(name)})" for name in missing)
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
