"""What the servers of the tests have in common: connections that stay open, answers at once."""

from __future__ import annotations

import contextlib
import ssl
from http.server import BaseHTTPRequestHandler


class Handler(BaseHTTPRequestHandler):
    """Quiet, also about clients that hang up."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # answers in two pieces would wait 40 ms for each other

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError):
            super().handle_one_request()
            return
        self.close_connection = True
