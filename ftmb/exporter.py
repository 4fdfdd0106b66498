"""Metrics by HTTP, where the site's file names an address: GET /metrics and nothing else.

One at a time, on a thread of its own, each cut off after a few seconds whatever it does: who
fetches, or pretends to, cannot hold up the middlebox, and holds up others only for that long.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer

from ftmb.errors import MachineError

LIMIT_S = 5.0
CONTENT = "text/plain; version=0.0.4; charset=utf-8"


def address(text: str) -> tuple[str, int]:
    """`127.0.0.1:9464` or `[::1]:9464`. Raises ValueError in words."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        colon = ""
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"metrics is ADDRESS:PORT, e.g. 127.0.0.1:9464, not {text}")
    return host, int(port)


class _Handler(BaseHTTPRequestHandler):
    server: Exporter
    timeout = LIMIT_S
    server_version, sys_version = "ftmb", ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "Only /metrics is here")
            return
        body = self.server.text().encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is told of who fetches."""


class Exporter(TCPServer):
    """Listens and serves from the beginning. `close` in any case."""

    allow_reuse_address = True

    def __init__(self, where: str, text: Callable[[], str]) -> None:
        """text: gives the metrics, on any thread. Raises MachineError."""
        self.text = text
        self._peer: socket.socket | None = None  # whose request is in hand
        self._closing = False
        host, port = address(where)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise MachineError(
                f"metrics: cannot listen at {where}: {error.strerror}; choose another address"
            ) from None
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket],
                       client_address: object) -> None:  # fmt: skip
        """One answer, within the limit."""
        assert isinstance(request, socket.socket)
        self._peer = request
        if self._closing:
            return
        timer = threading.Timer(LIMIT_S, _cut_off, [request])
        timer.daemon = True
        timer.start()
        try:
            _Handler(request, client_address, self)
        except (OSError, ValueError):
            pass  # it went away, or was cut off
        finally:
            timer.cancel()

    def close(self) -> None:
        """Stop listening, and cut off who is being served: nobody waits for him."""
        self._closing = True
        if self._peer:
            _cut_off(self._peer)
        self.shutdown()
        self.server_close()


def _cut_off(peer: socket.socket) -> None:
    try:
        peer.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
