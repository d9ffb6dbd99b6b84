"""The AWS that publishing is tested against: a server in its own environment, and its client."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import requests

from tests.clouds.services import ROOT, environment, started

REQUIREMENTS = ("moto[server,s3]==5.2.5", "boto3==1.44.5")
REGION = "eu-west-1"
ACCOUNT = "123456789012"
KEY = "AKIAGOLDIMGTESTS"


class Cloud:
    """The running server: how a test steers it, and looks at what is there."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url, self.directory = url, directory
        self._clients: dict[tuple[str, str], Any] = {}

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def environment(self) -> dict[str, str]:
        """What an SDK needs to come here, as a user's shell would hold it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }

    def _ask(self, path: str, given: object = None, *, method: str = "POST") -> Any:
        answer = requests.request(method, f"{self.url}/-/{path}", json=given or {}, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def reset(self) -> None:
        """Forgets everything but what moto holds: its buckets and parameters."""
        self._ask("reset")

    def set(self, **given: Any) -> None:
        """How the server behaves from now on: `polls`, `end_as`, `faults`, `denied`, …"""
        self._ask("set", given)

    def fail(self, on: str, kind: str = "error", **more: Any) -> None:
        """One fault: `after` that many calls of `on`, for `times` calls.

        Kinds: error (code, message, status), slow (seconds), cut (before the call), lose (the call
        is done, its answer lost), corrupt (on the way), spoil (what is stored is not what was
        sent). Nothing else fails any more.
        """
        self.set(faults=[{"on": on, "kind": kind, **more}] if on else [])

    def calls(self, *, forget: bool = False) -> list[tuple[str, str, int]]:
        """(operation, region, bytes) of what was called."""
        found = self._ask("calls", method="POST" if forget else "GET")
        return [(str(name), str(region), int(size)) for name, region, size in found]

    def count(self, operation: str) -> int:
        """How often an operation was called."""
        return sum(1 for name, _, _ in self.calls() if name == operation)

    def client(self, service: str, region: str = REGION) -> Any:
        """A plain client of the SDK."""
        if (service, region) not in self._clients:
            self._clients[service, region] = boto3.client(
                service,
                region_name=region,
                endpoint_url=self.url,
                aws_access_key_id=KEY,
                aws_secret_access_key="not-a-secret",
            )
        return self._clients[service, region]

    def images(self, region: str = REGION) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client("ec2", region).describe_images()["Images"]
        return found

    def snapshots(self, region: str = REGION) -> list[dict[str, Any]]:
        found = self.client("ec2", region).describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return list(found)

    def disk(self, snapshot: str) -> Path:
        """The file that holds a snapshot's disk."""
        return self.directory / f"{snapshot}.raw"


def free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])


@contextlib.contextmanager
def running(directory: Path, env: Mapping[str, str] | None = None) -> Iterator[Cloud]:
    """The server, on a free port; what it holds lies in `directory`."""
    python = environment("moto", *REQUIREMENTS) / "bin/python"
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        return requests.get(f"{url}/-/calls", timeout=2).ok

    argv: list[str | Path] = [
        python,
        "-m",
        "tests.clouds.aws_server",
        str(port),
        directory / "disks",
    ]
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    settings = {**keys, "PYTHONPATH": path, "AWS_DEFAULT_REGION": REGION, **(env or {})}
    with started(argv, log=directory / "aws.log", is_ready=is_ready, env=settings):
        yield Cloud(url, directory / "disks")
