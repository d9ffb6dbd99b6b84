"""`goldimg serve`: the web server, dnsmasq and syslog as one, until it is told to stop.

The web server is a process of its own (gunicorn), so that its workers share no thread with what
else runs here. When one part ends by itself the others are stopped, and its error is told.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from goldimg.errors import GoldimgError, Interrupted
from goldimg.netboot.daemon import interface_address
from goldimg.serve.netbooting import Netbooting, netboot_directory
from goldimg.serve.service import REQUEST_LOG, VARIABLES, Service, tls_files
from goldimg.serve.syslog import hear_syslog, open_syslog

TICK = 0.5  # seconds between looks at what has changed
GRACE = 10.0  # seconds for requests under way when the server is stopped
LOUD = {"WARNING", "ERROR", "CRITICAL"}
Say = Callable[[str], None]


def interface_variables(
    interface: str | None, given: Mapping[str, object], networks: Sequence[str]
) -> list[str]:
    """The settings that follow from serving machines on `interface`, where they are not `given`.

    Raises GoldimgError for an interface that is not there or has no address.
    """
    if interface is None:
        return []
    try:
        address = interface_address(interface)
    except OSError:
        names = ", ".join(name for _, name in socket.if_nameindex() if name != "lo")
        raise GoldimgError(
            f"there is no network interface {interface}", hint=f"there are {names or 'none'}"
        ) from None
    if address is None:
        raise GoldimgError(
            f"the network interface {interface} has no IPv4 address",
            hint=f"give it one: ip address add 10.77.0.1/24 dev {interface}",
        )
    found = [f"serve.netboot.interface={interface}"]
    if not given.get("listen"):
        found.append(f"serve.listen={address.ip}")
    if not networks:
        found.append(f"serve.networks={address.network}")
    return found


@dataclass(kw_only=True)
class Server:
    """One run of `goldimg serve`. `say` takes a line for the person who watches it."""

    service: Service
    variables: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    say: Say
    with_netboot: bool = False
    is_verbose: bool = False  # also each request, and what gunicorn says of itself
    _errors: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        """Serves until the runner is cancelled. Raises what ended it otherwise."""
        runner = self.service.runner
        self._check()
        parts: list[Callable[[], None]] = [self._watch, self._web]
        with ExitStack() as stack:
            if self.with_netboot:
                directory = stack.enter_context(netboot_directory(self.service))
                netboot = Netbooting(service=self.service, directory=directory, say=self.say)
                parts.append(lambda: netboot.run(self._guard))
            if self.service.serve.syslog_port:
                syslog = open_syslog(self.service.serve)
                parts.append(lambda: hear_syslog(syslog, self.service.store, runner))
            threads = [threading.Thread(target=self._guard, args=(part,)) for part in parts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]
        runner.check_cancelled()

    def _guard(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Interrupted:
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            self.service.runner.cancel.set()
            self.service.store.close()

    def _check(self) -> None:
        """Whether the web server can start; GoldimgError says what is in its way."""
        site, serve = self.service.site, self.service.serve
        for key, path in zip(("tls_certificate", "tls_key"), tls_files(site, serve), strict=True):
            if path is not None and not os.access(path, os.R_OK):
                problem = f"serve.{key}: {site.shown(path)} cannot be read"
                raise GoldimgError(
                    problem, hint="a relative path is taken from the site's directory"
                )
        where = f"{serve.listen}, port {serve.port}"
        try:
            family = socket.AF_INET6 if ":" in serve.listen else socket.AF_INET
            socket.create_server((serve.listen, serve.port), family=family).close()
        except OSError as error:
            taken = f"'ss -ltnp sport = :{serve.port}' says by whom; --port names another"
            raise GoldimgError(
                f"cannot listen on {where}",
                why=(error.strerror or str(error)).lower(),
                hint=taken
                if error.errno == errno.EADDRINUSE
                else "name an address of this machine",
            ) from None

    # --- the web server ----------------------------------------------------------------------

    def _web(self) -> None:
        words: list[str] = []

        def hear(line: str) -> None:
            level, text = _of_gunicorn(line)
            words.append(text)
            del words[:-8]
            if self.is_verbose or level in LOUD:
                self.say(text)

        log = {REQUEST_LOG: "1"} if self.is_verbose else {}
        done = self.service.runner.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "gunicorn",
                    "--config",
                    "python:goldimg.serve.gunicorn_conf",
                ),
                "goldimg.serve.wsgi:application()",
            ],
            reason="serve a site",
            env={
                **{key: text for key, text in self.environ.items() if key.startswith("GOLDIMG_")},
                **log,
                "GOLDIMG_SITE": str(self.service.site.root),
                VARIABLES: "\n".join(self.variables),
            },
            on_line=hear,
            check=False,
            grace=GRACE,
        )
        raise GoldimgError(
            f"the web server ended with exit code {done.code}",
            details=words,
        )

    # --- what happens, for whoever watches ---------------------------------------------------

    def _watch(self) -> None:
        store, cancel = self.service.store, self.service.runner.cancel
        last = max((it.id for it in store.history(limit=1)), default=0)
        while not cancel.wait(TICK):
            store.expire()
            for happening in store.happened_after(last):
                last = happening.id
                self.say(f"{happening.subject}: {happening.state}, {happening.text}")


def _of_gunicorn(line: str) -> tuple[str, str]:
    """Level and text of a line of gunicorn's, which has a time and a process id of its own."""
    match = re.fullmatch(r"\[[^\]]*\] \[\d+\] \[(\w+)\] (.*)", line)
    return (match[1], match[2]) if match else ("INFO", line)
