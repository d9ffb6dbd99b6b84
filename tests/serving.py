"""A site with hosts, and its server: in process, and as gunicorn serves it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import requests
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from goldimg.project import Site
from goldimg.run import Runner
from goldimg.serve.app import create_app
from goldimg.serve.arming import arm_host
from goldimg.serve.service import REQUEST_LOG, Service, open_service
from goldimg.serve.store import Record

ROOT = Path(__file__).resolve().parent.parent
OS = "CentOS-7.2.1511"
MAC = "52:54:00:00:00:01"
PASSWORD = "a long root password"
FILES = {
    "images/pxeboot/vmlinuz": b"kernel" * 1000,
    "images/pxeboot/initrd.img": os.urandom(1 << 20),
    "isolinux/vmlinuz": b"kernel" * 1000,
    "isolinux/initrd.img": b"initrd",
    ".treeinfo": b"[general]\n",
    "EFI/BOOT/grubx64.efi": b"MZ grub",
}
HOSTS = {
    "node01": f"mac: '{MAC}'\nos: {OS}\nfqdn: node01.lab.example.com\ndevice: em1\n"
    "ipaddr: 192.0.2.11\nnetmask: 255.255.255.0\ngateway: 192.0.2.1\nnameserver: 192.0.2.53\n"
    "disk: sda\n",
    "node02": f"mac: '52:54:00:00:00:02'\nserial: ABC123\nos: {OS}\n",
    "broken": "mac: '52:54:00:00:00:03'\n\nipadr: 192.0.2.12\n",
}
SERVE: dict[str, object] = {"networks": ["127.0.0.0/8"], "rate": 0}
# A hash in crypt(5) form, whatever its method.
HASH = re.compile(rb"\$(1|5|6|y|2[aby])\$[./A-Za-z0-9$=]{8,}")


def make_site(path: Path, **serve: object) -> Site:
    """A site directory in `path` with the hosts of HOSTS and `serve:` settings."""
    for name in ("kickstart", "templates"):
        shutil.copytree(ROOT / name, path / name)
    (path / "ansible").mkdir()
    for file in (path / "kickstart/builds/metal").glob("*.yml"):
        if file.stem != "defaults":
            file.unlink()
    for name, text in HOSTS.items():
        (path / f"kickstart/builds/metal/{name}.yml").write_text(text)
    debian = path / "templates/os/Debian-12.yml"
    debian.write_text(debian.read_text() + "\nrepo_server: http://mirror.example.com/debian\n")
    settings = {**SERVE, **serve}
    lines = [f"  {key}: {_yaml(value)}" for key, value in settings.items()]
    (path / "templates/site.yml").write_text("serve:\n" + "\n".join(lines) + "\n")
    return Site(root=path)


def _yaml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(f'"{it}"' for it in value) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


@dataclass
class Served:
    """One site and its application, asked without a network."""

    service: Service
    app: Flask
    armed: dict[str, Record] = field(default_factory=dict)

    def client(self, address: str = "127.0.0.1") -> FlaskClient:
        client = self.app.test_client()
        client.environ_base["REMOTE_ADDR"] = address
        return client

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.service.admin}"}

    def get_raw(self, path: str) -> TestResponse:
        """The answer for a path that the test client would take for a host, such as //x."""
        path, _, query = path.partition("?")
        overrides = {"PATH_INFO": unquote(path), "QUERY_STRING": query}
        return self.client().get("/", environ_overrides=overrides)

    def logged_in(self) -> FlaskClient:
        client = self.client()
        assert client.post("/login", data={"token": self.service.admin}).status_code == 302
        return client

    def arm(self, name: str = "node01") -> Record:
        self.armed[name] = arm_host(self.service, name)
        return self.armed[name]

    def tokens(self, name: str = "node01") -> tuple[str, str]:
        """The tokens to fetch and to report with."""
        record = self.service.store.host(name)
        token = self.service.desk.token
        return token(record, "fetch"), token(record, "report")

    def secrets(self) -> list[bytes]:
        """What nobody may be told."""
        found = [self.service.admin, PASSWORD]
        for name, record in self.service.store.hosts().items():
            found += [*self.tokens(name), record.root_hash or self.service.admin]
        return [it.encode() for it in found]

    def restart(self) -> None:
        """The server again, with what it kept."""
        self.service.store.close()
        self.service = open_service(self.service.site, environ(), Runner())
        self.app = create_app(self.service)
        self.app.testing = False


def environ() -> dict[str, str]:
    return {"GOLDIMG_ROOT_PASS": PASSWORD}


@contextlib.contextmanager
def served(path: Path, **serve: object) -> Iterator[Served]:
    """A site and its application."""
    site = make_site(path, **serve)
    service = open_service(site, environ(), Runner())
    service.store.set_iso(OS, make_iso(path / "cache"))
    try:
        yield Served(service=service, app=create_app(service))
    finally:
        service.store.close()


def make_iso(directory: Path) -> Path:
    """A small ISO with the boot files of an EL release."""
    tree, iso = directory / "tree", directory / "small.iso"
    if not iso.exists():
        for name, data in FILES.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        subprocess.run(
            ["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-o", str(iso), str(tree)],
            check=True,
            capture_output=True,
        )
    return iso


@dataclass
class Running:
    """The server as a site runs it: gunicorn, with its settings."""

    site: Site
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    admin: str
    ca: Path | None = None

    @property
    def verify(self) -> bool | str:
        return str(self.ca) if self.ca else True

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=20, verify=self.verify, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return requests.post(self.url + path, timeout=20, verify=self.verify, **options)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.admin}"}


@contextlib.contextmanager
def gunicorn(
    path: Path, *, env: Mapping[str, str] | None = None, ca: Path | None = None, **serve: Any
) -> Iterator[Running]:
    """The site of `path` served by gunicorn, on a free port of 127.0.0.1. `ca` signs for it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    site = make_site(path, port=port, **serve)
    service = open_service(site, environ(), Runner())
    service.store.set_iso(OS, make_iso(path / "cache"))
    service.store.close()
    log = path / "server.log"
    command = [
        *(sys.executable, "-m", "gunicorn", "-c", "python:goldimg.serve.gunicorn_conf"),
        "goldimg.serve.wsgi:application()",
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env={
                **os.environ,
                **environ(),
                REQUEST_LOG: "1",
                "GOLDIMG_SITE": str(path),
                **(env or {}),
            },
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        running = Running(
            site=site,
            url=service.desk.url,
            process=process,
            log=log,
            admin=service.admin,
            ca=ca,
        )
        _wait(running)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait(running: Running) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and running.process.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            if running.get("/healthz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not start:\n" + running.log.read_text())
