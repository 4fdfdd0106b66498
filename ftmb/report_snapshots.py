"""Tables of the report on snapshots: ratios of the tail, engines, cost, recovery."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ftmb.analysis import stats
from ftmb.analysis.records import Results
from ftmb.analysis.snapshots import (
    LEVELS,
    comparisons,
    crashes,
    kind_words,
    pairs_at_maximum,
    ratios,
)
from ftmb.report_layout import MISSING, Table, number

BENCHES = ("flip", "cow")


def _interval(estimate: stats.Estimate | None, form: str) -> str:
    if estimate is None:
        return MISSING
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def snapshot_ratios(results: Results) -> Table:
    """Percentiles as multiples of those without snapshots, with verdicts."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    runs: dict[tuple[str, str], int] = {}
    for ratio in ratios(results):
        key = (ratio.group.words, ratio.words)
        text = _interval(ratio.estimate, ".2f" if ratio.estimate.value < 10 else ",.0f")
        if ratio.bound is not None:
            text += f"; ≤ {ratio.bound:g} {ratio.verdict}"
        cells.setdefault(key, {})[ratio.level] = text
        runs[key] = ratio.estimate.n
    rows = [(*key, *(line.get(level, MISSING) for level in LEVELS), str(runs[key]))
            for key, line in cells.items()]  # fmt: skip
    note = (
        "Median of the ratios of pairs, 95 % interval from resampling pairs. The verdict of a row; "
        "that of the claim is over all rows that it names."
    )
    head = ("load", "snapshots", *LEVELS, "pairs")
    return Table(head, _once(rows), note, 2, True, "Ratios to the runs without snapshots")


def snapshot_engines(results: Results) -> Table:
    """Waits, sizes and bounds of each engine and period."""
    rows: list[Sequence[str]] = []
    frame = results.frame.set_index("trial")
    for group in comparisons(results, "tail"):
        for kind, trials in group.kinds.items():
            part = frame.loc[[trial.id for trial in trials]]
            taken = part["snapshots"].sum()
            if not taken:
                continue
            rows.append(
                (
                    group.words,
                    kind_words(kind, trials[0]),
                    *_counts(part),
                    *(_median(part, f"pause_{level}", 1e-3) for level in ("p50", "p99", "p999")),
                    number(pd.to_numeric(part["pause_max"]).max(), ",.0f", 1e-3),
                    number(part["snapshot_bytes"].sum() / taken, ",.2f", 1e-6),
                    number(part["snapshot_lines"].sum() / taken),
                    _fill(part),
                    number(pd.to_numeric(part["staging_peak_bytes"]).max(), ",.1f", 1e-6),
                )
            )
    head = ("load", "snapshots", "taken / skipped / abandoned", "reached (ms)", "wait p50 (µs)",
            "p99", "p99.9", "longest", "MB each", "lines each", "undo peak of bound (MB)",
            "staging peak (MB)")  # fmt: skip
    note = (
        "Waits: medians over runs of each run's percentile, and the longest of any. Undo: the most "
        "that a worker's log held, of its bound; where it is full the snapshot is abandoned, the "
        "last one kept. Reached: median time between two snapshots."
    )
    return Table(head, _once(rows), note, 2, True, "Engines")


def _once(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The rows with their first cell left empty where it is that of the row above."""
    above = [None, *(row[0] for row in rows)]
    return [
        ("" if row[0] == before else row[0], *row[1:])
        for row, before in zip(rows, above, strict=False)
    ]


def _counts(part: pd.DataFrame) -> list[str]:
    keys = ("snapshots", "snapshots_skipped", "snapshots_abandoned")
    counts = " / ".join(number(part[key].sum()) for key in keys)
    return [counts, _median(part, "period_reached_ms", 1)]


def _median(part: pd.DataFrame, key: str, scale: float) -> str:
    return number(pd.to_numeric(part[key]).median(), ",.1f", scale)


def _fill(part: pd.DataFrame) -> str:
    peak = pd.to_numeric(part["undo_peak_bytes"]).max()
    bound = pd.to_numeric(part["undo_bytes_limit"]).max()
    if pd.isna(peak) or pd.isna(bound):
        return MISSING
    return f"{peak / 1e6:,.1f} of {bound / 1e6:,.1f}"


def snapshot_cost(results: Results) -> Table:
    """Throughput with snapshots as a ratio, and what that is for each packet."""
    rows = []
    table = pairs_at_maximum(results)
    if not table.empty:
        for (load, words), part in table.groupby(["load", "words"], sort=False):
            rows.append(
                (
                    str(load),
                    str(words),
                    number(part["pps"].median(), ".2f", 1e-6),
                    number(part["none_pps"].median(), ".2f", 1e-6),
                    _interval(stats.median(part["ratio"].tolist()), ".3f"),
                    _interval(stats.median(part["added_ns"].tolist()), "+.0f"),
                    str(len(part)),
                )
            )
    head = ("load", "snapshots", "Mpps", "Mpps without", "ratio", "ns for each packet", "pairs")
    note = "Medians of pairs, 95 % intervals. Time of the CPUs that the workers have."
    return Table(head, rows, note, 2, title="Cost in the packet path")


def snapshot_recovery(results: Results) -> Table:
    """Recovery with `cow` by load, size and period."""
    rows = []
    table = crashes(results)
    if not table.empty:
        keys = ["rate", "period_ms", "state_mb"]
        for (rate, period, size), part in table.groupby(keys, dropna=False):
            rows.append((str(rate), number(size, ",.3g"), f"{period:g}", *_recovery(part)))
    head = ("load", "state (MB)", "period (ms)", "p50", "p90", "longest", "replay p50", "replayed",
            "times as fast", "noticed by", "n")  # fmt: skip
    note = (
        "Milliseconds from the kill to the first new output. Times as fast: packets replayed per "
        "second against the rate at which they had come, median."
    )
    return Table(head, rows, note, 1, True, "Recovery with “cow”")


def _recovery(part: pd.DataFrame) -> list[str]:
    total, span = pd.to_numeric(part["total_ms"]), pd.to_numeric(part["replay_span_ms"])
    packets = pd.to_numeric(part["packets_replayed"])
    shares = [number(total.quantile(p), ",.2f") for p in (0.5, 0.9, 1.0)]
    speed = (1000 * packets / span / part["rate_pps"])[span > 0].median()
    kinds = part["detect_kind"].value_counts()
    noticed = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    return [*shares, number(span.median(), ",.2f"), number(packets.median()),
            number(speed, ",.1f"), noticed, str(len(part))]  # fmt: skip


def snapshot_benches(results: Results) -> Table:
    """The benches of the flip and of the marks, as they printed it."""
    rows: list[Sequence[str]] = []
    for name in BENCHES:
        lines = results.benches.get(name) or ["not made: make bench"]
        rows += [(name, line.strip()) for line in lines if line.strip() and line[0] != "{"]
    note = (
        "As printed. flip: how long a worker waits at the flip of an epoch; cow: what marks and "
        "saved lines cost per packet. Workers are fed from memory on a CPU each, and nothing else "
        "may run, so they are not part of the workflow. Again: make bench."
    )
    return Table(("bench", ""), _once(rows), note, 2, title="Benches without links and loggers")


TABLES = {
    "snapshot_ratios": snapshot_ratios,
    "snapshot_engines": snapshot_engines,
    "snapshot_cost": snapshot_cost,
    "snapshot_benches": snapshot_benches,
    "snapshot_recovery": snapshot_recovery,
}
