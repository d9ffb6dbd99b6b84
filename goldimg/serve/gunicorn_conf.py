"""gunicorn's settings, out of the site's: `gunicorn -c python:goldimg.serve.gunicorn_conf …`.

Threads, because machines on slow lines load kernels for minutes: a transfer is one thread that
waits in sendfile, while others answer. Threads with kept connections are faster here than one
request at a time too, and idle ones cost nothing. Beyond 128 transfers at once, requests wait for
one to end, and a proxy in front that buffers `/tree/` lifts that.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from goldimg.serve.service import REQUEST_LOG, tls_files
from goldimg.serve.wsgi import service as _open

_serve = _open().serve
_certificate, _key = tls_files(_open().site, _serve)
_host = f"[{_serve.listen}]" if ":" in _serve.listen else _serve.listen

bind = [f"{_host}:{_serve.port}"]
certfile = str(_certificate) if _certificate else None
keyfile = str(_key) if _key else None
workers = _serve.workers
worker_class = "gthread"
threads = 64  # made as they are needed; each costs some 150 KB
worker_connections = 2048
backlog = 2048
keepalive = 15
timeout = 60
graceful_timeout = 5
preload_app = True  # the site is read once, and its memory is shared
# Heartbeats on a disk can stall with it.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
control_socket_disable = True  # gunicorn 25: one more door, and two sites would share it
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 4096
max_requests = 0
forwarded_allow_ips = ""  # the application itself knows whom to trust
accesslog = None  # ours has neither paths nor queries
errorlog = "-"
loglevel = "info"
proc_name = "goldimg"
STALLED = 60  # seconds that a client may take no byte
SILENT = 20  # seconds that it may leave a request unfinished
FILES = 16384  # descriptors: a connection, and what it reads


class _Plain(logging.Filter):
    """Keeps what clients sent out of gunicorn's messages: paths hold tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                "(path)" if isinstance(it, str) and it.startswith("/") else it for it in record.args
            )
        if str(record.msg).startswith("Invalid request from"):
            record.msg = str(record.msg).partition(": ")[0]
        # A client that never ended its request: nothing of ours failed.
        return not (record.exc_info and isinstance(record.exc_info[1], BlockingIOError))


def on_starting(server: Any) -> None:
    """Descriptors for many connections; where it is wanted, one line a request to stdout."""
    server.log.error_log.addFilter(_Plain())
    requests = logging.getLogger("goldimg.requests")
    handler = logging.StreamHandler(sys.stdout)
    form = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    requests.addHandler(handler)
    # A fifth of the time of a small request goes into its line.
    requests.setLevel(logging.INFO if os.environ.get(REQUEST_LOG) else logging.WARNING)
    requests.propagate = False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def when_ready(server: Any) -> None:
    """Ends connections whose other end is gone or takes nothing, so that they hold no thread.

    Set on what listens: Linux gives it to what is accepted (tcp(7), socket(7)). And what is loaded
    by now stays out of the garbage collector's way, so that workers go on sharing its memory.
    """
    gc.collect()
    gc.freeze()
    for listener in server.LISTENERS:
        sock = listener.sock
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", SILENT, 0))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, STALLED)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED * 1000)


def post_fork(server: Any, worker: Any) -> None:
    """Gives each worker its own place to count in."""
    app = getattr(server.app, "callable", None)
    if app is not None:
        app.extensions["goldimg"].counters.begin(worker.age)
