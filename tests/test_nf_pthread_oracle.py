"""The functions in ordinary C (native/plain) against oracles: nat-pthread against that of `nat`,
but for what it does not do, and monitor-pthread against one of its own. Not one byte may differ,
nor the accesses that their locks cost.

A run is drawn from its seed: FTMB_TEST_SEED=N repeats one with N.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace

import pytest
from nat_oracle import MS, OURS, Nat, Packet, cut, put
from nf_stream import (
    ACK,
    FIN,
    ICMP,
    INSIDE,
    OUTSIDE,
    RST,
    TCP,
    UDP,
    Input,
    echo,
    ipv4,
    run,
    tcp,
    udp,
)
from test_nf_nat_oracle import Traffic

SEEDS = [int(os.environ.get("FTMB_TEST_SEED", "1")) + n for n in range(3)]
SWEEPS = 16  # a thread sweeps with every so manieth packet


class PlainNat(Nat):
    """It knows no hairpins, and so none of its own addresses from inside; nor errors."""

    def packet(self, side: int, p: Packet) -> tuple[str, int, bytes]:
        if side == OUTSIDE:
            return super().packet(side, p)
        if p.protocol == ICMP and p.type != 8:
            return "dropped_icmp", 0, b""
        if p.destination[0] == OURS:
            return "dropped_hairpin", 0, b""
        p = p.with_source(self.bind(p.protocol, p.source))
        return "outbound", OUTSIDE, p.frame()

    def accesses(self, fate: str, new: bool, p: Packet) -> int:
        """A stripe; of a new mapping a pool and an outside end too. From outside an end, and the
        stripe where a connection ends."""
        if fate == "outbound":
            return 3 if new else 1
        if fate == "inbound":
            return 2 if p.protocol == TCP and p.flags & (FIN | RST) else 1
        return 1 if fate == "dropped_no_mapping" else 0


@pytest.mark.parametrize("seed", SEEDS)
def test_nat(seed: int) -> None:
    rng = random.Random(seed)
    nat = PlainNat()
    traffic = Traffic(rng, nat)
    inputs, expected, now = [], [], 1000 * MS
    of_worker = [0, 0, 0]
    for _ in range(6000):
        now += rng.randrange(MS)
        worker, before, way = rng.randrange(3), len(nat.outside), rng.random()
        side, packet = traffic.packet()
        if way < 0.1:
            side, error = traffic.error()
            frame, want, accesses = error.frame(), ("dropped_icmp", 0, b""), 0
        elif way < 0.15:
            packet = replace(packet, protocol=UDP, payload=60)
            frame = rng.choice(cut(packet.frame(), 7, 24))
            want, accesses = ("dropped_fragment", 0, b""), 0
        else:
            if side == INSIDE and way < 0.17:  # an outside address as the source is like any other
                packet = replace(packet, source=(OURS, packet.source[1]))
            frame, want = packet.frame(), nat.packet(side, packet)
            accesses = nat.accesses(want[0], len(nat.outside) > before, packet)
        of_worker[worker] += 1
        inputs.append(Input(now, worker, side, frame))
        expected.append((want, None if of_worker[worker] % SWEEPS == 0 else accesses))
    outputs, counters = run("nat-pthread", 3, {"addresses": 1, "capacity": 2000}, inputs)
    for number, (((fate, side, frame), accesses), got) in enumerate(
        zip(expected, outputs, strict=True)
    ):
        where = f"seed {seed}, input {number}, {fate}"
        assert got.frame == (frame or None), where
        assert not frame or got.port == side, where
        assert accesses is None or got.pals == got.writes == accesses, where
    fates = Counter(want[0] for want, _ in expected)
    assert {fate: counters[fate] for fate in fates} == fates
    assert counters["mappings"] == counters["mappings_created"] == len(nat.outside)
    for fate in ("outbound", "inbound", "dropped_hairpin", "dropped_no_mapping", "dropped_icmp",
                 "dropped_fragment"):  # fmt: skip
        assert fates[fate] > 100, fates


NAMED, MOST_NAMED = {80, 443, 53}, 8


class Monitor:
    """What each worker and all together have seen."""

    def __init__(self, flows: int) -> None:
        self.most = flows
        self.flows: list[set[object]] = [set(), set(), set()]
        self.named = set(NAMED)
        self.counted: Counter[str] = Counter()

    def packet(self, worker: int, frame: bytes, key: object, port: int) -> int:
        """`port`: of the flow's destination, 0 where it has none. The accesses: the totals; of a
        new flow the services, again to name one, and the one."""
        self.counted["packets"] += 1
        self.counted["bytes"] += len(frame)
        known = self.flows[worker]
        if key in known:
            return 1
        if len(known) == self.most:
            self.counted["untracked"] += 1
            return 1
        known.add(key)
        self.counted["flows"] += 1
        if port and port not in self.named and len(self.named) < MOST_NAMED:
            self.named.add(port)
            return 4
        return 3


def monitored(rng: random.Random) -> tuple[bytes, object, int]:
    """A frame, which flow it is, and to which port."""
    source, destination = 0x0A000001 + rng.randrange(4), 0xC0000201 + rng.randrange(3)
    sport, dport = 3000 + rng.randrange(4), rng.choice([53, 80, 443, *range(2000, 2009)])
    addresses, ends = (source, destination), (sport, dport)
    kind = rng.randrange(10)
    if kind < 4:
        return udp(source, sport, destination, dport), (UDP, *addresses, *ends), dport
    if kind < 7:
        frame = tcp((source, sport), (destination, dport), 1, 1, ACK, 100, rng.randrange(50))
        return frame, (TCP, *addresses, *ends), dport
    if kind == 7:
        return echo(*addresses, rng.randrange(9)), (ICMP, *addresses), 0
    if kind == 8:  # a later fragment has no ports, another protocol neither
        if rng.random() < 0.5:
            frame = put(udp(source, sport, destination, dport), 20, 0x2001)
            return frame, (UDP, *addresses, 0, 0), 0
        return ipv4(47, *addresses, b"g" * 20), (47, *addresses), 0
    frame = b"\x02" * 12 + rng.choice([b"\x08\x06", b"\x86\xdd"]) + b"x" * 46
    return (frame, frame[12:14], 0) if rng.random() < 0.7 else (frame[:9], "short", 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sample_every", [0, 1])
def test_monitor(seed: int, sample_every: int) -> None:
    """Every packet passes unchanged. With `sample_every` 1 each is a sample: two accesses more."""
    rng = random.Random(seed)
    monitor = Monitor(150)
    inputs, accesses = [], []
    for n in range(5000):
        frame, key, port = monitored(rng)
        worker = rng.randrange(3)
        inputs.append(Input(1000 * MS + n, worker, rng.choice([INSIDE, OUTSIDE]), frame))
        accesses.append(monitor.packet(worker, frame, key, port) + 2 * sample_every)
    settings = {"flows": monitor.most, "sample_every": sample_every}
    outputs, counters = run("monitor-pthread", 3, settings, inputs)
    for number, (given, want, got) in enumerate(zip(inputs, accesses, outputs, strict=True)):
        where = f"seed {seed}, input {number}"
        assert (got.frame, got.port) == (given.frame, 1 - given.port), where
        assert got.pals == got.writes == want, where
    monitor.counted["samples"] = len(inputs) * sample_every
    assert {name: counters[name] for name in monitor.counted} == monitor.counted
    assert monitor.counted["untracked"] > 500
    assert monitor.counted["flows"] == 3 * monitor.most
    assert len(monitor.named) == MOST_NAMED
