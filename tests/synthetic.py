"""Made-up records for tests of the analysis and the report. Nothing here was ever measured.

Each record has the exact shape of a real one (it is checked against `ftmb.record.Record`) and says
`synthetic` where a real one names its data plane; the page prints that in a banner.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import synthetic_snapshots

from ftmb import experiments, spec
from ftmb.record import Record

NS_PER_MS = 1_000_000
ADDED_US = {"floor": -6.0, "direct": -3.0, "none": 0.0, "ftmb": 14.0}
MAX_MPPS = {"floor": 9.0, "direct": 4.1, "none": 2.3, "ftmb": 1.6}


def write(root: Path, plan: list[experiments.Trial], config: dict[str, Any]) -> None:
    """A results directory with one synthetic record per planned trial."""
    for trial in plan:
        out = root / "trials" / trial.id
        out.mkdir(parents=True, exist_ok=True)
        write_trial(out, trial)
    text = json.dumps(experiments.manifest(plan, config, "quick"))
    (root / "plan.json").write_text(text, encoding="utf-8")


def write_reliability(root: Path) -> None:
    """What simulator, planted bugs and model would write."""
    (root / "reliability").mkdir(exist_ok=True)
    for kind, tree in RELIABILITY.items():
        path = root / "reliability" / f"{kind}.json"
        path.write_text(json.dumps({"version": 1, "kind": kind} | tree), encoding="utf-8")


RELIABILITY: dict[str, dict[str, Any]] = {
    "sim": {
        "seed_base": 7, "schedules": 5000, "packets": 1_000_000, "crashes": 9000, "violations": [],
        "coverage": {"cut_inside_packet": 41, "log_full": 0}, "seconds": 12.5,
        "programs": {"nat": 2500, "random": 2500}, "release": {"max": 2500, "exact": 2500},
    },
    "plants": {"plants": [
        {"id": "P01", "name": "no fence", "from": "fencing", "found_by": "sim", "schedules": 12,
         "what": "exactly once", "seconds": 0.1},
    ]},
    "model": {
        "models": [{"name": "order", "workers": 2, "variables": 2, "bound": "2 packets",
                    "properties": ["I1", "I3"], "states": 123_456, "depth": 99, "seconds": 3.5,
                    "errors": 0}],
        "plants": [{"id": "M01", "name": "read not logged", "found": True, "states": 77}],
    },
    "fuzz": {"targets": [{"name": "delta", "executions": 1_000_000, "seconds": 61.5, "crashes": 0,
                          "corpus": 412, "coverage": 903}]},
}  # fmt: skip


def write_trial(out: Path, trial: experiments.Trial) -> None:
    """record.json, histogram.json and timeline.csv of one planned trial."""
    rng = np.random.default_rng(abs(hash_of(trial.id)))
    rates = {name: {"maximum_pps": 1_600_000} for name in ("nat", "monitor")}
    wanted = experiments.resolve(trial, rates)
    effective = effective_spec(wanted)
    record = make_record(effective, trial, rng)
    if record["latency_ns"] is not None:
        samples = latency_samples(effective, rng)
        (out / "histogram.json").write_text(json.dumps(histogram(samples)), encoding="utf-8")
    timeline = make_timeline(effective, record, rng)
    (out / "timeline.csv").write_text(timeline, encoding="utf-8")
    (out / "memory.csv").write_text(make_memory(effective), encoding="utf-8")
    (out / "noise.json").write_text(json.dumps(make_stalls(rng)), encoding="utf-8")
    if record["snapshot"]:
        snapshots = synthetic_snapshots.series(effective, rng)
        (out / "snapshots.csv").write_text(snapshots, encoding="utf-8")
    (out / "record.json").write_text(json.dumps(record), encoding="utf-8")


def hash_of(text: str) -> int:
    """A stable hash: Python's own differs from run to run."""
    return sum(ord(c) * 31**i for i, c in enumerate(text)) % 2**32


def effective_spec(wanted: dict[str, Any]) -> dict[str, Any]:
    """The spec with every default filled in, as a record carries it."""
    floor = wanted.get("ft", {}).get("mode") == "floor"
    checked = spec.parse(experiments.merge(wanted, {"ft": {"mode": "direct"}}) if floor else wanted)
    full = checked.model_dump()
    full["ft"]["mode"] = wanted.get("ft", {}).get("mode", "ftmb")
    return full


def latency_samples(effective: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Latencies in ns: a log-normal body, and a share of packets caught by snapshot pauses."""
    mode = effective["ft"]["mode"]
    count = 200_000
    body = rng.lognormal(math.log(11_000 + 900 * max(ADDED_US[mode], -5)), 0.35, count)
    body += synthetic_snapshots.caught(effective, rng, count)
    hiccups = rng.random(count) < 2e-5
    body[hiccups] += rng.exponential(4e6, int(hiccups.sum()))
    return body


def histogram(samples: np.ndarray) -> dict[str, Any]:
    """Log-linear buckets as the data plane writes them."""
    edges = np.unique((2 ** (np.arange(0, 27 * 64) / 64)).astype(np.int64))
    counts, _ = np.histogram(samples, edges)
    buckets = [
        [int(a), int(b) - 1, int(c)]
        for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)
        if c
    ]
    return {"version": 1, "significant_bits": 6, "unit": "ns", "buckets": buckets}


def make_stalls(rng: np.random.Generator) -> dict[str, Any]:
    """noise.json: a histogram of each CPU's hiccup meter."""
    late = {str(cpu): rng.lognormal(9, 0.6, 20_000) + (rng.random(20_000) < 1e-3) * 2e5
            for cpu in (0, 1)}  # fmt: skip
    cpus = {cpu: histogram(values) for cpu, values in late.items()}
    return {"version": 1, "unit": "ns", "cpus": cpus}


def make_recovery(
    effective: dict[str, Any], start_ns: int, rng: np.random.Generator
) -> list[dict[str, Any]] | None:
    """One failover whose replay grows with rate and period."""
    if not effective["faults"]:
        return None
    at = effective["faults"][0]["at_s"]
    at_s = at if isinstance(at, float | int) else rng.uniform(0.1, 0.9) * effective["duration_s"]
    t0 = start_ns + int(at_s * 1e9)
    period = effective["ft"]["snapshot"]["period_ms"]
    replayed = int(effective["traffic"]["rate_pps"] * period * rng.random() / 1000)
    phases = [rng.uniform(0.1, 0.4), rng.uniform(0.05, 0.2), rng.uniform(0.2, 0.8)]
    phases += [replayed * 4e-4 + 0.4, rng.uniform(0.3, 2.0)]
    ends = np.cumsum(phases)
    names = ("suspect", "fenced", "cut", "replay_done", "resumed")
    marks = {n: t0 + int(e * NS_PER_MS) for n, e in zip(names, ends, strict=True)}
    marks |= {"fault": t0, "replay_start": marks["cut"] + 20_000}
    return [
        {
            "t0_ns": t0,
            "view": 2,
            "detect_kind": "death",
            "detect_ms": phases[0],
            "fence_ms": phases[1],
            "cut_ms": phases[2],
            "replay_ms": phases[3],
            "resume_ms": phases[4],
            "total_ms": float(ends[-1]),
            "packets_replayed": replayed,
            "pals_replayed": replayed * 3,
            "pals_dropped": 4,
            "outage_ms": float(ends[-1]) + 0.3,
            "protected_again_ms": 900.0,
            "marks_ns": marks,
        }
    ]


def make_recoveries(
    effective: dict[str, Any], trial: experiments.Trial, start_ns: int, rng: np.random.Generator
) -> list[dict[str, Any]] | None:
    """One failover, or ten where the experiment kills again and again to have many."""
    often = trial.experiment.startswith("recovery_cow")
    made = [make_recovery(effective, start_ns, rng) or [] for _ in range(10 if often else 1)]
    every = [entry for one in made for entry in one]
    return sorted(every, key=lambda entry: entry["t0_ns"]) or None


def make_faults(effective: dict[str, Any], start_ns: int) -> list[dict[str, Any]]:
    """Every fault of the spec, three times where it repeats, each role in turn."""
    found = []
    many = any(fault["repeat"] for fault in effective["faults"])
    for incident in range(6 if many else 1):
        for index, fault in enumerate(effective["faults"]):
            roles = fault["role"] if isinstance(fault["role"], list) else [fault["role"]]
            at_s = 0.1 + 0.4 * incident + 0.01 * index
            follows = fault["after"] not in (None, "protected")
            found.append({
                "index": index, "do": fault["do"], "role": roles[incident % len(roles)],
                "at_s": at_s, "t0_ns": start_ns + int(at_s * 1e9), "end_ns": None,
                "process": "r0", "pid": 1, "slot": 0, "link": None, "problem": None,
                "incident": incident if follows or index == 0 else incident + 100,
                "guaranteed": True, "missing": [], "recovered_ms": 4.0 + incident,
                "protected_again_ms": 500.0, "outage_ms": 5.0,
            })  # fmt: skip
    return found


def make_memory(effective: dict[str, Any]) -> str:
    """Constant memory, once a second."""
    rows = ["t_s,what,kb,calm"]
    for second in range(int(effective["duration_s"]) + 1):
        rows += [f"{second},{what},{kb},1" for what, kb in (("replicas", 90_000), ("ol", 50_000))]
    return "\n".join(rows) + "\n"


def make_timeline(
    effective: dict[str, Any], record: dict[str, Any], rng: np.random.Generator
) -> str:
    """1 ms bins; during an outage nothing is delivered, afterwards the backlog is."""
    bins = int(effective["duration_s"] * 1000)
    rate = effective["traffic"]["rate_pps"]
    per_ms = (record["throughput_pps"] if rate == "max" else rate) / 1000
    offered = np.full(bins, per_ms)
    delivered = rng.normal(per_ms, per_ms * 0.01, bins)
    latency = rng.lognormal(11.5, 0.4, bins)
    for entry in record["recovery"] or []:
        first = (entry["t0_ns"] - record["window"]["start_ns"]) / NS_PER_MS
        last = first + entry["total_ms"]
        for t in range(bins):
            if first <= t < last:
                delivered[t], latency[t] = 0, 0
            elif last <= t < last + 4:
                delivered[t] += per_ms * entry["total_ms"] / 4
                latency[t] = (t - first) * NS_PER_MS
    rows = ["t_ms,offered,delivered,latency_max_ns,latency_p50_ns,latency_p99_ns"]
    rows += [
        f"{t},{offered[t]:.0f},{max(delivered[t], 0):.0f},{latency[t]:.0f},{latency[t] / 4:.0f},"
        f"{latency[t] / 2:.0f}"
        for t in range(bins)
    ]
    return "\n".join(rows) + "\n"


def make_record(
    effective: dict[str, Any], trial: experiments.Trial, rng: np.random.Generator
) -> dict[str, Any]:
    """A record of the real shape; raises where it is not."""
    start_ns = 5_000_000_000_000 + trial.position * 4_000_000_000
    mode, rate = effective["ft"]["mode"], effective["traffic"]["rate_pps"]
    top = MAX_MPPS[mode] * 1e6 * rng.normal(1, 0.02)
    reached = top if rate == "max" else min(rate, top)
    count = int(reached * effective["duration_s"])
    protected = mode == "ftmb"
    record = {
        "version": 1,
        "valid": True,
        "started": f"2026-01-01T10:{trial.position // 60 % 60:02d}:{trial.position % 60:02d}Z",
        "spec": effective,
        "environment": environment(),
        "versions": versions(),
        "setup": {"ready_ms": 900.0, "protected_ms": 950.0 if protected else None},
        "window": {"start_ns": start_ns, "end_ns": start_ns + int(effective["duration_s"] * 1e9)},
        "packets": packets(count),
        "throughput_pps": reached,
        "offered_pps": reached,
        "late": 3,
        "latency_ns": None if rate == "max" else {"count": 200_000, "p50": 14_000.0},
        "noise": {str(cpu): noise(rng) for cpu in (0, 1)},
        "snapshot": synthetic_snapshots.summary(effective, rng) if protected else None,
        "log": log(reached, effective) if protected else None,
        "memory": None,
        "fill": None,
        "state_bytes": synthetic_snapshots.state_bytes(effective),
        "nf": {"mappings": 10_000},
        "faults": make_faults(effective, start_ns),
        "recovery": make_recoveries(effective, trial, start_ns, rng),
        "endpoints": None,
        "checks": checks(effective) if protected else [],
        "events": {"window_start": 1},
        "stats": [],
        "files": {"histogram": "histogram.json", "timeline": "timeline.csv"},
    }
    Record.model_validate(record)
    return record


def checks(effective: dict[str, Any]) -> list[dict[str, Any]]:
    """Checks that all pass."""
    names = ["exactly_once", "equal_replay", "state_digest", "nf:pool", *effective["expect"]]
    return [{"name": n, "verdict": "pass", "figure": 0, "detail": ""} for n in names]


def packets(count: int) -> dict[str, int]:
    """Counts of a run in which nothing went wrong."""
    zero = ("refused_before_log", "dropped_by_nf", "lost", "lost_in_hand", "lost_before_log",
            "duplicated", "reordered", "corrupted")  # fmt: skip
    same = ("offered", "accepted", "outputs_produced", "delivered")
    return {**dict.fromkeys(same, count), **dict.fromkeys(zero, 0)}


def noise(rng: np.random.Generator) -> dict[str, Any]:
    """A hiccup meter's report of an ordinary virtual machine."""
    top = float(rng.lognormal(13.5, 0.8))
    return {
        "count": 1_000_000, "p50": 80.0, "p99": 900.0, "p999": float(rng.lognormal(10, 0.4)),
        "max": top, "over_1ms": int(top > 1e6),
    }  # fmt: skip


def log(reached: float, effective: dict[str, Any]) -> dict[str, Any]:
    """Logs that hold a little more than one period of traffic."""
    period = effective["ft"]["snapshot"]["period_ms"]
    engine = effective["ft"]["snapshot"]["engine"]
    held = reached * (effective["duration_s"] if engine == "none" else 1.3 * period / 1000)
    return {
        "pals": int(reached * 3), "pal_bytes": int(reached * 24), "bytes_per_packet": 24.0,
        "input_log_peak_bytes": int(held * 76), "input_log_capacity_bytes": 2 * 64 * 2**20,
        "output_log_peak_bytes": int(held * 24), "output_log_capacity_bytes": 2 * 4_194_304 * 8,
        "full_events": 0,
    }  # fmt: skip


def environment() -> dict[str, Any]:
    """A machine that does not exist."""
    return {
        "cpu": {
            "model": "synthetic processor", "cores": 2, "available": [0, 1], "governor": None,
            "hypervisor": "synthetic", "microcode": None,
        },
        "memory_mb": 8192, "kernel": "6.1.0", "kernel_command_line": "quiet", "os": "Debian 12",
        "clocksource": "tsc", "thp": "madvise", "niceness": 0, "load_1min": 0.1,
        "placement": {"traffic": 0, "il": 0, "ol": 0, "workers": [1, 1]},
        "processes": {"traffic": "loggers", "il": "loggers", "ol": "loggers"},
        "idle": "yield", "scheduler": "other",
    }  # fmt: skip


def versions() -> dict[str, Any]:
    """Versions that name themselves as made up."""
    return {
        "ftmb": "0.1.0", "node": "synthetic", "node_git": "0000000", "node_sha256": "00",
        "compiler": "12.2.0", "flags": "-O2", "dpdk": "DPDK 22.11.11", "git": "0000000",
        "dirty": False, "python": "3.11", "packages": {"pydantic": "2"},
    }  # fmt: skip
