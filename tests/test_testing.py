"""`goldimg test` without a guest: forms, data, machines that start nothing, checks, results.

A container is small enough to be the whole story; machines are in test_real_build.py.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from goldimg.errors import GoldimgError, Interrupted, VerificationFailed
from goldimg.host import find_ovmf
from goldimg.packer.console import NoScreen
from goldimg.project import Site
from goldimg.providers import all_providers
from goldimg.run import Runner
from goldimg.tested import tested as verdict
from goldimg.testing import ec2, imds
from goldimg.testing.access import Door
from goldimg.testing.bench import Bench
from goldimg.testing.facts import parsed
from goldimg.testing.forms import form_of, grown, make_overlay
from goldimg.testing.machine import BUSES, Spec, free_port, running
from goldimg.testing.seeds import OVF, Instance, volume, write_iso
from goldimg.testing.suite import Check, Trial, own_checks, results_of, run_checks, site_checks
from goldimg.testing.trial import STILL, Lookout
from tests.packing import PackingSite
from tests.publishing import GOLDIMG, MIB, OS, Shop, make_disk, make_shop
from tests.support import needs

INSTANCE = Instance(id="i-1", hostname="trial-x", public_key="ssh-ed25519 AAAA you & me")
MACHINES = [name for name, it in all_providers().items() if not it.ships_files]


# -- the disk in an artifact


@pytest.mark.parametrize("provider", MACHINES)
def test_the_disk_of_every_artifact_is_read_where_it_is(provider: str, tmp_path: Path) -> None:
    needs("qemu-img", "tar")
    shop = make_shop(tmp_path / "site", provider)
    size = grown(32 * MIB)
    disk = make_disk(tmp_path / "expected.raw").read_bytes()
    for name in all_providers()[provider].artifacts(OS, "1.0.0"):  # VirtualBox's has a box, too
        artifact = shop.directory / name
        before = hashlib.sha256(artifact.read_bytes()).hexdigest()
        form = form_of(artifact, tmp_path / f"{name}.unpacked", Runner())
        overlay, raw = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
        make_overlay(form, overlay, size, Runner())
        subprocess.run(["qemu-img", "convert", "-O", "raw", overlay, raw], check=True)
        assert raw.stat().st_size == size == 3 << 30
        with raw.open("rb") as stream:
            assert stream.read(len(disk)) == disk
            assert not any(stream.read(4 * MIB))
        assert hashlib.sha256(artifact.read_bytes()).hexdigest() == before


def test_what_holds_no_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK")
    with pytest.raises(VerificationFailed, match="holds no disk"):
        form_of(path, tmp_path, Runner())


# -- the data of a new machine


def test_nocloud_and_config_drive_tell_name_key_and_user(tmp_path: Path) -> None:
    for seed, label, meta, user in (
        ("nocloud", "cidata", "meta-data", "user-data"),
        ("config-drive", "config-2", "openstack/latest/meta_data.json",
         "openstack/latest/user_data"),
    ):  # fmt: skip
        found, files = volume(seed, INSTANCE)  # type: ignore[arg-type]
        assert found == label
        told = yaml.safe_load(files[meta])
        assert "trial-x" in (told.get("local-hostname"), told.get("hostname"))
        assert INSTANCE.public_key in json.dumps(told)
        assert files[user].startswith("#cloud-config\n")
        (_, tester) = yaml.safe_load(files[user])["users"]
        assert tester["ssh_authorized_keys"] == [INSTANCE.public_key]
    needs("xorriso")
    iso = write_iso("config-drive", INSTANCE, tmp_path, Runner())
    listed = subprocess.run(
        ["xorriso", "-indev", iso, "-find", "/"], capture_output=True, text=True, check=True
    )
    assert "'/openstack/latest/user_data'" in listed.stdout
    assert "config-2" in listed.stderr


def test_the_ovf_environment_is_xml_with_the_properties_of_our_ova() -> None:
    label, files = volume("ovf", INSTANCE)
    assert label == "OVF ENV"  # one of those that cloud-init's ds-identify takes
    root = ElementTree.fromstring(files["ovf-env.xml"])  # noqa: S314 - ours
    assert root.tag == f"{{{OVF}}}Environment"
    found = {
        it.get(f"{{{OVF}}}key"): it.get(f"{{{OVF}}}value")
        for it in root.iterfind(f"{{{OVF}}}PropertySection/{{{OVF}}}Property")
    }
    assert found["public-keys"] == INSTANCE.public_key
    assert found["hostname"] == "trial-x"
    assert base64.b64decode(found["user-data"] or "").decode() == INSTANCE.user_data()


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """The metadata service's files."""
    assert "guestfwd=tcp:169.254.169.254:80-cmd:" in ec2.network(INSTANCE, tmp_path)
    return tmp_path / "ec2"


def ask(root: Path, first: str, token: str = imds.TOKEN) -> tuple[int, str]:
    headers = f"Host: 169.254.169.254\r\nX-AWS-EC2-Metadata-Token: {token}"
    status, body = imds.answer(root, f"{first} HTTP/1.1\r\n{headers}")
    return status, body.decode()


def test_ec2s_service_tells_as_amazons_does(service: Path) -> None:
    assert ask(service, "GET /2021-03-23/meta-data/instance-id") == (200, "i-1")
    status, listed = ask(service, "GET /latest/meta-data/")
    assert status == 200
    assert {"instance-id", "network/", "public-keys/"} <= set(listed.splitlines())
    assert ask(service, "GET /latest/meta-data/public-keys/") == (200, "0=trial")
    key = ask(service, "GET /latest/meta-data/public-keys/0/openssh-key")
    assert key == (200, INSTANCE.public_key)
    assert ask(service, "GET /latest/user-data") == (200, INSTANCE.user_data())
    identity = json.loads(ask(service, "GET /latest/dynamic/instance-identity/document")[1])
    assert identity["instanceId"] == "i-1"


def test_ec2s_service_tells_nothing_without_a_token_or_outside_its_files(service: Path) -> None:
    assert ask(service, "GET /latest/meta-data/instance-id", token="")[0] == 401
    assert ask(service, "GET /latest/meta-data/nothing")[0] == 404
    assert ask(service, "GET /latest/../../etc/passwd")[0] == 404
    assert ask(service, "POST /latest/api/token")[0] == 405


def test_ec2s_service_answers_a_connection_and_ends(service: Path) -> None:
    """As QEMU starts it: by its path, for one request."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", imds.__file__, service],
        input=b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\n\r\n",
        capture_output=True,
        check=True,
        timeout=30,
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in head
    assert body.decode() == imds.TOKEN


# -- machines


def specification(tmp_path: Path, bench: Bench) -> Spec:
    disk = tmp_path / "a, disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
    seed = tmp_path / "seed.iso"
    seed.write_bytes(bytes(MIB))
    return Spec(
        bench=bench,
        disk=disk,
        console=tmp_path / "console.log",
        socket=tmp_path / "qmp",
        port=free_port(),
        accelerator="tcg",
        memory_mib=64,
        seed=seed,
        network=ec2.network(INSTANCE, tmp_path) if bench.seed == "ec2" else "",
    )


@pytest.mark.parametrize("provider", MACHINES)
def test_qemu_takes_every_providers_machine(provider: str, tmp_path: Path) -> None:
    """It runs, shows its screen, does not go off by itself, and is gone after the block."""
    needs("qemu-system-x86_64", "qemu-img")
    spec = specification(tmp_path, all_providers()[provider].bench)
    with running(spec, Runner()) as vm:
        picture = tmp_path / "screen.png"
        end = time.monotonic() + 30
        while not vm.screen.shoot(picture) and time.monotonic() < end:
            vm.check_alive()
            time.sleep(0.1)
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert not vm.power_off(0.5)
    with pytest.raises(GoldimgError, match="QEMU ended"):
        vm.check_alive()


def test_a_machine_with_efi_starts_by_its_own_copy_of_the_variables(tmp_path: Path) -> None:
    needs("qemu-system-x86_64", "qemu-img")
    ovmf = find_ovmf()
    if ovmf is None:
        pytest.skip("needs OVMF (package ovmf)")
    plain = specification(tmp_path, Bench())
    spec = replace(plain, ovmf=ovmf, variables=tmp_path / "variables", memory_mib=128)
    with running(spec, Runner()) as vm:
        end = time.monotonic() + 30
        while not vm.screen.shoot(tmp_path / "screen.png") and time.monotonic() < end:
            vm.check_alive()
            time.sleep(0.1)
        assert spec.variables
        assert spec.variables.stat().st_size == ovmf.variables.stat().st_size


def test_every_bus_has_a_provider() -> None:
    assert {all_providers()[name].bench.bus for name in MACHINES} == set(BUSES)


def test_a_machine_that_cannot_run_says_why(tmp_path: Path) -> None:
    needs("qemu-system-x86_64", "qemu-img")
    spec = specification(tmp_path, Bench(card="no-such-card"))
    with running(spec, Runner()) as vm, pytest.raises(GoldimgError) as caught:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            vm.check_alive()
            time.sleep(0.1)
    assert "no-such-card" in "".join(caught.value.details)


def test_a_machine_ends_with_what_is_cancelled(tmp_path: Path) -> None:
    needs("qemu-system-x86_64", "qemu-img")
    runner = Runner(cancel=threading.Event())
    with running(specification(tmp_path, Bench()), runner) as vm:
        time.sleep(0.5)
        runner.cancel.set()
        with pytest.raises(Interrupted):
            vm.power_off(20)
    assert not [it for it in Path("/proc").glob("[0-9]*/cmdline") if is_of(it, tmp_path)]


def is_of(cmdline: Path, directory: Path) -> bool:
    try:
        return f"{directory}/".encode() in cmdline.read_bytes()
    except OSError:
        return False


def test_an_open_port_without_sshd_is_no_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        door = Door(
            port=deaf.getsockname()[1],
            user="x",
            key=tmp_path / "key",
            config=tmp_path / "config",
            socket=tmp_path / "socket",
        )
        assert not door.is_answering()
    assert not door.is_answering()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Booting...\nKernel panic - not syncing: VFS: Unable to mount root", "has panicked"),
        ("[  OK  ] Reached target Basic System\n", ""),
    ],
)
def test_a_console_that_stays_at_a_panic_ends_the_wait(tmp_path: Path, said: str, why: str) -> None:
    class Vm:
        spec = specification(tmp_path, Bench())
        screen = NoScreen()

        def check_alive(self) -> None: ...

    needs("qemu-img")
    Vm.spec.console.write_text(said)
    clock = iter([0.0, STILL - 10, STILL + 1, STILL + 30])
    look = Lookout(Vm(), clock=lambda: next(clock))  # type: ignore[arg-type]
    look()
    look()  # it may go on, yet
    if why:
        with pytest.raises(GoldimgError, match=why):
            look()
    else:
        look()
        look()


# -- checks

CHECKS = """\
import os, signal, time
import pytest

def test_passes(host, facts, image):
    assert host.run("echo hello").stdout == "hello\\n"
    assert (facts["colour"], image["provider"]) == ("blue", "aws")

@pytest.mark.parametrize("number", [1, 2])
def test_each(number):
    assert number == 1, f"{number} is not one"

def test_is_not_for_it():
    pytest.skip("no reason")

@pytest.fixture
def broken():
    raise ValueError("no fixture")

def test_broken(broken):
    pass

def test_hangs(host):
    host.run("sleep 300")
"""


def trial(tmp_path: Path, seconds: float = 2.0) -> Trial:
    return Trial(
        root=str(tmp_path),
        host="local://",
        options={},
        facts={"colour": "blue"},
        image={"provider": "aws"},
        seconds=seconds,
        report=str(tmp_path / "report.jsonl"),
    )


def checked(tmp_path: Path, **files: str) -> dict[str, Check]:
    directory = tmp_path / "tests.d"
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    chosen = site_checks(Site(root=tmp_path), "aws")
    found = run_checks(trial(tmp_path), chosen, tmp_path, Runner(), log=tmp_path / "pytest.log")
    return {it.name: it for it in found}


def test_every_check_has_a_result_whatever_the_others_do(tmp_path: Path) -> None:
    found = checked(tmp_path, one=CHECKS, two="import nowhere_to_be_found\n")
    assert {name: it.outcome for name, it in found.items()} == {
        "tests.d/one.py::test_passes": "passed",
        "tests.d/one.py::test_each[1]": "passed",
        "tests.d/one.py::test_each[2]": "failed",
        "tests.d/one.py::test_is_not_for_it": "skipped",
        "tests.d/one.py::test_broken": "failed",
        "tests.d/one.py::test_hangs": "failed",
        "tests.d/two.py": "failed",
    }
    assert found["tests.d/one.py::test_each[2]"].why == "2 is not one"
    assert found["tests.d/one.py::test_is_not_for_it"].why == "no reason"
    assert found["tests.d/one.py::test_broken"].why == "ValueError: no fixture"
    assert found["tests.d/one.py::test_hangs"].why == "no end after 2 s"
    assert "nowhere_to_be_found" in found["tests.d/two.py"].why
    assert "2 is not one" in (tmp_path / "pytest.log").read_text()
    assert not list(tmp_path.rglob("__pycache__"))


def test_results_that_are_there_outlive_pytest(tmp_path: Path) -> None:
    dies = "import os\ndef test_fine(): pass\ndef test_dies(): os._exit(9)\ndef test_late(): pass\n"
    found = checked(tmp_path, dies=dies)
    assert {name: it.outcome for name, it in found.items()} == {
        "tests.d/dies.py::test_fine": "passed",
        "tests.d/dies.py::test_dies": "failed",
    }


def test_no_checks_at_all_are_no_success(tmp_path: Path) -> None:
    (only,) = checked(tmp_path, empty="").values()
    assert (only.name, only.outcome) == ("pytest", "failed")
    assert [it.outcome for it in results_of(tmp_path / "nothing")] == ["failed"]


def test_a_sites_checks_are_those_for_all_then_the_providers(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "conftest.py", "_help.py", "aws/c.py", "gcp/d.py", "notes.txt"):
        path = tmp_path / "tests.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    found = [path.relative_to(tmp_path / "tests.d").as_posix()
             for path in site_checks(Site(root=tmp_path), "aws")]  # fmt: skip
    assert found == ["a.py", "b.py", "aws/c.py"]
    assert site_checks(Site(root=tmp_path / "elsewhere"), "aws") == []


GOOD = {
    "cloud_init": '{"v1": {"datasource": "DataSourceEc2Local", "errors": []}}',
    "cloud_errors": "",
    "offered_root": "root@127.0.0.1: Permission denied (publickey).",
    "offered_user": "tester@127.0.0.1: Permission denied (publickey).",
    "room": "10737418240 10737401344 10000000000 9800000000",
    "free_extents": "  0",
    "hostname": "trial-aws.ec2.internal",
    "identity": "1700000100 33 /etc/machine-id\n1700000101 399 /etc/ssh/ssh_host_ed25519_key",
    "booted": "1700000099",
    "failed": "",
    "started": "running",
    "leftovers": "",
    "packages": "fine",
}
BAD = {
    "cloud init is done without error": {"cloud_errors": "util.py[ERROR]: no such module"},
    "sshd takes no password": {
        "offered_user": "tester@127.0.0.1: Permission denied (publickey,password)."
    },
    "the disk is used to its end": {"room": "10737418240 8589934592 8000000000 7900000000"},
    "the host name is the instances": {"hostname": "localhost"},
    "host keys and machine id are new": {
        "identity": "1600000000 33 /etc/machine-id\n1700000101 399 /etc/ssh/ssh_host_rsa_key"
    },
    "no unit has failed": {"failed": "x.service loaded failed failed", "started": "degraded"},
    "the build left nothing": {"leftovers": "/root/.ansible"},
    "the package manager works": {"packages": "dpkg: error\nE: unmet dependencies"},
}


def asked(tmp_path: Path, facts: dict[str, str]) -> dict[str, str]:
    """The outcomes of goldimg's own checks, given what a machine said."""
    tmp_path.mkdir(exist_ok=True)
    image = {"seed": "ec2", "hostname": "trial-aws", "disk": 10 << 30, "provider": "aws"}
    given = Trial(**{**asdict(trial(tmp_path)), "facts": facts, "image": image})
    found = run_checks(
        given, [own_checks("machine")], tmp_path, Runner(), log=tmp_path / "pytest.log"
    )
    return {it.name: it.outcome for it in found}


def test_each_fault_of_a_machine_fails_its_own_check(tmp_path: Path) -> None:
    assert asked(tmp_path / "good", GOOD) == dict.fromkeys(BAD, "passed")
    faulty = {key: value for facts in BAD.values() for key, value in facts.items()}
    assert asked(tmp_path / "bad", {**GOOD, **faulty}) == dict.fromkeys(BAD, "failed")


def test_facts_are_told_by_name() -> None:
    said = "noise\n@hostname\nweb\n@leftovers\n/tmp/@odd\n\n@failed\n"
    assert parsed(said) == {"hostname": "web", "leftovers": "/tmp/@odd", "failed": ""}


# -- the whole, by a container

DIRECTORIES = (
    "bin dev etc home lib lib/x86_64-linux-gnu lib64 opt proc root srv tmp usr usr/bin usr/local "
    "var var/tmp"
)
APPLETS = "awk basename cat echo env find grep head id ls mkdir rm sleep stat tail test true"


def container_shop(root: Path, **extra: bytes) -> Shop:
    """A site with an image for docker: busybox, and a package manager that is content."""
    needs("busybox", "dash", "unshare", "tar")
    if os.geteuid() != 0:
        pytest.skip("needs root, for namespaces of a container")
    shop = make_shop(root, "docker", site_yml="publish: {docker: {cmd: [/bin/sh]}}\n")
    # busybox's own shell would run its own dpkg
    loader, libc = "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"
    contents = {
        **{name: Path("/", name).read_bytes() for name in ("bin/busybox", loader, libc)},
        "bin/sh": Path("/bin/dash").read_bytes(),
        "etc/os-release": b"ID=debian\n",
        "etc/shadow": b"root:*:1::::::\n",
        "etc/machine-id": b"",
        "usr/bin/dpkg": b"#!/bin/sh\nexit 0\n",
        "usr/bin/apt-get": b"#!/bin/sh\nexit 0\n",
        **{name.replace("__", "/"): data for name, data in extra.items()},
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in DIRECTORIES.split():
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for name, data in contents.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
        for name in APPLETS.split():
            member = tarfile.TarInfo(f"./bin/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(member)
    artifact = shop.directory / all_providers()["docker"].artifacts(OS, "1.0.0")[0]
    artifact.write_bytes(stream.getvalue())
    reseal(shop, artifact)
    return shop


def reseal(shop: Shop, artifact: Path) -> None:
    """The manifest and sums of an artifact that was made by hand."""
    manifest, sha256 = shop.manifest, hashlib.sha256(artifact.read_bytes()).hexdigest()
    (entry,) = (it for it in manifest["artifacts"] if it["file"] == artifact.name)
    entry |= {"size": artifact.stat().st_size, "sha256": sha256}
    (shop.directory / "manifest.json").write_text(json.dumps(manifest))
    (shop.directory / "SHA256SUMS").write_text(f"{sha256}  {artifact.name}\n")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return container_shop(tmp_path / "site")


def results(shop: Shop) -> dict[str, Any]:
    found: dict[str, Any] = shop.manifest["tests"]
    return found


def test_a_good_container_passes_and_everybody_knows(shop: Shop, tmp_path: Path) -> None:
    needs("ssh-keygen")
    assert verdict(shop.manifest) is None
    done = shop.goldimg("sign")
    assert done.returncode in (0, 5), done.stderr
    done = shop.goldimg("test", "docker", "--junit", str(tmp_path / "junit"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"docker +1\.0\.0 +passed +4 of 4", done.stdout)
    assert verdict(shop.manifest) is True
    found = results(shop)
    assert [it["outcome"] for it in found["checks"]] == ["passed"] * 4
    beside = shop.directory / f"{OS}-1.0.0_docker.junit.xml"
    suites = ElementTree.parse(beside).getroot()  # noqa: S314 - ours
    (suite,) = suites
    assert (suite.get("tests"), suite.get("failures")) == ("4", "0")
    assert (tmp_path / "junit" / beside.name).read_bytes() == beside.read_bytes()
    assert "passed" in shop.goldimg("list").stdout
    assert not list((shop.root / ".cache/tests").iterdir())


def test_faults_are_named_and_recorded_and_the_gate_stays_shut(tmp_path: Path) -> None:
    shop = container_shop(tmp_path / "site", **{"root__.bash_history": b"ls\n"})
    own = shop.root / "tests.d/docker/own.py"
    own.parent.mkdir(parents=True)
    own.write_text(
        "def test_nginx(host):\n    assert host.run('test -e /etc/nginx').rc == 0, 'gone'\n"
    )
    gate = ("--var", "publish.require_tested=true")
    refused = shop.goldimg("upload", "docker", "--dry-run", *gate)
    assert refused.returncode == 4
    assert "was not tested" in refused.stderr
    assert "hint: goldimg test -O Debian-12 --version 1.0.0 docker" in refused.stderr
    done = shop.goldimg("test")
    assert done.returncode == 1
    assert "2 of 5 checks failed" in done.stderr
    assert "the build left nothing: /root/.bash_history" in done.stderr
    assert "tests.d/docker/own.py::test_nginx: gone" in done.stderr
    assert "log: artifacts/1.0.0/Debian-12/docker/test/pytest.log" in done.stderr
    assert verdict(shop.manifest) is False
    assert "its test failed" in shop.goldimg("upload", "docker", "--dry-run", *gate).stderr


def test_a_changed_artifact_is_not_started(shop: Shop) -> None:
    (artifact,) = shop.directory.glob("*.tar.gz")
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 1
    artifact.write_bytes(data)
    done = shop.goldimg("test", "docker")
    assert done.returncode == 5
    assert "has changed: it is not started" in done.stderr
    assert "tests" not in shop.manifest


def test_a_shell_that_does_not_run_is_a_failure_of_its_own(tmp_path: Path) -> None:
    shop = container_shop(tmp_path / "site", bin__sh=b"not a program\n")
    done = shop.goldimg("test", "docker")
    assert done.returncode == 1
    assert "the container runs no shell" in done.stderr
    (check,) = results(shop)["checks"]
    assert (check["name"], check["outcome"]) == ("starts", "failed")


def test_ctrl_c_ends_a_hanging_check_and_leaves_nothing(shop: Shop) -> None:
    own = shop.root / "tests.d/hang.py"
    own.parent.mkdir()
    own.write_text("def test_hangs(host):\n    host.run('sleep 347')\n")
    process = subprocess.Popen(
        [GOLDIMG, "test", "docker"], cwd=shop.root, text=True, stderr=subprocess.PIPE
    )
    log = shop.directory / "test/pytest.log"
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end and not is_hanging():
            time.sleep(0.1)
        assert is_hanging(), log
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert not is_hanging()
    assert "tests" not in shop.manifest
    assert not list((shop.root / ".cache/tests").iterdir())


def is_hanging() -> bool:
    return any(is_sleeping(it) for it in Path("/proc").glob("[0-9]*/cmdline"))


def is_sleeping(cmdline: Path) -> bool:
    try:
        return cmdline.read_bytes() in (b"sleep\x00347\x00", b"/bin/sh\x00-c\x00sleep 347\x00")
    except OSError:
        return False


def test_what_is_not_finished_is_named(shop: Shop) -> None:
    done = shop.goldimg("test", "aws")
    assert done.returncode == 2
    assert "is not built for aws" in done.stderr
    assert "goldimg build -O Debian-12 --only aws" in done.stderr
    done = shop.goldimg("test", "docker", "--version", "7.7.7")
    assert done.returncode == 2
    assert "7.7.7 is not built" in done.stderr


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sites here have caches of their own."""
    monkeypatch.delenv("GOLDIMG_CACHE", raising=False)


# -- a build that is tested, too


def test_a_build_whose_image_does_not_start_fails_and_keeps_it(tmp_path: Path) -> None:
    """The stand-in for Packer leaves disks that hold nothing to start."""
    needs("xorriso", "ssh-keygen")
    site = PackingSite(tmp_path)
    done = site.build("--only", "openstack", "--test")
    assert done.returncode == 1, done.stderr
    assert re.search(r"openstack +built ", done.stdout)
    assert re.search(r"openstack +1\.0\.0 +failed +0 of 1", done.stdout)
    assert "it does not start; the firmware found nothing to boot" in done.stderr
    place = f"artifacts/1.0.0/{site.os}/openstack"
    assert f"screen: {place}/test/failure.png" in done.stderr
    assert f"log: {place}/test/console.log" in done.stderr
    assert "the artifacts are kept" in done.stderr
    manifest = json.loads((site.directory("openstack") / "manifest.json").read_text())
    assert verdict(manifest) is False
    verified = site.goldimg("verify", str(site.directory("openstack")))
    assert verified.returncode == 0, verified.stderr  # signed again
    assert "no signature covers it" not in verified.stdout + verified.stderr
    assert not list((site.root / ".cache/tests").iterdir())
