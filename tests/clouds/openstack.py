"""The real Glance, alone or with the real Keystone, from PyPI, on SQLite and plain files.

Alone, a filter in Glance's own pipeline takes the token `user:project:role` at its word, and
answers 401 to any other; it stands for Keystone's middleware, whose checks it does not prove.
https://docs.openstack.org/glance/latest/configuration/
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.clouds.services import environment, started

GLANCE = ("glance==33.0.0", "keystone==30.0.0", "gunicorn==27.0.1", "waitress==3.0.2")
QUOTA = 64 << 20  # bytes that a project may keep
TOKEN = "user:demo:member"
PASSWORD = "the admin's password"

FAKE_AUTH = """\
from webob import Response


class FakeAuth:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        words = environ.get("HTTP_X_AUTH_TOKEN", "").split(":")
        if len(words) != 3:
            return Response(status=401, text="no such token")(environ, start_response)
        user, project, role = words
        environ["HTTP_X_IDENTITY_STATUS"] = "Confirmed"
        environ["HTTP_X_USER_ID"] = user
        environ["HTTP_X_PROJECT_ID"] = project
        environ["HTTP_X_ROLES"] = role
        return self.app(environ, start_response)


def factory(settings, **own):
    return FakeAuth
"""
PASTE = """
[composite:glance-api-fakeauth]
paste.composite_factory = glance.api:root_app_factory
/: api
/healthcheck: healthcheck

[filter:fakeauth]
paste.filter_factory = fakeauth:factory
"""
# Keystone reads the command line of whatever runs it.
SERVE = """\
import importlib, os, socket, sys
import waitress

module, descriptor = sys.argv[1:]
sys.argv = ["serve"]
# a low number: the caller may have more files open than select(2) can name
listening = socket.socket(fileno=os.dup(int(descriptor)))
application = importlib.import_module(module).application
waitress.serve(application, sockets=[listening], threads=8)
"""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """A running Glance; `directory` holds its images and its log."""

    url: str
    port: int
    directory: Path

    def get(self, path: str, token: str = TOKEN) -> Any:
        """What GET answers, as JSON."""
        answer = requests.get(self.url + path, headers={"X-Auth-Token": token}, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def images(self, token: str = TOKEN) -> list[dict[str, Any]]:
        """Every image that the token's project owns, hidden ones too."""
        owner = token.split(":")[1]
        found = []
        for hidden in ("false", "true"):
            path = f"/v2/images?limit=1000&os_hidden={hidden}&owner={owner}"
            found += self.get(path, token)["images"]
        return found

    def data(self, id_: str, token: str = TOKEN) -> bytes:
        """The bytes of an image, as any user gets them."""
        answer = requests.get(
            f"{self.url}/v2/images/{id_}/file", headers={"X-Auth-Token": token}, timeout=60
        )
        answer.raise_for_status()
        return answer.content

    def stored(self) -> list[Path]:
        """What lies in its store and its staging area."""
        return [
            path
            for name in ("images", "staging")
            for path in (self.directory / name).iterdir()
            if path.is_file()
        ]


@dataclass(frozen=True, kw_only=True)
class Keystone:
    """A running Keystone with an admin in the project `admin` of the domain `Default`."""

    url: str

    @property
    def auth(self) -> dict[str, str]:
        """The admin, as `auth:` of clouds.yaml has it."""
        return {
            "auth_url": self.url,
            "username": "admin",
            "password": PASSWORD,
            "project_name": "admin",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }


@contextlib.contextmanager
def glance(
    directory: Path, *, keystone: Keystone | None = None, quota: str = f"{QUOTA}B"
) -> Iterator[Glance]:
    """A Glance on a free port of 127.0.0.1, which keeps everything in `directory`.

    `quota` is what each project may store.
    """
    venv = environment("glance", *GLANCE)
    directory.mkdir(parents=True, exist_ok=True)
    etc = directory / "etc"
    etc.mkdir()
    for name in ("images", "staging", "tasks", "locks"):
        (directory / name).mkdir()
    paste = (venv / "etc/glance/glance-api-paste.ini").read_text(encoding="utf-8")
    pipeline = "[composite:api]\nfakeauth = http_proxy_to_wsgi versionnegotiation fakeauth context"
    paste = paste.replace("[composite:api]", f"{pipeline} rootapp") + PASTE
    (etc / "glance-api-paste.ini").write_text(paste, encoding="utf-8")
    (directory / "fakeauth.py").write_text(FAKE_AUTH, encoding="utf-8")
    config = etc / "glance-api.conf"
    config.write_text(_glance_config(directory, keystone, quota), encoding="utf-8")
    _manage(venv / "bin/glance-manage", config, "db_sync")
    with contextlib.closing(sqlite3.connect(directory / "glance.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")  # imports write from threads of their own
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        argv: list[str | Path] = [
            *(venv / "bin/gunicorn", "--workers", "1", "--threads", "8", "--timeout", "600"),
            *("--worker-class", "gthread", "--bind", f"fd://{listening.fileno()}"),
            *("--worker-tmp-dir", directory, "--graceful-timeout", "1"),
            *("--no-control-socket", "glance.wsgi.api"),
        ]
        url = f"http://127.0.0.1:{port}"
        env = {"OS_GLANCE_CONFIG_DIR": str(etc), "PYTHONPATH": str(directory)}
        with started(
            argv,
            log=directory / "glance.log",
            env=env,
            pass_fds=[listening.fileno()],
            is_ready=lambda: requests.get(f"{url}/healthcheck", timeout=5).ok,
        ):
            yield Glance(url=url, port=port, directory=directory)


def _glance_config(directory: Path, keystone: Keystone | None, quota: str) -> str:
    auth = ""
    if keystone:
        auth = "\n".join(
            [
                "[keystone_authtoken]",
                f"www_authenticate_uri = {keystone.url}",
                "auth_type = password",
                *(f"{name} = {value}" for name, value in keystone.auth.items()),
            ]
        )
    return f"""\
[DEFAULT]
enabled_backends = file:file
enabled_import_methods = [glance-direct,web-download,copy-image]
node_staging_uri = file://{directory}/staging
user_storage_quota = {quota}
[database]
connection = sqlite:///{directory}/glance.db?timeout=60
[oslo_concurrency]
lock_path = {directory}/locks
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {directory}/images
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[paste_deploy]
flavor = {"keystone" if keystone else "fakeauth"}
config_file = {directory}/etc/glance-api-paste.ini
[oslo_policy]
enforce_scope = false
enforce_new_defaults = false
{auth}
"""


@contextlib.contextmanager
def keystone(directory: Path) -> Iterator[Keystone]:
    """A Keystone on a free port of 127.0.0.1, whose catalogue has no service yet but itself."""
    venv = environment("glance", *GLANCE)
    directory.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v3"
        config = directory / "keystone.conf"
        config.write_text(
            f"[database]\nconnection = sqlite:///{directory}/keystone.db\n"
            "[token]\nprovider = fernet\n"
            f"[fernet_tokens]\nkey_repository = {directory}/fernet\n"
            f"[credential]\nkey_repository = {directory}/credential\n",
            encoding="utf-8",
        )
        manage = venv / "bin/keystone-manage"
        owner = ("--keystone-user", "root", "--keystone-group", "root")
        _manage(manage, config, "db_sync")
        _manage(manage, config, "fernet_setup", *owner)
        _manage(manage, config, "credential_setup", *owner)
        urls = [f"--bootstrap-{kind}-url={url}/" for kind in ("admin", "internal", "public")]
        _manage(
            *(manage, config, "bootstrap", "--bootstrap-password", PASSWORD),
            *("--bootstrap-region-id", "RegionOne", *urls),
        )
        script = directory / "serve.py"
        script.write_text(SERVE, encoding="utf-8")
        with started(
            [venv / "bin/python", script, "keystone.wsgi.api", str(listening.fileno())],
            log=directory / "keystone.log",
            env={"OS_KEYSTONE_CONFIG_FILES": str(config)},
            pass_fds=[listening.fileno()],
            is_ready=lambda: requests.get(url, timeout=20).ok,
        ):
            yield Keystone(url=url)


def _manage(program: Path, config: Path, *words: str) -> None:
    done = subprocess.run(
        [program, "--config-file", config, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{program.name} {words[0]}:\n{done.stderr[-2000:]}"
