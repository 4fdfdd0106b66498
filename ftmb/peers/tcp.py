"""TCP connections that are held across a crash: an echo server, and a client with many connections.

A program of its own (`python tcp.py server|client ADDRESS [CONNECTIONS]`), since it stands on a
host. A connection survives if what is sent on it after the takeover comes back within PATIENCE_S.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field

PORT = 9001
SPACING_S = 0.05
PATIENCE_S = 10.0
MESSAGE = 64


def command(role: str, address: str, *words: str) -> list[str]:
    """The words that start this program."""
    return [sys.executable, "-I", __file__, role, address, *words]


def serve(address: str) -> None:
    """Echo whatever comes, until stdin ends."""
    listener = socket.create_server((address, PORT), backlog=1024)
    listener.setblocking(False)
    ready = selectors.DefaultSelector()
    ready.register(sys.stdin, selectors.EVENT_READ)
    ready.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in ready.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                made, _ = listener.accept()
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ready.register(made, selectors.EVENT_READ)
                continue
            peer = key.fileobj
            assert isinstance(peer, socket.socket)
            try:
                data = peer.recv(1 << 16)
                if data:
                    peer.send(data)  # far less than the buffer of a connection that is read
            except OSError:
                data = b""
            if not data:
                ready.unregister(peer)
                peer.close()


@dataclass
class Connection:
    """One connection as the client sees it. Times are seconds of the monotonic clock."""

    peer: socket.socket
    sent: int = 0
    back: int = 0
    last: float = 0.0
    longest: float = 0.0
    broken: str = ""
    due: float = field(default_factory=time.monotonic)

    def send(self) -> None:
        """One message more."""
        try:
            self.sent += self.peer.send(b"m" * MESSAGE)
        except BlockingIOError:
            pass  # it stalls: what is in its buffer is enough
        except OSError as error:
            self.broken = error.strerror or "broken"

    def receive(self) -> None:
        """What has come back."""
        try:
            data = self.peer.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            self.broken = error.strerror or "broken"
            return
        if not data:
            self.broken = "closed"
            return
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last if self.last else 0.0)
        self.back, self.last = self.back + len(data), now


def _connect(address: str, count: int) -> list[Connection]:
    made = []
    for number in range(count):
        peer = socket.create_connection((address, PORT), timeout=20)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setblocking(False)
        made.append(Connection(peer))
        made[-1].due += SPACING_S * number / count  # not all in one burst
    return made


def ask(address: str, count: int) -> None:
    """Messages on all connections, until `finish`; then one more on each, and what became of it."""
    connections = _connect(address, count)
    ready = selectors.DefaultSelector()
    ready.register(sys.stdin, selectors.EVENT_READ, None)
    for each in connections:
        ready.register(each.peer, selectors.EVENT_READ, each)
    print("ready", flush=True)
    end = 0.0  # of the patience, once it has begun
    while True:
        now = time.monotonic()
        if end:
            waiting = [c for c in connections if not c.broken and c.back < c.sent]
            if not waiting or now > end:
                break
        else:
            for each in (c for c in connections if not c.broken and c.due <= now):
                each.send()
                each.due += SPACING_S
        for key, _ in ready.select(0.005):
            if key.data is None:
                if sys.stdin.readline().strip() != "finish":
                    return
                ready.unregister(sys.stdin)
                end = time.monotonic() + PATIENCE_S
                for each in (c for c in connections if not c.broken):
                    each.send()
                continue
            key.data.receive()
            if key.data.broken:
                ready.unregister(key.fileobj)
    _tell(connections)


def _tell(connections: list[Connection]) -> None:
    alive = [c for c in connections if not c.broken and c.back >= c.sent]
    print(json.dumps({
        "connections": len(connections),
        "survived": len(alive),
        "reset": sum(bool(c.broken) for c in connections),
        "stall_ms": sorted(c.longest * 1e3 for c in alive)[len(alive) // 2] if alive else None,
    }), flush=True)  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(sys.argv[2])
    else:
        ask(sys.argv[2], int(sys.argv[3]))
