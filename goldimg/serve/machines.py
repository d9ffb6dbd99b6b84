"""The routes of machines: reports, and what they boot. Kickstarts are answered in `front`."""

from __future__ import annotations

import sqlite3

from flask import Blueprint, Response, request

from goldimg.errors import GoldimgError, MissingTool
from goldimg.kickstart.reports import plain, shortened
from goldimg.netboot import Boot, scripts
from goldimg.netboot.send import send
from goldimg.netboot.tftp import LOADERS, TftpRoot
from goldimg.serve.client import mac_of, machine_serial
from goldimg.serve.front import Web
from goldimg.serve.hosts import NAME
from goldimg.serve.routing import at, routes_of
from goldimg.serve.shown import redacted


class Machines:
    """The views, for one service."""

    def __init__(self, web: Web) -> None:
        self.web, self.service = web, web.service
        self.desk, self.templates = web.service.desk, web.service.site.kickstart

    @at("/report/metal/<name>/<token>/<stage>", "POST")
    def report(self, name: str, token: str, stage: str) -> Response:
        said = request.get_data(cache=False).decode("utf-8", "replace").replace(token, "(token)")
        message = redacted(shortened(plain(said)))
        if not NAME.fullmatch(name) or not self.desk.report(name, token, stage, message):
            return comment("no such install or stage", 404)
        request.environ["goldimg.host"] = f"{name}:{stage}"
        return text(b"ok\n")

    @at("/boot.ipxe")
    def first_script(self) -> Response:
        return text(scripts.ipxe_first(self.templates, self.desk.url).encode())

    @at("/netboot/ipxe")
    def script(self) -> Response:
        mac = mac_of(request.args.get("mac", ""))
        request.environ["goldimg.host"] = mac
        try:
            boot = self.desk.boot(
                (mac,) if mac else (),
                machine_serial(request.args.get("serial", "")),
                request.environ["goldimg.address"],
                is_head=request.method == "HEAD",
            )
            return text(scripts.ipxe(self.templates, boot, self.desk.url).encode())
        except GoldimgError:
            # The pages say what is wrong; this machine must not wait for it.
            broken = Boot(action="local", note="its definition is wrong: see the server's page")
            return text(scripts.ipxe(self.templates, broken, self.desk.url).encode())

    @at("/netboot/files/<path:name>")
    def loader(self, name: str) -> Response:
        tftp = TftpRoot(
            path=self.service.state_dir,
            templates=self.templates,
            base_url=self.desk.url,
            netboot=self.service.serve.netboot,
        )
        if name not in LOADERS:
            return comment("no such loader", 404)
        try:
            found = tftp.loader(name)
        except MissingTool:
            return comment("this loader is not installed here", 404)
        # A megabyte at most, and read by machines that do nothing else meanwhile.
        return Response(found.read_bytes(), content_type="application/octet-stream")

    @at("/tree/<os_name>/<path:path>")
    def tree(self, os_name: str, path: str) -> Response:
        try:
            found = self.web.trees.find(os_name)
        except GoldimgError:
            return comment("the ISO of this operating system cannot be read", 503)
        if found is None:
            return comment("no such operating system", 404)
        return send(
            found,
            path,
            method=request.method,
            range_header=request.headers.get("Range"),
            if_range=request.headers.get("If-Range"),
        )

    @at("/healthz")
    def healthz(self) -> Response:
        try:
            self.desk.store.isos()  # one look at the state: without it nothing can be served
        except sqlite3.Error:
            return comment("the state cannot be read", 503)
        return text(b"ok\n")


def machine_routes(web: Web) -> Blueprint:
    """The routes, for one service."""
    return routes_of("machines", Machines(web))


def text(body: bytes, status: int = 200) -> Response:
    """A text for machines."""
    return Response(body, status=status, content_type="text/plain; charset=utf-8")


def comment(words: str, status: int) -> Response:
    """What is wrong, in one line that kickstarts, iPXE and shells take for a comment."""
    return text(f"# goldimg: {words}\n".encode(), status)
