"""Where a middlebox at work can be asked something: a Unix socket in its private directory.

The directory belongs to its user and nobody else may enter it; who connects is looked at besides
(SO_PEERCRED), so that a directory opened by mistake opens nothing. A question is one word in a
line; answers are JSON objects, one a line, until the connection ends. What is done about it is
done by the main thread: nobody who asks can hold that up.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ftmb.errors import MachineError

NAME = "site.sock"
LONGEST = 64  # bytes of a question
MOST = 8  # who may be connected at a time
ASK_S = 5.0  # for a question to come, and for each answer to be taken
PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Request:
    """A question, and the way back. Made by the door, answered on the main thread."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def answer(self, **fields: Any) -> None:
        """One more answer."""
        self._answers.put(fields)

    def end(self) -> None:
        """There are no more."""
        self._answers.put(None)

    def answers(self) -> Iterator[dict[str, Any]]:
        """As they come."""
        while (each := self._answers.get()) is not None:
            yield each


class Door:
    """The listening end. `close` in any case."""

    def __init__(self, directory: Path, ask: Callable[[Request], None]) -> None:
        """ask: called on a thread of its own with each question. Raises MachineError."""
        self._ask = ask
        self._free = threading.BoundedSemaphore(MOST)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = directory / NAME
        try:
            self._socket.bind(str(path))
            path.chmod(0o600)
            self._socket.listen(8 * MOST)
        except OSError as error:
            self._socket.close()
            raise MachineError(f"{path}: cannot listen there: {error.strerror or error}") from None
        threading.Thread(target=self._listen, name="door", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return  # closed
            if not self._free.acquire(blocking=False):
                peer.close()
                continue
            threading.Thread(target=self._serve, args=(peer,), name="asked", daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            try:
                peer.settimeout(ASK_S)
                uid = PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
                if uid[1] not in (os.getuid(), 0):
                    return
                request = Request(_line(peer))
                self._ask(request)
                for answer in request.answers():
                    peer.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                pass  # it went away, or says nothing
            finally:
                self._free.release()  # before its end is seen: who waited for that finds a place

    def close(self) -> None:
        """Nobody is let in any more."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept()
        except OSError:
            pass
        self._socket.close()


def _line(peer: socket.socket) -> str:
    """The question; empty if what came is none."""
    deadline = time.monotonic() + ASK_S
    data = b""
    while b"\n" not in data and len(data) <= LONGEST and time.monotonic() < deadline:
        more = peer.recv(LONGEST)
        if not more:
            break
        data += more
    line, newline, _ = data.partition(b"\n")
    return line.decode("ascii", "replace") if newline and len(line) <= LONGEST else ""


def ask(directory: Path, what: str, limit_s: float) -> Iterator[dict[str, Any]]:
    """The answers, as they come. Raises MachineError where none come within `limit_s`."""
    path = directory / NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        try:
            peer.settimeout(limit_s)
            peer.connect(str(path))
            peer.sendall(what.encode() + b"\n")
            with peer.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)
        except TimeoutError:
            raise MachineError(
                f"{path}: no answer within {limit_s:g} s; see `ftmb status`"
            ) from None
        except (OSError, ValueError) as error:
            raise MachineError(f"{path}: cannot ask there: {error}") from None
