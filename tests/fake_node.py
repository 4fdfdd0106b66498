#!/usr/bin/env python3
"""A stand-in for ftmb-node in unit tests: the same words on stdin and stdout, no packets.

$FAKE_NODE is a JSON object of misbehaviours, by process name:
  any process:  never-ready  ignore-finish  bad-setup  chatty  segfault
  loggers:      never-protected  die-in-window  no-resume  lose-one  no-samples  late
Replicas hold a file lock for life; the loggers take its release for a death, like the real ones.
"""

import fcntl
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

DESCRIPTION = {
    "version": "fake",
    "max_workers": 8,
    "nfs": [
        {
            "name": "monitor",
            "params": [
                {"name": "shared", "kind": "uint", "default": 1, "min": 0, "max": 64, "help": "x"},
            ],
        },
        {
            "name": "nat",
            "params": [
                {
                    "name": "outside",
                    "kind": "ipv4",
                    "default": "203.0.113.1",
                    "help": "first address",
                },
                {
                    "name": "addresses",
                    "kind": "uint",
                    "default": 4,
                    "min": 1,
                    "max": 256,
                    "help": "how many",
                },
                {
                    "name": "strict",
                    "kind": "flag",
                    "default": 0,
                    "help": "drop what has no mapping",
                },
            ],
        },
    ],
    "compiler": "none",
    "flags": "",
    "dpdk": "none",
    "git": "none",
}
COMMON = {
    "version",
    "process",
    "dir",
    "out",
    "mode",
    "workers",
    "replicas",
    "idle",
    "memory_mb",
    "nf",
    "ft",
    "log",
    "when_full",
    "lcores",
    "groups",
}
ALLOWED = COMMON | {"slot", "noise_cpus", "traffic"}
PACKETS = 1000


def emit(name, /, t_ns=None, **fields):
    stamp = t_ns or time.monotonic_ns()
    line = json.dumps({"t_ns": stamp, "process": SPEC["process"], "event": name, **fields})
    os.write(1, line.encode() + b"\n")


def die(code, text):
    os.write(2, f"ftmb-node: {text}\n".encode())
    os._exit(code)


def read_words(words):
    for line in sys.stdin:
        words.put(line.strip())
    words.put("EOF")


def next_word(words, timeout):
    try:
        word = words.get(timeout=timeout)
    except queue.Empty:
        return None
    if word == "EOF":
        os._exit(5)
    return word


class Replica:
    def __init__(self):
        self.slot = SPEC["slot"]
        self.lock = open(DIR / f"slot{self.slot}", "w")  # noqa: SIM115
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.active = self.slot == 0 and not (DIR / "promoted").exists()

    def step(self):
        order = DIR / "promoted"
        if not self.active and order.exists() and order.read_text() == str(self.slot):
            self.active = True
            emit("replay_start", view=2)
            emit("replay_done", view=2, packets=70, pals=140)
            (DIR / "replayed").touch()

    def command(self, word):
        pass

    def stats(self):
        emit(
            "stats",
            role="replica",
            slot=self.slot,
            condition="active" if self.active else "standby",
            inputs=PACKETS,
            ticks=9,
            outputs=PACKETS,
            dropped_by_nf=0,
            pals=2 * PACKETS,
            resent=0,
            waits=0,
            nf={"packets": PACKETS},
            nf_checks=[{"name": "sums", "ok": True, "detail": "equal"}],
            snapshot={},
            digest_matched=3,
            digest_mismatched=0,
            replay={"packets": 0, "pals": 0},
        )


class Loggers:
    def __init__(self):
        self.traffic = SPEC["traffic"]
        self.plan = []
        self.gaps = []
        self.failed_over = False
        for slot in range(SPEC["replicas"] if SPEC["mode"] != "floor" else 0):
            while not (DIR / f"slot{slot}").exists():
                time.sleep(0.005)

    def command(self, word):
        if word == "start":
            start = time.monotonic() + self.traffic["warmup_ms"] / 1e3
            end = start + self.traffic["duration_ms"] / 1e3
            drained = end + self.traffic["drain_ms"] / 1e3
            self.plan = [(start, "window_start"), (end, "window_end"), (drained, "drained")]

    def step(self):
        while self.plan and time.monotonic() >= self.plan[0][0]:
            name = self.plan.pop(0)[1]
            emit(name, at_ns=time.monotonic_ns() - 1000)
            if name == "window_start":
                emit("snapshot", epoch=2, pause_ns=900_000, copy_ns=100_000, bytes=4096, lines=32)
                emit("commit", epoch=2)
                if MISBEHAVE == "die-in-window":
                    emit("divergence", worker=1)
                    die(4, "divergence in replay: worker 1")
        if SPEC["mode"] == "ftmb" and not self.failed_over:
            self.watch()

    def watch(self):
        with (DIR / "slot0").open() as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        self.failed_over = True
        start = time.monotonic_ns()
        emit("suspect", slot=0, kind="death")
        emit("fenced", view=2)
        emit("cut", view=2, pals=[10, 20], dropped_pals=1)
        (DIR / "promoted").write_text("1")
        while not (DIR / "replayed").exists():
            time.sleep(0.002)
        emit("view", view=2, slot=1)
        if MISBEHAVE != "no-resume":
            emit("resumed", view=2)
        self.gaps = [[start, time.monotonic_ns() - start]]
        emit("unprotected", what="backup")

    def stats(self):
        lost = 1 if MISBEHAVE == "lose-one" else 0
        count = 0 if MISBEHAVE == "no-samples" else PACKETS
        emit(
            "stats",
            role="traffic",
            offered=PACKETS,
            sent=PACKETS,
            late=500 if MISBEHAVE == "late" else 0,
            late_max_ns=10,
            delivered=PACKETS - lost,
            lost=lost,
            duplicated=0,
            reordered=0,
            corrupted=0,
            unmatched=0,
            window_offered=900,
            window_delivered=900,
            window_ns=self.traffic["duration_ms"] * 1_000_000,
            gaps=self.gaps,
            mapping_changed=0,
            mapping_shared=0,
            scheduler="other",
            latency={
                "count": count,
                "p50": 9000,
                "p90": 1,
                "p99": 1,
                "p999": 1,
                "p9999": 1,
                "max": 1,
            },
            noise={"0": {"count": 5, "p50": 1, "p99": 2, "p999": 3, "max": 4, "over_1ms": 0}},
        )
        if SPEC["mode"] in ("direct", "floor"):
            return
        emit(
            "stats",
            role="il",
            received=PACKETS,
            accepted=PACKETS,
            refused=0,
            ticks=9,
            malformed=0,
            log_peak_bytes=100,
            log_capacity_bytes=200,
            log_bytes=100,
            resent=0,
            snapshot_requests=0,
        )
        emit(
            "stats",
            role="ol",
            frames=10,
            pals=2 * PACKETS,
            pal_bytes=16 * PACKETS,
            outputs=PACKETS,
            released=PACKETS,
            duplicates_dropped=5,
            hash_mismatches=0,
            dropped_old_view=0,
            dropped_bad=0,
            held_peak=1,
            log_peak_bytes=10,
            log_capacity_bytes=20,
            commits=1,
            snapshot_requests=0,
            resend_requests=0,
        )


def main():
    if MISBEHAVE == "bad-setup":
        die(3, "no huge pages: run `echo 64 > nr_hugepages`")
    if MISBEHAVE == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    unknown = set(SPEC) - ALLOWED
    missing = COMMON - set(SPEC)
    if unknown or missing:
        die(2, f"node spec: unknown keys {sorted(unknown)}, missing {sorted(missing)}")
    words = queue.Queue()
    threading.Thread(target=read_words, args=(words,), daemon=True).start()
    role = Replica() if "slot" in SPEC else Loggers()
    if MISBEHAVE == "chatty":
        os.write(1, b"EAL: a library talks to stdout\n")
    if MISBEHAVE != "never-ready":
        emit("ready")
    if isinstance(role, Loggers) and SPEC["mode"] == "ftmb" and MISBEHAVE != "never-protected":
        emit("protected", epoch=1)
    finished = False
    while True:
        word = next_word(words, 0.005)
        if not finished:  # then nobody's end is a failure any more
            role.step()
        if word in ("finish", "exit") and MISBEHAVE == "ignore-finish":
            continue
        if word == "finish":
            finished = True
            role.stats()
        if word == "exit":
            os._exit(0)
        if word:
            role.command(word)


if __name__ == "__main__":
    if sys.argv[1:] == ["--describe"]:
        print(json.dumps(DESCRIPTION))
        sys.exit(0)
    SPEC = json.loads(Path(sys.argv[1]).read_text())
    DIR = Path(SPEC["dir"])
    MISBEHAVE = json.loads(os.environ.get("FAKE_NODE", "{}")).get(SPEC["process"], "")
    main()
