"""Hears what installers say over syslog (`inst.syslog=`), and keeps it with the host's log.

Lines are UDP packets of RFC 3164; whose they are is told by the address that the kickstart went to.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

from goldimg.config.serve import Serve
from goldimg.errors import GoldimgError
from goldimg.run import Runner
from goldimg.serve.shown import redacted
from goldimg.serve.store import UNDER_WAY, State, Store

TICK = 0.5  # seconds of lines that are kept at once
FLOOD = 1000  # lines a tick; what is beyond waits, or is lost


def open_syslog(serve: Serve) -> socket.socket:
    """The socket that lines arrive at; GoldimgError where it cannot be had."""
    listening = socket.socket(
        socket.AF_INET6 if ":" in serve.listen else socket.AF_INET, socket.SOCK_DGRAM
    )
    try:
        listening.bind((serve.listen, serve.syslog_port))
    except OSError as error:
        listening.close()
        raise GoldimgError(
            f"cannot listen for syslog on {serve.listen}, UDP port {serve.syslog_port}",
            why=(error.strerror or str(error)).lower(),
            hint="serve.syslog_port changes it, 0 leaves it out",
        ) from None
    listening.settimeout(TICK)
    return listening


def hear_syslog(listening: socket.socket, store: Store, runner: Runner) -> None:
    """Keeps the lines of machines that are being installed, until the runner is cancelled."""
    with listening:
        while not runner.cancel.is_set():
            if lines := _received(listening):
                _keep(lines, store)


def _keep(lines: Mapping[str, list[str]], store: Store) -> None:
    talking = {
        record.address: record.name
        for record in store.hosts().values()
        if record.state in (*UNDER_WAY, State.BOOTING)
    }
    for address, texts in lines.items():
        if address in talking:
            store.log(talking[address], map(redacted, texts))


def _received(listening: socket.socket) -> dict[str, list[str]]:
    """What arrives within a tick, by sender."""
    lines: dict[str, list[str]] = {}
    end = time.monotonic() + TICK
    for _ in range(FLOOD):
        try:
            data, sender = listening.recvfrom(4096)
        except TimeoutError:
            break
        lines.setdefault(str(sender[0]), []).append(_plain(data.decode("utf-8", "replace")))
        if time.monotonic() > end:
            break
    return lines


def _plain(text: str) -> str:
    """A message without its priority (RFC 3164: `<number>` first) and control characters."""
    if text.startswith("<"):
        text = text.partition(">")[2]
    return "".join(char if char.isprintable() else " " for char in text).strip()
