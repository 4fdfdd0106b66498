"""Figures of what the time between snapshots decides: recovery, replay, logs, cost; schedules."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ftmb.analysis.records import PHASES, Results
from ftmb.analysis.snapshot_metrics import throughput
from ftmb.analysis.snapshots import (
    RECOVERY,
    crashes,
    nf_of,
    pairs_at_maximum,
    schedule_words,
    snapshot_spec,
)
from ftmb.figures import COLOURS, WIDTH, Plot, bare, log_ticks

BY_PERIOD = ("recovery_cow", "recovery_cow_period")
BY_STATE = ("recovery_cow", "recovery_cow_state")
LOADS = {"given": ("cow", "o"), "share": ("stop-copy", "s")}
SCHEDULES = ("period", "log", "demand", "adaptive")


def recovery_data(results: Results) -> pd.DataFrame:
    """One row per crash with `cow`, over periods and over sizes."""
    return crashes(results)


def recovery(table: pd.DataFrame) -> Figure:
    """A dot per crash: left by period at one size, right by size at one period."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.9), sharey=True)
    by_period = table[table["experiment"].isin(BY_PERIOD)]
    by_state = table[table["experiment"].isin(BY_STATE) & (table["load"] == "given")]
    for axes, part, column, words in (
        (left, by_period, "period_ms", "snapshot every (ms)"),
        (right, by_state, "state_mb", "size of the state (MB)"),
    ):
        groups = sorted(part[column].dropna().unique())
        for place, group in enumerate(groups):
            for load in LOADS:
                mine = part[(part[column] == group) & (part["load"] == load)]
                both = part[part[column] == group]["load"].nunique() > 1
                _cluster(axes, mine, place + (0.2 if load == "share" else -0.2) * both)
        axes.set_xticks(range(len(groups)), [f"{group:g}" for group in groups])
        axes.set_xlim(-0.6, max(len(groups), 4) - 0.4)
        axes.set_xlabel(words)
        bare(axes, "y")
    log_ticks(left, "y")
    left.set_ylabel("kill to first new output (ms)")
    left.set_title("by period")
    right.set_title("by size of the state")
    names = table.drop_duplicates("load").set_index("load")["rate"]
    handles = [
        Line2D([], [], color=COLOURS[LOADS[load][0]], marker=LOADS[load][1], linewidth=0,
               markersize=4, label=f"a crash at {name}")
        for load, name in names.items()
    ]  # fmt: skip
    handles += [
        Line2D([], [], color=COLOURS["ink"], linewidth=2, label="median"),
        Line2D([], [], color=COLOURS["ink"], linewidth=0.9, label="90 %"),
        Line2D([], [], color=COLOURS["bad"], linewidth=1.6, linestyle=(0, (3, 1.5)),
               label="tolerance of the median"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=5, handlelength=1.6)
    return figure


def _cluster(axes: Axes, part: pd.DataFrame, place: float) -> None:
    """Crashes of one configuration, their median and 90 %; how many there are above them."""
    total = part["total_ms"].dropna().astype(float)
    if total.empty:
        return
    never = len(part) - len(total)
    tone, marker = LOADS[part["load"].iloc[0]]
    # Spread by golden steps: even, and the same each time.
    spread = (np.arange(len(total)) * 0.618 % 1 - 0.5) * 0.26
    axes.plot(place + spread, total, marker, color=COLOURS[tone], markersize=3.4, alpha=0.55,
              markeredgewidth=0)  # fmt: skip
    for share, width in ((0.5, 2.0), (0.9, 0.9)):
        axes.plot([place - 0.17, place + 0.17], [np.quantile(total, share, method="higher")] * 2,
                  color=COLOURS["ink"], linewidth=width)  # fmt: skip
    if part["bound"].notna().any():
        axes.plot([place - 0.2, place + 0.2], [part["bound"].max()] * 2, color=COLOURS["bad"],
                  linewidth=1.6, linestyle=(0, (3, 1.5)))  # fmt: skip
    words = f"n {len(total)}" + (f", {never} never" if never else "")
    axes.annotate(words, (place, total.max()), xytext=(0, 3), ha="center",
                  textcoords="offset points", fontsize=8, color=COLOURS["muted"])  # fmt: skip


def phases_data(results: Results) -> pd.DataFrame:
    """Medians of the phases, and of the whole, by configuration."""
    table = crashes(results)
    if table.empty:
        return table
    rows = []
    keys = ["rate", "state_mb", "period_ms"]
    for (rate, size, period), part in table.groupby(keys, sort=False, dropna=False):
        total = part["total_ms"].dropna().astype(float)
        if total.empty:
            continue
        medians = {phase: pd.to_numeric(part[phase]).median() for phase in PHASES}
        rows.append({"rate": rate, "state_mb": size, "period_ms": period, **medians,
                     "total_ms": total.median(), "p90_ms": total.quantile(0.9),
                     "max_ms": total.max(), "crashes": len(total)})  # fmt: skip
    return pd.DataFrame(rows).sort_values(["rate", "period_ms", "state_mb"])


def phases(table: pd.DataFrame) -> Figure:
    """A bar per configuration made of the median phases; the median whole and 90 % beside it."""
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.3 * len(table)))
    for place, (_, row) in enumerate(table.iterrows()):
        left = 0.0
        for phase in PHASES:
            if pd.notna(row[phase]):
                axes.barh(place, row[phase], left=left, height=0.7, linewidth=0,
                          color=COLOURS[phase.removesuffix("_ms")])  # fmt: skip
                left += float(row[phase])
        axes.plot([row["total_ms"], row["p90_ms"]], [place] * 2, color=COLOURS["ink"], linewidth=1)
        axes.plot(row["total_ms"], place, "o", color=COLOURS["ink"], markersize=4)
        axes.plot(row["p90_ms"], place, "|", color=COLOURS["ink"], markersize=8)
    words = [
        f"{r['rate']}, {r['state_mb']:g} MB, every {r['period_ms']:g} ms, n = {r['crashes']}"
        for _, r in table.iterrows()
    ]
    axes.set_yticks(range(len(table)), words)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds from the kill, medians of phases")
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
    bare(axes, "x")
    names = [phase.removesuffix("_ms") for phase in PHASES]
    handles: list[Patch | Line2D] = [Patch(color=COLOURS[name], label=name) for name in names]
    handles += [
        Line2D([], [], color=COLOURS["ink"], marker="o", markersize=4, linewidth=0,
               label="median of the whole"),
        Line2D([], [], color=COLOURS["ink"], marker="|", markersize=8, linewidth=0, label="90 %"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=7, handlelength=1)
    return figure


def replay_data(results: Results) -> pd.DataFrame:
    """One row per crash with `cow`: packets replayed and the time that it took."""
    table = crashes(results)
    if table.empty:
        return table
    columns = ["trial", "rate", "load", "rate_pps", "period_ms", "state_mb", "packets_replayed",
               "replay_span_ms"]  # fmt: skip
    table = table[(table["packets_replayed"] > 0) & (table["replay_span_ms"] > 0)]
    table = table[columns].astype({"packets_replayed": float, "replay_span_ms": float})
    speed = 1000 * table["packets_replayed"] / table["replay_span_ms"]
    return table.assign(times_as_fast=speed / table["rate_pps"])


def replay(table: pd.DataFrame) -> Figure:
    """Left: time against packets, and how fast they had come. Right: the ratio of the two."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.5))
    for load, (tone, marker) in LOADS.items():
        part = table[table["load"] == load]
        if part.empty:
            continue
        words = f"{part['rate'].iloc[0]}, n = {len(part)}"
        left.plot(part["packets_replayed"], part["replay_span_ms"], marker, color=COLOURS[tone],
                  markersize=3.6, alpha=0.6, markeredgewidth=0, label=words)  # fmt: skip
        ends = np.array([part["packets_replayed"].min(), part["packets_replayed"].max()])
        left.plot(ends, 1000 * ends / part["rate_pps"].median(), color=COLOURS[tone], linewidth=1,
                  linestyle=(0, (4, 2)), label="as fast as they had come")  # fmt: skip
        ordered = np.sort(part["times_as_fast"])
        right.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), color=COLOURS[tone])
        middle = len(ordered) // 2
        right.plot(ordered[middle], 0.5, marker, color=COLOURS[tone], markersize=5)
    for axes in (left, right):
        log_ticks(axes, "x")
    log_ticks(left, "y")
    left.set(xlabel="packets replayed", ylabel="replay (ms)", title="each replay")
    left.legend(loc="upper left", handlelength=1.6)
    right.axvline(2, color=COLOURS["bad"], linewidth=1.2, linestyle=(0, (4, 3)))
    right.axvline(1, color=COLOURS["muted"], linewidth=1)
    right.set_ylim(0, 1.02)
    right.set(xlabel="times as fast as the packets had come", ylabel="share of replays",
              title="speed")  # fmt: skip
    return figure


def trade_data(results: Results) -> pd.DataFrame:
    """What each period costs in log memory, replay time, and time of a worker for each packet."""
    rows = []
    for trial in results.counted(*BY_PERIOD):
        log, period = trial.record.get("log"), snapshot_spec(trial)["period_ms"]
        if log and trial.rate_share is None:
            peak = log["input_log_peak_bytes"] + log["output_log_peak_bytes"]
            rows.append({"trial": trial.id, "what": "logs (MB)", "period_ms": period,
                         "value": peak / 1e6, "of": nf_of(trial)})  # fmt: skip
    found = crashes(results, *BY_PERIOD)
    for _, row in found.iterrows():
        if row["load"] == "given" and pd.notna(row["replay_span_ms"]):
            labels = {"trial": row["trial"], "what": "replay (ms)", "of": row["nf"]}
            rows.append({**labels, "period_ms": row["period_ms"], "value": row["replay_span_ms"]})
    for _, row in pairs_at_maximum(results).iterrows():
        rows.append({"trial": row["trial"], "what": "cost (ns for each packet)",
                     "period_ms": row["period_ms"], "value": row["added_ns"],
                     "of": row["load"].partition(",")[0]})  # fmt: skip
    return pd.DataFrame(rows)


def trade(table: pd.DataFrame) -> Figure:
    """A panel for each, a dot per run or crash, a line through the medians."""
    panels = ("logs (MB)", "replay (ms)", "cost (ns for each packet)")
    figure, all_axes = plt.subplots(1, 3, figsize=(WIDTH, 3.1))
    for axes, what in zip(all_axes, panels, strict=True):
        mine = table[table["what"] == what]
        for nf, tone, marker in (("nat", "cow", "o"), ("monitor", "stop-copy", "s")):
            part = mine[mine["of"] == nf]
            if part.empty:
                continue
            axes.plot(part["period_ms"], part["value"], marker, color=COLOURS[tone], markersize=3.6,
                      alpha=0.5, markeredgewidth=0)  # fmt: skip
            medians = part.groupby("period_ms")["value"].median()
            axes.plot(medians.index, medians, color=COLOURS[tone],
                      label=f"{nf}, n = {len(part)}")  # fmt: skip
        axes.set(title=what, xlabel="snapshot every (ms)")
        if mine.empty:
            axes.annotate("no record", (0.5, 0.5), xycoords="axes fraction", ha="center",
                          color=COLOURS["muted"])  # fmt: skip
            continue
        axes.set_xscale("log")
        periods = sorted(mine["period_ms"].unique())
        axes.set_xticks(periods, [f"{period:g}" for period in periods])
        axes.minorticks_off()
        axes.legend(loc="upper left")
        axes.margins(y=0.22)
        if mine["value"].min() >= 0:
            axes.set_ylim(bottom=0)
        else:
            axes.axhline(0, color=COLOURS["muted"], linewidth=0.8)
    return figure


def schedules_data(results: Results) -> pd.DataFrame:
    """One row per run and quantity of the four schedules."""
    rows = []
    by_trial = crashes(results, "schedules")
    for trial in results.counted("schedules"):
        spec, log = snapshot_spec(trial), trial.record.get("log") or {}
        labels = {"trial": trial.id, "schedule": spec["schedule"], "words": schedule_words(spec)}
        figures: dict[str, float | None] = {}
        if trial.record["spec"]["traffic"]["rate_pps"] == "max":
            pps = throughput(trial)
            figures["at the maximum (Mpps)"] = pps / 1e6 if pps else None
        else:
            figures["snapshots every (ms)"] = trial.record["snapshot"]["period_reached_ms"]
            keys = ("input_log_peak_bytes", "output_log_peak_bytes")
            figures["logs (MB)"] = sum(log[key] for key in keys) / 1e6 if log else None
            spans = (
                by_trial[by_trial["trial"] == trial.id]["replay_span_ms"] if len(by_trial) else []
            )
            figures["replay (ms)"] = next(iter(spans), None)
        rows += [{**labels, "what": w, "value": v} for w, v in figures.items() if v is not None]
    return pd.DataFrame(rows)


def schedules(table: pd.DataFrame) -> Figure:
    """A row for each schedule, a panel for each quantity; a dot per run, a bar at the median."""
    panels = ("snapshots every (ms)", "logs (MB)", "replay (ms)", "at the maximum (Mpps)")
    order = [name for name in SCHEDULES if name in set(table["schedule"])]
    figure, all_axes = plt.subplots(1, 4, figsize=(WIDTH, 0.9 + 0.42 * len(order)), sharey=True)
    for axes, what in zip(all_axes, panels, strict=True):
        mine = table[table["what"] == what]
        for place, name in enumerate(order):
            part = mine[mine["schedule"] == name]["value"].astype(float)
            axes.plot(part, [place] * len(part), "o", color=COLOURS["cow"], markersize=4.5,
                      alpha=0.6, markeredgewidth=0)  # fmt: skip
            if not part.empty:
                axes.plot([part.median()] * 2, [place - 0.3, place + 0.3], color=COLOURS["ink"],
                          linewidth=2)  # fmt: skip
                axes.annotate(f"n {len(part)}", (0.99, place), ha="right", va="bottom",
                              xycoords=("axes fraction", "data"), fontsize=8,
                              color=COLOURS["muted"])  # fmt: skip
        if mine.empty:
            axes.annotate("no record", (0.5, 0.5), xycoords="axes fraction", ha="center",
                          color=COLOURS["muted"])  # fmt: skip
        axes.set_xlabel(what)
        axes.set_xlim(0, None if mine.empty else 1.25 * mine["value"].max())
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        bare(axes, "x")
    words = table.drop_duplicates("schedule").set_index("schedule")["words"]
    labels = [words[n] if n in ("demand", "adaptive") else f"every {words[n]}" for n in order]
    all_axes[0].set_yticks(range(len(order)), labels)
    all_axes[0].set_ylim(len(order) - 0.4, -0.6)
    return figure


PLOTS = [
    Plot("cow_recovery", RECOVERY, recovery_data, recovery),
    Plot("cow_phases", RECOVERY, phases_data, phases),
    Plot("cow_replay", RECOVERY, replay_data, replay),
    Plot("snapshots_trade", (*BY_PERIOD, "cow_cost"), trade_data, trade),
    Plot("schedules", ("schedules",), schedules_data, schedules),
]
