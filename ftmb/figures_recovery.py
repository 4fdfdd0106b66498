"""Figures of crashes: one crash in 1 ms bins, recovery by load and by period, all crashes."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ftmb.analysis.records import PHASES, Results, Trial
from ftmb.figures import COLOURS, WIDTH, Plot, bare, log_ticks, period_colour

NS_PER_MS = 1e6
STEPS = {
    "fault": "killed",
    "suspect": "noticed",
    "fenced": "fenced",
    "cut": "cut",
    "replay_done": "replayed",
    "resumed": "released",
}
CRASHES = ("recovery_load", "recovery_period", "crash")


def example(results: Results) -> Trial | None:
    """The crash that the timeline shows: the one of median recovery time at 100 ms, on the NAT."""
    found = []
    for trial in results.counted(*CRASHES):
        entry = (trial.record.get("recovery") or [{}])[0]
        spec = trial.record["spec"]
        if None in (entry.get("total_ms"), entry.get("t0_ns"), trial.file("timeline")):
            continue
        usual = spec["nf"]["name"] == "nat" and spec["ft"]["snapshot"]["period_ms"] == 100
        found.append((not usual, entry["total_ms"], trial.id, trial))
    usual_ones = sorted(item for item in found if not item[0]) or sorted(found)
    return usual_ones[len(usual_ones) // 2][3] if usual_ones else None


def timeline_data(results: Results) -> pd.DataFrame:
    """1 ms bins around the kill, time counted from it; one further row for each step's mark."""
    trial = example(results)
    if trial is None or trial.window_start_ns is None:
        return pd.DataFrame()
    bins = trial.timeline()
    entry = trial.record["recovery"][0]
    t0_ns = entry["t0_ns"]
    if bins is None or bins.empty:
        return pd.DataFrame()
    bins = bins.assign(t_ms=bins["t_ms"] + (trial.window_start_ns - t0_ns) / NS_PER_MS)
    reach = max(4 * float(entry["total_ms"]), 40.0)
    bins = bins[(bins["t_ms"] >= -reach / 2 - 1) & (bins["t_ms"] <= reach)]
    marks = entry.get("marks_ns") or {"fault": t0_ns}
    rows = [
        {"t_ms": (at - t0_ns) / NS_PER_MS, "step": name}
        for name, at in sorted(marks.items(), key=lambda item: item[1])
        if name in STEPS
    ]
    joined = pd.concat([bins, pd.DataFrame(rows)], ignore_index=True)
    return joined.assign(trial=trial.id).sort_values("t_ms", kind="stable")


def timeline(table: pd.DataFrame) -> Figure:
    """Rate and latency against time, and the steps between the kill and the first new output."""
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(WIDTH, 5.6), height_ratios=[3, 2.4, 0.55]
    )
    steps, bins = table[table["step"].notna()], table[table["step"].isna()]
    top.step(bins["t_ms"], bins["offered"], where="post", color=COLOURS["muted"],
             linewidth=1.1, linestyle=(0, (4, 2)), label="offered")  # fmt: skip
    top.step(bins["t_ms"], bins["delivered"], where="post", color=COLOURS["ftmb"],
             label="delivered")  # fmt: skip
    top.fill_between(bins["t_ms"], 0, bins["delivered"], step="post", linewidth=0,
                     color=COLOURS["ftmb"], alpha=0.15)  # fmt: skip
    top.set(ylabel="packets per ms", xticklabels=[])
    top.set_ylim(bottom=0)
    top.legend(loc="upper left")
    seen = bins[bins["latency_max_ns"] > 0]
    for key, label, size in (("latency_max_ns", "largest", 9), ("latency_p50_ns", "median", 6)):
        colour = COLOURS["ftmb"] if key == "latency_max_ns" else COLOURS["none"]
        middle.scatter(seen["t_ms"], seen[key] / 1e6, s=size, color=colour, label=label,
                       linewidth=0)  # fmt: skip
    log_ticks(middle, "y")
    middle.set(ylabel="latency (ms)", xlabel="time since the kill (ms)")
    middle.legend(loc="upper left")
    for axes in (top, middle):
        axes.set_xlim(bins["t_ms"].min(), bins["t_ms"].max() + 1)
        for name in ("fault", "resumed"):
            for at in steps[steps["step"] == name]["t_ms"]:
                axes.axvline(at, color=COLOURS["ink"], linewidth=1)
                if axes is top:
                    axes.annotate(STEPS[name], (at, 1.0), xycoords=("data", "axes fraction"),
                                  xytext=(-3 if name == "fault" else 3, 2), fontsize=9,
                                  textcoords="offset points",
                                  ha="right" if name == "fault" else "left")  # fmt: skip
    _strip(bottom, steps)
    return figure


def _strip(axes: Axes, steps: pd.DataFrame) -> None:
    """The steps as one bar of phases, on an axis of its own scale."""
    rows = [(row["step"], float(row["t_ms"])) for _, row in steps.iterrows()]
    colours = {"suspect": "detect", "fenced": "fence", "cut": "cut", "replay_done": "replay",
               "resumed": "resume"}  # fmt: skip
    for (_, start), (name, end) in pairwise(rows):
        axes.barh(0, end - start, left=start, height=0.8, color=COLOURS[colours[name]], linewidth=0,
                  label=f"{STEPS[name]} {end - start:.2f}")  # fmt: skip
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.92), ncols=5, handlelength=1,
                columnspacing=1.4, borderaxespad=0)  # fmt: skip
    axes.set_ylim(-0.45, 0.45)
    axes.set_yticks([])
    axes.margins(x=0.01)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("the steps of this recovery, with their lengths (ms since the kill)")
    bare(axes, "x")


def _recoveries(results: Results, *experiments: str) -> pd.DataFrame:
    frame = results.recoveries
    if frame.empty:
        return pd.DataFrame()
    keep = frame["experiment"].isin(experiments) & frame["counted"] & frame["t0_ns"].notna()
    columns = ["trial", "nf", "rate_pps", "period_ms", "profile", *PHASES, "total_ms",
               "outage_ms", "packets_replayed", "detect_kind"]  # fmt: skip
    return frame[keep][columns].reset_index(drop=True)


def recovery_load_data(results: Results) -> pd.DataFrame:
    """One row per recovery of the sweep over the load."""
    table = _recoveries(results, "recovery_load")
    if table.empty:
        return table
    return table.assign(group=table["rate_pps"].astype(float)).sort_values(["group", "total_ms"])


def recovery_period_data(results: Results) -> pd.DataFrame:
    """One row per recovery of the sweep over the snapshot period."""
    table = _recoveries(results, "recovery_period")
    if table.empty:
        return table
    return table.assign(group=table["period_ms"].astype(float)).sort_values(["group", "total_ms"])


def _phases(table: pd.DataFrame, form: str) -> Figure:
    """A bar per recovery, split into its phases; bars of one group stand together."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.24 * len(table) + 0.12 * 4))
    place, ticks, labels = 0.0, [], []
    for group, part in table.groupby("group", sort=True):
        first = place
        for _, row in part.iterrows():
            _bar(axes, row, place)
            place += 1
        ticks.append((first + place - 1) / 2)
        labels.append(form.format(group))
        place += 0.6
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds from the kill to the first new output")
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
    axes.margins(x=0.09)
    handles = [Patch(color=COLOURS[phase.removesuffix("_ms")]) for phase in PHASES]
    names = [phase.removesuffix("_ms") for phase in PHASES]
    figure.legend(handles, names, loc="outside upper left", ncols=5, handlelength=1)
    bare(axes, "x")
    return figure


def _bar(axes: Axes, row: pd.Series, place: float) -> None:
    left = 0.0
    for phase in PHASES:
        length = row[phase]
        if pd.notna(length):
            colour = COLOURS[phase.removesuffix("_ms")]
            axes.barh(place, length, left=left, height=0.78, color=colour, linewidth=0)
            left += float(length)
    replayed = row["packets_replayed"]
    text = f" {left:.1f} ms" + (f", {replayed:,.0f} replayed" if pd.notna(replayed) else "")
    axes.annotate(text, (left, place), va="center", fontsize=8.5, color=COLOURS["muted"])


def recovery_load(table: pd.DataFrame) -> Figure:
    """Phases by offered load."""
    return _phases(table, "{:,.0f} pps")


def recovery_period(table: pd.DataFrame) -> Figure:
    """Phases by snapshot period."""
    return _phases(table, "every {:g} ms")


def crashes_data(results: Results) -> pd.DataFrame:
    """One row per recovery of the crash trials."""
    return _recoveries(results, "crash")


def crashes(table: pd.DataFrame) -> Figure:
    """Recovery time against what had to be replayed; distribution of the outage at the sink."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.3), width_ratios=[1.25, 1])
    periods = sorted(table["period_ms"].unique())
    palette = {period: period_colour(period) for period in periods}
    sns.scatterplot(
        table, x="packets_replayed", y="total_ms", hue="period_ms", style="nf", palette=palette,
        ax=left, s=34, linewidth=0, alpha=0.85, legend="brief",
    )  # fmt: skip
    left.set(xlabel="packets replayed", ylabel="recovery (ms)")
    left.set_ylim(bottom=0)
    handles, labels = left.get_legend_handles_labels()
    words = {"period_ms": "snapshots every", "nf": "function"}
    words |= {str(period): f"{period:g} ms" for period in periods}
    left.legend(handles, [words.get(label, label) for label in labels], loc="upper left")
    left.xaxis.set_major_formatter("{x:,.0f}")
    for period in periods:
        part = table[table["period_ms"] == period]["outage_ms"].dropna()
        if not part.empty:
            sns.ecdfplot(x=part, ax=right, color=palette[period], label=f"{period:g} ms")
    right.set(xlabel="longest silence at the sink (ms)", ylabel="share of crashes")
    right.set_xlim(left=0)
    return figure


PLOTS = [
    Plot("timeline", CRASHES, timeline_data, timeline),
    Plot("recovery_load", ("recovery_load",), recovery_load_data, recovery_load),
    Plot("recovery_period", ("recovery_period",), recovery_period_data, recovery_period),
    Plot("crashes", ("crash",), crashes_data, crashes),
]
