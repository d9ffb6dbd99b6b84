"""What finished images are like from inside, once `goldimg test` has booted them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from goldimg.testing.facts import parsed

HERE = Path(__file__).resolve().parent
GROWN_BYTES = 10 << 30  # the disk that an instance is given; images have 8 GiB


@dataclass(frozen=True, kw_only=True)
class Image:
    """What a booted image said, by the names in facts.sh, and what its serial console showed."""

    provider: str
    facts: Mapping[str, str]
    console: str
    refused: str  # what sshd said to somebody without a key

    def lines(self, name: str) -> list[str]:
        return self.facts[name].splitlines()

    def words(self, name: str) -> list[str]:
        return self.facts[name].split()


# A check in the site's tests.d: what `goldimg test` has booted also says what only the tests ask.
COLLECT = f"""\
import base64
import json
from pathlib import Path

import pytest


def test_is_asked(host, facts, image):
    if image["kind"] != "machine":
        pytest.skip("containers are asked otherwise")
    # encoded, since sudo logs commands, and one of the facts is where a word stands
    script = base64.b64encode(Path({str(HERE / "facts.sh")!r}).read_bytes()).decode()
    said = host.run("echo %s | base64 -d | sh", script).stdout
    place = Path(".cache") / f"asked-{{image['provider']}}.json"
    place.write_text(json.dumps({{**facts, "said": said}}))
"""
CHECKING = "900"  # seconds that it may take


def asked(provider: str, cache: Path, artifacts: Path) -> Image:
    """What a booted image said in the check above."""
    told = json.loads((cache / f"asked-{provider}.json").read_text())
    return Image(
        provider=provider,
        facts=parsed(told.pop("said")),
        console=(artifacts / "test/console.log").read_text(errors="replace"),
        refused=told["offered_root"],
    )


def in_container(artifact: Path, scratch: Path, commands: Iterable[str]) -> dict[str, str]:
    """What each shell command says in the container's root file system, by the command."""
    root = scratch / "rootfs"
    root.mkdir(parents=True)
    subprocess.run(["tar", "--numeric-owner", "-xpf", artifact, "-C", root], check=True)
    said = {}
    for command in commands:
        done = subprocess.run(
            ["unshare", "--mount", "chroot", root, "/bin/sh", "-c", command],
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        said[command] = (done.stdout + done.stderr).strip()
    return said
