"""The intrusion detection against an oracle: flows whose patterns are split over packets in any
way, segments that repeat, overlap or are missing, sources that scan, a flood of SYNs, and packets
that are none of this. The oracle searches with Python's regular expressions, in all that a flow has
carried, and counts half-open connections one by one.

A run is drawn from its seed: FTMB_TEST_SEED=N repeats one with N.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import pytest
from nf_stream import ACK, FIN, INSIDE, OUTSIDE, RST, SYN, TCP, UDP, Input, echo, run, tcp, udp

SEEDS = [int(os.environ.get("FTMB_TEST_SEED", "1")) + n for n in range(3)]
SECOND = 1_000_000_000
MS = 1_000_000
CLIENT, SERVER, VICTIM = 0x0A000001, 0xC0000201, 0x0A000063
COLUMNS, ROWS, HALF_OPEN, PORTS, HOSTS = 64, 2, 25, 40, 30
TIMEOUTS_MS = {"udp": 3000, "half": 1000, "tcp": 8000, "closed": 1000}
SETTINGS = {
    "rows": ROWS, "columns": COLUMNS, "half_open": HALF_OPEN, "scan_ports": PORTS,
    "scan_hosts": HOSTS, "window_ms": 2000, "sources": 20_000, "capacity": 20_000,
    "udp_ms": 3000, "transitory_ms": 1000, "tcp_ms": 8000,
}  # fmt: skip

RULES = {
    "passwd": rb"/etc/(passwd|shadow)",
    "traversal": rb"\.\./\.\./\.\./",
    "cmd_exe": rb"(?i:cmd\.exe)",
    "union_select": rb"(?i:union[ +][ +]?[ +]?[ +]?select)",
    "or_true": rb"(?i:' or '?1'?='?1)",
    "script": rb"(?i:<script[ >])",
    "jndi": rb"(?i:\$\{jndi:(ldap|rmi|dns))",
    "shellshock": rb"\(\) \{ :;",
    "nop_sled": rb"\x90{16}",
    "powershell": rb"(?i:powershell(\.exe)? -enc)",
    "scanner": rb"(?i:user-agent: (nikto|sqlmap|nmap))",
    "download": rb"(wget|curl) http://",
}
SAMPLES = [
    b"/etc/passwd", b"/etc/shadow", b"../../../", b"CMD.exe", b"Union + SELECT", b"union select",
    b"' OR '1'='1", b"' or 1=1", b"<SCRIPT>", b"<script ", b"${jndi:LDAP", b"${${jndi:dns",
    b"() { :;", b"\x90" * 16, b"\x90" * 15, b"powershell.exe -enc", b"PowerShell -Enc",
    b"User-Agent: sqlmap", b"user-agent: curl", b"wget http://", b"wgetcurl http://", b"/etc/pass",
]  # fmt: skip
SEARCHES = {name: re.compile(rule) for name, rule in RULES.items()}
ARP = b"\xff" * 12 + b"\x08\x06" + bytes(46)


def mix(x: int) -> int:
    """The hash, as native/nf/sets.h has it."""
    x = x * 0xD6E8FEB86659FD93 % 2**64
    return (x ^ x >> 32) * 0x9E3779B97F4A7C15 % 2**64


def little(value: int, size: int) -> int:
    """A number of the wire as the data plane's machine reads it."""
    return int.from_bytes(value.to_bytes(size, "big"), "little")


@cache
def cells(address: int) -> list[int]:
    key = little(address, 4)
    return [(mix((r + 1) << 32 | key) >> 32) * COLUMNS >> 32 for r in range(ROWS)]


@cache
def bits(targets: int) -> int:
    """Places of a bitmap of 128 that so many different targets are expected to fill."""
    return round(128 * (1 - (127 / 128) ** targets))


def found(before: bytes, data: bytes) -> set[str]:
    """The rules with a match that ends in `data`."""
    text, names = before + data, set()
    for name, rule in SEARCHES.items():
        matches = (rule.match(text, at) for at in range(len(text)))
        if any(m and m.end() > len(before) for m in matches):
            names.add(name)
    return names


@dataclass(frozen=True)
class Packet:
    """What one input is to the oracle; without ports it is an echo request."""

    side: int
    protocol: int = 0
    source: tuple[int, int] = (0, 0)
    destination: tuple[int, int] = (0, 0)
    flags: int = 0
    seq: int = 0
    data: bytes = b""
    fate: str = ""  # of what is neither

    def frame(self) -> bytes:
        size = len(self.data)
        if self.protocol == UDP:
            frame = udp(*self.source, *self.destination, size)
        elif self.protocol == TCP:
            frame = tcp(self.source, self.destination, self.seq, 1, self.flags, payload=size)
        elif self.fate:
            return self.data
        else:
            frame = echo(self.source[0], self.destination[0], 7)
        return (frame[:-size] if size else frame) + self.data


@dataclass
class Stream:
    text: bytes = b""
    next: int = 0


@dataclass
class Flow:
    state: str
    opener: int
    target: int
    stamp: int
    matched: bool = False
    streams: tuple[Stream, Stream] = field(default_factory=lambda: (Stream(), Stream()))


@dataclass
class Source:
    since: int
    ports: set[int] = field(default_factory=set)
    hosts: set[int] = field(default_factory=set)
    scans: bool = False


class Talk:
    """A connection that is being made up: what each side has still to send."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.rng = rng
        self.protocol = rng.choice([TCP, UDP])
        self.ends = (CLIENT + number % 7, 2000 + number), (SERVER + number % 3, 80)
        self.seq = [rng.randrange(2**32), rng.randrange(2**32)]
        self.queue = [b"", b""]
        self.last: list[tuple[int, bytes] | None] = [None, None]
        self.step = 0

    def packet(self, side: int, flags: int, seq: int, data: bytes = b"") -> Packet:
        ends = self.ends if side == INSIDE else self.ends[::-1]
        return Packet(side, self.protocol, *ends, flags, seq % 2**32, data)

    def piece(self, side: int) -> bytes:
        if len(self.queue[side]) < 20:
            words = [self.rng.choice([*SAMPLES, b"nothing", b"../"]) for _ in range(3)]
            self.queue[side] += self.rng.choice([b"", b" ", b"-" * 40]).join(words)
        size = self.rng.choice([1, 2, 3, 7, 10, 30, 31, 32, 45])
        piece, self.queue[side] = self.queue[side][:size], self.queue[side][size:]
        return piece

    def next(self) -> Packet:
        self.step += 1
        if self.protocol == TCP and self.step <= 3:
            side = OUTSIDE if self.step == 2 else INSIDE
            flags = [SYN, SYN | ACK, ACK][self.step - 1]
            packet = self.packet(side, flags, self.seq[side])
            self.seq[side] += bool(flags & SYN)
            return packet
        side = self.rng.choice([INSIDE, INSIDE, OUTSIDE])
        what = self.rng.random() if self.protocol == TCP else 1.0
        if what < 0.03:
            self.step = 0  # a SYN is next, in the middle of it or of what has ended
            return self.packet(side, self.rng.choice([FIN | ACK, RST, SYN]), self.seq[side])
        last = self.last[side]
        if what < 0.15 and last:
            return self.packet(side, ACK, *last)
        if what < 0.2:
            self.seq[side] += self.rng.choice([-5, 3])
        data = self.piece(side)
        self.last[side] = self.seq[side], data
        packet = self.packet(side, ACK, self.seq[side], data)
        self.seq[side] += len(data)
        return packet


def traffic(rng: random.Random) -> list[tuple[int, Packet]]:
    now, packets = 1000 * SECOND, []
    talks = [Talk(rng, n) for n in range(60)]
    for _ in range(6000):
        now += rng.randrange(4 * MS)
        what = rng.random()
        if what < 0.7:
            number = rng.randrange(60)
            if rng.random() < 0.005:
                talks[number] = Talk(rng, number + 60 * rng.randrange(1, 30))
            packet = talks[number].next()
        elif what < 0.76:  # ports of one host; hosts, by SYN or echo; few of them in some windows
            port = rng.randrange(1, 60 if now // (4 * SECOND) % 2 else 30)
            ends = (CLIENT + 20, 999), (SERVER, port)
            packet = rng.choice([Packet(INSIDE, UDP, *ends), Packet(INSIDE, TCP, *ends, FIN)])
        elif what < 0.82:
            ends = (CLIENT + 21, 999), (SERVER + rng.randrange(80), 23)
            packet = rng.choice([Packet(INSIDE, TCP, *ends, SYN), Packet(INSIDE, 0, *ends)])
        elif what < 0.97:
            ends = (SERVER + 1000 + rng.randrange(400), 5000), (VICTIM + rng.randrange(2), 80)
            flags = rng.choices([SYN, ACK, RST], [8, 1, 1])[0]
            if flags == RST and rng.random() < 0.5:
                packet = Packet(INSIDE, TCP, *ends[::-1], RST | ACK)
            else:
                packet = Packet(OUTSIDE, TCP, *ends, flags)
        else:
            short = udp(CLIENT, 1, SERVER, 2)[: rng.randrange(14, 42)]
            fragment = bytearray(udp(CLIENT, 1, SERVER, 2))
            fragment[20] = 0x20
            odd = [(ARP, "not_inspected"), (bytes(fragment), "not_inspected"), (short, "malformed")]
            data, fate = rng.choice(odd)
            packet = Packet(INSIDE, data=data, fate=fate)
        packets.append((now, packet))
    return packets


class Oracle:
    def __init__(self, *, drop: bool) -> None:
        self.drop = drop
        self.flows: dict[tuple[int, ...], Flow] = {}
        self.sources: dict[int, Source] = {}
        self.want: Counter[str] = Counter()
        self.certain = 0  # SYNs of a flood; and those that may be ones, if nothing was swept yet
        self.possible = 0
        self.now = 0

    def over(self, flow: Flow) -> bool:
        return self.now - flow.stamp > TIMEOUTS_MS[flow.state] * MS

    def half_open(self, target: int, *, swept: bool) -> int:
        """The sketch's estimate; what has expired is counted until it is swept."""
        rows = [0] * ROWS
        for flow in self.flows.values():
            if flow.state == "half" and not (swept and self.over(flow)):
                same = zip(cells(flow.target), cells(target), strict=True)
                rows = [n + (a == b) for n, (a, b) in zip(rows, same, strict=True)]
        return min(rows)

    def note(self, packet: Packet) -> bool:
        self.want["attempts"] += 1
        source = self.sources.get(packet.source[0])
        if source is None or self.now - source.since > 2 * SECOND:
            source = self.sources[packet.source[0]] = Source(self.now)
        source.hosts.add(mix(little(packet.destination[0], 4)) >> 57)
        if packet.protocol:
            source.ports.add(mix(little(packet.destination[1], 2)) >> 57)
        scans = len(source.ports) >= bits(PORTS) or len(source.hosts) >= bits(HOSTS)
        self.want["scanners"] += scans and not source.scans
        source.scans = scans
        return scans

    def begin(self, packet: Packet, key: tuple[int, ...], passed: bool) -> Flow | str:
        state = "udp" if packet.protocol == UDP else "tcp"
        if packet.flags & (FIN | RST):
            state = "closed"
        elif packet.flags & (SYN | ACK) == SYN:
            state = "half"
            target = packet.destination[0]
            certain = self.half_open(target, swept=True) >= HALF_OPEN
            possible = self.half_open(target, swept=False) >= HALF_OPEN
            self.certain += certain
            self.possible += possible
            if self.drop and (certain or (possible and not passed)):
                return "dropped_flood"
        self.want["opened"] += 1
        flow = self.flows[key] = Flow(state, packet.side, packet.destination[0], self.now)
        return flow

    def follow(self, packet: Packet, passed: bool) -> tuple[str, int]:
        """What becomes of a packet of a flow, and its accesses."""
        ends = (*packet.source, *packet.destination)
        if packet.side == OUTSIDE:
            ends = (*packet.destination, *packet.source)
        key, accesses = (packet.protocol, *ends), 1
        flow = self.flows.get(key)
        syn = packet.flags & (SYN | ACK | RST | FIN) == SYN
        if flow and (self.over(flow) or (syn and flow.state == "closed")):
            flow = None
        stream = flow.streams[packet.side] if flow else Stream()
        seq = (packet.seq + bool(packet.flags & SYN)) % 2**32
        follows = packet.protocol == UDP or seq == stream.next
        names = found(stream.text if follows else b"", packet.data)
        self.want.update(f"rule_{name}" for name in names)
        self.want["matches"] += bool(names)
        if flow is None:
            scans = False
            if packet.protocol == UDP or not packet.flags & (ACK | RST):
                accesses, scans = 2, self.note(packet)
            if scans and self.drop:
                return "dropped_scan", accesses
            begun = self.begin(packet, key, passed)
            accesses += ROWS * syn
            if isinstance(begun, str):
                return begun, accesses
            flow, stream = begun, begun.streams[packet.side]
        elif packet.protocol == TCP and flow.state != "closed":
            was = flow.state
            if packet.flags & (FIN | RST):
                flow.state = "closed"
            elif packet.flags & (SYN | ACK) == ACK and packet.side == flow.opener:
                flow.state = "tcp"
            accesses += ROWS * (was == "half" and flow.state != "half")
        self.want["matched_flows"] += bool(names) and not flow.matched
        flow.matched |= bool(names)
        flow.stamp = self.now
        self.remember(stream, packet.data, seq, follows)
        return "dropped_match" if flow.matched and self.drop else "forwarded", accesses

    def remember(self, stream: Stream, data: bytes, seq: int, follows: bool) -> None:
        end = (seq + len(data)) % 2**32
        repeats = stream.text and (stream.next - end) % 2**32 < 2**31
        if not data or (repeats and not follows):
            return
        stream.text = (stream.text[-50:] if follows else b"") + data
        stream.next = end

    def packet(self, stamp: int, packet: Packet, passed: bool) -> tuple[str, int]:
        self.now = stamp
        if packet.fate:
            self.want[packet.fate] += 1
            lost = packet.fate == "malformed" and self.drop
            return "dropped_malformed" if lost else "forwarded", 0
        if packet.protocol:
            return self.follow(packet, passed)
        return "dropped_scan" if self.note(packet) and self.drop else "forwarded", 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("drop", [0, 1], ids=["count", "drop"])
def test_ids(seed: int, drop: int) -> None:
    rng = random.Random(seed)
    packets, oracle = traffic(rng), Oracle(drop=bool(drop))
    inputs = [Input(now, rng.randrange(3), p.side, p.frame()) for now, p in packets]
    outputs, counters = run("ids", 3, SETTINGS | {"drop": drop}, inputs)
    for number, ((now, packet), given, got) in enumerate(
        zip(packets, inputs, outputs, strict=True)
    ):
        where = f"seed {seed}, input {number}: {packet}"
        fate, accesses = oracle.packet(now, packet, got.frame is not None)
        oracle.want[fate] += 1
        assert got.frame == (given.frame if fate == "forwarded" else None), f"{where}: {fate}"
        assert got.pals == got.writes, where
        assert accesses <= got.pals <= accesses + 4 * (1 + ROWS) + ROWS, where
        if fate == "forwarded":
            assert got.port == 1 - packet.side, where
    want = oracle.want
    assert {name: counters[name] for name in want} == want
    assert oracle.certain <= counters["flood"] <= oracle.possible
    assert counters["untracked"] == counters["forgotten"] == 0
    assert all(counters[f"rule_{name}"] > 0 for name in RULES)
    assert counters["scanners"] > 2
    assert counters["flood"] > 20
    if drop:
        assert min(want[f"dropped_{why}"] for why in ("match", "scan", "flood", "malformed")) > 20
