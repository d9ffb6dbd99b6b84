"""Publishing to an emulated Cloud Storage, beside the SDK's own `upload_from_filename`.

    .venv/bin/python benchmarks/uploads/gcp.py DISK

The emulator keeps objects in memory, and hashes and composes each in Python, so it is the limit: of
goldimg's parts it does so twice, which Cloud Storage does not. That is why both sides also send
through connections of 16 MiB/s, as a far network has them. Compute Engine is a small server of the
tests; it unpacks the archive, which the time of the import includes.
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
from uploads import Row, killed, make_site, timed  # noqa: E402

RATE = 16 << 20  # bytes a second
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
            upload: list[str | Path] = [GOLDIMG, "upload", "gcp", "-O", OS]
            rows = [
                measured(google, "upload_from_filename", plain, shop.root),
                measured(google, "goldimg", upload, shop.root),
                measured(google, "goldimg, again", upload, shop.root),
            ]
            google.clear()
            rows.append(resumed(google, upload, shop.root, artifact.stat().st_size))
            google.clear()
            google.storage.rate = RATE
            rows.append(measured(google, "upload_from_filename, 16 MiB/s", plain, shop.root))
            google.clear()
            rows.append(measured(google, "goldimg, 16 MiB/s a connection", upload, shop.root))
            return rows


def resumed(google: Google, argv: Sequence[str | Path], cwd: Path, size: int) -> Row:
    """What is left to do after a kill when nine tenths of the bytes have arrived."""
    killed(argv, cwd, lambda: arrived(google) >= 0.9 * size)
    return measured(google, "goldimg, after a kill at 90 %", argv, cwd)


def arrived(google: Google) -> int:
    """Bytes of objects that have arrived."""
    return google.storage.sent("POST", "/upload/") + google.storage.sent("PUT", "/upload/")


def measured(google: Google, what: str, argv: Sequence[str | Path], cwd: Path) -> Row:
    """One process, from its start to its end."""
    google.storage.heal()
    run = timed(argv, cwd)
    return Row(provider="gcp", what=what, run=run, sent=arrived(google))


if __name__ == "__main__":
    for row in measure(Path(sys.argv[1]).resolve()):
        print(row)
