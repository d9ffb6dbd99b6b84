"""The real container engines: dockerd, Podman's service with Docker's API, and a registry.

Each keeps everything in a directory of its own, touches no network and no firewall, and starts as
root only: containers run without a network. What apt brings is in TEST_PACKAGES.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.clouds.services import started
from tests.support import needs
from tests.vm import free_port


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A running engine, for `docker.DockerClient(base_url=engine.url)`."""

    name: str
    socket: Path

    @property
    def url(self) -> str:
        """As DOCKER_HOST has it."""
        return f"unix://{self.socket}"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A running registry; `host` is `127.0.0.1:port`."""

    host: str
    directory: Path
    auth: tuple[str, str] | None = None

    def get(self, path: str, **headers: str) -> requests.Response:
        """GET below /v2/."""
        return requests.get(
            f"http://{self.host}/v2/{path}", headers=headers, auth=self.auth, timeout=30
        )

    def manifest(self, repository: str, tag: str) -> bytes:
        """The OCI manifest of a tag."""
        accept = "application/vnd.oci.image.manifest.v1+json"
        return self.get(f"{repository}/manifests/{tag}", Accept=accept).content

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository, sorted; none where there is no such repository."""
        answer: dict[str, Any] = self.get(f"{repository}/tags/list").json()
        return sorted(answer.get("tags") or [])


@contextlib.contextmanager
def dockerd() -> Iterator[Engine]:
    """A Docker daemon on a socket of its own."""
    _as_root()
    needs("dockerd", "runc")
    with _scratch("dockerd") as directory:
        (directory / "daemon.json").write_text("{}")
        socket = directory / "docker.sock"
        argv: list[str | Path] = [
            *("dockerd", "--host", f"unix://{socket}", "--data-root", directory / "data"),
            *("--exec-root", directory / "exec", "--pidfile", directory / "docker.pid"),
            *("--config-file", directory / "daemon.json", "--bridge=none", "--iptables=false"),
            *("--ip6tables=false", "--ip-forward=false", "--group", str(os.getgid())),
        ]
        engine = Engine(name="dockerd", socket=socket)
        with started(argv, log=directory / "dockerd.log", is_ready=lambda: _answers(engine)):
            yield engine


@contextlib.contextmanager
def podman() -> Iterator[Engine]:
    """Podman's service. Its runtime is runc: crun wants cgroups that not every host has."""
    _as_root()
    needs("podman", "runc")
    with _scratch("podman") as directory:
        (directory / "containers.conf").write_text(
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
            f'tmp_dir = "{directory}/tmp"\n'
            '[containers]\nnetns = "none"\n'
            'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        )
        (directory / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{directory}/run"\n'
            f'graphroot = "{directory}/data"\n'
        )
        socket = directory / "podman.sock"
        env = {
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
        }
        argv = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
        engine = Engine(name="podman", socket=socket)
        with started(
            argv, log=directory / "podman.log", env=env, is_ready=lambda: _answers(engine)
        ):
            yield engine


@contextlib.contextmanager
def registry(*, user: str = "", password: str = "", can_delete: bool = True) -> Iterator[Registry]:
    """A registry on a free port of 127.0.0.1, over plain HTTP as engines take it from there.

    With `user` it lets nobody else in.
    """
    needs("docker-registry")
    with _scratch("registry") as directory:
        port = free_port()
        auth = ""
        if user:
            (directory / "htpasswd").write_text(f"{user}:{_bcrypt(password)}\n")
            auth = f"auth:\n  htpasswd:\n    realm: tests\n    path: {directory}/htpasswd\n"
        config = directory / "registry.yml"
        config.write_text(
            "version: 0.1\nlog:\n  level: info\n"
            f"storage:\n  filesystem:\n    rootdirectory: {directory}/data\n"
            f"  delete:\n    enabled: {str(can_delete).lower()}\n"
            f"http:\n  addr: 127.0.0.1:{port}\n{auth}"
        )
        found = Registry(
            host=f"127.0.0.1:{port}",
            directory=directory,
            auth=(user, password) if user else None,
        )
        with started(
            ["docker-registry", "serve", config],
            log=directory / "registry.log",
            is_ready=lambda: found.get("").ok,
        ):
            yield found


def _bcrypt(password: str) -> str:
    """A bcrypt hash, the only kind that the registry takes; Python 3.13 makes none itself."""
    script = "print crypt(<STDIN>, q($2b$05$abcdefghijklmnopqrstuu))"
    done = subprocess.run(
        ["perl", "-e", script], input=password, capture_output=True, text=True, check=True
    )
    return done.stdout


def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, as container engines do")


def _answers(engine: Engine) -> bool:
    """Whether the engine answers /_ping on its socket."""
    if not engine.socket.exists():
        return False
    done = subprocess.run(
        ["curl", "--silent", "--max-time", "5", "--unix-socket", engine.socket, "http://d/_ping"],
        capture_output=True,
        check=False,
    )
    return done.stdout == b"OK"


@contextlib.contextmanager
def _scratch(name: str) -> Iterator[Path]:
    """A directory with a short path, for sockets; mounts that an engine left in it are undone."""
    directory = Path(tempfile.mkdtemp(prefix=f"goldimg-{name}-", dir="/var/tmp"))
    try:
        yield directory
    finally:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        left = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{directory}/")]
        for mount in sorted(left, reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(directory)
