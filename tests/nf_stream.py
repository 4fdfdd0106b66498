"""Network functions run by their own program (native/tests/nf_stream.c), for oracles to follow.

Frames are built here by code that shares nothing with the data plane's.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from conftest import NODE

STREAM = NODE.parent / "tests" / "nf_stream"
INSIDE, OUTSIDE = 0, 1
ICMP, TCP, UDP = 1, 6, 17
FIN, SYN, RST, ACK = 1, 2, 4, 16
TICK = 65535


@dataclass(frozen=True)
class Input:
    """A packet, or a tick if there is no frame."""

    stamp: int
    worker: int
    port: int = INSIDE
    frame: bytes | None = None


@dataclass(frozen=True)
class Output:
    """What became of an input: the frame that left, or None; and what it cost."""

    frame: bytes | None
    port: int
    pals: int
    writes: int


def run(
    nf: str, workers: int, settings: dict[str, int], inputs: Sequence[Input]
) -> tuple[list[Output], dict[str, int]]:
    """The outputs, one for each input, and the counters of the function's report; all its checks
    have passed."""
    assert STREAM.is_file(), f"{STREAM.name} does not exist: run `make build`"
    words = [f"{name}={value}" for name, value in settings.items()]
    stream = b"".join(
        struct.pack("<QHBB", i.stamp, TICK if i.frame is None else len(i.frame), i.port, i.worker)
        + (i.frame or b"")
        for i in inputs
    )
    done = subprocess.run(
        [STREAM, nf, str(workers), *words],
        input=stream,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    outputs, at = [], 0
    for _ in inputs:
        forwarded, port, length, pals, writes = struct.unpack_from("<BBHHH", done.stdout, at)
        at += 8
        frame = done.stdout[at : at + length] if forwarded else None
        outputs.append(Output(frame, port, pals, writes))
        at += length
    lines = done.stdout[at:].decode().splitlines()
    return outputs, {name: int(value) for name, value in map(str.split, lines)}


def ipv4(protocol: int, source: int, destination: int, body: bytes, options: int = 0) -> bytes:
    """An Ethernet frame with an IPv4 packet; `options` words of no-operation options."""
    length = 20 + 4 * options + len(body)
    head = struct.pack(
        "!BBHHHBBHII", 0x45 + options, 0, length, 0, 0, 64, protocol, 0, source, destination
    )
    return b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0" + head + b"\x01" * 4 * options + body


def udp(source: int, sport: int, destination: int, dport: int, payload: int = 18) -> bytes:
    body = struct.pack("!HHHH", sport, dport, 8 + payload, 0) + b"u" * payload
    return ipv4(UDP, source, destination, body)


def tcp(
    source: tuple[int, int], destination: tuple[int, int], seq: int, ack: int, flags: int,
    window: int = 0, payload: int = 0, scale: int | None = None,
) -> bytes:  # fmt: skip
    """A segment between two (address, port); `scale` is a window scale option."""
    options = b"" if scale is None else bytes([1, 3, 3, scale])
    offset = (5 + len(options) // 4) << 4
    body = struct.pack(
        "!HHIIBBHHH",
        source[1],
        destination[1],
        seq % 2**32,
        ack % 2**32,
        offset,
        flags,
        window,
        0,
        0,
    )
    return ipv4(TCP, source[0], destination[0], body + options + b"t" * payload)


def echo(source: int, destination: int, identifier: int, *, reply: bool = False) -> bytes:
    body = struct.pack("!BBHHH", 0 if reply else 8, 0, 0, identifier, 1) + b"e" * 8
    return ipv4(ICMP, source, destination, body)
