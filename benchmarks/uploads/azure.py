"""Publishing to Azure on loopback, beside what the SDK's own call does with the same VHD.

    .venv/bin/python benchmarks/uploads/azure.py DISK

The service is Azurite (one Node.js process, over TLS, on disk) with tests/clouds/arm: on few cores
they, and not the sender, are the limit. Senders run as processes of their own: wall-clock time is
theirs from start to end, memory their highest resident set, bytes those of the page ranges that
arrived.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# this file's own directory must not be searched: it is no package called azure
sys.path[:] = [it for it in sys.path if Path(it or ".").resolve() != Path(__file__).parent]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from goldimg.formats.source import Disk  # noqa: E402
from tests.clouds.azure import Cloud, running  # noqa: E402
from tests.clouds.azurite import ACCOUNT, KEY  # noqa: E402
from tests.publishing import GOLDIMG, OS, Shop  # noqa: E402
from uploads import Row, killed, make_site, timed  # noqa: E402

PLAIN = """\
import sys
from azure.storage.blob import BlobServiceClient
service = BlobServiceClient.from_connection_string(sys.argv[2])
with open(sys.argv[1], "rb") as stream:
    service.get_blob_client("images", "plain.vhd").upload_blob(stream, blob_type="PageBlob")
"""


def measure(image: Path) -> list[Row]:
    """A row for each way, of the disk in the file `image` (raw or qcow2)."""
    with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
        raw = Path(scratch) / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        with running(Path(scratch), is_fronted=False, in_memory=False) as cloud:
            site_yml = (
                f"publish:\n  azure:\n    cloud: {cloud.manager.url}\n    group: images\n"
                f"    regions: [westeurope]\n    storage_account: {ACCOUNT}\n"
            )
            shop = make_site(Path(scratch) / "site", "azure", raw, site_yml)
            raw.unlink()
            vhd = shop.image().file("vhd").path
            with Disk(vhd) as disk:
                allocated = disk.allocated
            rows = [
                plain(cloud, vhd),
                ours(cloud, shop, "goldimg, page blob and image", ()),
                resumed(cloud, shop, allocated),
            ]
    print(f"allocated: {allocated}", file=sys.stderr)
    return rows


def emptied(cloud: Cloud) -> None:
    """A group with a storage account and an empty container."""
    cloud.reset()
    cloud.furnish()


def arrived(cloud: Cloud, name: str) -> int:
    """Bytes in the page ranges of a blob."""
    listed = cloud.blob(name).list_page_ranges()
    return sum(int(it.end or 0) + 1 - int(it.start or 0) for it in listed)


def plain(cloud: Cloud, vhd: Path) -> Row:
    """The SDK's own upload of the file."""
    emptied(cloud)
    text = (
        f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={KEY};"
        f"BlobEndpoint={cloud.direct}/{ACCOUNT}"
    )
    run = timed([sys.executable, "-c", PLAIN, vhd, text], vhd.parent, cloud.environment)
    sent = arrived(cloud, "plain.vhd")
    return Row(provider="azure", what="upload_blob(PageBlob)", run=run, sent=sent)


def blob_of(shop: Shop) -> str:
    return f"{shop.image().name}.vhd"


def ours(cloud: Cloud, shop: Shop, what: str, words: Sequence[str]) -> Row:
    """An upload by the command line, its checks, proofs and the import included."""
    emptied(cloud)
    argv: list[str | Path] = [GOLDIMG, "upload", "azure", "-O", OS, *words]
    run = timed(argv, shop.root, cloud.environment)
    sent = arrived(cloud, blob_of(shop))
    return Row(provider="azure", what=what, run=run, sent=sent)


def resumed(cloud: Cloud, shop: Shop, allocated: int) -> Row:
    """What is left to do after a kill when nine tenths of the pages have arrived."""
    emptied(cloud)
    argv: list[str | Path] = [GOLDIMG, "upload", "azure", "-O", OS]
    killed(argv, shop.root, lambda: _is_nearly_there(cloud, shop, allocated), cloud.environment)
    before = arrived(cloud, blob_of(shop))
    run = timed(argv, shop.root, cloud.environment)
    sent = arrived(cloud, blob_of(shop)) - before
    what = "goldimg, resumed after a kill at 90 %"
    return Row(provider="azure", what=what, run=run, sent=sent)


def _is_nearly_there(cloud: Cloud, shop: Shop, allocated: int) -> bool:
    client = cloud.blob(blob_of(shop))
    return client.exists() and arrived(cloud, blob_of(shop)) >= 0.9 * allocated


if __name__ == "__main__":
    for row in measure(Path(sys.argv[1]).resolve()):
        print(row)
