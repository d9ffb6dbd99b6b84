"""The original's PHP page and goldimg's kickstart server, under the same load, in one run.

    .venv/bin/python benchmarks/kickstart_server.py [--seconds 5] [--hosts 1000]

Needs wrk, nginx and php-fpm (`apt-get install wrk nginx-light php-fpm`). `benchmarks/original/` is
a page of ours that does, for each request, what the original's did: it reads two JSON files, hashes
the root password and includes a definition and its sections. nginx and php-fpm (4 children) serve
it as a site would; goldimg is served by `goldimg serve` with its two workers, no proxy before it.
Both answer the same two questions: a virtual build, and a host (goldimg's one is armed and comes
with its secrets, by token). The rate limit is on, and set beyond what can be reached.

Then a thousand hosts are installed over loopback: each asks for its boot script, kernel, initrd and
kickstart and reports six stages. They begin within `--ramp` seconds, as racks are switched on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import glob
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from goldimg.layout import lay_out
from goldimg.project import find_site
from goldimg.run import Runner
from goldimg.serve.service import Service, open_service

HERE = Path(__file__).resolve().parent
GOLDIMG = Path(sys.executable).parent / "goldimg"
OS = "CentOS-7.2.1511"
CONNECTIONS = (1, 50, 1000)
STAGES = ("started", "pre", "partitioning", "packages", "post", "done")
KERNEL, INITRD = 8 << 20, 12 << 20  # bytes, about those of the Debian installer
MIB = 1 << 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


@contextlib.contextmanager
def running(argv: list[str | Path], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        argv, env={**os.environ, **env}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


# --- the two servers -------------------------------------------------------------------------


@contextlib.contextmanager
def original(work: Path) -> Iterator[int]:
    """nginx and php-fpm with the page; yields the port."""
    fpm = next(iter(sorted(glob.glob("/usr/sbin/php-fpm*"))), None)  # noqa: PTH207
    if fpm is None or not shutil.which("nginx"):
        raise SystemExit("apt-get install nginx-light php-fpm")
    port, page = free_port(), work / "page"
    shutil.copytree(HERE / "original", page)
    os.chmod(work, 0o755)  # noqa: S103, PTH101 - nginx's worker reads it
    (work / "fpm.conf").write_text(
        f"[global]\nerror_log={work}/fpm.log\ndaemonize=no\n[www]\nuser=nobody\ngroup=nogroup\n"
        f"listen={work}/fpm.sock\nlisten.mode=0666\npm=static\npm.max_children=4\n"
    )
    (work / "nginx.conf").write_text(
        f"daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log; worker_processes 2;\n"
        "events { worker_connections 4096; }\nhttp { access_log off; keepalive_requests 1000000;\n"
        f"server {{ listen 127.0.0.1:{port} backlog=2048; root {page}; location /ks.php {{\n"
        f"include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME {page}/ks.php;\n"
        f"fastcgi_pass unix:{work}/fpm.sock; }} }} }}\n"
    )
    with (
        running([fpm, "-R", "-y", work / "fpm.conf"]),
        running(["nginx", "-c", work / "nginx.conf"]),
    ):
        wait_for(port)
        yield port


@contextlib.contextmanager
def goldimg(work: Path, port: int) -> Iterator[tuple[Service, subprocess.Popen[bytes]]]:
    """`goldimg serve` of a site with a thousand hosts, all armed; yields its service."""
    root = work / "site"
    lay_out(root)
    for at in range(ARGUMENTS.hosts):
        (root / f"kickstart/builds/metal/n{at:04}.yml").write_text(
            f'mac: ["52:54:00:00:{at >> 8:02x}:{at & 255:02x}"]\nos: {OS}\ndisk: sda\n'
            f"fqdn: n{at:04}.example.com\ndevice: em1\nipaddr: 10.0.{at >> 8}.{at % 250 + 2}\n"
            "netmask: 255.255.0.0\ngateway: 10.0.255.254\n"
        )
    (root / "keys/packer.pub").write_text("ssh-ed25519 " + "A" * 68 + " benchmark\n")
    (root / "templates/site.yml").write_text(
        f"serve: {{port: {port}, rate: 10000000, networks: [127.0.0.0/8], token_window: 1h}}\n"
    )
    secret = {"GOLDIMG_ROOT_PASS": "benchmark-only", "GOLDIMG_SITE": str(root)}
    service = open_service(find_site(root), secret, Runner(cancel=threading.Event()))
    service.store.set_iso(OS, make_iso(work))
    with running([GOLDIMG, "-q", "serve"], **secret) as process:
        wait_for(port)
        yield service, process


def make_iso(work: Path) -> Path:
    """An ISO with a kernel and an initrd of ordinary size."""
    tree = work / "tree/images/pxeboot"
    tree.mkdir(parents=True)
    (tree / "vmlinuz").write_bytes(os.urandom(KERNEL))
    (tree / "initrd.img").write_bytes(os.urandom(INITRD))
    argv = [
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-R",
        "-o",
        str(work / "os.iso"),
        str(work / "tree"),
    ]
    subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
    return work / "os.iso"


def arm(service: Service, names: list[str]) -> dict[str, str]:
    """Arms the hosts and returns the path of each one's kickstart, token included."""
    secret = service.catalogue.view().root_hash(OS)
    paths = {}
    for name in names:
        service.store.arm(
            name, build=f"metal/{name}", os_name=OS, root_hash=secret, expires=time.time() + 3600
        )
        token = service.desk.token(service.store.host(name), "fetch")
        paths[name] = f"/ks/metal/{name}?token={token}"
    return paths


def memory_mib(process: subprocess.Popen[bytes]) -> float:
    """What the process and its descendants hold: private pages, and shared ones once (PSS)."""
    total, wanted = 0, {process.pid}
    for _ in range(4):
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError):
                fields = entry.read_text().rpartition(")")[2].split()
                if int(fields[1]) in wanted:
                    wanted.add(int(entry.parent.name))
    for pid in wanted:
        with contextlib.suppress(OSError, AttributeError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])  # type: ignore[index]
    return total / 1024


# --- requests a second -----------------------------------------------------------------------


def wrk(port: int, path: str, connections: int) -> tuple[float, str, int]:
    """Requests a second, p99, and how many went wrong."""
    done = subprocess.run(
        [
            *("wrk", "--latency", "-t1", f"-c{connections}", f"-d{ARGUMENTS.seconds}s"),
            *("--timeout", "10s", f"http://127.0.0.1:{port}{path}"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    wrong = sum(int(it) for it in re.findall(r"(?:connect|read|write|timeout) (\d+)", done))
    wrong += sum(int(it) for it in re.findall(r"Non-2xx or 3xx responses: (\d+)", done))
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    late = re.search(r"99%\s+(\S+)", done)
    if not rate or not late:
        raise SystemExit(f"wrk said:\n{done}")
    return float(rate[1]), late[1], wrong


def once(port: int, path: str) -> None:
    """The first request of a kind: it compiles, reads, validates; it is not what is compared."""
    for _ in range(8):  # each of the server's processes gets one
        requests.get(f"http://127.0.0.1:{port}{path}", timeout=30).raise_for_status()


def compare(php: int, ours: int, armed: str) -> None:
    questions = {
        "virtual/aws": (f"/ks.php?build=virtual/aws&os={OS}", f"/ks.php?build=virtual/aws&os={OS}"),
        "a host": (f"/ks.php?build=metal/node01&os={OS}", armed),
    }
    print(
        f"{'':14}{'':>6} {'original':>10} {'p99':>9} {'goldimg':>10} {'p99':>9} {'ratio':>6} errors"
    )
    for name, (theirs, mine) in questions.items():
        once(php, theirs)
        once(ours, mine)
        for connections in CONNECTIONS:
            before, before_p99, wrong = wrk(php, theirs, connections)
            after, after_p99, failed = wrk(ours, mine, connections)
            print(
                f"{name:14}{connections:>6} {before:>8.0f}/s {before_p99:>9} {after:>8.0f}/s"
                f" {after_p99:>9} {after / before:>6.1f} {wrong}, {failed}",
                flush=True,
            )


# --- a thousand hosts ------------------------------------------------------------------------


class Rack:
    """Hosts that are switched on, each doing what an install asks of the server."""

    def __init__(self, port: int, service: Service, paths: dict[str, str]) -> None:
        self.port, self.service, self.paths = port, service, paths
        self.small: list[float] = []  # seconds of scripts, kickstarts and reports
        self.errors: list[str] = []
        self.bytes = 0

    async def ask(self, method: str, path: str, body: bytes = b"") -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            first = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in first.split(b"\r\n")[0]:
                self.errors.append(f"{path.partition('?')[0][:30]}: {first[:20]!r}")
            length = int(re.search(rb"(?i)content-length: (\d+)", first)[1])  # type: ignore[index]
            got = 0
            while data := await reader.read(1 << 20):
                got += len(data)
            if got != length:
                self.errors.append(f"{path[:30]}: {got} of {length} bytes")
            self.bytes += got
            return got
        finally:
            writer.close()

    async def timed(self, method: str, path: str, body: bytes = b"") -> None:
        started = time.monotonic()
        await self.ask(method, path, body)
        self.small.append(time.monotonic() - started)

    async def install(self, at: int, name: str) -> None:
        await asyncio.sleep(ARGUMENTS.ramp * at / len(self.paths))
        mac = f"52:54:00:00:{at >> 8:02x}:{at & 255:02x}"
        report = f"/report/metal/{name}/{self.service.desk.token(self.record(name), 'report')}"
        try:
            await self.timed("GET", f"/netboot/ipxe?mac={mac}")
            await self.ask("GET", f"/tree/{OS}/images/pxeboot/vmlinuz")
            await self.ask("GET", f"/tree/{OS}/images/pxeboot/initrd.img")
            await self.timed("GET", self.paths[name])
            for stage in STAGES:
                await asyncio.sleep(0.5)
                await self.timed("POST", f"{report}/{stage}", b"a line of the log\n" * 20)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.errors.append(f"{name}: {type(error).__name__}")

    def record(self, name: str):  # type: ignore[no-untyped-def]
        return self.records[name]

    async def run(self) -> float:
        self.records = self.service.store.hosts()
        started = time.monotonic()
        await asyncio.gather(*(self.install(at, it) for at, it in enumerate(sorted(self.paths))))
        return time.monotonic() - started


def install_rack(port: int, service: Service, process: subprocess.Popen[bytes]) -> None:
    names = [f"n{at:04}" for at in range(ARGUMENTS.hosts)]
    rack = Rack(port, service, arm(service, names))
    seconds = asyncio.run(rack.run())
    states = {record.state for record in service.store.hosts().values()}
    late = statistics.quantiles(rack.small, n=100)
    print(
        f"\n{len(names)} hosts within {ARGUMENTS.ramp} s: all ended after {seconds:.1f} s, "
        f"{rack.bytes / MIB / 1024:.1f} GiB, {len(rack.errors)} errors, states: {', '.join(states)}"
    )
    print(
        f"scripts, kickstarts, reports: median {statistics.median(rack.small) * 1000:.1f} ms, "
        f"p99 {late[98] * 1000:.1f} ms; server's memory {memory_mib(process):.0f} MiB"
    )
    for error in rack.errors[:5]:
        print(f"  {error}")


def main() -> None:
    if not shutil.which("wrk"):
        raise SystemExit("apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="goldimg-bench-") as directory:
        work, port = Path(directory), free_port()
        with original(work) as php, goldimg(work, port) as (service, process):
            compare(php, port, arm(service, ["n0000"])["n0000"])
            install_rack(port, service, process)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--ramp", type=float, default=60.0, help="seconds within which hosts begin")
    ARGUMENTS = parser.parse_args()
    main()
