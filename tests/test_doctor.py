"""The doctor says what is missing, and with which command it comes; nothing makes it hang."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from goldimg import checks
from goldimg.config import load_settings
from goldimg.doctor import Patient, examine
from goldimg.layout import lay_out
from goldimg.project import Site
from goldimg.providers import all_providers
from goldimg.run import Runner
from tests.support import needs

OLD = "CentOS-7.2.1511"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    lay_out(tmp_path / "site")
    return Site(root=tmp_path / "site")


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{script}\n")
    (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")


def test_a_running_guest_is_the_proof() -> None:
    needs("qemu-system-x86_64")
    assert checks.runs_guest("tcg", Runner())
    assert not checks.runs_guest("no-such-accelerator", Runner())


def test_plugins_that_a_newer_packer_lacks_come_with_their_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "/root/.config/packer/plugins/github.com/hashicorp/qemu/packer-plugin-qemu_v1.1.0"
    fake(tmp_path, monkeypatch, "packer", f"echo {place}")
    found = checks.packer_plugins(["qemu", "vmware-iso"], (1, 11), Runner())
    assert found.is_required
    assert not found.is_there
    assert found.detail == (
        "packer plugins install github.com/hashicorp/ansible; "
        "packer plugins install github.com/vmware/vmware"
    )
    assert checks.packer_plugins(["vmware-iso"], (1, 6), Runner()).is_there


@pytest.mark.parametrize(
    ("core", "is_there", "detail"),
    [
        ((2, 16), True, "manages Python 2.7"),
        ((2, 17), False, "pip install 'ansible-core<2.17'"),
        ((2, 20), False, "pip install 'ansible-core<2.17'"),
    ],
)
def test_an_ansible_that_is_too_new_for_the_image_is_told(
    site: Site, core: tuple[int, int], is_there: bool, detail: str
) -> None:
    found = checks.ansible_python(core, load_settings(site, OLD, environ={}))
    assert found.is_there == is_there
    assert detail in found.detail


def test_a_taken_port_and_open_keys_are_told(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert not checks.port(number).is_there
    assert checks.port(0).is_there
    for name in ("packer", "vagrant"):
        (site.keys / name).write_text("secret")
        (site.keys / name).chmod(0o600)
    assert checks.keys(site).is_there
    (site.keys / "vagrant").chmod(0o644)
    assert checks.keys(site).detail == "chmod 600 keys/vagrant"


def test_a_full_disk_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "free_bytes", lambda _: 5000 << 20)
    assert checks.space(site, 1).is_there
    found = checks.space(site, 2)
    assert not found.is_there
    assert found.detail == "5000 MiB free, 8000 MiB are enough"


@pytest.fixture
def repository() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            has_it = self.path == "/7.2.1511/os/x86_64/repodata/repomd.xml"
            self.send_response(200 if has_it else 500 if "broken" in self.path else 404)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_repository_has_to_answer(site: Site, repository: str) -> None:
    def ask(url: str) -> checks.Finding:
        settings = load_settings(site, OLD, environ={}, variables=[f"repo_server={url}"])
        return checks.repository(settings, Runner())

    assert ask(repository).is_there
    assert not ask(f"{repository}/broken").is_there
    assert "HTTP 404" in ask(f"{repository}/elsewhere").detail
    assert not ask("http://127.0.0.1:9").is_there


def test_a_tool_that_hangs_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "packer", "exec sleep 60")
    monkeypatch.setattr("goldimg.doctor.SECONDS", 0.5)
    began = time.monotonic()
    found = {finding.name: finding for finding in examine(Runner())}
    assert time.monotonic() - began < 20
    assert "no end after" in found["packer"].detail


def test_what_is_required_follows_the_providers(site: Site) -> None:
    providers = all_providers()
    settings = load_settings(
        site, OLD, environ={}, variables=["builder.vmware=vmware-iso", "repo_server=http://127.0.0.1:9",
                                         "iso_server=http://127.0.0.1:9"],
    )  # fmt: skip

    def required(*names: str) -> set[str]:
        patient = Patient(
            site=site,
            site_file=settings.site,
            providers=tuple(providers[name] for name in names),
            settings=settings,
        )
        return {finding.name for finding in examine(Runner(), patient) if finding.is_required}

    only_vmware, only_gcp = required("vmware"), required("gcp")
    assert {"vmrun", "vmware-vdiskmanager", "vmnet8"} <= only_vmware
    assert "qemu-system-x86_64" not in only_vmware
    assert "qemu-system-x86_64" in only_gcp
    assert not {"vmrun", "VBoxManage", "mmdebstrap", "vmnet8"} & only_gcp
    assert {"disk space", "port", "repository", "ansible and Python"} <= only_gcp


def test_the_command_ends_with_3_where_something_required_is_missing(site: Site) -> None:
    (site.templates / "site.yml").write_text("builder: {vmware: vmware-iso}\n")
    goldimg = Path(sys.executable).parent / "goldimg"
    done = subprocess.run(
        [goldimg, "doctor", "--only", "vmware", "--json"],
        cwd=site.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["tools"]}
    assert done.returncode == 3
    assert found["vmrun"]["is_required"]
    assert not found["vmrun"]["is_there"]
