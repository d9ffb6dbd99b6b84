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
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from goldimg.artifacts import finish  # noqa: E402
from goldimg.formats.source import Disk  # noqa: E402
from goldimg.layout import lay_out  # noqa: E402
from goldimg.providers import Conversion, all_providers  # noqa: E402
from goldimg.run import Runner  # noqa: E402
from tests.clouds.gcp import Google, google_cloud  # noqa: E402
from tests.publishing import GOLDIMG, OS, Shop  # noqa: E402
from uploads import Peak, Row  # noqa: E402

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
            shop = make_site(Path(scratch) / "site", raw, google)
            raw.unlink()
            artifact = shop.image().file("tar.gz").path
            plain: list[str | Path] = [sys.executable, "-c", PLAIN, artifact, google.storage.url]
            upload: list[str | Path] = [GOLDIMG, "-q", "upload", "gcp", "-O", OS]
            return [
                timed(google, "upload_from_filename", plain, shop.root),
                timed(google, "goldimg", upload, shop.root),
                timed(google, "goldimg, again", upload, shop.root),
            ]


def make_site(root: Path, raw: Path, google: Google) -> Shop:
    """A site with the artifact of the disk."""
    lay_out(root)
    lines = [f"    {key}: {value}" for key, value in google.variables.items()]
    (root / "templates/site.yml").write_text("publish:\n  gcp:\n" + "\n".join(lines) + "\n")
    shop = Shop(root=root, provider="gcp", version="1.0.0")
    staging = shop.directory / ".staging"
    staging.mkdir(parents=True)
    with Disk(raw) as disk:
        job = Conversion(
            os_name=OS, version="1.0.0", disk=disk, target=staging, cpus=1, memory_mib=1024,
            seed="benchmark", guest=None, runner=Runner(), progress=lambda _done, _total: None,
        )  # fmt: skip
        written = all_providers()["gcp"].convert(job)
    about = {"os": OS, "version": "1.0.0", "provider": "gcp", "firmware": "bios"}
    finish(shop.directory, staging, written, about)
    return shop


def timed(google: Google, what: str, argv: Sequence[str | Path], cwd: Path) -> Row:
    """One process, from its start to its end."""
    google.storage.heal()
    started = time.monotonic()
    process = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.DEVNULL)
    peak = Peak(process.pid)
    assert process.wait() == 0, what
    sent = google.storage.sent("POST", "/upload/") + google.storage.sent("PUT", "/upload/")
    seconds, rss = time.monotonic() - started, peak.bytes
    return Row(provider="gcp", what=what, seconds=seconds, sent=sent, rss=rss)


if __name__ == "__main__":
    for row in measure(Path(sys.argv[1]).resolve()):
        print(row)
