"""The command line as its users meet it: words, exit codes, and nothing started on bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from goldimg.layout import lay_out
from tests.support import needs

BIN = Path(sys.executable).parent


@pytest.fixture
def site(tmp_path: Path) -> Path:
    lay_out(tmp_path / "site")
    return tmp_path / "site"


def goldimg(
    site: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "goldimg", *arguments],
        cwd=site,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_names_every_command(site: Path) -> None:
    said = goldimg(site, "--help").stdout
    for command in ("build", "plan", "keys", "kickstart", "verify", "doctor", "init"):
        assert f"  {command} " in said


def test_help_imports_no_provider_sdk_and_no_server() -> None:
    code = "import sys, goldimg.cli; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for heavy in ("flask", "pydantic", "rich", "requests", "boto3", "azure", "google.cloud"):
        assert f"'{heavy}'" not in loaded


def test_an_unknown_os_is_named_with_the_known_ones(site: Path) -> None:
    done = goldimg(site, "build", "-O", "Debian-122")
    assert done.returncode == 2
    assert "error: unknown operating system 'Debian-122' (did you mean 'Debian-12'?)" in done.stderr
    assert "CentOS-7.2.1511" in done.stderr
    assert not list((site / "artifacts").iterdir())


def test_an_unknown_provider_is_named(site: Path) -> None:
    done = goldimg(site, "build", "-O", "CentOS-7.2.1511", "--only", "azur")
    assert done.returncode == 2
    assert "unknown provider 'azur' (did you mean 'azure'?)" in done.stderr


def test_all_faults_of_the_configuration_are_told_at_once(site: Path) -> None:
    (site / "templates/site.yml").write_text("namespace: acme\ndisk_sise: 8192\nheadless: maybe\n")
    os_file = site / "templates/os/CentOS-7.2.1511.yml"
    os_file.write_text(os_file.read_text().replace("iso_checksum:", "iso_checksm:"))
    done = goldimg(site, "plan", "-O", "CentOS-7.2.1511")
    assert done.returncode == 2
    assert "error: templates/site.yml:2:1: disk_sise: unknown key" in done.stderr
    assert "(did you mean 'disk_size'?)" in done.stderr
    assert "error: templates/site.yml:3:1: headless:" in done.stderr
    assert "iso_checksm: unknown key (did you mean 'iso_checksum'?)" in done.stderr


def test_a_kickstart_that_the_release_does_not_know_is_refused(site: Path) -> None:
    section = site / "kickstart/ks/install.ks.j2"
    section.write_text(section.read_text() + "\nunsupported_nonsense\n")
    done = goldimg(site, "plan", "-O", "CentOS-7.2.1511")
    assert done.returncode == 2
    assert "unsupported_nonsense" in done.stderr
    assert "checked as RHEL7" in done.stderr


def test_a_plan_starts_nothing_and_says_everything(site: Path) -> None:
    needs("qemu-system-x86_64")
    done = goldimg(site, "plan", "-O", "CentOS-7.2.1511", "--version", "2.0.0")
    assert done.returncode == 0, done.stderr
    assert "note: templates/site.yml not found" in done.stderr
    assert "install 1 (shared by aws, virtualbox, vmware)" in done.stdout
    assert "install 3 (shared by azure)" in done.stdout
    assert "artifacts/2.0.0/CentOS-7.2.1511/azure/CentOS-7.2.1511-2.0.0_azure.vhd" in done.stdout
    assert not list((site / "artifacts").iterdir())
    assert not (site / ".cache").exists()
    assert not list((site / "keys").iterdir())


def test_a_plan_for_machines(site: Path) -> None:
    done = goldimg(site, "plan", "-O", "CentOS-7.2.1511", "--only", "gcp", "--json")
    plan = json.loads(done.stdout)
    assert plan["installs"][0]["layers"][0]["provider"] == "gcp"
    assert [(group["name"], group["providers"]) for group in plan["groups"]] == [("qemu", ["gcp"])]


def test_a_build_without_its_iso_says_where_it_looked(site: Path) -> None:
    needs("packer", "qemu-system-x86_64", "qemu-img")
    done = goldimg(
        site,
        *("build", "-O", "CentOS-7.2.1511", "--only", "gcp"),
        *("--var", "iso_server=http://127.0.0.1:9"),
    )
    assert done.returncode != 0
    assert "127.0.0.1:9" in done.stderr
    assert not list((site / "artifacts").rglob("*.tar.gz"))


def test_a_local_iso_of_another_checksum_is_never_used(site: Path) -> None:
    needs("packer", "qemu-system-x86_64", "qemu-img")
    (site / "my.iso").write_bytes(b"not the ISO that you are looking for")
    done = goldimg(
        site,
        *("build", "-O", "CentOS-7.2.1511", "--only", "gcp", "--var", "iso_path=my.iso"),
    )
    assert done.returncode == 5
    assert "f90e4d28fa377669b2db16cbcb451fcb9a89d2460e3645993e30e137ac37d284" in done.stderr


def test_a_missing_tool_is_named_with_its_package(site: Path) -> None:
    done = goldimg(
        site, "build", "-O", "CentOS-7.2.1511", "--only", "gcp", env={"PATH": "/nonexistent"}
    )
    assert done.returncode == 3
    assert "packer" in done.stderr
    assert "apt-get install" in done.stderr


def test_artifacts_that_cannot_be_written_stop_the_build_at_once(site: Path) -> None:
    needs("packer", "qemu-system-x86_64", "qemu-img")
    (site / "artifacts").rmdir()
    (site / "artifacts").write_text("a file")
    done = goldimg(site, "build", "-O", "CentOS-7.2.1511", "--only", "gcp")
    assert done.returncode == 1
    assert "artifacts" in done.stderr


def test_a_taken_port_is_named(site: Path) -> None:
    import socket

    needs("packer", "qemu-system-x86_64", "qemu-img")
    iso = site / "my.iso"
    iso.write_bytes(b"an ISO")
    import hashlib

    checksum = hashlib.sha256(b"an ISO").hexdigest()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = goldimg(
            site,
            *("build", "-O", "CentOS-7.2.1511", "--only", "gcp", "--var", f"ks_port={port}"),
            *("--var", "iso_path=my.iso", "--var", f"iso_checksum={checksum}"),
        )
    assert done.returncode == 1
    assert str(port) in done.stderr


def test_keys_are_made_once(site: Path) -> None:
    needs("ssh-keygen")
    first = goldimg(site, "keys")
    assert first.returncode == 0, first.stderr
    assert "ssh-ed25519" in first.stdout
    assert (site / "keys/packer").stat().st_mode & 0o777 == 0o600
    assert goldimg(site, "keys").stdout == first.stdout
    assert goldimg(site, "keys", "--force").stdout != first.stdout


def test_the_root_password_is_shown_nowhere(site: Path) -> None:
    env = {"GOLDIMG_ROOT_PASS": "correct horse battery"}
    for command in (["plan"], ["kickstart", "render", "virtual/vmware"]):
        done = goldimg(site, *command, "-O", "CentOS-7.2.1511", env=env)
        assert done.returncode == 0, done.stderr
        assert "correct horse" not in done.stdout + done.stderr
        assert "$6$" not in done.stdout + done.stderr


def test_doctor_has_a_line_for_each_tool_and_json(site: Path) -> None:
    done = goldimg(site, "doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["tools"]}
    assert {"packer", "qemu-system-x86_64", "ksvalidator", "kvm"} <= findings.keys()
    missing = [f["name"] for f in findings.values() if f["is_required"] and not f["is_there"]]
    assert done.returncode == (3 if missing else 0)
    bare = goldimg(site, "doctor", env={"PATH": "/nonexistent"})
    assert bare.returncode == 3
    assert "apt-get install packer" in bare.stdout


def test_a_new_site_is_laid_out_once(tmp_path: Path) -> None:
    first = goldimg(tmp_path, "init", "mine")
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "mine/templates/site.yml.example").is_file()
    assert (tmp_path / "mine/ansible/site.yml").is_file()
    again = goldimg(tmp_path, "init", "mine")
    assert again.returncode == 2
    assert "already has templates/" in again.stderr


def test_outside_a_site_the_way_in_is_named(tmp_path: Path) -> None:
    done = goldimg(tmp_path, "plan")
    assert done.returncode == 2
    assert "--site DIR" in done.stderr
