"""The measured quantities that claims name. Each is a function of all records.

A metric returns its parts: one per network function where it exists for each, else a single one.
A part carries a value with its interval, a unit, what it was computed from, and a note.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ftmb.analysis import reliability, stats
from ftmb.analysis.records import Results, Trial

US = 1e3
# From the least that can lie between generator and sink to the whole protocol.
MODES = ("direct", "none", "ftmb")


@dataclass(frozen=True)
class Part:
    """One measured value. `label` says of what; empty where there is only one."""

    label: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str = ""
    trials: list[str] = field(default_factory=list)
    twin: tuple[float, float] | None = None  # interval of a ratio that would be 1 without noise
    build: str | None = None  # hash of the data plane, where it may not be the one of the records
    lacks: str = ""  # why no claim can hold by it


Metric = Callable[[Results], list[Part]]
METRICS: dict[str, Metric] = {}


def metric(function: Metric) -> Metric:
    """Register a metric under the name of its function."""
    METRICS[function.__name__] = function
    return function


def runs(results: Results, experiment: str, nf: str, mode: str) -> list[Trial]:
    """The valid trials of one configuration."""
    return [t for t in results.of(experiment) if _nf(t) == nf and _mode(t) == mode]


def functions(results: Results, experiment: str) -> list[str]:
    """The network functions that an experiment ran."""
    return sorted({_nf(trial) for trial in results.of(experiment)})


def values(trials: list[Trial], key: str) -> list[float]:
    """A top-level figure of each record, where it is there."""
    return [float(t.record[key]) for t in trials if t.record.get(key) is not None]


def percentiles(trials: list[Trial], p: float) -> list[float]:
    """A percentile (ns) of each run's histogram, where samples suffice."""
    found = [t.latency.percentile(p) for t in trials if t.latency]
    return [value for value in found if value is not None]


def _nf(trial: Trial) -> str:
    return str(trial.record["spec"]["nf"]["name"])


def _mode(trial: Trial) -> str:
    return str(trial.record["spec"]["ft"]["mode"])


def _ids(*groups: list[Trial]) -> list[str]:
    return [trial.id for group in groups for trial in group]


def _part(
    label: str,
    estimate: stats.Estimate | None,
    unit: str,
    note: str,
    trials: list[str],
    scale: float,
) -> list[Part]:
    if estimate is None:
        return []
    ends = (estimate.low * scale, estimate.high * scale)
    return [Part(label, estimate.value * scale, unit, *ends, estimate.n, note, trials)]


@metric
def throughput_ftmb(results: Results) -> list[Part]:
    """Packets per second delivered under FTMB, in millions; the ratio to `none` beside it."""
    parts = []
    for nf in functions(results, "throughput"):
        ours, plain = (runs(results, "throughput", nf, mode) for mode in ("ftmb", "none"))
        share = stats.ratio(values(ours, "throughput_pps"), values(plain, "throughput_pps"))
        note = f"{share.value:.0%} of none" if share else ""
        estimate = stats.median(values(ours, "throughput_pps"))
        parts += _part(nf, estimate, "Mpps", note, _ids(ours, plain), 1e-6)
    return parts


@metric
def throughput_loss(results: Results) -> list[Part]:
    """Share of the throughput of `none` that FTMB costs (percent)."""
    parts = []
    for nf in functions(results, "throughput"):
        ours, plain = (runs(results, "throughput", nf, mode) for mode in ("ftmb", "none"))
        share = stats.ratio(values(ours, "throughput_pps"), values(plain, "throughput_pps"))
        if share:
            lost = stats.Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.n)
            parts += _part(nf, lost, "%", "", _ids(ours, plain), 100)
    return parts


@metric
def added_median_latency(results: Results) -> list[Part]:
    """Median latency under FTMB less that of `none`, same rate, same session (microseconds)."""
    parts = []
    for nf in functions(results, "latency"):
        ours, plain = (runs(results, "latency", nf, mode) for mode in ("ftmb", "none"))
        estimate = stats.difference(percentiles(ours, 0.5), percentiles(plain, 0.5))
        parts += _part(nf, estimate, "µs", _at_rate(ours), _ids(ours, plain), 1 / US)
    return parts


@metric
def mean_latency(results: Results) -> list[Part]:
    """Mean latency under FTMB at half of the maximum (microseconds)."""
    parts = []
    for nf in functions(results, "latency"):
        ours = runs(results, "latency", nf, "ftmb")
        means = [m for t in ours if t.latency and (m := t.latency.mean()) is not None]
        parts += _part(nf, stats.median(means), "µs", _at_rate(ours), _ids(ours), 1 / US)
    return parts


def _at_rate(trials: list[Trial]) -> str:
    rates = {trial.record["spec"]["traffic"]["rate_pps"] for trial in trials}
    return "at " + ", ".join(f"{int(rate):,} pps" for rate in sorted(rates)) if rates else ""


@metric
def recovery_longest(results: Results) -> list[Part]:
    """Longest time from a kill to the first new output, over every recovery (milliseconds)."""
    frame = results.recoveries
    if frame.empty:
        return []
    # Where a second fault hits while recovering, the first recovery is not to finish.
    frame = frame[frame["t0_ns"].notna() & (frame["experiment"] != reliability.EXPERIMENT)]
    unfinished = int(frame["total_ms"].isna().sum())
    total = frame["total_ms"].astype(float).fillna(float("inf"))
    if total.empty:
        return []
    note = f"median {total.median():.1f} ms of {len(total)} recoveries"
    if unfinished:
        note += f"; {unfinished} never finished"
    return [Part("", float(total.max()), "ms", None, None, len(total), note, list(frame["trial"]))]


@metric
def crashes_unharmed(results: Results) -> list[Part]:
    """Share of crashes in trials that lost, doubled, corrupted nothing and passed every check."""
    frame = judgeable(results.frame[results.frame["experiment"].isin(["crash", "chaos"])])
    if frame.empty:
        return []
    crashed = frame["failovers"].clip(lower=1)
    bad = frame.apply(harmful, axis=1) | (frame["counted"] & (frame["failovers"] < 1))
    count, harmed = int(crashed.sum()), int(crashed[bad].sum())
    bound = stats.failure_bound(harmed, count)
    sums = frame[["lost", "duplicated", "corrupted"]].sum(min_count=1)
    told = [f"{key} {'not measured' if pd.isna(n) else f'{n:.0f}'}" for key, n in sums.items()]
    note = (
        f"{count - harmed} of {count}; {', '.join(told)}; bounds the share of harmful crashes "
        f"below {_up(bound)} with 95 %"
    )
    share = 100 * (1 - harmed / count)
    return [Part("", share, "%", None, None, count, note, list(frame["trial"]))]


def _up(share: float) -> str:
    """A bound may only be rounded up."""
    return f"{-(-share * 100 // 1):.0f} %"


def harmful(row: pd.Series) -> bool:
    """Whether a trial lost, doubled or corrupted a packet, or failed a check.

    What a killed output logger had in hand is not held against it; docs/FAULTS.md says so.
    """
    hand = row.get("lost_in_hand")
    lost = row["lost"] - (hand if pd.notna(hand) else 0)
    counts = [lost, row["duplicated"], row["corrupted"], row["checks_failed"]]
    return any(pd.notna(count) and count > 0 for count in counts)


def judgeable(frame: pd.DataFrame) -> pd.DataFrame:
    """Trials whose counts may be used, and those that did harm even if theirs may not.

    Leaving the latter out would let the worst failures excuse themselves.
    """
    if frame.empty:
        return frame
    return frame[frame["counted"] | frame.apply(harmful, axis=1)]


@metric
def harmful_trials(results: Results) -> list[Part]:
    """Trials under FTMB, crashed or not, that lost, doubled or corrupted, or failed a check."""
    frame = judgeable(results.frame[results.frame["mode"] == "ftmb"])
    if frame.empty:
        return []
    bad = frame[frame.apply(harmful, axis=1)]
    delivered = frame["delivered"].sum()
    note = f"{len(frame)} trials, {delivered:,.0f} packets delivered"
    return [Part("", len(bad), "trials", None, None, len(frame), note, list(frame["trial"]))]


@metric
def log_fill(results: Results) -> list[Part]:
    """Highest fill of the input and of the output log in any trial (percent of its bound)."""
    frame = results.frame
    frame = frame[frame["counted"] & (frame["mode"] == "ftmb")]
    parts = []
    for name in ("input", "output"):
        peak = pd.to_numeric(frame[f"{name}_log_peak_bytes"])
        bound = pd.to_numeric(frame[f"{name}_log_capacity_bytes"])
        known = frame[peak.notna() & (bound > 0)]
        if known.empty:
            continue
        fill = (peak / bound).loc[known.index]
        worst = fill.idxmax()
        note = f"{peak[worst] / 1e6:.1f} of {bound[worst] / 1e6:.0f} MB"
        trials = list(known["trial"])
        parts.append(
            Part(f"{name} log", float(100 * fill[worst]), "%", None, None, len(known), note, trials)
        )
    return parts


@metric
def refused_inputs(results: Results) -> list[Part]:
    """Packets refused before the log, below saturation (rate given), over all such trials.

    Not those of the faults: while a logger is away, refusing is what is right.
    """
    frame = results.frame
    frame = frame[frame["experiment"] != reliability.EXPERIMENT]
    frame = frame[frame["counted"] & (frame["mode"] == "ftmb") & (frame["rate_pps"] != "max")]
    if frame.empty:
        return []
    total = float(frame["refused_before_log"].sum())
    trials = list(frame["trial"])
    return [Part("", total, "packets", None, None, len(frame), f"{len(frame)} trials", trials)]


@metric
def tail_growth(results: Results) -> list[Part]:
    """p99.9 latency with snapshots as a multiple of p99.9 without, per snapshot period."""
    plain = results.of("nosnapshots")
    reference = percentiles(plain, 0.999)
    parts = []
    for period, trials in by_period(results, "snapshots").items():
        tails = percentiles(trials, 0.999)
        growth = stats.ratio(tails, reference)
        if growth is None:
            continue
        note = f"{np.median(tails) / 1e6:.2f} ms against {np.median(reference) / 1e6:.2f} ms"
        parts += _part(f"{period:g} ms", growth, "×", note, _ids(trials, plain), 1)
    return parts


@metric
def snapshot_pause(results: Results) -> list[Part]:
    """Longest pause of the workers for one snapshot, per period (milliseconds)."""
    parts = []
    for period, trials in by_period(results, "snapshots").items():
        pauses = [t.record["snapshot"]["pause_ns"] for t in trials if t.record.get("snapshot")]
        longest = [float(pause["max"]) / 1e6 for pause in pauses if pause]
        if longest:
            halves = sorted(float(pause["p50"]) / 1e6 for pause in pauses if pause)
            note = f"median {halves[len(halves) // 2]:.2f} ms"
            label = f"{period:g} ms"
            parts.append(
                Part(label, max(longest), "ms", None, None, len(longest), note, _ids(trials))
            )
    return parts


def by_period(results: Results, experiment: str) -> dict[float, list[Trial]]:
    """The valid trials of an experiment by their snapshot period (ms), in rising order."""
    found: dict[float, list[Trial]] = {}
    for trial in results.of(experiment):
        period = float(trial.record["spec"]["ft"]["snapshot"]["period_ms"])
        found.setdefault(period, []).append(trial)
    return dict(sorted(found.items()))


@metric
def same_twice(results: Results) -> list[Part]:
    """Throughput of one configuration measured under two names: their difference (percent)."""
    first, second = runs(results, "throughput", "nat", "none"), results.of("again")
    share = stats.ratio(values(second, "throughput_pps"), values(first, "throughput_pps"))
    if share is None:
        return []
    off = stats.Estimate(share.value - 1, share.low - 1, share.high - 1, share.n)
    return _part("", off, "%", "A/A pair", _ids(first, second), 100)


@metric
def faults_gone_wrong(results: Results) -> list[Part]:
    """Incidents, over all rows of docs/FAULTS.md, that did not end as guaranteed."""
    table = reliability.incidents(results)
    parts = {row: reliability.of_row(table, row) for row in reliability.ROWS}
    if all(part.empty for part in parts.values()):
        return []
    harmed = set(results.frame[results.frame.apply(harmful, axis=1)]["trial"])
    wrong = sum(int((~p["guaranteed"].astype(bool) | p["trial"].isin(harmed)).sum())
                for p in parts.values())  # fmt: skip
    least = min(parts, key=lambda row: len(parts[row]))
    total = sum(map(len, parts.values()))
    note = f"{total} faults of {len(parts)} kinds, each at least {len(parts[least])} times"
    if parts[least].empty:
        note = f"{total} faults; never seen: {reliability.ROWS[least]}"
    trials = sorted({t for part in parts.values() for t in part["trial"]})
    return [Part("", wrong, "faults", None, None, len(parts[least]), note, trials)]


@metric
def chaos_harm(results: Results) -> list[Part]:
    """Packets lost, doubled or corrupted, and checks failed, in the chaos trials."""
    frame = judgeable(results.frame[results.frame["experiment"] == "chaos"])
    if frame.empty:
        return []
    keys = ("lost", "duplicated", "corrupted", "checks_failed")
    harm = sum(int(frame[key].fillna(0).abs().sum()) for key in keys)
    kills = int(frame["faults"].sum())
    seconds = frame["duration_s"].sum()
    note = f"{kills} kills, {seconds:,.0f} s of traffic"
    return [Part("", harm, "packets or checks", None, None, kills, note, list(frame["trial"]))]


@metric
def schedules_violated(results: Results) -> list[Part]:
    """Simulated schedules that broke an invariant."""
    made = results.reliability.get("sim")
    if made is None:
        return []
    first = made["seed_base"]
    note = f"seeds {first:,} to {first + made['schedules'] - 1:,}, {made['crashes']:,} crashes"
    return [Part("", len(made["violations"]), "schedules", None, None, made["schedules"], note)]


@metric
def plants_missed(results: Results) -> list[Part]:
    """Bugs planted on purpose that nothing found: in the program, and in the model."""
    made = results.reliability.get("plants") or {}
    planted = made.get("plants")
    modelled = (results.reliability.get("model") or {}).get("plants")
    parts = []
    if planted is not None:
        missed = [plant["id"] for plant in planted if not reliability.found(plant)]
        detail = _missed(missed)
        if made.get("left_out"):
            detail += f"; not looked for in this tier: {', '.join(made['left_out'])}"
        parts.append(Part("program", len(missed), "bugs", None, None, len(planted), detail))
    if modelled is not None:
        missed = [plant["id"] for plant in modelled if not plant["found"]]
        parts.append(Part("model", len(missed), "bugs", None, None, len(modelled), _missed(missed)))
    return parts


def _missed(names: list[str]) -> str:
    return f"missed: {', '.join(names)}" if names else "none missed"


@metric
def model_errors(results: Results) -> list[Part]:
    """Errors that the model checker found."""
    made = results.reliability.get("model")
    if made is None:
        return []
    models = made["models"]
    note = f"{len(models)} models, {sum(m['states'] for m in models):,} states"
    return [Part("", sum(m["errors"] for m in models), "errors", None, None, len(models), note)]
