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
from nat_oracle import (
    HOST,
    MS,
    OURS,
    REPLY,
    ROUTER,
    SECOND,
    SERVER,
    End,
    Error,
    Nat,
    Packet,
    cut,
    put,
    sealed,
)
from nf_stream import ACK, FIN, ICMP, INSIDE, OUTSIDE, RST, SYN, TCP, UDP, Input, ipv4, run

SEEDS = [int(os.environ.get("FTMB_TEST_SEED", "1")) + n for n in range(3)]


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
        quoted = rng.choice([28, 28, 36, 38, 39, 40, 44, 100])
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
            if side == INSIDE and rng.random() < 0.02:  # from an address that no host has
                packet = replace(packet, source=(OURS, packet.source[1]))
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
    assert fates["dropped_spoofed"] > 10, fates


@dataclass
class Datagram:
    side: int
    packet: Packet
    came: list[bytes]
    fate: str = ""
    where: int = 0
    left: list[bytes] = field(default_factory=list)
    begun: int | None = None  # when its first fragment was translated


def datagrams(rng: random.Random, nat: Nat, now: int) -> list[tuple[int, Datagram, int]]:
    """Fragments that come mixed with those of others, late, and some before their first one: the
    time, the datagram, and which of its fragments."""
    traffic, arrivals = Traffic(rng, nat), []
    for number in range(1500):
        now += rng.randrange(MS)
        side, packet = traffic.packet()
        packet = replace(packet, payload=rng.randrange(30, 90))
        came = cut(packet.frame(), number, rng.choice([24, 32, 40]))
        datagram, at = Datagram(side, packet, came), now
        for n in range(len(came) if len(came) > 1 else 0):
            late = 3 * MS if n == 0 and rng.random() < 0.1 else 0
            arrivals.append((at + late, datagram, n))
            at += rng.choice([0, 1000, MS, 12 * MS, 25 * MS])
    return sorted(arrivals, key=lambda arrival: arrival[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_fragments(seed: int) -> None:
    rng = random.Random(seed)
    nat = Nat()
    ends = [(HOST + host, 3000 + port) for host in range(4) for port in range(10)]
    known = [Packet(protocol, end, (SERVER, 80)) for protocol in (UDP, TCP) for end in ends]
    inputs = [Input(1000 * MS, 0, INSIDE, packet.frame()) for packet in known]
    for packet in known:
        nat.packet(INSIDE, packet)
    arrivals = datagrams(rng, nat, 1000 * MS)
    inputs += [Input(at, rng.randrange(3), d.side, d.came[n]) for at, d, n in arrivals]
    outputs, counters = run("nat", 3, {"addresses": 1, "capacity": 2000, "datagram_ms": 40}, inputs)
    fates = Counter({"outbound": len(known)})
    for (at, d, n), got in zip(arrivals, outputs[len(known) :], strict=True):
        if n == 0:
            d.fate, d.where, whole = nat.packet(d.side, d.packet)
            identification = int.from_bytes(d.came[0][18:20], "big")
            d.left = cut(whole, identification, len(d.came[0]) - 34) if whole else []
            d.begun = at if whole else None
        in_time = d.begun is not None and at - d.begun <= 40 * MS
        fate = d.fate if n == 0 else "fragments" if in_time else "dropped_fragment"
        fates[fate] += 1
        passes = not fate.startswith("dropped")
        assert got.frame == (d.left[n] if passes else None), f"seed {seed}, {d}, {n}"
        assert not passes or got.port == d.where
    assert {fate: counters[fate] for fate in fates} == fates
    assert counters["mappings"] == len(nat.outside) > len(known)
    assert min(fates["fragments"], fates["dropped_fragment"]) > 200
    assert min(fates["outbound"], fates["inbound"], fates["hairpinned"]) > 50, fates


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


MAC, INNER, GATEWAY_MAC, OTHER_MAC = (bytes([2, 0, 0, 0, 9, n]) for n in range(4))
ALL, NOBODY = b"\xff" * 6, b"\0" * 6
GATEWAY, OWN = 0xC61200FE, 0x0A0000FF
NEIGHBOURS = {
    "addresses": 1, "capacity": 16, "mac": int.from_bytes(MAC, "big"),
    "inside_mac": int.from_bytes(INNER, "big"), "inside_address": OWN,
    "outside_gateway": GATEWAY, "arp_ms": 3000,
}  # fmt: skip


def arp(operation: int, sender: tuple[bytes, int], target: tuple[bytes, int], to: bytes) -> bytes:
    """An ARP packet for Ethernet and IPv4 in a frame to `to`."""
    head = to + sender[0] + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, operation)
    ends = [mac + struct.pack("!I", address) for mac, address in (sender, target)]
    return head + b"".join(ends)


def asks(sender: tuple[bytes, int], address: int) -> bytes:
    return arp(1, sender, (NOBODY, address), ALL)


def answers(sender: tuple[bytes, int], target: tuple[bytes, int]) -> bytes:
    return arp(2, sender, target, target[0])


def test_next_hops_and_arp() -> None:
    """The next hop inside is given, the one outside is learnt, lost, and found again."""
    out = Packet(UDP, (HOST, 3000), (SERVER, 53))
    back = Packet(UDP, (SERVER, 53), (OURS, 1024)).frame()
    us, gateway, other = (MAC, OURS), (GATEWAY_MAC, GATEWAY), (OTHER_MAC, SERVER)
    sent = out.with_source((OURS, 1024)).frame()[12:]
    came = Packet(UDP, (SERVER, 53), (HOST, 3000)).frame()[12:]
    request = asks(us, GATEWAY)
    pad = b"p" * 18
    steps = [  # milliseconds, side, frame, what leaves, on which side
        (0, INSIDE, out.frame(), request, OUTSIDE),
        (1, INSIDE, out.frame(), None, 0),
        (1001, INSIDE, out.frame(), request, OUTSIDE),
        (1002, OUTSIDE, answers(other, us), None, 0),
        (1002, OUTSIDE, answers(gateway, us), None, 0),
        (1003, INSIDE, out.frame(), GATEWAY_MAC + MAC + sent, OUTSIDE),
        (1004, OUTSIDE, back, INNER + MAC + came, INSIDE),
        (1005, OUTSIDE, asks(other, OURS), answers(us, other), OUTSIDE),
        (1005, OUTSIDE, asks(other, OURS) + pad, answers(us, other) + pad, OUTSIDE),
        (1006, OUTSIDE, asks(other, OURS + 1), None, 0),
        (1007, INSIDE, asks((INNER, HOST), OURS), None, 0),
        (1007, INSIDE, asks((INNER, HOST), OWN), answers((MAC, OWN), (INNER, HOST)), INSIDE),
        (1007, OUTSIDE, asks(other, OWN), None, 0),
        (1008, OUTSIDE, asks(other, OURS)[:41], None, 0),
        (4002, INSIDE, out.frame(), GATEWAY_MAC + MAC + sent, OUTSIDE),
        (5000, INSIDE, out.frame(), request, OUTSIDE),
        (5001, INSIDE, out.frame(), GATEWAY_MAC + MAC + sent, OUTSIDE),
        (7100, INSIDE, out.frame(), request, OUTSIDE),
        (7101, INSIDE, out.frame(), None, 0),
        (7102, OUTSIDE, asks((INNER, GATEWAY), OURS), answers(us, (INNER, GATEWAY)), OUTSIDE),
        (7103, INSIDE, out.frame(), INNER + MAC + sent, OUTSIDE),
    ]
    inputs = [
        Input(SECOND + at * MS, n % 2, side, given) for n, (at, side, given, *_) in enumerate(steps)
    ]
    outputs, counters = run("nat", 2, NEIGHBOURS, inputs)
    for step, got in zip(steps, outputs, strict=True):
        assert got.frame == step[3], step
        assert step[3] is None or got.port == step[4], step
    names = ("arp_requests", "arp_replies", "arp_learnt", "dropped_arp", "dropped_no_hop")
    assert [counters[name] for name in names] == [4, 4, 2, 5, 2]
    assert counters["outbound"] == 4


def test_a_fragment_that_became_a_request() -> None:
    """The others of its datagram do not leave either."""
    packet = Packet(UDP, (HOST, 3000), (SERVER, 53), 40)
    first, second = cut(packet.frame(), 7, 32)
    learnt = answers((GATEWAY_MAC, GATEWAY), (MAC, OURS))
    frames = [
        (INSIDE, first),
        (OUTSIDE, learnt),
        (INSIDE, second),
        (INSIDE, first),
        (INSIDE, second),
    ]
    inputs = [Input(SECOND, 0, side, frame) for side, frame in frames]
    outputs, counters = run("nat", 1, NEIGHBOURS, inputs)
    assert [got.frame is not None for got in outputs] == [True, False, False, True, True]
    assert counters["datagrams_noted"] == 1
