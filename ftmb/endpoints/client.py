"""Clients that note each thing they ask for: `python -m ftmb.endpoints.client KIND OUT WORDS...`.

A line of OUT for each: when it was due, when it was done (CLOCK_MONOTONIC, ns), and `ok` or what
went wrong. Each is asked for at its own time, whether the one before was answered or not. They say
`ready`, run until SIGTERM, wait for what is under way, and end with 0.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TextIO

PATIENCE_S = 20.0  # a page or an echo that takes longer counts as lost
DNS_S = 1.0  # an answer that takes longer
BLOCK = 1 << 16
# What each asks for is lost after so long.
LIMITS_S = {"pages": PATIENCE_S, "download": PATIENCE_S, "dns": DNS_S, "ssh": PATIENCE_S}
HEAD = "due_ns,done_ns,outcome\n"


class Notes:
    """The file of what was asked for."""

    def __init__(self, out: TextIO) -> None:
        """out: open for writing."""
        self._out = out
        out.write(HEAD)

    def note(self, due_ns: int, outcome: str) -> None:
        """It is done, now."""
        text = outcome.replace(",", ";").replace("\n", " ")
        self._out.write(f"{due_ns},{time.monotonic_ns()},{text}\n")


async def _at_rate(
    per_s: float, ended: asyncio.Event, notes: Notes, ask: Callable[[], Awaitable[str]]
) -> None:
    """Ask so often a second until the end; then wait for what is under way."""
    under_way: set[asyncio.Task[None]] = set()

    async def one(due_ns: int) -> None:
        try:
            outcome = await ask()
        except TimeoutError:
            outcome = "no answer"
        except (OSError, EOFError, ValueError) as error:
            outcome = f"{type(error).__name__}: {error}"
        notes.note(due_ns, outcome)

    begun, count = time.monotonic_ns(), 0
    while not ended.is_set():
        due_ns = begun + round(count / per_s * 1e9)
        late_s = (time.monotonic_ns() - due_ns) / 1e9
        if late_s < 0:
            await asyncio.sleep(-late_s)
            continue
        task = asyncio.create_task(one(due_ns))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        count += 1
        await asyncio.sleep(0)
    if under_way:
        await asyncio.wait(under_way)


async def pages(notes: Notes, ended: asyncio.Event, words: list[str]) -> None:
    """words: address, port, pages a second, path, SHA-256 of what is there. A connection each."""
    address, port, per_s, path, digest = words
    request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()

    async def page() -> str:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(address, int(port))
            try:
                writer.write(request)
                head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            finally:
                writer.close()
        if not head.startswith(b"HTTP/1.1 200"):
            return f"answer {head[:40]!r}"
        return "ok" if hashlib.sha256(body).hexdigest() == digest else "other content"

    await _at_rate(float(per_s), ended, notes, page)


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._answer.done():
            self._answer.set_result(data)


def question(number: int, name: str) -> bytes:
    """A DNS message that asks for the address of a name."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return (
        struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
    )


async def dns(notes: Notes, ended: asyncio.Event, words: list[str]) -> None:
    """words: address, port, questions a second, name, its address. A port of its own for each."""
    address, port, per_s, name, expected = words
    loop = asyncio.get_running_loop()
    count = 0

    async def ask() -> str:
        nonlocal count
        number = count = (count + 1) & 0xFFFF
        future: asyncio.Future[bytes] = loop.create_future()
        where = (address, int(port))
        transport, _ = await loop.create_datagram_endpoint(lambda: _Answers(future), None, where)
        try:
            transport.sendto(question(number, name))
            async with asyncio.timeout(DNS_S):
                data = await future
        finally:
            transport.close()
        (told,) = struct.unpack_from("!H", data)
        right = told == number and data.endswith(socket.inet_aton(expected))
        return "ok" if right else "other answer"

    await _at_rate(float(per_s), ended, notes, ask)


async def download(notes: Notes, ended: asyncio.Event, words: list[str]) -> None:
    """words: address, port, bytes a second, path, the file that it is. Over one connection, read at
    that rate, so that it lasts; again from its begin where it ended. A line for each whole one, and
    for the last as far as it came: it ends here, in order."""
    address, port, per_s, path, original = words
    while not ended.is_set():
        due_ns = time.monotonic_ns()
        try:
            outcome = await _download(address, int(port), float(per_s), path, original, ended)
        except (OSError, EOFError, TimeoutError) as error:
            outcome = f"{type(error).__name__}: {error}"
        notes.note(due_ns, outcome)
        if outcome != "ok":
            await asyncio.sleep(0.1)  # no faster than a person would


async def _download(
    address: str, port: int, per_s: float, path: str, original: str, ended: asyncio.Event
) -> str:
    with socket.socket() as peer, open(original, "rb") as expected:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BLOCK)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            await loop.sock_connect(peer, (address, port))
            request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            await loop.sock_sendall(peer, request.encode())
        head, begun, count = b"", time.monotonic(), 0
        while not ended.is_set():
            async with asyncio.timeout(PATIENCE_S):
                data = await loop.sock_recv(peer, BLOCK)
            if not data:
                return "ok" if not expected.read(1) else f"ended after {count} bytes"
            if b"\r\n\r\n" not in head:
                head += data
                data = head.partition(b"\r\n\r\n")[2]
            if expected.read(len(data)) != data:
                return f"other content after {count} bytes"
            count += len(data)
            await asyncio.sleep(max(0.0, begun + count / per_s - time.monotonic()))
    return "ok"


async def echo(notes: Notes, ended: asyncio.Event, words: list[str]) -> None:
    """words: lines a second, then a command that says each line again. Lines that do not come back,
    in order, are lost; so is all that follows when it ends; it is started again then."""
    per_s, *command = words
    pipe = asyncio.subprocess.PIPE
    number = 0
    while not ended.is_set():
        child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert child.stdin is not None and child.stdout is not None
        due_ns, count = time.monotonic_ns(), 0
        try:
            child.stdin.write(b"hello\n")
            async with asyncio.timeout(PATIENCE_S):
                if await child.stdout.readline() != b"hello\n":
                    raise ConnectionError
            begun = time.monotonic_ns()
            while not ended.is_set():
                due_ns = begun + round(count / float(per_s) * 1e9)
                await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
                number, count = number + 1, count + 1
                child.stdin.write(f"{number}\n".encode())
                async with asyncio.timeout(PATIENCE_S):
                    said = await child.stdout.readline()
                notes.note(due_ns, "ok" if said == f"{number}\n".encode() else "session ended")
                if not said:
                    break
        except (OSError, TimeoutError) as error:
            notes.note(due_ns, f"session: {type(error).__name__}")
        if child.returncode is None:
            child.kill()
        await child.wait()


KINDS = {"pages": pages, "dns": dns, "download": download, "echo": echo}


async def _main(kind: str, out: Path, words: list[str]) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with out.open("w", buffering=1 << 14) as file:
        notes = Notes(file)
        print("ready", flush=True)
        await KINDS[kind](notes, ended, words)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
