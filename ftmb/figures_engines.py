"""Figures of the snapshot engines: how long workers wait, what is sent, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ftmb.analysis import stats
from ftmb.analysis.records import Results, Trial
from ftmb.analysis.snapshots import (
    ENGINES,
    Group,
    comparisons,
    kind_words,
    pairs_at_maximum,
    snapshot_spec,
    state_mb,
)
from ftmb.figures import COLOURS, DASHES, MARKERS, WIDTH, Plot, bare, engine_colour, log_ticks
from ftmb.figures_snapshots import grid

# Shares at which a distribution is kept: dense at its upper end.
SHARES = np.unique(np.concatenate([np.linspace(0, 1, 101), 1 - np.logspace(-2, -4, 20)]))
LIMIT = 0.10
# No wait at all has no place on a log axis; it is drawn here.
LEAST_NS = 100


def series(trials: Sequence[Trial]) -> pd.DataFrame:
    """Every snapshot of these trials that was taken in the window."""
    parts = [t.snapshots() for t in trials]
    parts = [part[part["t"] >= 0] for part in parts if part is not None]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _kinds(results: Results) -> list[tuple[Group, str, list[Trial], dict[str, object]]]:
    """Everything in the comparison that takes snapshots, with its labels."""
    found = []
    for group in comparisons(results, "tail"):
        for kind, trials in group.kinds.items():
            spec = snapshot_spec(trials[0])
            if spec["engine"] != "none":
                labels = {
                    "load": group.words,
                    "words": kind_words(kind, trials[0]),
                    "engine": spec["engine"],
                    "period_ms": float(spec["period_ms"]),
                }
                found.append((group, kind, trials, labels))
    return found


def pauses_data(results: Results) -> pd.DataFrame:
    """Quantiles of the longest wait of a worker at each snapshot, at the load that is judged."""
    parts = []
    for group, _, trials, labels in _kinds(results):
        taken = series(trials)
        if group.load == "200k" and not taken.empty:
            waits = np.quantile(taken["pause_ns"], SHARES, method="higher")
            parts.append(pd.DataFrame({**labels, "share": SHARES, "pause_ns": waits})
                         .assign(snapshots=len(taken), runs=len(trials)))  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def pauses(table: pd.DataFrame) -> Figure:
    """One panel per function and size; a line for each engine and period."""
    loads = list(table["load"].unique())
    figure, panels = grid(len(loads), 2.5)
    handles: dict[str, Line2D] = {}
    for axes, load in zip(panels, loads, strict=True):
        for words, part in table[table["load"] == load].groupby("words", sort=False):
            engine = part["engine"].iloc[0]
            colour, dashes = engine_colour(engine), DASHES.get(part["period_ms"].iloc[0], "-.")
            waits = _us(part["pause_ns"])
            axes.plot(waits, part["share"], color=colour, linestyle=dashes)
            handles[str(words)] = Line2D([], [], color=colour, linestyle=dashes, markersize=5,
                                         marker=MARKERS[engine])  # fmt: skip
            half = (part["share"] - 0.5).abs().argmin()
            axes.plot(waits.iloc[half], 0.5, MARKERS[engine], color=colour, markersize=5)
        counts = table[table["load"] == load]["snapshots"]
        axes.set_title(f"{load}, n = {_range(counts)}")
        axes.set_ylim(0, 1.02)
        log_ticks(axes, "x")
    for axes in panels[-2:]:
        axes.set_xlabel("longest wait of a worker (µs)")
    for axes in panels[::2]:
        axes.set_ylabel("share of snapshots")
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=5,
                  handlelength=2.2)  # fmt: skip
    return figure


def _us(waits_ns: pd.Series) -> pd.Series:
    """Microseconds for a log axis."""
    return waits_ns.clip(lower=LEAST_NS) / 1e3


def _range(counts: pd.Series) -> str:
    low, high = counts.min(), counts.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def stop_by_size_data(results: Results) -> pd.DataFrame:
    """One row per run: how long workers stood still, and fork(2) itself, against the state."""
    rows = []
    for _, _, trials, labels in _kinds(results):
        for trial in trials:
            told = trial.record["snapshot"]
            for what, key in (("stopped", "pause_ns"), ("fork", "fork_ns")):
                if told.get(key) and what in ("stopped", labels["engine"]):
                    ends = {"p50_ns": told[key]["p50"], "max_ns": told[key]["max"]}
                    size = {"state_mb": state_mb([trial]), "taken": told["taken"]}
                    rows.append({**labels, "trial": trial.id, "what": what, **size, **ends})
    return pd.DataFrame(rows)


def stop_by_size(table: pd.DataFrame) -> Figure:
    """Median and longest of each run, one panel for the whole wait, one for fork(2) alone."""
    figure, all_axes = plt.subplots(1, 2, figsize=(WIDTH, 3.4), sharex=True, sharey=True)
    handles: dict[str, Any] = {}
    titles = {"stopped": "wait of the workers", "fork": "fork(2) alone"}
    for axes, (what, title) in zip(all_axes, titles.items(), strict=True):
        mine = table[table["what"] == what]
        engines = [engine for engine in ENGINES if engine in set(mine["engine"])]
        for shift, engine in enumerate(engines):
            part = mine[mine["engine"] == engine]
            part = part.assign(state_mb=part["state_mb"] * 1.07 ** (shift - (len(engines) - 1) / 2))
            colour = engine_colour(engine)
            axes.scatter(part["state_mb"], _us(part["p50_ns"]), s=26, marker=MARKERS[engine],
                         color=colour, linewidth=0, alpha=0.75,
                         label=f"{engine}, n = {len(part)}")  # fmt: skip
            axes.scatter(part["state_mb"], _us(part["max_ns"]), s=20, marker=MARKERS[engine],
                         facecolor="none", edgecolor=colour, linewidth=0.8, alpha=0.75)  # fmt: skip
        axes.set(title=title, xlabel="size of the state (MB)")
        if not mine.empty:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        else:
            axes.annotate("no run of engine fork", (0.5, 0.5), xycoords="axes fraction",
                          ha="center", color=COLOURS["muted"])  # fmt: skip
    for axes in all_axes:
        axes.set_xscale("log")
        sizes: list[float] = []
        for size in sorted({float(f"{size:.2g}") for size in table["state_mb"].dropna()}):
            if not sizes or size > 1.2 * sizes[-1]:
                sizes.append(size)
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.set_xlim(min(sizes, default=1) / 1.5, max(sizes, default=1) * 2)
        axes.minorticks_off()
        log_ticks(axes, "y")
    all_axes[0].set_ylabel("median (filled), longest (hollow) (µs)")
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=5)
    return figure


def sent_data(results: Results) -> pd.DataFrame:
    """What a snapshot sends by engine, period, load and size: median and 5 to 95 %."""
    rows = []
    for group, _, trials, labels in _kinds(results):
        taken = series(trials)
        if taken.empty or (taken := taken[taken["full"] == 0]).empty:
            continue
        low, half, high = taken["bytes"].quantile([0.05, 0.5, 0.95])
        rows.append({**labels, "bytes": half, "bytes_p5": low, "bytes_p95": high,
                     "lines": taken["lines"].median(), "state_mb": state_mb(group.trials),
                     "snapshots": len(taken), "runs": len(trials)})  # fmt: skip
    return pd.DataFrame(rows)


def sent(table: pd.DataFrame) -> Figure:
    """One panel per load and size, a row per engine and period; the size of the state as a line."""
    loads = list(table["load"].unique())
    words = list(dict.fromkeys(table["words"]))
    figure, panels = grid(len(loads), 0.55 + 0.24 * len(words), 0.3)
    for axes, load in zip(panels, loads, strict=True):
        mine = table[table["load"] == load]
        for _, row in mine.iterrows():
            place, colour = words.index(row["words"]), engine_colour(row["engine"])
            axes.plot([row["bytes_p5"] / 1e6, row["bytes_p95"] / 1e6], [place] * 2, color=colour,
                      linewidth=1.4)  # fmt: skip
            axes.plot(row["bytes"] / 1e6, place, MARKERS[row["engine"]], color=colour, markersize=6)
            axes.annotate(f"{row['lines']:,.0f}", (0.995, place), ha="right", va="center",
                          xycoords=("axes fraction", "data"), fontsize=8.5,
                          color=COLOURS["muted"])  # fmt: skip
        state = mine["state_mb"].iloc[0]
        if pd.notna(state):
            axes.axvline(state, color=COLOURS["ink"], linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate("lines", (0.995, -0.75), ha="right", va="center", fontsize=8.5,
                      xycoords=("axes fraction", "data"), color=COLOURS["muted"])  # fmt: skip
        axes.set_title(load)
        axes.set_yticks(range(len(words)), words)
        axes.set_ylim(len(words) - 0.4, -1.1)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        bare(axes, "x")
    low, high = table["bytes_p5"].min() / 1e6, max(table["state_mb"].max(), 1e-6)
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xlim(low / 2, max(high, table["bytes_p95"].max() / 1e6) * 14)
        log_ticks(axes, "x")
    for axes in panels[-2:]:
        axes.set_xlabel("MB in a snapshot")
    return figure


def cost(table: pd.DataFrame) -> Figure:
    """Left the ratio of throughputs, right a worker's time for each packet; a dot per pair."""
    keys = list(dict.fromkeys(zip(table["load"], table["words"], strict=True)))
    figure, all_axes = plt.subplots(1, 2, figsize=(WIDTH, 1.1 + 0.34 * len(keys)), sharey=True)
    for axes, column in zip(all_axes, ("ratio", "added_ns"), strict=True):
        for place, (load, words) in enumerate(keys):
            part = table[(table["load"] == load) & (table["words"] == words)]
            colour = engine_colour(part["engine"].iloc[0])
            axes.plot(part[column], [place + 0.16] * len(part), "o", color=colour, markersize=4,
                      alpha=0.6, markeredgewidth=0)  # fmt: skip
            estimate = stats.median(part[column].tolist())
            assert estimate is not None
            axes.plot([estimate.low, estimate.high], [place - 0.12] * 2, color=colour, linewidth=2)
            axes.plot(estimate.value, place - 0.12, "|", color=colour, markersize=10,
                      markeredgewidth=2)  # fmt: skip
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.axvline(1 if column == "ratio" else 0, color=COLOURS["muted"], linewidth=1)
        axes.margins(x=0.1)
        bare(axes, "x")
    counts = [len(table[(table["load"] == a) & (table["words"] == b)]) for a, b in keys]
    labels = [
        f"{a.partition(',')[0]}, {b}, n = {n}" for (a, b), n in zip(keys, counts, strict=True)
    ]
    all_axes[0].set_yticks(range(len(keys)), labels)
    all_axes[0].set_ylim(len(keys) - 0.4, -0.6)
    all_axes[0].axvline(1 - LIMIT, color=COLOURS["bad"], linewidth=1.2, linestyle=(0, (4, 3)))
    all_axes[0].set(title="throughput", xlabel="ratio to none")
    all_axes[1].set(title="time of a worker", xlabel="ns for each packet, over none")
    handles = [
        Line2D([], [], color=COLOURS["ink"], marker="o", markersize=4, linewidth=0, label="a pair"),
        Line2D([], [], color=COLOURS["ink"], marker="|", markersize=10, label="median, 95 %"),
        Line2D([], [], color=COLOURS["bad"], linestyle=(0, (4, 3)), label="tolerance"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.6)
    return figure


PLOTS = [
    Plot("snapshots_pauses", ("tail",), pauses_data, pauses),
    Plot("snapshots_stop", ("tail",), stop_by_size_data, stop_by_size),
    Plot("snapshots_sent", ("tail",), sent_data, sent),
    Plot("cow_cost", ("cow_cost",), pairs_at_maximum, cost),
]
