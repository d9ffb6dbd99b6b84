"""`goldimg serve` and `goldimg host` as their users run them: a process, its words, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from goldimg.layout import lay_out
from goldimg.project import find_site
from goldimg.run import Runner
from goldimg.serve.service import Service, open_service

GOLDIMG = Path(sys.executable).parent / "goldimg"
OS = "CentOS-7.2.1511"
SECONDS = 30


@pytest.fixture
def site(tmp_path: Path) -> Path:
    lay_out(tmp_path / "site")
    (tmp_path / "site/keys/packer.pub").write_text("ssh-ed25519 " + "A" * 68 + " site\n")
    (tmp_path / "site/kickstart/builds/metal/node01.yml").write_text(
        f'mac: ["52:54:00:12:34:56"]\nos: {OS}\ndisk: sda\n'
    )
    return tmp_path / "site"


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def serving(site: Path, *options: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """A running `goldimg serve`, ready to answer."""
    process = subprocess.Popen(
        [GOLDIMG, "--site", site, "serve", "--port", str(port), *options],
        env={**os.environ, "GOLDIMG_ROOT_PASS": "kastanienallee-7"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):
                requests.get(url(port, "/healthz"), timeout=5)
                break
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def url(port: int, path: str) -> str:
    return f"http://127.0.0.1:{port}{path}"


def stopped(process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    """Ends the server as Ctrl-C or systemd do, and returns what it said."""
    process.send_signal(number)
    _, said = process.communicate(timeout=SECONDS)
    return said


def goldimg(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GOLDIMG, "--site", site, *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def service_of(site: Path) -> Service:
    return open_service(find_site(site), {"GOLDIMG_ROOT_PASS": "kastanienallee-7"}, Runner())


def arm(service: Service) -> str:
    service.store.arm(
        "node01",
        build="metal/node01",
        os_name=OS,
        root_hash=service.catalogue.view().root_hash(OS),
        expires=time.time() + 600,
    )
    return service.desk.token(service.store.host("node01"), "fetch")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_says_what_happens_and_ends_well(site: Path, number: int) -> None:
    port = free_port()
    with serving(site, port=port) as process:
        token = arm(service_of(site))
        text = requests.get(url(port, f"/ks/metal/node01?token={token}"), timeout=SECONDS).text
        time.sleep(1.5)
        children = children_of(process.pid)
        said = stopped(process, number)
    assert "rootpw --iscrypted" in text
    assert process.returncode == 0, said
    assert "node01: kickstart fetched, by 127.0.0.1" in said
    assert said.rstrip().endswith("stopped")
    for secret in (token, "$6$", "kastanienallee-7"):
        assert secret not in said
    assert children
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def children_of(parent: int) -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == parent:
                found.add(int(entry.parent.name))
    return found


def test_no_secret_is_in_an_argument_list(site: Path) -> None:
    port = free_port()
    with serving(site, port=port) as process:
        token = arm(service_of(site))
        admin = (site / ".state/admin-token").read_text().strip()
        listed = b"".join(
            Path(f"/proc/{pid}/cmdline").read_bytes()
            for pid in {process.pid, *children_of(process.pid)}
        ).decode()
        stopped(process)
    assert "gunicorn" in listed
    assert not any(it in listed for it in (token, admin, "kastanienallee-7"))
    assert (site / ".state").stat().st_mode & 0o077 == 0


def test_a_taken_port_is_named_and_nothing_is_started(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = goldimg(site, "serve", "--port", str(port))
    assert done.returncode == 1
    assert f"error: cannot listen on 127.0.0.1, port {port}" in done.stderr
    assert f"ss -ltnp sport = :{port}" in done.stderr


def test_a_certificate_that_is_not_there_is_named(site: Path) -> None:
    (site / "templates/site.yml").write_text("serve: {tls_certificate: a.pem, tls_key: b.pem}\n")
    done = goldimg(site, "serve")
    assert done.returncode == 1
    assert "serve.tls_certificate: a.pem cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--netboot",), "no interface to serve machines on"),
        (("--netboot", "--interface", "nosuch0"), "there is no network interface nosuch0"),
        (("--listen", "example.com"), "--var: serve.listen: must be an address"),
        (("--var", "serve.prot=1"), "did you mean 'port'"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(
    site: Path, options: tuple[str, ...], says: str
) -> None:
    done = goldimg(site, "serve", *options)
    assert done.returncode in (1, 2)
    assert says in done.stderr


def test_a_broken_definition_is_told_and_the_others_are_served(site: Path) -> None:
    (site / "kickstart/builds/metal/node02.yml").write_text("ipadr: 10.0.0.1\n")
    port = free_port()
    with serving(site, port=port) as process:
        fine = requests.get(url(port, f"/ks/virtual/aws?os={OS}"), timeout=SECONDS)
        refused = requests.get(url(port, f"/ks/metal/node02?os={OS}"), timeout=SECONDS)
        said = stopped(process)
    assert (fine.status_code, refused.status_code) == (200, 409)
    assert "warning: kickstart/builds/metal/node02.yml:1:1: ipadr: unknown key" in said


def test_the_installer_s_syslog_is_kept_for_its_host(site: Path) -> None:
    port, syslog = free_port(), free_port(socket.SOCK_DGRAM)
    with serving(site, "--var", f"serve.syslog_port={syslog}", port=port) as process:
        service = service_of(site)
        token = arm(service)
        requests.get(url(port, f"/ks/metal/node01?token={token}"), timeout=SECONDS)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(
                b"<134>Nov 21 04:00:00 anaconda: Installing\x1b[31m bash", ("127.0.0.1", syslog)
            )
            sender.sendto(f"<134>Nov 21 rootpw $6$salt${'x' * 86}".encode(), ("127.0.0.1", syslog))
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and len(service.store.lines("node01")) < 2:
            time.sleep(0.2)
        stopped(process)
    lines = service.store.lines("node01")
    assert lines[0] == "Nov 21 04:00:00 anaconda: Installing [31m bash"
    assert "x" * 86 not in lines[1]


# --- goldimg host ----------------------------------------------------------------------------


def test_a_host_is_added_listed_and_removed(site: Path) -> None:
    added = goldimg(site, "host", "add", "rack2", "--mac", "52-54-00-aa-bb-cc", "-O", OS)
    assert added.stdout == "kickstart/builds/metal/rack2.yml written\n"
    listed = goldimg(site, "host", "list").stdout
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["node01", "known"],
        ["rack2", "known"],
    ]
    assert goldimg(site, "host", "remove", "rack2").returncode == 0
    assert "rack2" not in goldimg(site, "host", "list").stdout


def test_a_host_that_is_not_there_is_not_armed(site: Path) -> None:
    done = goldimg(site, "host", "install", "node1")
    assert done.returncode == 2
    assert "did you mean 'node01'" in done.stderr


def test_an_install_that_cannot_work_is_refused_before_it_is_armed(site: Path) -> None:
    path = site / "kickstart/builds/metal/node01.yml"
    path.write_text(path.read_text() + "ipaddr: 10.0.0.1\nnetmask: 255.255.255.0\n"
                    "gateway: 10.9.9.9\n")  # fmt: skip
    done = goldimg(site, "host", "install", "node01")
    assert done.returncode == 2
    assert "kickstart/builds/metal/node01.yml:6:1: gateway: is not in the network" in done.stderr
    assert "armed" not in goldimg(site, "host", "list").stdout


def test_an_installed_host_is_asked_about_first(site: Path) -> None:
    service = service_of(site)
    arm(service)
    service.store.stage("node01", "done")
    done = goldimg(site, "host", "install", "node01")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "installed" in goldimg(site, "host", "list").stdout


def test_the_boot_line_is_for_armed_hosts_only(site: Path) -> None:
    refused = goldimg(site, "host", "bootline", "node01")
    assert refused.returncode == 1
    assert "'goldimg host install node01' arms it first" in refused.stderr
    token = arm(service_of(site))
    said = goldimg(site, "host", "bootline", "node01").stdout
    assert said.startswith(f"inst.ks=http://127.0.0.1:8080/ks/metal/node01?token={token} ")
    shown = goldimg(site, "host", "show", "node01")
    assert token not in shown.stdout + shown.stderr
    assert "$6$" not in shown.stdout


def test_doctor_names_what_is_wrong_in_the_site(site: Path) -> None:
    (site / "kickstart/builds/metal/node02.yml").write_text("ipadr: 10.0.0.1\n")
    done = goldimg(site, "doctor")
    assert done.returncode in (2, 3)
    assert "error: kickstart/builds/metal/node02.yml:1:1: ipadr" in done.stderr


def test_the_unit_and_the_proxy_s_configuration_are_valid(site: Path, tmp_path: Path) -> None:
    from tests.support import needs

    needs("systemd-analyze")
    needs("nginx")
    unit = tmp_path / "goldimg.service"
    text = (site / "templates/server/goldimg.service").read_text()
    unit.write_text(text.replace("/srv/goldimg/.venv/bin/goldimg", str(GOLDIMG)))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    own = (site / "templates/server/nginx.conf").read_text()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=ks",
         "-keyout", tmp_path / "k.key", "-out", tmp_path / "k.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    own = own.replace("/etc/ssl/certs/ks.example.com.pem", str(tmp_path / "k.pem"))
    own = own.replace("/etc/ssl/private/ks.example.com.key", str(tmp_path / "k.key"))
    own = own.replace("/var/log/nginx", str(tmp_path))
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/e.log;\nevents {{}}\nhttp {{\n{own}\n}}\n"
    )
    tested = subprocess.run(
        ["nginx", "-t", "-c", conf], capture_output=True, text=True, check=False
    )
    assert "syntax is ok" in tested.stderr, tested.stderr
