"""The load balancer against an oracle: connections of many clients that come, end and expire, to
backends of which some are down. The oracle fills Maglev's table by itself, as the paper says, and
counts the connections that it knows of.

A run is drawn from its seed: FTMB_TEST_SEED=N repeats one with N.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from nf_stream import ACK, FIN, INSIDE, OUTSIDE, RST, SYN, TCP, UDP, Input, Output, run, tcp, udp

SEEDS = [int(os.environ.get("FTMB_TEST_SEED", "1")) + n for n in range(3)]
SECOND = 1_000_000_000
MS = 1_000_000
CLIENT, VIP, MAC = 0x0A000001, 0xC0000200, 0x020000000100
TABLE = 4099
TIMEOUTS_MS = {"udp_ms": 3000, "tcp_ms": 8000, "closing_ms": 1500}
Key = tuple[int, int, int, int, int]  # protocol, client, port, virtual address, port


def mix(x: int) -> int:
    """The hash, as native/nf/sets.h has it."""
    x = x * 0xD6E8FEB86659FD93 % 2**64
    return (x ^ x >> 32) * 0x9E3779B97F4A7C15 % 2**64


def little(value: int, size: int) -> int:
    """A number of the wire as the data plane's machine reads it."""
    return int.from_bytes(value.to_bytes(size, "big"), "little")


def permutation(backend: int) -> Iterator[int]:
    offset, skip = mix(2 * backend + 1) % TABLE, mix(2 * backend + 2) % (TABLE - 1) + 1
    return ((offset + j * skip) % TABLE for j in range(TABLE))


def maglev(backends: list[int]) -> list[int]:
    table: dict[int, int] = {}
    order = {backend: permutation(backend) for backend in backends}
    while len(table) < TABLE:
        for backend in backends:
            place = next((p for p in order[backend] if p not in table), None)
            if place is not None:
                table[place] = backend
    return [table[place] for place in range(TABLE)]


def place_of(key: Key) -> int:
    protocol, client, port, virtual, vport = key
    addresses = little(client, 4) << 32 | little(virtual, 4)
    rest = 1 << 48 | protocol << 32 | little(port, 2) << 16 | little(vport, 2)
    return (mix(mix(addresses ^ mix(rest))) >> 32) * TABLE >> 32


def traffic(rng: random.Random) -> tuple[list[Input], list[tuple[Key, int]]]:
    now, inputs, told = 1000 * SECOND, [], []
    for _ in range(8000):
        now += rng.randrange(10 * MS)
        key = (rng.choice([TCP, UDP]), CLIENT + rng.randrange(20), 2000 + rng.randrange(25),
               VIP + rng.randrange(3), 80)  # fmt: skip
        flags = rng.choices([ACK, SYN, FIN | ACK, RST, SYN | ACK], [12, 4, 2, 1, 1])[0]
        ends = key[1:3], key[3:5]
        frame = tcp(*ends, 1, 1, flags) if key[0] == TCP else udp(*ends[0], *ends[1])
        inputs.append(Input(now, rng.randrange(3), INSIDE, frame))
        told.append((key, flags if key[0] == TCP else 0))
    return inputs, told


def backend_of(frame: bytes, got: Output) -> int:
    """Where it went; nothing but the destination's MAC address has changed."""
    assert got.frame is not None
    assert got.port == OUTSIDE
    assert got.frame[6:] == frame[6:]
    return int.from_bytes(got.frame[:6], "big") - MAC


@pytest.mark.parametrize("seed", SEEDS)
def test_maglev(seed: int) -> None:
    rng = random.Random(seed)
    up = sorted(rng.sample(range(10), 7))
    down = sum(1 << b for b in range(10) if b not in up)
    inputs, told = traffic(rng)
    settings = {"backends": 10, "down": down, "table": TABLE, "capacity": 10_000} | TIMEOUTS_MS
    outputs, counters = run("lb", 3, settings, inputs)
    table, sent = maglev(up), Counter[int]()
    for (key, _), given, got in zip(told, inputs, outputs, strict=True):
        backend = backend_of(given.frame or b"", got)
        assert backend == table[place_of(key)]
        sent[backend] += 1
    assert counters["balanced"] == len(inputs)
    assert counters["most_of_a_backend"] == max(sent.values())
    assert counters["fewest_of_a_backend"] == min(sent.values()) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_least(seed: int) -> None:
    """Which backends have fewest is known to within those that have expired, and may or may not
    have been swept by now; a connection that is alive keeps its backend."""
    inputs, told = traffic(random.Random(seed))
    settings = {"backends": 4, "least": 1, "table": TABLE, "capacity": 10_000} | TIMEOUTS_MS
    outputs, counters = run("lb", 3, settings, inputs)
    alive: dict[Key, tuple[int, int, str]] = {}  # backend, stamp, time-out
    opened = 0
    for (key, flags), given, got in zip(told, inputs, outputs, strict=True):
        backend = backend_of(given.frame or b"", got)
        was = alive.get(key)
        if was and given.stamp - was[1] > TIMEOUTS_MS[was[2]] * MS:
            was = None
        closing = was is not None and was[2] == "closing_ms"
        if was and not (closing and flags == SYN):
            assert backend == was[0]
        else:
            opened += 1
            others = [(b, given.stamp - s > TIMEOUTS_MS[t] * MS)
                      for k, (b, s, t) in alive.items() if k != key]  # fmt: skip
            least = Counter(b for b, expired in others if not expired)
            most = Counter(b for b, _ in others)
            assert all(least[backend] <= most[b] for b in range(4))
            closing = False
        kind = "udp_ms" if key[0] == UDP else "closing_ms" if flags & (FIN | RST) else "tcp_ms"
        alive[key] = backend, given.stamp, "closing_ms" if closing else kind
    assert counters["opened"] == opened > 500
    assert counters["ended"] > 200
