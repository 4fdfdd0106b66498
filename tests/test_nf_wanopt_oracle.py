"""The WAN optimizer against an oracle: two ends with a line between them that loses, repeats and
reorders. The oracle is both ends once more, written from their description; every frame that
leaves is compared, byte for byte, and checksums are computed from all bytes.

A run is drawn from its seed: FTMB_TEST_SEED=N repeats one with N.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import pytest
from nf_stream import INSIDE, OUTSIDE, TCP, UDP, Input, ipv4, run

SEEDS = [int(os.environ.get("FTMB_TEST_SEED", "1")) + n for n in range(3)]
MS = 1_000_000
MASK = 2**64 - 1
CHUNK_BYTES, WAYS = 232, 8
ENCODED, MISSING = 1, 2
DF = 0x40
Frame = tuple[bytes, int]  # and the side that it leaves at


def mix(x: int) -> int:
    """As native/nf/sets.h has it."""
    x = x * 0xD6E8FEB86659FD93 & MASK
    return (x ^ x >> 32) * 0x9E3779B97F4A7C15 & MASK


GEAR = [mix(mix(byte + 1)) for byte in range(256)]


def rotate(x: int, bits: int) -> int:
    return (x << bits | x >> 64 - bits) & MASK


@cache
def siphash(key0: int, key1: int, data: bytes) -> int:
    """SipHash-2-4, after the paper by Aumasson and Bernstein."""
    constants = struct.unpack("<4Q", b"uespemosmodnarodarenegylsetybdet")
    a, b, c, d = (key ^ k for key, k in zip((key0, key1) * 2, constants, strict=True))
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    words = struct.unpack(f"<{len(padded) // 8}Q", padded)
    for word, rounds in [*((word, 2) for word in words), (0, 4)]:
        d ^= word
        c ^= 0 if rounds == 2 else 0xFF
        for _ in range(rounds):
            a, c = a + b & MASK, c + d & MASK
            b, d = rotate(b, 13) ^ a, rotate(d, 16) ^ c
            a, c = rotate(a, 32) + d & MASK, c + b & MASK
            b, d = rotate(b, 17) ^ c, rotate(d, 21) ^ a
            c = rotate(c, 32)
        a ^= word
    return a ^ b ^ c ^ d


def inet(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass
class Packet:
    """A frame of TCP or UDP without IPv4 options, taken apart."""

    ethernet: bytes
    ip: bytes
    l4: bytes  # header
    payload: bytes

    @classmethod
    def of(cls, frame: bytes) -> Packet:
        at = 34 + (20 if frame[23] == TCP else 8)
        return cls(frame[:14], frame[14:34], frame[34:at], frame[at:])

    @property
    def checksum_at(self) -> int:
        return 16 if self.ip[9] == TCP else 6

    @property
    def checksum(self) -> bytes:
        return self.l4[self.checksum_at : self.checksum_at + 2]

    def build(self, *, marked: bool = False, checksum: bytes | None = None) -> bytes:
        """The frame, with lengths and checksums as they must be; UDP may be without one."""
        ip, l4, at = bytearray(self.ip), bytearray(self.l4), self.checksum_at
        size = len(l4) + len(self.payload)
        none = ip[9] == UDP and self.checksum == b"\0\0"
        ip[2:4] = struct.pack("!H", 20 + size)
        ip[6] = ip[6] & 0x7F | (0x80 if marked else 0)
        ip[10:12] = b"\0\0"
        ip[10:12] = struct.pack("!H", inet(bytes(ip)))
        if ip[9] == UDP:
            l4[4:6] = struct.pack("!H", size)
        l4[at : at + 2] = b"\0\0"
        pseudo = bytes(ip[12:20]) + struct.pack("!HH", ip[9], size)
        value = inet(pseudo + bytes(l4) + self.payload)
        if not none:
            l4[at : at + 2] = struct.pack("!H", value or (0xFFFF if ip[9] == UDP else 0))
        if checksum is not None:
            l4[at : at + 2] = checksum
        return self.ethernet + bytes(ip) + bytes(l4) + self.payload


@dataclass
class Chunk:
    name: int = 0
    used: int = 0
    content: bytes = b""


@dataclass
class End:
    """One of the two functions."""

    capacity: int
    chunks: int
    smallest: int
    tail: int
    key0: int
    key1: int
    now: int = 0
    accesses: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    sets: dict[int, list[Chunk]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keys of names and of checks, of the one that is given."""
        self.keys = [siphash(self.key0, self.key1, bytes([n])) for n in range(4)]

    def find(self, name: int) -> tuple[list[Chunk], Chunk | None]:
        self.accesses += 1
        number = ((self.capacity * 2 + 7) // 8 + 1) // 2
        ways = self.sets.setdefault((name >> 32) * number >> 32, [Chunk() for _ in range(WAYS)])
        return ways, next((chunk for chunk in ways if chunk.name == name), None)

    def remember(self, content: bytes) -> int | None:
        """The chunk's name, if it was there."""
        name = siphash(*self.keys[:2], content) or 1
        ways, chunk = self.find(name)
        if chunk is not None:
            chunk.used = max(chunk.used, self.now)
            self.counts["chunks_found"] += 1
            return name
        free = [way for way in ways if not way.name]
        place = free[0] if free else min(ways, key=lambda way: way.used)
        self.counts["chunks_replaced"] += place.name != 0
        self.counts["chunks_learnt"] += 1
        place.name, place.used, place.content = name, self.now, content
        return None

    def cut(self, data: bytes) -> bytes:
        """The first chunk, or nothing."""
        rolling = 0
        for at in range(self.smallest, min(len(data), CHUNK_BYTES)):
            rolling = (rolling << 1) + GEAR[data[at]] & MASK
            if rolling < 2**64 // self.smallest:
                return data[: at + 1]
        return data[:CHUNK_BYTES] if len(data) >= CHUNK_BYTES else b""

    def split(self, data: bytes, most: int) -> list[bytes]:
        parts: list[bytes] = []
        while len(parts) < most and (chunk := self.cut(data)):
            parts.append(chunk)
            data = data[len(chunk) :]
        return parts

    def body(self, payload: bytes) -> bytes:
        return payload[: max(0, len(payload) - self.tail)]

    def inside(self, frame: bytes) -> Frame:
        packet = Packet.of(frame)
        references, literals, before = b"", b"", 0
        for chunk in self.split(self.body(packet.payload), self.chunks):
            name = self.remember(chunk)
            if name is None:
                literals += chunk
                before += len(chunk)
            else:
                references += struct.pack("!H", before) + name.to_bytes(8, "little")
                before = 0
        done = len(b"".join(self.split(self.body(packet.payload), self.chunks)))
        literals += packet.payload[done:]
        count = len(references) // 10
        size = len(packet.payload)
        padding = (size - 12 - len(references) - len(literals)) % 2
        check = siphash(*self.keys[2:], packet.payload) % 2**32
        shim = struct.pack("!BBBBH", ENCODED, count, padding, 0, size)
        shim += packet.checksum + check.to_bytes(4, "little")
        encoded = shim + references + b"\0" * padding + literals
        if not count or len(encoded) >= size or not packet.ip[6] & DF:
            self.counts["passed"] += 1
            return frame, OUTSIDE
        self.counts["shortened"] += 1
        packet.payload = encoded
        return packet.build(marked=True), OUTSIDE

    def outside(self, frame: bytes) -> Frame | None:
        packet = Packet.of(frame)
        if not packet.ip[6] & 0x80:
            for chunk in self.split(self.body(packet.payload), self.chunks):
                self.remember(chunk)
            self.counts["passed"] += 1
            return frame, INSIDE
        if packet.payload[0] == ENCODED:
            return self.decode(packet)
        for n in range(packet.payload[1]):
            name = int.from_bytes(packet.payload[12 + 8 * n : 20 + 8 * n], "little")
            _, chunk = self.find(name)
            if chunk is not None:
                chunk.name, chunk.used, chunk.content = 0, 0, b""
                self.counts["chunks_forgotten"] += 1
        self.counts["dropped_report"] += 1
        return None

    def decode(self, packet: Packet) -> Frame:
        count, padding = packet.payload[1:3]
        literals = packet.payload[12 + 10 * count + padding :]
        most, whole, lacks = self.chunks - count, b"", []
        for n in range(count):
            at = 12 + 10 * n
            (before,) = struct.unpack_from("!H", packet.payload, at)
            parts = self.split(literals[:before], most)
            assert sum(map(len, parts)) == before
            for chunk in parts:
                self.remember(chunk)
            most -= len(parts)
            name = int.from_bytes(packet.payload[at + 2 : at + 10], "little")
            _, known = self.find(name)
            whole, literals = whole + literals[:before], literals[before:]
            if known is None:
                lacks.append(name)
            else:
                known.used = max(known.used, self.now)
                self.counts["chunks_found"] += 1
                whole += known.content
        for chunk in self.split(self.body(literals), most):
            self.remember(chunk)
        if not lacks:
            self.counts["restored"] += 1
            checksum = packet.payload[6:8]
            packet.payload = whole + literals
            return packet.build(checksum=checksum), INSIDE
        self.counts["dropped_missing"] += 1
        names = b"".join(name.to_bytes(8, "little") for name in lacks)
        packet.payload = struct.pack("!BB10x", MISSING, len(lacks)) + names
        ip, l4, ethernet = packet.ip, packet.l4, packet.ethernet
        packet.ip = ip[:8] + b"\x40" + ip[9:12] + ip[16:20] + ip[12:16]
        packet.l4 = l4[2:4] + l4[:2] + l4[4:]
        packet.ethernet = ethernet[6:12] + ethernet[:6] + ethernet[12:]
        return packet.build(marked=True), OUTSIDE


def traffic(rng: random.Random) -> bytes:
    """A packet made of pieces that come back."""
    contents = [random.Random(n).randbytes(400) for n in range(12)]
    payload = b""
    while len(payload) < rng.choice([0, 100, 700, 1400]):
        content = rng.choice(contents)
        start = rng.choice([0, 0, 0, rng.randrange(400)])
        payload += rng.choice([content[start:], content[:200], rng.randbytes(rng.randrange(60))])
    payload = payload[:1400] + rng.randbytes(rng.randrange(40))
    ends = struct.pack("!HH", 1000 + rng.randrange(20), 80)
    head = ends + struct.pack("!IIBBHHH", 1, 1, 0x50, 16, 500, 0, 0)
    protocol = rng.choice([TCP, UDP])
    if protocol == UDP:
        head = ends + struct.pack("!HH", 8 + len(payload), 0)
    frame = ipv4(protocol, 0x0A000001 + rng.randrange(5), 0xC0000201, head + payload)
    packet = Packet.of(frame)
    if rng.randrange(8):
        packet.ip = packet.ip[:6] + bytes([DF]) + packet.ip[7:]
    if protocol == UDP and rng.randrange(4):
        packet.l4 = packet.l4[:6] + b"\1\1"  # it has one, which is computed
    return packet.build()


@dataclass
class Side:
    """An end, what came to it, and what the oracle says that leaves."""

    end: End
    inputs: list[Input] = field(default_factory=list)
    expected: list[tuple[Frame | None, int]] = field(default_factory=list)

    def take(self, rng: random.Random, port: int, frame: bytes) -> Frame | None:
        self.end.now = len(self.inputs) * MS + 1
        self.inputs.append(Input(self.end.now, rng.randrange(3), port, frame))
        before = self.end.accesses
        out = self.end.inside(frame) if port == INSIDE else self.end.outside(frame)
        self.expected.append((out, self.end.accesses - before))
        return out

    def compare(self, settings: dict[str, int]) -> None:
        outputs, counters = run("wanopt", 3, settings, self.inputs)
        for n, (got, (frame, accesses)) in enumerate(zip(outputs, self.expected, strict=True)):
            assert got.frame == (frame and frame[0]), n
            assert frame is None or got.port == frame[1], n
            assert got.pals == got.writes == accesses, n
        ours = dict(self.end.counts)
        assert {name: counters[name] for name in ours} == ours
        assert sum(v for k, v in counters.items() if k.startswith("dropped_")) == sum(
            v for k, v in ours.items() if k.startswith("dropped_")
        )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("capacity", [60, 5000])
def test_line(seed: int, capacity: int) -> None:
    rng = random.Random(seed)
    settings = {
        "capacity": capacity,
        "chunks": rng.choice([5, 24]),
        "min_chunk": 64,
        "tail": 18,
        "key0": rng.randrange(2**63),
        "key1": rng.randrange(2**63),
    }
    near, far = (Side(End(*settings.values())) for _ in range(2))
    under_way: list[tuple[bytes, bytes]] = []
    restored = 0
    for _ in range(1500):
        if rng.randrange(8) == 0:  # the other direction, in full: known from then on
            frame = traffic(rng)
            far.take(rng, INSIDE, frame)
            near.take(rng, OUTSIDE, frame)
        frame = traffic(rng)
        sent = near.take(rng, INSIDE, frame)
        assert sent is not None
        assert len(sent[0]) <= len(frame)
        under_way.append((frame, sent[0]))
        while len(under_way) > 4:
            original, arrived = under_way.pop(rng.randrange(5))
            if rng.randrange(4) == 0:
                continue
            out = far.take(rng, OUTSIDE, arrived)
            assert out is not None
            if out[1] == INSIDE:
                assert out[0] == original
                restored += 1
            elif rng.randrange(10):
                near.take(rng, OUTSIDE, out[0])
    near.compare(settings)
    far.compare(settings)
    assert restored > 700
    assert far.end.counts["restored"] > 100
    assert far.end.counts["dropped_missing"] > 10
