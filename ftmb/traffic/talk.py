"""The programs whose traffic is captured: servers and clients of a small network.

Run inside network namespaces by `ftmb.traffic.capture`; `python -m ftmb.traffic.talk serve|talk`.
"""

from __future__ import annotations

import functools
import http.client
import http.server
import os
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path

CLIENTS = [f"10.0.0.{host}" for host in range(11, 19)]
WEB, NAMES, STORE = "172.16.0.1", "172.16.0.2", "172.16.0.3"
SERVERS = [WEB, NAMES, STORE]
WEB_PORT, NAMES_PORT, STORE_PORT = 8080, 5353, 9000
FILES = {"small.html": 900, "page.html": 6_000, "image.bin": 24_000}
UPLOAD_BYTES = 30_000
TIMEOUT_S = 5.0


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a directory, several requests per connection, nothing on stderr."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: the capture shows them."""


def _serve_names(server: socket.socket) -> None:
    """Answer every question as a name server would: its first bytes, then an address."""
    while True:
        question, client = server.recvfrom(2048)
        answer = question[:2] + b"\x81\x80" + question[4:] + socket.inet_aton(WEB)
        server.sendto(answer, client)


def _serve_store(server: socket.socket) -> None:
    """Take uploads, and answer each with its length."""
    while True:
        client, _ = server.accept()
        with client:
            client.settimeout(TIMEOUT_S)
            size = 0
            while data := client.recv(65536):
                size += len(data)
            client.sendall(struct.pack("!Q", size))


def serve() -> None:
    """Run all servers until stdin ends. Prints `ready` when they listen."""
    with tempfile.TemporaryDirectory() as name:
        for file, size in FILES.items():
            (Path(name) / file).write_bytes(os.urandom(size))
        handler = functools.partial(QuietHandler, directory=name)
        web = http.server.ThreadingHTTPServer((WEB, WEB_PORT), handler)
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind((NAMES, NAMES_PORT))
        store = socket.create_server((STORE, STORE_PORT))
        threads = [
            threading.Thread(target=web.serve_forever, daemon=True),
            threading.Thread(target=_serve_names, args=(names,), daemon=True),
            threading.Thread(target=_serve_store, args=(store,), daemon=True),
        ]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.read()


def _browse(client: str, rounds: int) -> None:
    for _ in range(rounds):
        web = http.client.HTTPConnection(
            WEB, WEB_PORT, timeout=TIMEOUT_S, source_address=(client, 0)
        )
        for file, size in FILES.items():
            web.request("GET", f"/{file}", headers={"User-Agent": "ftmb"})
            if len(web.getresponse().read()) != size:
                raise OSError(f"{file} arrived in part")
        web.close()


def _ask(client: str, questions: int) -> None:
    for number in range(questions):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(TIMEOUT_S)
            asker.bind((client, 0))
            name = b"\x05host%x\x07example\x00" % (number % 16)
            head = struct.pack("!6H", (number * 257 + int(client[-1])) & 0xFFFF, 0x100, 1, 0, 0, 0)
            asker.sendto(head + name + b"\x00\x01\x00\x01", (NAMES, NAMES_PORT))
            asker.recvfrom(2048)


def _upload(client: str) -> None:
    with socket.create_connection(
        (STORE, STORE_PORT), timeout=TIMEOUT_S, source_address=(client, 0)
    ) as link:
        link.sendall(os.urandom(UPLOAD_BYTES))
        link.shutdown(socket.SHUT_WR)
        if struct.unpack("!Q", link.recv(8, socket.MSG_WAITALL))[0] != UPLOAD_BYTES:
            raise OSError("the upload arrived in part")


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def _ping(client: str, count: int) -> None:
    identifier = int(client.rsplit(".", 1)[1]) * 256
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(TIMEOUT_S)
        raw.bind((client, 0))
        for number in range(count):
            body = os.urandom(56)
            head = struct.pack("!BBHHH", 8, 0, 0, identifier, number)
            head = struct.pack("!BBHHH", 8, 0, _checksum(head + body), identifier, number)
            raw.sendto(head + body, (WEB, 0))
            while raw.recv(2048)[24:28] != head[4:]:
                continue


def _client(address: str, failed: list[str]) -> None:
    try:
        _ask(address, 12)
        _browse(address, 1)
        _ping(address, 4)
        if int(address[-1]) % 2:
            _upload(address)
        _ask(address, 6)
    except OSError as error:
        failed.append(f"client {address}: {error}")


def talk() -> None:
    """Run all clients to their end, side by side. Raises SystemExit if one of them failed."""
    failed: list[str] = []
    threads = [threading.Thread(target=_client, args=(c, failed)) for c in CLIENTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit("; ".join(failed))


if __name__ == "__main__":
    {"serve": serve, "talk": talk}[sys.argv[1]]()
