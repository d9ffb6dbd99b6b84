"""The only door to other programs: argument lists, own session, limits, redaction, logs.

A program started here never outlives the call that started it: cancelling (Ctrl-C) or a timeout
sends INT, then TERM, then KILL to its whole process group.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from goldimg.errors import GoldimgError, Interrupted, MissingTool
from goldimg.orphans import OWNER, owner
from goldimg.packages import package_of

# What a child inherits: enough to find programs, homes, certificates and proxies, nothing else.
INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "TERM",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "SSH_AUTH_SOCK",
    "LIBGUESTFS_PATH",
    "LIBGUESTFS_CACHEDIR",
    "SUPERMIN_KERNEL",
    "SUPERMIN_MODULES",
    "SUPERMIN_KERNEL_VERSION",
)
GRACE = {signal.SIGINT: 2.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}  # seconds to die of each
DRAINING = 1.0  # seconds without a word, once a program has ended, until its pipes count as empty
KEPT = 4 << 20  # bytes of each stream kept in memory
PACKAGES = Path(__file__).resolve().parents[1]  # where our own modules are found


class Redactor:
    """Replaces every secret it was told of by `***`, in whatever passes through it."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """From now on `secret` is hidden. Shorter than 4 characters is ignored: it hides words."""
        if len(secret) >= 4:
            self._secrets.add(secret)

    def __call__(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, kw_only=True)
class Completed:
    """How a program ended. `stdout` and `stderr` hold the last 4 MiB of each stream."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float


class _Tail:
    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        while self._size > KEPT and len(self._parts) > 1:
            self._size -= len(self._parts.popleft())

    def text(self) -> str:
        return b"".join(self._parts).decode("utf-8", "replace")


class Runner:
    """Runs programs for one goldimg command; shared by its threads."""

    def __init__(
        self, *, redactor: Redactor | None = None, cancel: threading.Event | None = None
    ) -> None:
        self.redact = redactor or Redactor()
        self.cancel = cancel or threading.Event()
        self.hurry = threading.Event()  # set: what is being stopped is killed at once

    def check_cancelled(self) -> None:
        """Raises Interrupted once the user has asked to stop; long loops of our own call it."""
        if self.cancel.is_set():
            raise Interrupted

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        reason: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float | None = None,
        log: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        on_chunk: Callable[[bytes], None] | None = None,
        on_start: Callable[[int], None] | None = None,
        check: bool = True,
        stdin: bytes | None = None,
        abort: Callable[[], BaseException | None] | None = None,
        grace: float = GRACE[signal.SIGINT],
        pass_fds: Sequence[int] = (),
    ) -> Completed:
        """Runs `argv` to its end and returns how it ended.

        Both streams go line by line, redacted, to `log` (appended) and `on_line`; `on_chunk` takes
        the raw stdout instead. `timeout` is in seconds; `abort` is asked ten times a second and
        what it returns ends the program and is raised. A program that is ended has `grace` seconds
        to clean up after INT, and `pass_fds` from us. Raises MissingTool (with `reason`) where
        the program is absent, GoldimgError for a non-zero exit (with `check`) or a timeout,
        Interrupted when cancelled.
        """
        self.check_cancelled()
        words = [os.fspath(word) for word in argv]
        environment = environment_of(env)
        program = find_program(words[0], environment["PATH"], reason)
        started = time.monotonic()
        process = subprocess.Popen(
            [program, *words[1:]],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        if on_start:
            on_start(process.pid)
        with _Streams(process, self.redact, log, on_line, on_chunk, stdin) as streams:
            try:
                self._wait(process, streams, started, timeout, words, abort)
            except BaseException:
                stop_group(process, self.hurry, grace)
                raise
        result = Completed(
            argv=tuple(words),
            code=process.returncode,
            stdout=streams.stdout.text(),
            stderr=streams.stderr.text(),
            seconds=time.monotonic() - started,
        )
        if check and result.code != 0:
            raise self._failure(result, log)
        return result

    def _wait(
        self,
        process: subprocess.Popen[bytes],
        streams: _Streams,
        started: float,
        timeout: float | None,
        words: list[str],
        abort: Callable[[], BaseException | None] | None,
    ) -> None:
        while True:
            try:
                process.wait(0.1)
                return
            except subprocess.TimeoutExpired:
                pass
            self.check_cancelled()
            if streams.error:
                raise streams.error
            if abort and (reason := abort()):
                raise reason
            if timeout is not None and time.monotonic() - started > timeout:
                raise GoldimgError(f"{Path(words[0]).name}: no end after {timeout:.0f} s")

    def _failure(self, result: Completed, log: Path | None) -> GoldimgError:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines()
        how = f"exit code {result.code}"
        if result.code < 0:
            how = f"killed by {signal.Signals(-result.code).name}"
        return GoldimgError(
            f"{Path(result.argv[0]).name} failed ({how})",
            details=[self.redact(line) for line in said[-8:]]
            + ["command: " + self.redact(shlex.join(result.argv))],
            log=log,
        )


class _Streams:
    """Drains stdout and stderr of a process in two threads, so that neither can block it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        redact: Redactor,
        log: Path | None,
        on_line: Callable[[str], None] | None,
        on_chunk: Callable[[bytes], None] | None,
        stdin: bytes | None,
    ) -> None:
        self.stdout, self.stderr = _Tail(), _Tail()
        self.error: BaseException | None = None
        self._redact, self._on_line, self._on_chunk = redact, on_line, on_chunk
        self._lock = threading.Lock()
        self._read = 0.0
        self._log: IO[str] | None = log.open("a", encoding="utf-8") if log else None
        pumps: list[tuple[Callable[..., None], tuple[object, ...]]] = [
            (self._lines, (process.stderr, self.stderr)),
            (self._chunks, (process.stdout,))
            if on_chunk
            else (self._lines, (process.stdout, self.stdout)),
        ]
        if stdin is not None:
            pumps.append((self._feed, (process.stdin, stdin)))
        self._threads = [
            threading.Thread(target=self._guard, args=(pump, args), daemon=True)
            for pump, args in pumps
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> _Streams:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        ended = time.monotonic()
        for thread in self._threads:
            # What a child left behind may hold the pipe open for ever: do not wait for it.
            while thread.is_alive() and time.monotonic() - max(ended, self._read) < DRAINING:
                thread.join(timeout=0.05)
        with self._lock:
            if self._log:
                self._log.close()
                self._log = None
        if kind is None and self.error:
            raise self.error

    def _guard(self, pump: Callable[..., None], args: tuple[object, ...]) -> None:
        try:
            pump(*args)
        except BaseException as error:
            self.error = error

    @staticmethod
    def _feed(stream: IO[bytes], data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError), stream:
            stream.write(data)

    def _chunks(self, stream: IO[bytes]) -> None:
        assert self._on_chunk is not None  # noqa: S101 - the constructor chose this pump
        with stream:
            while data := stream.read(1 << 20):
                self._read = time.monotonic()
                self._on_chunk(data)

    def _lines(self, stream: IO[bytes], tail: _Tail) -> None:
        with stream:
            for raw in stream:
                self._read = time.monotonic()
                tail.add(raw)
                if self._log is None and self._on_line is None:
                    continue
                line = self._redact(raw.decode("utf-8", "replace").rstrip("\r\n"))
                with self._lock:
                    if self._log:
                        self._log.write(line + "\n")
                        self._log.flush()
                if self._on_line:
                    self._on_line(line)


def environment_of(overlay: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a child: the inherited few, our own programs first, then `overlay`."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    own = str(Path(sys.executable).parent)
    path = environment.get("PATH", os.defpath)
    environment["PATH"] = os.pathsep.join([own, path, "/usr/sbin", "/sbin"])
    environment[OWNER] = owner()
    environment.update(overlay or {})
    return environment


def find_program(name: str, path: str | None = None, reason: str = "") -> str:
    """The full path of the program `name`; MissingTool names the package that brings it."""
    found = shutil.which(name, path=path or environment_of(None)["PATH"])
    if found:
        return found
    package = package_of(name)
    raise MissingTool(
        f"{name} is not installed" + (f"; it is needed to {reason}" if reason else ""),
        hint=f"apt-get install {package}, or see 'goldimg doctor'",
    )


def has_program(name: str) -> bool:
    """Whether the program `name` is installed."""
    return shutil.which(name, path=environment_of(None)["PATH"]) is not None


def stop_group(process: subprocess.Popen[bytes], hurry: threading.Event, grace: float) -> None:
    """Ends a process and everything in its group; `hurry` skips to KILL."""
    for number, seconds in {**GRACE, signal.SIGINT: grace}.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        patience = threading.Event() if number is signal.SIGKILL else hurry
        if _group_ended(process, seconds, patience):
            return


def _group_ended(process: subprocess.Popen[bytes], seconds: float, hurry: threading.Event) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not hurry.is_set():
        if process.poll() is not None and not _group_exists(process.pid):
            return True
        time.sleep(0.05)
    return False


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
