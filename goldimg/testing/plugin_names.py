"""What the process that checks an image and the one that starts it have to agree on."""

from __future__ import annotations

from pathlib import Path

TRIAL = "GOLDIMG_TRIAL"  # in the environment: a JSON file, goldimg.testing.suite's Trial
PLUGIN = "goldimg.testing.plugin"
CHECKS = Path(__file__).resolve().parent / "checks"
