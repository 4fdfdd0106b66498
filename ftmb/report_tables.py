"""Tables of the report: rows of text made from records. The page only lays them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from ftmb.analysis import stats
from ftmb.analysis.histogram import merge
from ftmb.analysis.metrics import (
    METRICS,
    MODES,
    by_period,
    functions,
    harmful,
    percentiles,
    runs,
    values,
)
from ftmb.analysis.records import PHASES, Results, Trial, builds
from ftmb.report_endpoints import TABLES as ENDPOINTS
from ftmb.report_functions import TABLES as FUNCTIONS
from ftmb.report_layout import MISSING, Table, number, summed
from ftmb.report_peers import TABLES as PEERS
from ftmb.report_reliability import TABLES as RELIABILITY
from ftmb.report_snapshots import TABLES as SNAPSHOTS

LEVELS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
TOO_FEW = "n too small"


def interval(estimate: stats.Estimate | None, form: str, scale: float = 1.0) -> str:
    """`value [low, high]`."""
    if estimate is None:
        return MISSING
    value, low, high = (v * scale for v in (estimate.value, estimate.low, estimate.high))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def microseconds(value_ns: float | None) -> str:
    """A latency in microseconds with three digits or so."""
    if value_ns is None:
        return TOO_FEW
    us = value_ns / 1000
    return f"{us:.1f}" if us < 100 else f"{us:,.0f}"


def throughput(results: Results) -> Table:
    """Median throughput of each function and mode with intervals and ratios to `none`."""
    rows = []
    for nf in functions(results, "throughput"):
        plain = values(runs(results, "throughput", nf, "none"), "throughput_pps")
        for mode in MODES:
            found = values(runs(results, "throughput", nf, mode), "throughput_pps")
            if not found:
                continue
            share = stats.ratio(found, plain) if mode != "none" else None
            rows.append(
                (
                    nf,
                    mode,
                    interval(stats.median(found), ".2f", 1e-6),
                    interval(share, ".0f", 100),
                    str(len(found)),
                )
            )
    note = (
        "Median of runs with a 95 % interval from resampling whole runs; with n runs it can be no "
        "wider than their range."
    )
    return Table(("function", "mode", "Mpps delivered", "% of none", "n"), rows, note, 2)


def _latency_cells(trials: Sequence[Trial]) -> list[str]:
    merged = merge([t.latency for t in trials if t.latency])
    cells = [microseconds(merged.percentile(p)) for p in LEVELS.values()]
    return [*cells, microseconds(merged.maximum()), f"{merged.total:,}", str(len(trials))]


def latency(results: Results) -> Table:
    """Percentiles of the merged runs at half of the maximum, and the median added to `none`."""
    rows = []
    for nf in functions(results, "latency"):
        plain = percentiles(runs(results, "latency", nf, "none"), 0.5)
        for mode in MODES:
            trials = [t for t in runs(results, "latency", nf, mode) if t.latency]
            if not trials:
                continue
            rate = trials[0].record["spec"]["traffic"]["rate_pps"]
            added = stats.difference(percentiles(trials, 0.5), plain) if mode != "none" else None
            cells = _latency_cells(trials)
            rows.append((nf, mode, f"{rate:,}", *cells, interval(added, "+.1f", 1e-3)))
    head = ("function", "mode", "rate (pps)", *LEVELS, "max", "samples", "n", "median over none")
    note = (
        "Microseconds, from the intended send time. Counts of all runs merged; a percentile is "
        "printed only if at least ten samples lie above it."
    )
    return Table(head, rows, note, 2, wide=True)


def tail(results: Results) -> Table:
    """Percentiles and pauses by snapshot period."""
    groups: list[tuple[str, list[Trial]]] = [("none after the first", results.of("nosnapshots"))]
    groups += [(f"every {p:g} ms", t) for p, t in by_period(results, "snapshots").items()]
    rows = []
    for label, trials in groups:
        trials = [t for t in trials if t.latency]
        if not trials:
            continue
        frame = results.frame[results.frame["trial"].isin([t.id for t in trials])]
        snapshots = frame["snapshots"].sum()
        size = frame["snapshot_bytes"].sum() / snapshots if snapshots else None
        rows.append(
            (
                label,
                *_latency_cells(trials),
                number(frame["pause_p50"].median(), ".2f", 1e-6),
                number(frame["pause_max"].max(), ".2f", 1e-6),
                f"{snapshots:.0f} / {number(frame['snapshots_skipped'].sum())}",
                number(size, ",.2f", 1e-6),
            )
        )
    head = ("snapshots", *LEVELS, "max", "samples", "n", "pause (ms)", "longest (ms)",
            "taken / skipped", "MB each")  # fmt: skip
    return Table(
        head, rows, "Latencies in microseconds. Pause: median, and longest of any.", 1, True
    )


def recovery(results: Results) -> Table:
    """Median of each phase, median and longest of the whole, by load and by period."""
    frame = results.recoveries
    rows: list[Sequence[str]] = []
    if not frame.empty:
        frame = frame[frame["counted"]]
        sweeps = (
            ("recovery_load", "rate_pps", "{:,.0f} pps"),
            ("recovery_period", "period_ms", "every {:g} ms"),
        )
        for experiment, key, form in sweeps:
            part = frame[frame["experiment"] == experiment]
            for group, sample in part.groupby(part[key].astype(float)):
                rows.append((form.format(group), *_recovery_cells(sample)))
        for (nf, period), sample in frame[frame["experiment"] == "crash"].groupby(
            ["nf", "period_ms"]
        ):
            rows.append((f"crashes: {nf}, every {period:g} ms", *_recovery_cells(sample)))
    phases = [phase.removesuffix("_ms") for phase in PHASES]
    head = ("configuration", *phases, "total", "longest", "outage", "replayed", "n")
    note = (
        "Milliseconds, medians; longest: of the totals. Total: from the kill to the first new "
        "output released. Outage: the longest silence at the sink."
    )
    return Table(head, rows, note, 1, True)


def _recovery_cells(sample: pd.DataFrame) -> list[str]:
    cells = [number(pd.to_numeric(sample[phase]).median(), ".2f") for phase in PHASES]
    total = pd.to_numeric(sample["total_ms"])
    cells += [number(total.median(), ".1f"), number(total.max(), ".1f")]
    cells += [number(pd.to_numeric(sample["outage_ms"]).median(), ".1f")]
    return [*cells, number(pd.to_numeric(sample["packets_replayed"]).median()), str(len(sample))]


def crashes(results: Results) -> Table:
    """Packets and checks of the crash trials by configuration."""
    frame = results.frame
    frame = frame[frame["experiment"].isin(["crash", "capture"])]
    rows = []
    for (nf, profile, period), part in frame.groupby(["nf", "profile", "period_ms"]):
        clean = len(part) - int(part.apply(harmful, axis=1).sum())
        counts = [summed(part[key]) for key in ("delivered", "lost", "duplicated",
                                                      "corrupted", "checks_failed")]  # fmt: skip
        cells = (f"{clean} of {len(part)}", str(int((~part["valid"]).sum())))
        rows.append((str(nf), str(profile), f"{period:g} ms", *counts, *cells))
    head = ("function", "packets", "snapshots every", "delivered", "lost", "duplicated",
            "corrupted", "checks failed", "unharmed", "not valid")  # fmt: skip
    return Table(head, rows, "Sums over the trials of each row.", 3)


def logs(results: Results) -> Table:
    """Largest peaks of both logs by experiment and period, with their bounds."""
    frame = results.frame
    frame = frame[(frame["mode"] == "ftmb") & frame["counted"]]
    rows = []
    for (experiment, nf), part in frame.groupby(["experiment", "nf"]):
        row = [str(experiment), str(nf)]
        for log in ("input", "output"):
            peak = pd.to_numeric(part[f"{log}_log_peak_bytes"]).max()
            bound = pd.to_numeric(part[f"{log}_log_capacity_bytes"]).min()
            row += [number(peak, ",.2f", 1e-6), number(bound, ",.0f", 1e-6)]
        per_packet = number(pd.to_numeric(part["bytes_per_packet"]).median(), ".1f")
        rows.append((*row, per_packet, number(part["refused_before_log"].sum()), str(len(part))))
    head = ("experiment", "function", "input peak (MB)", "bound", "output peak (MB)", "bound",
            "PAL bytes per packet", "refused", "n")  # fmt: skip
    note = (
        "Peaks: the largest of any trial of the row, over all workers. Where the rate is the "
        "maximum, a full log holds the generator back; otherwise input is refused, and counted."
    )
    return Table(head, rows, note, 2)


def floor(results: Results) -> Table:
    """The generator against itself."""
    rows = []
    for trial in results.of("floor"):
        record = trial.record
        cells = _latency_cells([trial])[:-1] if trial.latency else [MISSING] * 7
        rate = record["spec"]["traffic"]["rate_pps"]
        shown = rate if rate == "max" else f"{rate:,} pps"
        rows.append((shown, number(record["throughput_pps"], ".2f", 1e-6), *cells))
    head = ("rate", "Mpps delivered", *LEVELS, "max", "samples")
    return Table(head, rows, "Generator straight to sink, in one process. Microseconds.", 1)


def noise(results: Results) -> Table:
    """Stalls of the machine by CPU, over all trials; the A/A pair below them."""
    table = results.noise
    rows = []
    if not table.empty:
        for cpu, part in table.groupby("cpu"):
            seconds = pd.to_numeric(part["duration_s"]).sum()
            rate = part["over_1ms"].sum() / seconds
            cells = [number(part[k].median(), ",.1f", 1e-3) for k in ("p50", "p99", "p999")]
            longest = number(part["max"].max(), ",.0f", 1e-3)
            rows.append((f"CPU {cpu}", *cells, longest, f"{rate:.2f}", str(len(part))))
    note = "Microseconds; percentiles are medians over trials."
    for pair in METRICS["same_twice"](results):
        low, high = pair.low or 0.0, pair.high or 0.0
        note += (
            f" The same configuration (nat, none) measured under two names differed by "
            f"{pair.value:+.1f} % [{low:+.1f}, {high:+.1f}] in throughput: differences of that "
            "size are noise."
        )
    head = ("", "p50", "p99", "p99.9", "longest", "stalls over 1 ms per s", "trials")
    return Table(head, rows, note, 1)


def environment(results: Results) -> Table:
    """What the records say about the machine and the software, one line each."""
    first = results.trials[0].record
    rows: list[Sequence[str]] = []
    for title, key in (("", "environment"), ("", "versions")):
        rows += [(title + name, text) for name, text in _flat(first.get(key) or {})]
    note = "From the first record." if len(builds(results)) > 1 else ""
    return Table(("", ""), rows, note, 2)


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key} · ")
        elif isinstance(value, list):
            found.append((name, ", ".join(map(str, value))))
        else:
            found.append((name, MISSING if value is None else str(value)))
    return found


TABLES: dict[str, Callable[[Results], Table]] = {
    "throughput": throughput,
    "latency": latency,
    "tail": tail,
    "recovery": recovery,
    "crashes": crashes,
    "logs": logs,
    "floor": floor,
    "noise": noise,
    "environment": environment,
    **ENDPOINTS,
    **PEERS,
    **RELIABILITY,
    **SNAPSHOTS,
    **FUNCTIONS,
}
