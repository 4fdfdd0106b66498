"""Figures without crashes: throughput, latency percentiles, the tail by snapshot period."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftmb.analysis import stats
from ftmb.analysis.histogram import merge
from ftmb.analysis.metrics import MODES, by_period, functions, runs
from ftmb.analysis.records import Results, Trial
from ftmb.figures import COLOURS, WIDTH, Plot, bare, log_ticks, period_colour

TARGET_PPS = 1e6
# Curves are drawn from the 20th percentile on; below it one packet would stretch the axis.
LEFT_EDGE = 1.25


def throughput_data(results: Results) -> pd.DataFrame:
    """One row per run: function, mode, packets per second."""
    frame = results.frame
    chosen = frame[(frame["experiment"] == "throughput") & frame["valid"]]
    return chosen[["trial", "nf", "mode", "repetition", "throughput_pps", "offered_pps"]]


def throughput(table: pd.DataFrame) -> Figure:
    """A dot per run, a bar at the median with its interval; the target as a line."""
    names = sorted(table["nf"].unique())
    figure, all_axes = plt.subplots(
        1, len(names), figsize=(WIDTH, 2.7), sharex=True, sharey=True, squeeze=False
    )
    modes = [mode for mode in MODES if mode in set(table["mode"])]
    for axes, nf in zip(all_axes[0], names, strict=True):
        part = table[table["nf"] == nf].assign(mpps=lambda t: t["throughput_pps"] / 1e6)
        sns.stripplot(
            part,
            x="mpps",
            y="mode",
            hue="mode",
            order=modes,
            hue_order=modes,
            palette=[COLOURS[m] for m in modes],
            ax=axes,
            size=5,
            jitter=False,
            alpha=0.7,
            legend=False,
        )
        for place, mode in enumerate(modes):
            estimate = stats.median(part[part["mode"] == mode]["mpps"].tolist())
            if estimate:
                _estimate(axes, estimate, place, COLOURS[mode])
        axes.axvline(TARGET_PPS / 1e6, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.set(title=nf, xlabel="million packets per second, delivered", ylabel="")
        axes.set_xlim(left=0)
        axes.margins(x=0.14)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        bare(axes, "x")
    return figure


def _estimate(axes: Axes, estimate: stats.Estimate, place: int, colour: str) -> None:
    axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2.4)
    axes.plot([estimate.value] * 2, [place - 0.26, place + 0.26], color=colour, linewidth=2.4)
    axes.annotate(
        f"{estimate.value:.2f}", (estimate.value, place - 0.3), color=COLOURS["ink"],
        ha="center", va="bottom", fontsize=9,
    )  # fmt: skip


def curve(trials: Sequence[Trial], per_decade: int = 40, **labels: object) -> pd.DataFrame:
    """Percentile curve of the merged histograms, with the range of the single runs around it.

    `x` is 1/(1-p). The range covers the runs that have enough samples at that x.
    """
    single = [t.latency for t in trials if t.latency]
    if not single:
        return pd.DataFrame()
    merged = merge(single)
    rows = []
    for x, value in merged.curve(per_decade):
        p = 1 - 1 / x
        each = [v for h in single if (v := h.percentile(p)) is not None]
        low, high = (min(each), max(each)) if each else (None, None)
        rows.append({**labels, "x": round(x, 6), "percentile": 100 * p, "latency_ns": value,
                     "low_ns": low, "high_ns": high, "runs": len(each)})  # fmt: skip
    return pd.DataFrame(rows).assign(samples=merged.total)


def latency_data(results: Results) -> pd.DataFrame:
    """Percentile curves at half of the maximum by function and mode."""
    parts = [
        curve(runs(results, "latency", nf, mode), nf=nf, mode=mode)
        for nf in functions(results, "latency")
        for mode in MODES
    ]
    parts = [part for part in parts if not part.empty]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def latency(table: pd.DataFrame) -> Figure:
    """One panel per function, one line per mode."""
    names = sorted(table["nf"].unique())
    figure, all_axes = plt.subplots(
        1, len(names), figsize=(WIDTH, 3.5), sharex=True, sharey=True, squeeze=False
    )
    for axes, nf in zip(all_axes[0], names, strict=True):
        for mode in MODES:
            part = table[(table["nf"] == nf) & (table["mode"] == mode)]
            if not part.empty:
                _curve(axes, part, mode, COLOURS[mode])
        axes.set_title(nf)
        percentile_axis(axes, table["x"].max())
    all_axes[0][0].set_ylabel("latency (µs)")
    all_axes[0][0].legend(loc="upper left")
    return figure


def _curve(axes: Axes, part: pd.DataFrame, label: str, colour: str) -> None:
    part = part[part["x"] >= LEFT_EDGE]
    known = part.dropna(subset=["low_ns", "high_ns"])
    axes.fill_between(known["x"], known["low_ns"] / 1e3, known["high_ns"] / 1e3,
                      step="post", color=colour, alpha=0.16, linewidth=0)  # fmt: skip
    axes.step(part["x"], part["latency_ns"] / 1e3, where="post", color=colour, label=label)


def percentile_axis(axes: Axes, largest: float) -> None:
    """Log axis of 1/(1-p) labelled with percentiles; latency on a log axis too."""
    log_ticks(axes, "y")
    axes.set_xscale("log")
    places = [(10.0**k, _nines(k)) for k in range(1, 8)]
    inside = [(2.0, "50"), *((x, label) for x, label in places if x <= largest * 1.01)]
    axes.set_xticks([x for x, _ in inside], [label for _, label in inside])
    axes.minorticks_off()
    axes.set_xlabel("percentile (%)")


def _nines(k: int) -> str:
    return {1: "90", 2: "99"}.get(k, "99." + "9" * (k - 2))


def tail_data(results: Results) -> pd.DataFrame:
    """Percentile curves by snapshot period, and without snapshots."""
    parts = [curve(results.of("nosnapshots"), snapshots="none after the first", period_ms=None)]
    parts += [
        curve(trials, snapshots=f"every {period:g} ms", period_ms=period)
        for period, trials in by_period(results, "snapshots").items()
    ]
    parts = [part.astype({"period_ms": float}) for part in parts if not part.empty]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def tail(table: pd.DataFrame) -> Figure:
    """One line per period over the reference without snapshots."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.7))
    for label, part in table.groupby("snapshots", sort=False):
        period = part["period_ms"].iloc[0]
        colour = COLOURS["direct"] if pd.isna(period) else period_colour(period)
        _curve(axes, part, str(label), colour)
    percentile_axis(axes, table["x"].max())
    axes.set_ylabel("latency (µs)")
    axes.legend(loc="upper left", title="snapshots", alignment="left")
    return figure


PLOTS = [
    Plot("throughput", ("throughput",), throughput_data, throughput),
    Plot("latency", ("latency",), latency_data, latency),
    Plot("tail", ("snapshots", "nosnapshots"), tail_data, tail),
]
