"""Network functions against oracles: the same packets through the function and through a model of
what it promises, which is written from its description, in other terms than the function uses.

A run is drawn from its seed: FTMB_TEST_SEED=N repeats one with N.
"""

from __future__ import annotations

import os
import random
from fractions import Fraction

import pytest
from nf_stream import INSIDE, OUTSIDE, Input, run, udp

SEEDS = [int(os.environ.get("FTMB_TEST_SEED", "1")) + n for n in range(3)]
SECOND = 1_000_000_000
HOST = 0x0A000001
SERVER = 0xC0000201


class Bucket:
    """Tokens are bytes; they come in steadily, up to `depth`."""

    def __init__(self, kbps: int, depth: int) -> None:
        self.rate = Fraction(kbps, 8_000_000)  # bytes a nanosecond
        self.depth = Fraction(depth)
        self.tokens = self.depth
        self.last = 0

    def holds(self, now: int, size: int) -> bool:
        """Is there enough at `now`? A stamp before the latest one finds what was there then."""
        if now >= self.last:
            tokens = min(self.depth, self.tokens + (now - self.last) * self.rate)
        else:
            tokens = self.tokens - (self.last - now) * self.rate
        return tokens >= size

    def take(self, now: int, size: int) -> None:
        if now > self.last:
            self.tokens = min(self.depth, self.tokens + (now - self.last) * self.rate)
            self.last = now
        self.tokens -= size


def ratelimit_inputs(rng: random.Random, count: int) -> list[Input]:
    """Bursts of few users, some packets without a user, pauses; stamps of workers not in step."""
    now, inputs = 1000 * SECOND, []
    for _ in range(count):
        now += rng.choice([0, rng.randrange(100_000), rng.randrange(100_000)])
        if rng.random() < 0.002:
            now += rng.randrange(SECOND // 5)
        host = HOST + min(rng.randrange(40), rng.randrange(40))
        port = rng.choice([INSIDE, OUTSIDE])
        ends = (host, 1000, SERVER, 80) if port == INSIDE else (SERVER, 80, host, 1000)
        frame = udp(*ends, payload=rng.choice([18, 18, 500, 1472]))
        if rng.random() < 0.05:
            frame = frame[:12] + rng.choice([b"\x08\x06", b"\x86\xdd", b"\x12\x34"]) + frame[14:]
        elif rng.random() < 0.02:
            frame = frame[: rng.randrange(34)]
        worker = rng.randrange(3)
        inputs.append(Input(now - worker * rng.randrange(20_000), worker, port, frame))
    return inputs


# Rates whose costs are whole numbers in the data plane's unit: not one verdict may differ.
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("user", "everybody"),
    [((1000, 4000), (8000, 8000)), ((2000, 3000), (0, 64)), ((0, 64), (10000, 2000))],
    ids=["both", "users", "total"],
)
def test_ratelimit(seed: int, user: tuple[int, int], everybody: tuple[int, int]) -> None:
    inputs = ratelimit_inputs(random.Random(seed), 6000)
    settings = {
        "users": 1000, "user_kbps": user[0], "user_burst": user[1],
        "total_kbps": everybody[0], "total_burst": everybody[1],
    }  # fmt: skip
    outputs, counters = run("ratelimit", 3, settings, inputs)
    total = Bucket(*everybody)
    users: dict[bytes, Bucket] = {}
    want = dict.fromkeys(
        ("forwarded", "forwarded_bytes", "dropped_user", "dropped_total", "dropped_malformed"), 0
    )
    for number, (given, got) in enumerate(zip(inputs, outputs, strict=True)):
        frame, where = given.frame or b"", f"seed {seed}, input {number}"
        whose = None
        if frame[12:14] == b"\x08\x00" and user[0]:
            address = frame[26:30] if given.port == INSIDE else frame[30:34]
            whose = users.setdefault(address, Bucket(*user))
        accesses = 0
        if len(frame) < 34 and (len(frame) < 14 or frame[12:14] == b"\x08\x00"):
            fate = "dropped_malformed"
        elif whose and not whose.holds(given.stamp, len(frame)):
            fate, accesses = "dropped_user", 1
        else:
            accesses = (whose is not None) + (everybody[0] != 0)
            passes = not everybody[0] or total.holds(given.stamp, len(frame))
            fate = "forwarded" if passes else "dropped_total"
        want[fate] += 1
        assert got.pals == got.writes == accesses, where
        assert got.frame == (frame if fate == "forwarded" else None), where
        if fate != "forwarded":
            continue
        assert got.port == 1 - given.port, where
        want["forwarded_bytes"] += len(frame)
        for bucket in (whose, total):
            if bucket:
                bucket.take(given.stamp, len(frame))
    assert {name: counters[name] for name in want} == want
    assert counters["dropped_no_room"] == 0
    assert want["forwarded"] > 500
    assert want["dropped_user"] + want["dropped_total"] > 500
    assert want["dropped_malformed"] > 20
