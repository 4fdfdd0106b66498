"""Metrics of snapshots: the tail with them against the tail without, their cost, recovery.

What is compared ran side by side, repetition by repetition: ratios are those of pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ftmb.analysis import costs, stats
from ftmb.analysis.metrics import Part, metric
from ftmb.analysis.records import Results, Trial

PLAIN, TWIN = "none", "again"  # the second is the first under another name
JUDGED_LOAD = "200k"  # at half of the maximum over much state, it is reported and not judged
Figure = Callable[[Trial], float | None]


def group_of(trial: Trial, axis: str = "snapshots") -> tuple[str, ...]:
    """What a trial has in common with those that it is compared with."""
    return tuple(name for key, name in trial.labels.items() if key != axis)


def groups(results: Results, experiment: str) -> dict[tuple[str, ...], dict[str, dict[int, Trial]]]:
    """Valid trials by what they have in common, then by engine and period, then by repetition."""
    found: dict[tuple[str, ...], dict[str, dict[int, Trial]]] = {}
    for trial in results.of(experiment):
        if "snapshots" in trial.labels:
            kinds = found.setdefault(group_of(trial), {})
            kinds.setdefault(trial.labels["snapshots"], {})[trial.repetition] = trial
    return found


def pairs(
    over: dict[int, Trial], under: dict[int, Trial], figure: Figure
) -> tuple[list[float], list[float], list[str]]:
    """The figures of both, repetition by repetition where both have one, and whose they are."""
    a, b, names = [], [], []
    for repetition in sorted(over.keys() & under.keys()):
        values = figure(over[repetition]), figure(under[repetition])
        if values[0] is not None and values[1] is not None:
            a.append(values[0])
            b.append(values[1])
            names += [over[repetition].id, under[repetition].id]
    return a, b, names


def at_percentile(p: float) -> Figure:
    """The latency (ns) at a percentile of a run, where its samples suffice."""
    return lambda trial: trial.latency.percentile(p) if trial.latency else None


def throughput(trial: Trial) -> float | None:
    """Packets per second delivered."""
    value = trial.record.get("throughput_pps")
    return None if value is None else float(value)


def stalls(trials: Sequence[Trial]) -> str:
    """What the machine itself did meanwhile: its stalls over a millisecond, per second."""
    meters = [(t.record.get("noise") or {}, float(t.record["spec"]["duration_s"])) for t in trials]
    rates = [max(m["over_1ms"] for m in meter.values()) / s for meter, s in meters if meter]
    return f"{np.median(rates):.1f} stalls over 1 ms a second" if rates else "stalls not measured"


def _tail(results: Results, kinds: Sequence[str], p: float) -> list[Part]:
    """Ratios of a percentile with snapshots to that without, at the load that is judged."""
    parts = []
    for (load, state), by_kind in groups(results, "tail").items():
        if load != JUDGED_LOAD or PLAIN not in by_kind:
            continue
        plain = by_kind[PLAIN]
        twins = stats.paired_ratio(*pairs(by_kind.get(TWIN, {}), plain, at_percentile(p))[:2])
        for kind in kinds:
            a, b, names = pairs(by_kind.get(kind, {}), plain, at_percentile(p))
            found = stats.paired_ratio(a, b)
            if found is None:
                continue
            note = f"{np.median(a) / 1e3:,.0f} µs against {np.median(b) / 1e3:,.0f} µs"
            if twins:
                note += f"; without against without {twins.low:.2f} to {twins.high:.2f}"
            note += f"; {stalls(list(plain.values()))}"
            label = f"{state} {kind}" if len(kinds) > 1 else state
            part = Part(label, found.value, "×", found.low, found.high, found.n, note, names)
            parts.append(replace(part, twin=(twins.low, twins.high) if twins else None))
    return parts


@metric
def tail_p50(results: Results) -> list[Part]:
    """Median latency with `cow` every 20 ms as a multiple of that without snapshots."""
    return _tail(results, ["cow-20"], 0.5)


@metric
def tail_p99(results: Results) -> list[Part]:
    """p99 latency with `cow` every 20 ms as a multiple of that without snapshots."""
    return _tail(results, ["cow-20"], 0.99)


@metric
def tail_p999(results: Results) -> list[Part]:
    """p99.9 latency with `cow` every 20 ms as a multiple of that without snapshots."""
    return _tail(results, ["cow-20"], 0.999)


@metric
def tail_p99_often(results: Results) -> list[Part]:
    """p99 latency with `cow` every 5 ms as a multiple of that without snapshots."""
    return _tail(results, ["cow-5"], 0.99)


@metric
def tail_others(results: Results) -> list[Part]:
    """p99.9 latency with engines that stop the workers as a multiple of that without snapshots."""
    return _tail(results, ["stop-copy-20", "fork-20"], 0.999)


@metric
def cow_cost(results: Results) -> list[Part]:
    """Share of the throughput that `cow` every 20 ms costs at the maximum (percent)."""
    parts = []
    for (function,), by_kind in groups(results, "cow_cost").items():
        a, b, names = pairs(by_kind.get("cow-20", {}), by_kind.get(PLAIN, {}), throughput)
        found = stats.paired_ratio(a, b)
        if found is None:
            continue
        trial = next(iter(by_kind[PLAIN].values()))
        cpus = len(set(trial.record["environment"]["placement"]["workers"]))
        added = np.median([cpus * (1e9 / x - 1e9 / y) for x, y in zip(a, b, strict=True)])
        note = f"{added:+.0f} ns of a worker's CPU for each packet"
        ends = (100 * (1 - found.high), 100 * (1 - found.low))
        parts.append(Part(function, 100 * (1 - found.value), "%", *ends, found.n, note, names))
    return parts


@metric
def flip_wait(results: Results) -> list[Part]:
    """How long a worker waits when an epoch is flipped, p99.9, in the bench (microseconds)."""
    parts = []
    made = costs.build(results)  # `make bench` makes both
    for line in results.benches.get("flip", []):
        if not line.startswith("{"):
            continue
        told = json.loads(line)
        label = f"{told['nf']}, {told['megabytes']} MB"
        note = f"longest {told['wait_max_ns'] / 1e3:.1f} µs"
        value = told["wait_p999_ns"] / 1e3
        parts.append(Part(label, value, "µs", n=told["flips"], note=note, build=made))
    return parts


def _entries(trials: Sequence[Trial]) -> list[tuple[Trial, dict[str, Any]]]:
    """Failovers that a fault of ours began."""
    return [
        (trial, entry)
        for trial in trials
        for entry in trial.record.get("recovery") or []
        if entry.get("t0_ns") is not None
    ]


def _chosen(results: Results, experiment: str, axis: str, name: str) -> list[Trial]:
    return [t for t in results.counted(experiment) if t.labels.get(axis) == name]


def totals(trials: Sequence[Trial]) -> list[float]:
    """Kill to first new output of every crash, ms; infinite where it never came."""
    found = [entry["total_ms"] for _, entry in _entries(trials)]
    return [float("inf") if ms is None else float(ms) for ms in found]


def _recovery(results: Results, load: str) -> list[Part]:
    trials = _chosen(results, "recovery_cow", "load", load)
    times = totals(trials)
    found = stats.median(times)
    if found is None:
        return []
    rates = {t.record["spec"]["traffic"]["rate_pps"] for t in trials}
    p90, worst = np.percentile(times, 90, method="higher"), max(times)
    note = f"p90 {p90:.1f} ms, longest {worst:.1f} ms of {len(times)} crashes at "
    note += ", ".join(f"{rate:,} pps" for rate in sorted(rates))
    names = [trial.id for trial in trials]
    return [Part("", found.value, "ms", found.low, found.high, len(times), note, names)]


@metric
def recovery_at_200k(results: Results) -> list[Part]:
    """Median time from a kill to the first new output, `cow` every 10 ms, 200,000 packets/s."""
    return _recovery(results, "200k")


@metric
def recovery_at_half(results: Results) -> list[Part]:
    """Median time from a kill to the first new output, `cow` every 10 ms, half of the maximum."""
    return _recovery(results, "half")


@metric
def replay_speed(results: Results) -> list[Part]:
    """Packets replayed per second as a multiple of the rate at which they had come."""
    trials = _chosen(results, "recovery_cow", "load", "half")
    speeds = []
    for trial, entry in _entries(trials):
        marks, packets = entry["marks_ns"], entry["packets_replayed"]
        if packets and {"replay_start", "replay_done"} <= marks.keys():
            took = (marks["replay_done"] - marks["replay_start"]) / 1e9
            speeds.append(packets / took / trial.record["spec"]["traffic"]["rate_pps"])
    found = stats.median(speeds)
    if found is None:
        return []
    names = [trial.id for trial in trials]
    return [Part("", found.value, "×", found.low, found.high, found.n, "at half load", names)]


@metric
def recovery_by_state(results: Results) -> list[Part]:
    """Median time to recover with the largest state as a multiple of that with the smallest."""
    ends = [_chosen(results, "recovery_cow_state", "state", name) for name in ("512mb", "1mb")]
    large, small = totals(ends[0]), totals(ends[1])
    found = stats.ratio(large, small)
    if found is None:
        return []
    note = f"{np.median(large):.1f} ms with 512 MB, {np.median(small):.1f} ms with 1 MB"
    names = [trial.id for trial in [*ends[0], *ends[1]]]
    return [Part("", found.value, "×", found.low, found.high, found.n, note, names)]
