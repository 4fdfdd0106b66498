"""The generator of the stand-in for ftmb-node (fake_node.py)."""

import time

import fake_base as base
from fake_base import die, emit, get


class Traffic:
    def __init__(self):
        self.traffic = base.SPEC["traffic"]
        self.plan = []

    def command(self, word):
        fill_pps = self.traffic["fill_pps"]
        now = time.monotonic()
        if word == "start" and fill_pps:
            full = now + self.traffic["flows"] / fill_pps
            self.plan = [(full - 0.05, "filling"), (full, "filled")]
        elif word in ("start", "run"):
            start = now + self.traffic["warmup_ms"] / 1e3
            end = start + self.traffic["duration_ms"] / 1e3
            drained = end + self.traffic["drain_ms"] / 1e3
            self.plan = [(start, "window_start"), (end, "window_end"), (drained, "drained")]

    def step(self):
        while self.plan and time.monotonic() >= self.plan[0][0]:
            name = self.plan.pop(0)[1]
            if name in ("filling", "filled"):
                self.fill(name)
                continue
            emit(name, at_ns=time.monotonic_ns() - 1000)
            if name == "window_start":
                emit("snapshot", epoch=2, pause_ns=900_000, copy_ns=100_000, bytes=4096, lines=32)
                emit("digest_match", view=1, epoch=2)
                emit("commit", view=1, epoch=2)
                if base.MISBEHAVE == "die-in-window":
                    emit("divergence", worker=1)
                    die(4, "divergence in replay: worker 1")

    def fill(self, name):
        flows = self.traffic["flows"]
        complete = name == "filled" and base.MISBEHAVE != "no-room"
        emit(name, flows=flows, sent=flows, delivered=flows if complete else 7, complete=complete)

    def stats(self):
        lost = 1 if base.MISBEHAVE == "lose-one" else 0
        count = 0 if base.MISBEHAVE == "no-samples" else base.PACKETS
        emit(
            "stats",
            role="traffic",
            offered=base.PACKETS,
            sent=base.PACKETS,
            late=500 if base.MISBEHAVE == "late" else 0,
            late_max_ns=10,
            delivered=base.PACKETS - lost,
            lost=lost,
            duplicated=0,
            reordered=0,
            corrupted=0,
            unmatched=0,
            window_offered=900,
            window_delivered=900,
            window_ns=self.traffic["duration_ms"] * 1_000_000,
            gaps=(get("gaps") or {"list": []})["list"],
            fill={"flows": self.traffic["flows"] if self.traffic["fill_pps"] else 0}
            | {"sent": 0, "delivered": self.traffic["flows"], "took_ns": 3_000_000},
            mapping_changed=0,
            mapping_shared=0,
            scheduler="other",
            latency=dict.fromkeys(("p90", "p99", "p999", "p9999", "max"), 1)
            | {"count": count, "p50": 9000},
            noise={"0": {"count": 5, "p50": 1, "p99": 2, "p999": 3, "max": 4, "over_1ms": 0}},
        )
