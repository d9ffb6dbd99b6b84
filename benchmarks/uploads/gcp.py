"""Publishing to an emulated Cloud Storage, beside the SDK's own `upload_from_filename`.

    .venv/bin/python benchmarks/uploads/gcp.py DISK

The emulator keeps objects in memory and hashes each in Python, so it is the limit. Compute Engine
is a small server of the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from tests.clouds.gcp import Google, google_cloud  # noqa: E402
from tests.publishing import GOLDIMG, OS  # noqa: E402
from uploads import Row, make_site, timed  # noqa: E402

PLAIN = """\
import sys
from google.cloud.storage import Client
bucket = Client(client_options={"api_endpoint": sys.argv[2]}).bucket("images")
bucket.blob("plain.tar.gz").upload_from_filename(sys.argv[1], checksum="crc32c")
"""


def measure(image: Path) -> list[Row]:
    """A row for each way, of the disk in the file `image` (raw or qcow2)."""
    with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
        raw = Path(scratch) / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        with google_cloud(Path(scratch)) as google:
            os.environ.update(google.env)
            lines = [f"    {key}: {value}" for key, value in google.variables.items()]
            site_yml = "publish:\n  gcp:\n" + "\n".join(lines) + "\n"
            shop = make_site(Path(scratch) / "site", "gcp", raw, site_yml)
            raw.unlink()
            artifact = shop.image().file("tar.gz").path
            plain: list[str | Path] = [sys.executable, "-c", PLAIN, artifact, google.storage.url]
            upload: list[str | Path] = [GOLDIMG, "-q", "upload", "gcp", "-O", OS]
            return [
                measured(google, "upload_from_filename", plain, shop.root),
                measured(google, "goldimg", upload, shop.root),
                measured(google, "goldimg, again", upload, shop.root),
            ]


def measured(google: Google, what: str, argv: Sequence[str | Path], cwd: Path) -> Row:
    """One process, from its start to its end."""
    google.storage.heal()
    seconds, rss = timed(argv, cwd)
    sent = google.storage.sent("POST", "/upload/") + google.storage.sent("PUT", "/upload/")
    return Row(provider="gcp", what=what, seconds=seconds, sent=sent, rss=rss)


if __name__ == "__main__":
    for row in measure(Path(sys.argv[1]).resolve()):
        print(row)
