"""The trials on snapshots laid out for tables and figures: what is compared with what, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ftmb.analysis import claims, stats
from ftmb.analysis.metrics import METRICS
from ftmb.analysis.records import PHASES, Results, Trial
from ftmb.analysis.snapshot_metrics import PLAIN, TWIN, at_percentile, groups, pairs, throughput

ENGINES = ("none", "cow", "page", "fork", "stop-copy")
RECOVERY = ("recovery_cow", "recovery_cow_period", "recovery_cow_state")
LEVELS = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
# The claims on a ratio of the tail: metric, and the kind and level that it is of.
JUDGED = {
    ("cow-20", "p50"): "tail_p50",
    ("cow-20", "p99"): "tail_p99",
    ("cow-20", "p99.9"): "tail_p999",
    ("cow-5", "p99"): "tail_p99_often",
}


@dataclass(frozen=True)
class Group:
    """Runs that differ in how snapshots are taken and in nothing else: `kinds` by their names."""

    load: str
    state: str
    words: str
    kinds: dict[str, list[Trial]]

    @property
    def trials(self) -> list[Trial]:
        """All of them."""
        return [trial for part in self.kinds.values() for trial in part]


def comparisons(results: Results, experiment: str) -> Iterator[Group]:
    """The groups of an experiment, loads and sizes in rising order, kinds by engine and period."""
    found = []
    for names, by_kind in groups(results, experiment).items():
        kinds = {kind: [by[r] for r in sorted(by)] for kind, by in by_kind.items()}
        kinds = dict(sorted(kinds.items(), key=lambda item: _place(*item)))
        trials = [trial for part in kinds.values() for trial in part]
        words = f"{nf_of(trials[0])}, {size_words(trials)}, {rate_words(trials[0])}"
        load, state = (*names, "")[:2]
        order = (load != "200k", nf_of(trials[0]) != "nat", state_mb(trials) or 0.0, names)
        found.append((order, Group(load, state, words, kinds)))
    yield from (group for _, group in sorted(found, key=lambda item: item[0]))


def _place(kind: str, trials: Sequence[Trial]) -> tuple[int, bool, float, str]:
    """Without snapshots first, then engine by engine, the shortest period first."""
    spec = snapshot_spec(trials[0])
    return ENGINES.index(spec["engine"]), kind == TWIN, float(spec["period_ms"]), kind


def snapshot_spec(trial: Trial) -> dict[str, Any]:
    """How snapshots were taken."""
    spec: dict[str, Any] = trial.record["spec"]["ft"]["snapshot"]
    return spec


def nf_of(trial: Trial) -> str:
    """The network function."""
    return str(trial.record["spec"]["nf"]["name"])


def rate_words(trial: Trial) -> str:
    """The offered load in words."""
    if trial.rate_share is not None:
        return f"{100 * trial.rate_share:g} % of the maximum"
    rate = trial.record["spec"]["traffic"]["rate_pps"]
    return "at the maximum" if rate == "max" else f"{rate:,} pps"


def state_mb(trials: Sequence[Trial]) -> float | None:
    """Median size of the state (MB); None where no record tells it."""
    sizes = [float(t.record["state_bytes"]) for t in trials if t.record.get("state_bytes")]
    return float(np.median(sizes)) / 1e6 if sizes else None


def size_words(trials: Sequence[Trial]) -> str:
    """The size of the state in words."""
    size = state_mb(trials)
    return "size unknown" if size is None else f"{float(f'{size:.2g}'):g} MB"


def kind_words(kind: str, trial: Trial) -> str:
    """How snapshots were taken, in words: `cow, 20 ms`."""
    if kind in (PLAIN, TWIN):
        return "none" if kind == PLAIN else "none, again"
    spec = snapshot_spec(trial)
    return f"{spec['engine']}, {schedule_words(spec)}"


def schedule_words(spec: dict[str, Any]) -> str:
    """When snapshots were taken, in words."""
    return {
        "period": f"{spec['period_ms']:g} ms",
        "log": f"{spec['log_mb']:g} MB of log",
        "adaptive": f"replay of {spec['replay_target_ms']:g} ms",
        "demand": "on demand",
    }[str(spec["schedule"])]


@dataclass(frozen=True)
class Ratio:
    """A percentile with snapshots as a multiple of that without, and the verdict of its claim."""

    group: Group
    kind: str
    words: str
    level: str
    estimate: stats.Estimate
    bound: float | None = None
    verdict: str = ""


def ratios(results: Results) -> list[Ratio]:
    """Every kind against the reference of its group, pair by pair, the A/A pair included."""
    found = []
    verdicts = _verdicts(results)
    for group in comparisons(results, "tail"):
        plain = _by_repetition(group.kinds.get(PLAIN, []))
        for kind, trials in group.kinds.items():
            for level, p in LEVELS.items():
                a, b, _ = pairs(_by_repetition(trials), plain, at_percentile(p))
                estimate = stats.paired_ratio(a, b)
                if kind == PLAIN or estimate is None:
                    continue
                bound, verdict = verdicts.get((group.load, group.state, kind, level), (None, ""))
                words = kind_words(kind, trials[0])
                found.append(Ratio(group, kind, words, level, estimate, bound, verdict))
    return found


def _by_repetition(trials: Sequence[Trial]) -> dict[int, Trial]:
    return {trial.repetition: trial for trial in trials}


def _verdicts(results: Results) -> dict[tuple[str, str, str, str], tuple[float, str]]:
    """Bound and verdict of each ratio that a claim is about: those of the claims, none of ours."""
    stated = {claim.metric: claim for claim in claims.load(results.claims)}
    found = {}
    for (kind, level), name in JUDGED.items():
        claim = stated.get(name)
        for part in METRICS[name](results) if claim else []:
            assert claim is not None
            verdict = claims.judge_part(claim, part)
            found["200k", part.label, kind, level] = (claim.bound, verdict)
    return found


def median_run(trials: Sequence[Trial], p: float) -> Trial | None:
    """The run whose percentile is the median one of all: neither the best nor the worst."""
    figure = at_percentile(p)
    known = [(v, t.id, t) for t in trials if (v := figure(t)) is not None]
    return sorted(known, key=lambda item: item[:2])[len(known) // 2][2] if known else None


def crashes(results: Results, *experiments: str) -> pd.DataFrame:
    """One row per crash: the recovery, the load in words, the size of the state.

    experiments: all with `cow` and frequent snapshots if none is named.
    """
    frame = results.recoveries
    if frame.empty:
        return frame
    chosen = frame["experiment"].isin(experiments or RECOVERY)
    frame = frame[chosen & frame["counted"] & frame["t0_ns"].notna()]
    by_id = {trial.id: trial for trial in results.trials}
    trials = [by_id[name] for name in frame["trial"]]
    columns = ["trial", "experiment", "nf", "period_ms", *PHASES, "total_ms", "replay_span_ms",
               "packets_replayed", "detect_kind"]  # fmt: skip
    sizes = _sizes(trials)
    added = {
        "rate": [rate_words(trial) for trial in trials],
        "load": ["given" if trial.rate_share is None else "share" for trial in trials],
        "rate_pps": [float(trial.record["spec"]["traffic"]["rate_pps"]) for trial in trials],
        "state_mb": [sizes[_filled(trial)] for trial in trials],
        "bound": _recovery_bounds(results, trials),
    }
    return frame[columns].assign(**added).reset_index(drop=True)


def _filled(trial: Trial) -> str:
    """What decides how large the state is."""
    spec = trial.record["spec"]
    return json.dumps([spec["nf"], spec["traffic"]["flows"]], sort_keys=True)


def _sizes(trials: Sequence[Trial]) -> dict[str, float | None]:
    """The size of the state (MB, two digits) by what decides it: it differs a little by run."""
    by_cause: dict[str, list[Trial]] = {}
    for trial in trials:
        by_cause.setdefault(_filled(trial), []).append(trial)
    found = {cause: state_mb(part) for cause, part in by_cause.items()}
    return {c: None if size is None else float(f"{size:.2g}") for c, size in found.items()}


def _recovery_bounds(results: Results, trials: Sequence[Trial]) -> list[float | None]:
    """The bound of the claim that a crash counts for, if any."""
    stated = {claim.metric: claim.bound for claim in claims.load(results.claims)}
    names = {"200k": "recovery_at_200k", "half": "recovery_at_half"}
    return [
        stated.get(names.get(t.labels.get("load", ""), "")) if t.experiment == RECOVERY[0] else None
        for t in trials
    ]


def _worker_cpus(trial: Trial) -> int:
    """CPUs that the workers share: at the maximum each is busy all the time."""
    return len(set(trial.record["environment"]["placement"]["workers"]))


def pairs_at_maximum(results: Results) -> pd.DataFrame:
    """One row per pair of runs at the maximum: with snapshots, and without."""
    rows = []
    for group in comparisons(results, "cow_cost"):
        plain = {t.repetition: t for t in group.kinds.get(PLAIN, [])}
        for kind, trials in group.kinds.items():
            spec = snapshot_spec(trials[0])
            over, under, names = pairs({t.repetition: t for t in trials}, plain, throughput)
            for a, b, name in zip(over, under, names[::2], strict=True):
                if kind == PLAIN:
                    continue
                added = _worker_cpus(trials[0]) * 1e9 * (1 / a - 1 / b)
                labels = {"load": group.words, "words": kind_words(kind, trials[0])}
                labels |= {"engine": spec["engine"], "trial": name}
                figures = {"pps": a, "none_pps": b, "ratio": a / b, "added_ns": added}
                rows.append({**labels, "period_ms": float(spec["period_ms"]), **figures})
    return pd.DataFrame(rows)
