"""Publishing into a real engine and a real registry, beside `docker import` and `docker push`.

    .venv/bin/python benchmarks/uploads/docker.py DISK

`import_image` and `push` of the SDK stand for the commands of the same names. Wall-clock time is
the sender's from start to end, memory its highest resident set, bytes what engine and registry
received from it: an engine's own push is not the sender's work, but it takes the user's time.
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

from goldimg.artifacts import finish  # noqa: E402
from goldimg.formats import Written  # noqa: E402
from goldimg.formats.gz import GzipWriter  # noqa: E402
from goldimg.formats.source import Disk  # noqa: E402
from goldimg.formats.stream import draft  # noqa: E402
from goldimg.layout import lay_out  # noqa: E402
from tests.clouds.docker import dockerd, registry  # noqa: E402
from tests.clouds.proxy import Proxy, proxied  # noqa: E402
from tests.publishing import GOLDIMG, OS, Shop  # noqa: E402
from uploads import Row, timed  # noqa: E402

PLAIN = """\
import docker, sys
api = docker.from_env(version="auto", timeout=600).api
api.import_image_from_file(sys.argv[1], repository="plain/image", tag="1")
"""
PUSH = """\
import docker, sys
api = docker.from_env(version="auto", timeout=600).api
api.tag("plain/image:1", sys.argv[1] + "/plain/image", "1")
for line in api.push(sys.argv[1] + "/plain/image", tag="1", stream=True, decode=True):
    assert "error" not in line, line
"""


def measure(image: Path) -> list[Row]:
    """A row for each way. The layer holds one file, of what `image` has allocated."""
    with (
        tempfile.TemporaryDirectory(dir=image.parent) as scratch,
        dockerd() as engine,
        registry() as store,
        proxied(engine.socket) as to_engine,
        proxied(int(store.host.split(":")[1])) as to_registry,
    ):
        os.environ["DOCKER_HOST"] = f"tcp://127.0.0.1:{to_engine.port}"
        host = f"127.0.0.1:{to_registry.port}"
        shop = make_site(Path(scratch) / "site", image, host)
        artifact = shop.image().file("tar.gz").path
        python = [sys.executable, "-c"]
        upload: list[str | Path] = [GOLDIMG, "upload", "docker", "-O", OS]
        proxies = (to_engine, to_registry)

        def run(what: str, argv: Sequence[str | Path]) -> Row:
            return measured(proxies, what, argv, shop.root)

        return [
            run("import_image", [*python, PLAIN, artifact]),
            run("push", [*python, PUSH, host]),
            run("goldimg, engine", [*upload, "--var=publish.docker.registry="]),
            run("goldimg, registry", [*upload, "--var=publish.docker.engine=false"]),
            run("goldimg, both, again", upload),
        ]


def make_site(root: Path, content: Path, host: str) -> Shop:
    """A site with a root file system in which the data of the disk `content` is a file."""
    lay_out(root)
    site = f"publish:\n  docker:\n    registry: {host}\n    cmd: [/bin/sh]\n"
    (root / "templates/site.yml").write_text(site)
    shop = Shop(root=root, provider="docker", version="1.0.0")
    staging = shop.directory / ".staging"
    staging.mkdir(parents=True)
    tree = root / "tree"
    for name in ("etc", "usr"):
        (tree / name).mkdir(parents=True)
    with Disk(content) as disk, (tree / "usr/data").open("wb") as stream:
        for offset, length in disk.spans():
            stream.write(disk.pread(offset, length))
    argv: list[str | Path] = [
        "tar",
        "--create",
        "--format=gnu",
        "--directory",
        tree,
        "./etc",
        "./usr",
    ]
    with draft(staging / f"{OS}-1.0.0_docker.tar.gz") as made:
        with GzipWriter(made.output) as stream:
            process = subprocess.Popen(argv, stdout=subprocess.PIPE)
            assert process.stdout
            while data := process.stdout.read(1 << 20):
                stream.write(data)
            assert process.wait() == 0
        written: Written = made.done(None)
    about = {"os": OS, "version": "1.0.0", "provider": "docker", "firmware": "bios"}
    finish(shop.directory, staging, [written], about)
    return shop


def measured(proxies: Sequence[Proxy], what: str, argv: Sequence[str | Path], cwd: Path) -> Row:
    """One process, from its start to its end."""
    for proxy in proxies:
        proxy.heal()
    run = timed(argv, cwd)
    sent = sum(proxy.sent("P[A-Z]+", ".") for proxy in proxies)
    return Row(provider="docker", what=what, run=run, sent=sent)


if __name__ == "__main__":
    for row in measure(Path(sys.argv[1]).resolve()):
        print(row)
