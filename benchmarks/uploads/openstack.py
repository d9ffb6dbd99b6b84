"""Publishing to a real Glance on loopback, beside the SDK's own `create_image`.

    .venv/bin/python benchmarks/uploads/openstack.py DISK

Glance hashes and stores what it gets in one thread of Python, so on few cores it is the limit.
Senders run as processes of their own: wall-clock time is theirs from start to end, memory their
highest resident set, bytes what the proxy before Glance received as bodies of uploads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from tests.clouds.openstack import glance  # noqa: E402
from tests.clouds.proxy import Proxy, proxied  # noqa: E402
from tests.publishing import GOLDIMG, OS  # noqa: E402
from uploads import Row, make_site, timed  # noqa: E402

TOKEN = "user:benchmark:member"  # noqa: S105 - of a Glance that takes any
PLAIN = """\
import openstack, os, sys
del os.environ["OS_CLIENT_CONFIG_FILE"]
url = sys.argv[2]
cloud = openstack.connect(
    auth_type="admin_token", auth={"endpoint": url, "token": sys.argv[3]},
    image_endpoint_override=url, image_api_version="2")
image = cloud.create_image(
    "plain", filename=sys.argv[1], disk_format="qcow2", container_format="bare", wait=True,
    validate_checksum=True)
assert image.status == "active"
"""
DATA = "/(file|stage)$"


def measure(image: Path) -> list[Row]:
    """A row for each way, of the disk in the file `image` (raw or qcow2)."""
    with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
        raw = Path(scratch) / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        shop = make_site(
            Path(scratch) / "site", "openstack", raw, "publish:\n  openstack:\n    cloud: lab\n"
        )
        raw.unlink()
        artifact = shop.image().file("qcow2").path
        with (
            glance(Path(scratch) / "glance", quota="64GB") as service,
            proxied(service.port) as proxy,
        ):
            write_clouds(Path(scratch), proxy)
            upload: list[str | Path] = [GOLDIMG, "upload", "openstack", "-O", OS]
            take_back: list[str | Path] = [
                GOLDIMG,
                "unpublish",
                "openstack",
                "-O",
                OS,
                "--version",
                "1.0.0",
            ]
            rows = [
                measured(
                    proxy,
                    "create_image",
                    [sys.executable, "-c", PLAIN, artifact, proxy.url, TOKEN],
                    shop.root,
                )
            ]
            for via in ("upload", "import"):
                rows.append(measured(proxy, f"goldimg, {via}", [*upload, "--via", via], shop.root))
                rows.append(measured(proxy, "goldimg, again", [*upload, "--via", via], shop.root))
                subprocess.run([*take_back, "--yes"], cwd=shop.root, check=True)
    return rows


def write_clouds(directory: Path, proxy: Proxy) -> None:
    """clouds.yaml."""
    entry = {"auth_type": "admin_token", "auth": {"endpoint": proxy.url, "token": TOKEN}}
    (directory / "clouds.yaml").write_text(yaml.safe_dump({"clouds": {"lab": entry}}))
    os.environ["OS_CLIENT_CONFIG_FILE"] = str(directory / "clouds.yaml")


def measured(proxy: Proxy, what: str, argv: Sequence[str | Path], cwd: Path) -> Row:
    """One process, from its start to its end."""
    proxy.heal()
    run = timed(argv, cwd)
    sent = proxy.sent("PUT", DATA)
    return Row(provider="openstack", what=what, run=run, sent=sent)


if __name__ == "__main__":
    for row in measure(Path(sys.argv[1]).resolve()):
        print(row)
