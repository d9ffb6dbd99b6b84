"""The way into a machine under test: one SSH connection that everything goes through."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.project import write_text
from goldimg.run import Completed, Runner
from goldimg.testing.background import Background

HOST = "image"  # its name in the SSH configuration
BANNER = 3.0  # seconds that sshd may take to greet
LOGIN = 30.0  # seconds that a login may take: key exchange is slow under emulation
PAUSE = 1.0


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where SSH answers, and by which user and key: `socket` is that of the shared connection."""

    port: int
    user: str
    key: Path
    config: Path
    socket: Path

    def write(self) -> None:
        """Writes the configuration that ssh(1) and testinfra read."""
        options = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "User": self.user,
            "IdentityFile": self.key,
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "GlobalKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": 15,
            "ServerAliveInterval": 30,
            "ServerAliveCountMax": 4,
            "ControlPath": self.socket,
        }
        lines = [f"Host {HOST}", *(f'    {key} "{value}"' for key, value in options.items())]
        write_text(self.config, "\n".join(lines) + "\n")

    def ssh(self, *words: str) -> list[str]:
        """A command line of ssh(1)."""
        return ["ssh", "-F", str(self.config), *words]

    def is_answering(self) -> bool:
        """Whether sshd greets. QEMU takes the connection itself, so that alone says nothing."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=BANNER) as connection:
                connection.settimeout(BANNER)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


@contextlib.contextmanager
def opened(
    door: Door, runner: Runner, *, seconds: float, look: Callable[[], None]
) -> Iterator[float]:
    """Logs in as soon as that is possible, and keeps the connection until the block ends.

    Yields the seconds that it took. `look` is called again and again while waiting, to raise what
    is known to be wrong. GoldimgError after `seconds`.
    """
    door.write()
    started = time.monotonic()
    refused = ""
    while time.monotonic() - started < seconds:
        runner.check_cancelled()
        look()
        if door.is_answering():
            master = door.ssh("-o", "ControlMaster=yes", "-N", HOST)
            with Background(runner, master, reason="log in to a machine under test") as process:
                if _is_through(door, process, runner):
                    yield time.monotonic() - started
                    return
                refused = process.said() or refused
        time.sleep(PAUSE)
    if refused:
        raise GoldimgError(f"no login as {door.user} within {seconds:.0f} s", why=refused)
    raise GoldimgError(f"SSH did not answer within {seconds:.0f} s")


def _is_through(door: Door, process: Background, runner: Runner) -> bool:
    end = time.monotonic() + LOGIN
    while process.is_running and time.monotonic() < end:
        runner.check_cancelled()
        if door.socket.exists():  # made once the login is done
            return True
        time.sleep(0.1)
    return False


def run(door: Door, runner: Runner, command: str, *, stdin: str, seconds: float) -> Completed:
    """Runs a shell command over the connection, whatever its exit code."""
    words = door.ssh("-o", "ControlMaster=no", HOST, command)
    return runner.run(words, check=False, stdin=stdin.encode(), timeout=seconds)


def offered(door: Door, runner: Runner, user: str) -> str:
    """What sshd says to `user` without any proof: it names the ways that it would take.

    RFC 4252, section 5.2: the "none" request is answered by the list of methods.
    """
    alone = ("-o", "ControlPath=none", "-o", "PreferredAuthentications=none", "-l", user)
    done = runner.run(door.ssh(*alone, HOST, "true"), check=False, timeout=60)
    return "" if done.code == 0 else done.stderr.strip()
