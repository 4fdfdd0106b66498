"""The generator of the stand-in for ftmb-node, and the process that holds it and the loggers."""

import os
import time

import fake_roles as roles


class Traffic:
    def __init__(self):
        self.traffic = roles.SPEC["traffic"]
        self.plan = []

    def command(self, word):
        if word == "start":
            fill_pps = self.traffic["fill_pps"]
            full = time.monotonic() + (self.traffic["flows"] / fill_pps if fill_pps else 0)
            start = full + self.traffic["warmup_ms"] / 1e3
            end = start + self.traffic["duration_ms"] / 1e3
            drained = end + self.traffic["drain_ms"] / 1e3
            self.plan = [(start, "window_start"), (end, "window_end"), (drained, "drained")]
            if fill_pps:
                self.plan = [(full - 0.05, "filling"), (full, "filled"), *self.plan]

    def step(self):
        while self.plan and time.monotonic() >= self.plan[0][0]:
            name = self.plan.pop(0)[1]
            if name in ("filling", "filled"):
                self.fill(name)
                continue
            roles.emit(name, at_ns=time.monotonic_ns() - 1000)
            if name == "window_start":
                figures = {"pause_ns": 900_000, "copy_ns": 100_000, "bytes": 4096, "lines": 32}
                roles.emit("snapshot", epoch=2, **figures)
                roles.emit("digest_match", view=1, epoch=2)
                roles.emit("commit", view=1, epoch=2)
                if roles.MISBEHAVE == "die-in-window":
                    roles.emit("divergence", worker=1)
                    roles.die(4, "divergence in replay: worker 1")

    def fill(self, name):
        flows = self.traffic["flows"]
        complete = name == "filled" and roles.MISBEHAVE != "no-room"
        delivered = flows if complete else 7
        roles.emit(name, flows=flows, sent=flows, delivered=delivered, complete=complete)

    def stats(self):
        lost = 1 if roles.MISBEHAVE == "lose-one" else 0
        count = 0 if roles.MISBEHAVE == "no-samples" else roles.PACKETS
        roles.emit(
            "stats",
            role="traffic",
            offered=roles.PACKETS,
            sent=roles.PACKETS,
            late=500 if roles.MISBEHAVE == "late" else 0,
            late_max_ns=10,
            delivered=roles.PACKETS - lost,
            lost=lost,
            duplicated=0,
            reordered=0,
            corrupted=0,
            unmatched=0,
            window_offered=900,
            window_delivered=900,
            window_ns=self.traffic["duration_ms"] * 1_000_000,
            gaps=(roles.get("gaps") or {"list": []})["list"],
            fill={"flows": self.traffic["flows"] if self.traffic["fill_pps"] else 0}
            | {"sent": 0, "delivered": self.traffic["flows"], "took_ns": 3_000_000},
            mapping_changed=0,
            mapping_shared=0,
            scheduler="other",
            latency=dict.fromkeys(("p90", "p99", "p999", "p9999", "max"), 1)
            | {"count": count, "p50": 9000},
            noise={"0": {"count": 5, "p50": 1, "p99": 2, "p999": 3, "max": 4, "over_1ms": 0}},
        )


ROLES = {"traffic": Traffic, "il": roles.InputLogger, "ol": roles.OutputLogger}


class Loggers:
    """The roles that the plan gives to this process."""

    def __init__(self):
        parent = os.getppid()
        for slot in range(roles.SPEC["replicas"] if roles.SPEC["mode"] != "floor" else 0):
            while roles.get("view") is None and not (roles.DIR / f"member{slot}").exists():
                time.sleep(0.005)
                if os.getppid() != parent:
                    os._exit(5)
        named = [role for lcore in roles.SPEC["lcores"] for role in lcore["roles"]]
        self.roles = [ROLES[role]() for role in ROLES if role in named]

    def command(self, word):
        for role in self.roles:
            role.command(word)

    def step(self):
        for role in self.roles:
            role.step()

    def stats(self):
        for role in self.roles:
            role.stats()
