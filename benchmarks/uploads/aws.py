"""Publishing to EC2 on loopback, beside what the SDK's own calls do with the same disk.

    .venv/bin/python benchmarks/uploads/aws.py DISK

The service is tests/clouds/aws_server with moto's S3: one Python process, so it, and not the
sender, is the limit on few cores. Senders run as processes of their own: wall-clock time is theirs
from start to end, memory their highest resident set, bytes what the server received as bodies. Each
has a server of its own: in one that has grown before, moto completes an object in half the time.
Both ways to S3 are also taken through connections of 4 MiB/s, as a far network has them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from goldimg.formats.source import Disk  # noqa: E402
from tests.clouds.aws import REGION, Cloud, running  # noqa: E402
from tests.clouds.proxy import proxied  # noqa: E402
from tests.publishing import GOLDIMG, OS, Shop  # noqa: E402
from uploads import Row, Run, killed, make_site, timed  # noqa: E402

BUCKET = "benchmark"
PUT = "ebs:PutSnapshotBlock"
S3 = ("--via", "s3")
RATE = 4 << 20  # bytes a second of one connection
PLAIN = """\
import boto3, sys
boto3.client("s3").upload_file(sys.argv[1], sys.argv[2], "plain")
"""


def measure(image: Path) -> list[Row]:
    """A row for each way, of the disk in the file `image` (raw or qcow2)."""
    with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
        raw = Path(scratch) / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        with Disk(raw) as disk:
            allocated = disk.allocated
        site_yml = (
            f"publish:\n  aws:\n    regions: [{REGION}]\n    bucket: {BUCKET}\n    poll: 0.2\n"
        )
        shop = make_site(Path(scratch) / "site", "aws", raw, site_yml)
        ova = shop.image().file("ova").path
        ways: list[tuple[Callable[[Cloud], Row], int]] = [
            (lambda cloud: plain(cloud, "upload_file of the raw disk", raw), 0),
            (lambda cloud: ours(cloud, shop, "goldimg, blocks", ()), 0),
            (lambda cloud: resumed(cloud, shop, blocks=-(-allocated // 524288)), 0),
            (lambda cloud: plain(cloud, "upload_file of the OVA", ova), 0),
            (lambda cloud: ours(cloud, shop, "goldimg, via S3", S3), 0),
            (lambda cloud: plain(cloud, "upload_file of the OVA, 4 MiB/s", ova), RATE),
            (lambda cloud: ours(cloud, shop, "goldimg, via S3, 4 MiB/s a connection", S3), RATE),
        ]
        rows = []
        for way, rate in ways:
            with running(Path(scratch) / "aws") as cloud, proxied(cloud.port) as proxy:
                proxy.rate = rate
                rows.append(way(Cloud(proxy.url, cloud.directory) if rate else cloud))
    print(f"allocated: {allocated}", file=sys.stderr)
    return rows


def emptied(cloud: Cloud) -> None:
    """An account with nothing but a bucket and the role of VM Import."""
    cloud.reset()
    where = {"LocationConstraint": REGION}
    cloud.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    cloud.client("iam").create_role(RoleName="vmimport", AssumeRolePolicyDocument="{}")


def sent(cloud: Cloud) -> int:
    """Bytes in the bodies of all requests since the account was empty."""
    return sum(size for _, _, size in cloud.calls())


def plain(cloud: Cloud, what: str, file: Path) -> Row:
    """The SDK's own upload of a file."""
    emptied(cloud)
    run = timed([sys.executable, "-c", PLAIN, file, BUCKET], file.parent, cloud.environment)
    return Row(provider="aws", what=what, run=run, sent=sent(cloud))


def publish(cloud: Cloud, shop: Shop, words: Sequence[str]) -> Run:
    argv: list[str | Path] = [GOLDIMG, "upload", "aws", "-O", OS, *words]
    return timed(argv, shop.root, cloud.environment)


def ours(cloud: Cloud, shop: Shop, what: str, words: Sequence[str]) -> Row:
    """An upload by the command line, checks and reading back included."""
    emptied(cloud)
    run = publish(cloud, shop, words)
    return Row(provider="aws", what=what, run=run, sent=sent(cloud))


def resumed(cloud: Cloud, shop: Shop, *, blocks: int) -> Row:
    """What is left to do after a kill when nine of ten blocks have arrived."""
    emptied(cloud)
    argv: list[str | Path] = [GOLDIMG, "upload", "aws", "-O", OS]
    killed(argv, shop.root, lambda: cloud.count(PUT) >= 0.9 * blocks, cloud.environment)
    cloud.calls(forget=True)
    run = publish(cloud, shop, ())
    what = "goldimg, blocks, after a kill at 90 %"
    return Row(provider="aws", what=what, run=run, sent=sent(cloud))


if __name__ == "__main__":
    for row in measure(Path(sys.argv[1]).resolve()):
        print(row)
