"""The firewall against an oracle: conversations of TCP hosts, some of them confused or hostile, UDP
and echoes, with time passing. The oracle is written from the description in native/nf/firewall.c
and from van Rooij's bounds; it keeps what it saw of each connection, not states.

A run is drawn from its seed: FTMB_TEST_SEED=N repeats one with N.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from nf_stream import ACK, FIN, INSIDE, OUTSIDE, RST, SYN, Input, echo, run, tcp, udp

SEEDS = [int(os.environ.get("FTMB_TEST_SEED", "1")) + n for n in range(3)]
SECOND = 1_000_000_000
MS = 1_000_000
HOST, SERVER = 0x0A000001, 0xC0000201
TIMEOUTS_MS = {"udp_ms": 3000, "tcp_ms": 8000, "transitory_ms": 2000, "icmp_ms": 1000}
SLACK = 66_000


@dataclass(frozen=True)
class Segment:
    """What a host sends; sides are 0 for inside and 1 for outside."""

    side: int
    seq: int
    ack: int
    flags: int
    window: int = 4000
    payload: int = 0
    scale: int | None = None

    @property
    def end(self) -> int:
        return (self.seq + self.payload + bool(self.flags & SYN) + bool(self.flags & FIN)) % 2**32


def past(a: int, b: int) -> int:
    """How far a lies beyond b, as sequence numbers go; negative: before it."""
    return (a - b + 2**31) % 2**32 - 2**31


@dataclass
class Side:
    """What was seen of one end of a connection."""

    sent: int = 0  # one beyond the last number used
    edge: int = 0  # up to where the other end lets it send
    window: int = 0  # the largest that it has offered
    scale: int | None = None
    fin: bool = False


@dataclass
class Tcp:
    """A connection: who opened it, and how far the handshake has come."""

    opener: int
    seen: int  # stamp
    ends: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    answered: bool = False
    open: bool = False
    reset: bool = False

    def timeout(self) -> str:
        steady = self.open and not self.reset and not self.over()
        return "tcp_ms" if steady else "transitory_ms"

    def over(self) -> bool:
        return self.ends[0].fin and self.ends[1].fin

    def begin(self, s: Segment) -> None:
        end = self.ends[s.side]
        end.sent = end.edge = s.end
        end.window, end.scale = max(s.window, 1), s.scale

    def plausible(self, s: Segment) -> bool:
        mine, peer = self.ends[s.side], self.ends[1 - s.side]
        if past(s.end, mine.edge) > 0 or past(s.seq, mine.sent - peer.window) < 0:
            return False
        if not s.flags & ACK:
            return True
        oldest = peer.sent - max(mine.window, SLACK)
        return past(s.ack, peer.sent) <= 0 and past(s.ack, oldest) >= 0

    def learn(self, s: Segment) -> None:
        mine, peer = self.ends[s.side], self.ends[1 - s.side]
        if past(s.end, mine.sent) > 0:
            mine.sent = s.end
        if s.flags & ACK:
            scale = 0 if s.flags & SYN else mine.scale or 0
            window = max(s.window << scale, 1)
            mine.window = max(mine.window, window)
            if past(s.ack + window, peer.edge) > 0:
                peer.edge = (s.ack + window) % 2**32

    def handshake(self, s: Segment, check: bool) -> str:
        """Only a SYN was seen so far."""
        opener = self.ends[self.opener]
        if s.side == self.opener:
            if not s.flags & RST and s.flags != SYN:
                return "dropped_state"
            if check and (s.seq if s.flags & RST else s.end) != opener.sent:
                return "dropped_window"
        else:
            if not s.flags & RST and s.flags != SYN | ACK:
                return "dropped_state"
            if check and (not s.flags & ACK or s.ack != opener.sent):
                return "dropped_window"
            if not s.flags & RST:
                mine = self.ends[s.side]
                mine.sent, mine.window = s.end, max(s.window, 1)
                mine.edge = (s.end + opener.window) % 2**32
                opener.edge = (s.ack + mine.window) % 2**32
                both = s.scale is not None and opener.scale is not None
                mine.scale, opener.scale = (s.scale, opener.scale) if both else (0, 0)
                self.answered = True
        self.reset = bool(s.flags & RST)
        return "forwarded"

    def meet(self, s: Segment, check: bool) -> str:
        if not self.answered and not self.reset:
            return self.handshake(s, check)
        opens = s.side == self.opener
        if self.reset:
            fits = False
        elif s.flags & RST:
            fits = True
        elif not self.open:
            fits = (s.flags == SYN or not s.flags & SYN) if opens else s.flags == SYN | ACK
        elif s.flags & SYN:  # the answer once more
            fits = not opens and bool(s.flags & ACK) and not self.over()
        else:
            fits = True
        if not fits:
            return "dropped_state"
        if check and not self.plausible(s):
            return "dropped_window"
        self.learn(s)
        self.ends[s.side].fin |= bool(s.flags & FIN)
        self.reset = bool(s.flags & RST)
        self.open |= not s.flags & (SYN | RST)
        return "forwarded"


@dataclass
class Host:
    """One end as it believes itself to be, for segments that make sense."""

    seq: int
    heard: int = 0


class Talk:
    """A pair of endpoints that open, talk, close, and sometimes send nonsense."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.rng = rng
        self.ends = ((HOST + number % 5, 2000 + number), (SERVER, 80))
        self.begin()

    def begin(self) -> None:
        """From another port, or from the same one, where there may still be a connection."""
        (host, port), server = self.ends
        self.ends = (host, port + self.rng.choice([0, 100, 100, 100])), server
        start = self.rng.choice([self.rng.randrange(2**32), 2**32 - self.rng.randrange(3000)])
        self.hosts = (Host(start), Host(self.rng.randrange(2**32)))
        self.step = 0

    def segment(self) -> Segment:
        """The next one of a good conversation, then what the hosts believe."""
        rng = self.rng
        if self.step == 0 or rng.random() < 0.01:
            self.begin()
            self.step, side, flags, payload = 1, INSIDE, SYN, 0
        elif self.step == 1:
            self.step, side, flags, payload = 2, OUTSIDE, SYN | ACK, 0
        else:
            side, payload = rng.randrange(2) if self.step > 2 else INSIDE, 0
            flags = rng.choices([ACK, ACK | FIN, RST | ACK], [40, 3, 1])[0]
            self.step += 1
            payload = rng.choice([0, 0, 100, 1400]) if flags == ACK and self.step > 3 else 0
            if self.step > 25 or flags & RST:
                self.step = 0
        me, peer = self.hosts[side], self.hosts[1 - side]
        made = Segment(
            side, me.seq, me.heard if flags & ACK else 0, flags, rng.choice([3000, 20000, 60000]),
            payload, rng.choice([None, 0, 3, 14]) if flags & SYN else None,
        )  # fmt: skip
        if rng.random() < 0.9:  # else it gets lost before the firewall, or comes again
            me.seq = peer.heard = made.end
        return made

    def confused(self) -> Segment:
        made, rng = self.segment(), self.rng
        off = rng.choice([-70_000, -5000, -1, 1, 5000, 10**6, 2**31])
        return rng.choice([
            Segment(made.side, (made.seq + off) % 2**32, made.ack, made.flags, 500, made.payload),
            Segment(made.side, made.seq, (made.ack + off) % 2**32, made.flags, 500, made.payload),
            Segment(made.side, made.seq, made.ack, rng.randrange(32) & (FIN | SYN | RST | ACK)),
            Segment(1 - made.side, made.seq, made.ack, made.flags),
        ])  # fmt: skip

    def frame(self, s: Segment) -> bytes:
        ends = self.ends[s.side], self.ends[1 - s.side]
        return tcp(*ends, s.seq, s.ack, s.flags, s.window, s.payload, s.scale)


def senseless(flags: int) -> bool:
    if flags & SYN:
        return bool(flags & (FIN | RST))
    return not flags & (ACK | RST) or flags & (FIN | RST) == FIN | RST


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("check", [True, False], ids=["window", "flags"])
def test_tcp(seed: int, check: bool) -> None:
    rng = random.Random(seed)
    talks = [Talk(rng, number) for number in range(12)]
    now, inputs, told = 1000 * SECOND, [], []
    for _ in range(8000):
        talk = rng.choice(talks)
        segment = talk.confused() if rng.random() < 0.1 else talk.segment()
        now += rng.choice([0, rng.randrange(5 * MS)]) if rng.random() > 0.001 else 3 * SECOND
        worker = rng.randrange(3)
        stamp = now - worker * rng.randrange(MS)
        inputs.append(Input(stamp, worker, segment.side, talk.frame(segment)))
        told.append((talk.ends, segment))
    settings = {"capacity": 5000, "half_open": 0, "window": int(check)} | TIMEOUTS_MS
    outputs, counters = run("firewall", 3, settings, inputs)

    known: dict[object, Tcp] = {}
    want: Counter[str] = Counter()
    for at, ((ends, s), given, got) in enumerate(zip(told, inputs, outputs, strict=True)):
        was = known.get(ends)
        if was and given.stamp - was.seen > TIMEOUTS_MS[was.timeout()] * MS:
            was = None
        if was and (was.over() or was.reset) and s.flags == SYN:
            was = None
        if senseless(s.flags):
            fate = "dropped_state"
        elif was:
            fate = was.meet(s, check)
            if fate == "forwarded":
                was.seen = max(was.seen, given.stamp)
        elif s.flags != SYN:
            fate = "dropped_no_connection"
        elif s.side == OUTSIDE:
            fate = "dropped_rule"
        else:
            known[ends] = Tcp(s.side, given.stamp)
            known[ends].begin(s)
            fate = "forwarded"
            want["opened"] += 1
        want[fate] += 1
        assert (got.frame is not None) == (fate == "forwarded"), f"seed {seed}, input {at}: {fate}"
        assert got.frame in (None, given.frame)
    assert {name: counters[name] for name in want} == want
    assert want["forwarded"] > 2500
    assert want["opened"] > 100
    assert want["dropped_no_connection"] > 50
    assert want["dropped_state"] > 50
    assert (want["dropped_window"] > 50) == check


@pytest.mark.parametrize("seed", SEEDS)
def test_udp_and_echo(seed: int) -> None:
    rng = random.Random(seed)
    now, inputs, keys = 1000 * SECOND, [], []
    for _ in range(6000):
        now += rng.randrange(20 * MS)
        host, port, side = HOST + rng.randrange(6), 3000 + rng.randrange(10), rng.randrange(2)
        if rng.random() < 0.5:
            ends = (host, port, SERVER, 53) if side == INSIDE else (SERVER, 53, host, port)
            frame, key, begins = udp(*ends), ("udp_ms", host, port), True
        else:
            reply = rng.random() < 0.5
            pair = (host, SERVER) if side == INSIDE else (SERVER, host)
            frame, begins = echo(*pair, port, reply=reply), not reply
            key = ("icmp_ms", host, (port, side ^ reply))
        inputs.append(Input(now, rng.randrange(3), side, frame))
        keys.append((key, begins))
    settings = {"capacity": 5000, "half_open": 0} | TIMEOUTS_MS
    outputs, counters = run("firewall", 3, settings, inputs)
    last: dict[object, int] = {}
    want: Counter[str] = Counter()
    for (key, begins), given, got in zip(keys, inputs, outputs, strict=True):
        alive = key in last and given.stamp - last[key] <= TIMEOUTS_MS[key[0]] * MS
        fate = "forwarded"
        if not alive and not begins:
            fate = "dropped_no_connection"
        elif not alive and given.port == OUTSIDE:
            fate = "dropped_rule"
        elif not alive:
            want["opened"] += 1
        if fate == "forwarded":
            last[key] = given.stamp
        want[fate] += 1
        assert got.frame == (given.frame if fate == "forwarded" else None)
    assert {name: counters[name] for name in want} == want
    assert min(want[name] for name in ("forwarded", "opened", "dropped_rule")) > 200
