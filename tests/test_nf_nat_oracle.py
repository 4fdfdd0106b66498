"""The NAT against an oracle: packets of few hosts in every direction, to each other's outside
endpoints too, and ICMP errors about them. The oracle builds what must come out from nothing,
checksums included; so not one byte may differ.

There is one outside address, whose ports are given out in order, and no mapping expires.

A run is drawn from its seed: FTMB_TEST_SEED=N repeats one with N.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from nf_stream import ACK, FIN, ICMP, INSIDE, OUTSIDE, RST, SYN, TCP, UDP, Input, echo, ipv4, run
from nf_stream import tcp as segment
from nf_stream import udp as datagram

SEEDS = [int(os.environ.get("FTMB_TEST_SEED", "1")) + n for n in range(3)]
MS = 1_000_000
OURS, HOST, ROUTER, SERVER = 0xC6120001, 0x0A000001, 0x0A0000FE, 0xC0000201
REQUEST, REPLY = 8, 0
End = tuple[int, int]  # address, port


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def put(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


def sealed(frame: bytes) -> bytes:
    """The same IPv4 frame with every checksum right, also that of UDP."""
    end = 14 + 4 * (frame[14] & 15)
    ip, body = put(frame[14:end], 10, 0), frame[end:]
    ip = put(ip, 10, checksum(ip))
    at = {ICMP: 2, TCP: 16, UDP: 6}[ip[9]]
    pseudo = b"" if ip[9] == ICMP else ip[12:20] + struct.pack("!HH", ip[9], len(body))
    body = put(body, at, 0)
    body = put(body, at, checksum(pseudo + body) or (0xFFFF if ip[9] == UDP else 0))
    return frame[:14] + ip + body


@dataclass(frozen=True)
class Packet:
    """Of TCP, UDP, or an echo, whose identifier is the port of both ends."""

    protocol: int
    source: End
    destination: End
    payload: int = 18
    flags: int = ACK
    type: int = REQUEST

    def frame(self) -> bytes:
        if self.protocol == UDP:
            return sealed(datagram(*self.source, *self.destination, payload=self.payload))
        if self.protocol == TCP:
            ends = (self.source, self.destination)
            return sealed(segment(*ends, 5, 6, self.flags, 100, self.payload))
        reply = self.type == REPLY
        return sealed(echo(self.source[0], self.destination[0], self.source[1], reply=reply))

    def with_source(self, end: End) -> Packet:
        if self.protocol == ICMP:
            return replace(self, source=end, destination=(self.destination[0], end[1]))
        return replace(self, source=end)

    def with_destination(self, end: End) -> Packet:
        if self.protocol == ICMP:
            return replace(self, source=(self.source[0], end[1]), destination=end)
        return replace(self, destination=end)


@dataclass(frozen=True)
class Error:
    """An ICMP error that quotes the beginning of a packet."""

    source: int
    destination: int
    about: Packet
    type: int = 3
    quoted: int = 28  # bytes

    def frame(self) -> bytes:
        body = struct.pack("!BBHI", self.type, 1, 0, 0) + self.about.frame()[14:][: self.quoted]
        return sealed(ipv4(ICMP, self.source, self.destination, body))


@dataclass
class Nat:
    """What is promised: the fate of a packet, and the frame that leaves with the side."""

    outside: dict[tuple[int, End], End] = field(default_factory=dict)
    inside: dict[tuple[int, End], End] = field(default_factory=dict)

    def bind(self, protocol: int, end: End) -> End:
        new = (OURS, 1024 + len(self.outside))
        bound = self.outside.setdefault((protocol, end), new)
        self.inside[protocol, bound] = end
        return bound

    def packet(self, side: int, p: Packet) -> tuple[str, int, bytes]:
        wanted = REQUEST if side == INSIDE else REPLY
        if p.protocol == ICMP and p.type != wanted:
            return "dropped_icmp", 0, b""
        to_us = p.destination[0] == OURS
        if side == INSIDE and p.protocol == ICMP and to_us:
            return "dropped_hairpin", 0, b""
        receiver = self.inside.get((p.protocol, p.destination))
        if receiver is None and (side == OUTSIDE or to_us):
            return "dropped_no_mapping", 0, b""
        if side == INSIDE:
            p = p.with_source(self.bind(p.protocol, p.source))
        if receiver is not None:
            p = p.with_destination(receiver)
        if side == OUTSIDE:
            return "inbound", INSIDE, p.frame()
        return ("hairpinned", INSIDE, p.frame()) if to_us else ("outbound", OUTSIDE, p.frame())

    def error(self, side: int, e: Error) -> tuple[str, int, bytes]:
        about = e.about
        wanted = REQUEST if side == OUTSIDE else REPLY
        strange = about.protocol == ICMP and about.type != wanted
        if strange or e.type not in (3, 11, 12) or about.source[0] != e.destination:
            return "dropped_icmp", 0, b""
        if side == INSIDE:
            sender = self.outside.get((about.protocol, about.destination))
            if sender is None:
                return "dropped_no_mapping", 0, b""
            e = replace(e, source=sender[0], about=about.with_destination(sender))
        if side == INSIDE and e.destination != OURS:
            return "icmp_errors", OUTSIDE, e.frame()
        receiver = self.inside.get((about.protocol, about.source))
        if receiver is None:
            return "dropped_no_mapping", 0, b""
        e = replace(e, destination=receiver[0], about=e.about.with_source(receiver))
        return "icmp_errors", INSIDE, e.frame()


class Traffic:
    """Draws packets; it knows the endpoints that the oracle has given out."""

    def __init__(self, rng: random.Random, nat: Nat) -> None:
        self.rng = rng
        self.nat = nat

    def server(self) -> End:
        return SERVER + self.rng.randrange(3), self.rng.choice([53, 80])

    def ours(self) -> End:
        return OURS, 1024 + self.rng.randrange(len(self.nat.outside) + 3)

    def packet(self) -> tuple[int, Packet]:
        rng = self.rng
        protocol = rng.choice([UDP, UDP, TCP, TCP, ICMP])
        host = (HOST + rng.randrange(8), 3000 + rng.randrange(10))
        flags = rng.choice([SYN, ACK, ACK, ACK, FIN | ACK, RST])
        drawn = Packet(protocol, host, self.server(), rng.randrange(40), flags)
        way = rng.randrange(20)
        if way < 9:
            end = (OURS, host[1]) if protocol == ICMP else self.ours()
            side, p = INSIDE, replace(drawn, destination=end) if way < 3 else drawn
        else:
            side, p = OUTSIDE, replace(drawn, source=self.server(), destination=self.ours())
            p = replace(p, type=REPLY)
        if protocol == ICMP:
            p = p.with_destination(p.destination) if side == OUTSIDE else p.with_source(p.source)
            p = replace(p, type=8 - p.type) if rng.random() < 0.1 else p
        return side, p

    def error(self) -> tuple[int, Error]:
        """About a packet as it was, translated, on the other side; now and then about nothing."""
        rng = self.rng
        side, p = self.packet()
        fate, where, _ = self.nat.packet(side, p) if self.known(side, p) else ("", side, b"")
        seen = p
        if fate in ("outbound", "hairpinned"):
            seen = seen.with_source(self.nat.outside[p.protocol, p.source])
        if fate in ("inbound", "hairpinned"):
            seen = seen.with_destination(self.nat.inside[p.protocol, p.destination])
        source = rng.choice([ROUTER, seen.destination[0]])
        destination = seen.source[0] if rng.random() < 0.95 else SERVER + 77
        kind = rng.choice([3, 3, 11, 12, 5])
        quoted = rng.choice([28, 28, 40, 44, 100])
        return where, Error(source, destination, seen, kind, quoted)

    def known(self, side: int, p: Packet) -> bool:
        return side == OUTSIDE or (p.protocol, p.source) in self.nat.outside


@pytest.mark.parametrize("seed", SEEDS)
def test_packets_and_errors(seed: int) -> None:
    rng = random.Random(seed)
    nat = Nat()
    traffic = Traffic(rng, nat)
    inputs, expected, now = [], [], 1000 * MS
    for _ in range(6000):
        now += rng.randrange(MS)
        if rng.random() < 0.3:
            side, error = traffic.error()
            frame, want = error.frame(), nat.error(side, error)
        else:
            side, packet = traffic.packet()
            frame, want = packet.frame(), nat.packet(side, packet)
        inputs.append(Input(now, rng.randrange(3), side, frame))
        expected.append(want)
    outputs, counters = run("nat", 3, {"addresses": 1, "capacity": 2000}, inputs)
    for number, (want, got) in enumerate(zip(expected, outputs, strict=True)):
        fate, side, frame = want
        where = f"seed {seed}, input {number}, {fate}"
        assert got.frame == (frame or None), where
        assert not frame or got.port == side, where
    fates = Counter(fate for fate, _, _ in expected)
    assert {fate: counters[fate] for fate in fates} == fates
    assert counters["mappings"] == len(nat.outside)
    for fate in ("outbound", "inbound", "hairpinned", "icmp_errors", "dropped_no_mapping"):
        assert fates[fate] > 100, fates


@pytest.mark.parametrize(
    "damage", ["icmp", "quoted", "short", "version", "later fragment", "protocol"]
)
def test_errors_that_are_dropped(damage: str) -> None:
    """What RFC 5508 calls silently dropped; the same error without damage passes."""
    out = Packet(UDP, (HOST, 3000), (SERVER, 53))
    nat = Nat()
    nat.packet(INSIDE, out)
    error = Error(SERVER, OURS, out.with_source((OURS, 1024)))
    frame = error.frame()
    at = 14 + 20 + 8  # the quoted header
    bad = {
        "icmp": put(frame, 14 + 22, 0x1234),
        "quoted": sealed(put(frame, at + 10, 0x1234)),
        "short": sealed(put(frame[:-1], 16, len(frame) - 15)),
        "version": sealed(put(frame, at, 0x6500)),
        "later fragment": sealed(put(frame, at + 6, 1)),
        "protocol": sealed(put(frame, at + 8, 0x4063)),
    }[damage]
    frames = [(INSIDE, out.frame()), (OUTSIDE, frame), (OUTSIDE, bad)]
    inputs = [Input(MS, 0, side, each) for side, each in frames]
    outputs, counters = run("nat", 1, {"addresses": 1, "capacity": 16}, inputs)
    assert outputs[1].frame == nat.error(OUTSIDE, error)[2]
    assert outputs[1].writes == 0
    assert outputs[2].frame is None
    assert counters["dropped_icmp"] == 1


@pytest.mark.parametrize("options", [1, 10])
def test_errors_with_options(options: int) -> None:
    """Ports lie behind the options of the quoted header."""
    nat = Nat()
    out = Packet(UDP, (HOST, 3000), (SERVER, 53))
    nat.packet(INSIDE, out)
    frames = []
    for about in (out.with_source((OURS, 1024)), out):
        body = about.frame()[34:]
        head = sealed(ipv4(UDP, about.source[0], SERVER, body, options))[14 : 34 + 4 * options]
        to = about.source[0]
        frames.append(sealed(ipv4(ICMP, SERVER, to, bytes([11, 0] + [0] * 6) + head + body[:8])))
    inputs = [Input(MS, 0, INSIDE, out.frame()), Input(MS, 0, OUTSIDE, frames[0])]
    outputs, _ = run("nat", 1, {"addresses": 1, "capacity": 16}, inputs)
    assert outputs[1].frame == frames[1]
