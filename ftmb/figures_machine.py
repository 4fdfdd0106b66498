"""Figures of what the evaluation uses and suffers: log sizes, memory, the machine's stalls."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ftmb.analysis.records import Results
from ftmb.figures import COLOURS, WIDTH, Plot, log_ticks, period_colour

LOGS = ("input", "output")
STALL_NS = 1e6
DOTS = 400


def logs_data(results: Results) -> pd.DataFrame:
    """One row per trial under FTMB: peaks and bounds of both logs, bytes."""
    frame = results.frame
    chosen = frame[(frame["mode"] == "ftmb") & frame["counted"] & (frame["engine"] != "none")]
    columns = ["trial", "experiment", "nf", "period_ms", "throughput_pps", "profile"]
    columns += [f"{log}_log_{what}_bytes" for log in LOGS for what in ("peak", "capacity")]
    return chosen[columns].dropna(subset=["input_log_peak_bytes"])


def logs(table: pd.DataFrame) -> Figure:
    """Peak of each log against the packets of one snapshot period; its bound as a line."""
    figure, all_axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2), sharex=True, sharey=True)
    for axes, log in zip(all_axes, LOGS, strict=True):
        for period, part in table.groupby("period_ms"):
            x = part["throughput_pps"] * part["period_ms"] / 1000
            axes.scatter(x, part[f"{log}_log_peak_bytes"] / 1e6, s=22, linewidth=0, alpha=0.8,
                         color=period_colour(float(period)), label=f"{period:g} ms")  # fmt: skip
        bound = table[f"{log}_log_capacity_bytes"].min() / 1e6
        axes.axhline(bound, color=COLOURS["bad"], linewidth=1.1, linestyle=(0, (4, 3)))
        axes.annotate(f"bound {bound:,.0f} MB", (0.01, bound), xytext=(0, 3), fontsize=9,
                      xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
        axes.set(title=f"{log} log", xlabel="packets in one snapshot period")
        axes.margins(y=0.12)
    for axes in all_axes:
        log_ticks(axes, "x")
        log_ticks(axes, "y")
    all_axes[0].set_ylabel("peak (MB, all workers)")
    all_axes[0].legend(loc="lower right", title="snapshots every", alignment="left")
    return figure


def memory_data(results: Results) -> pd.DataFrame:
    """The samples of the longest chaos run, and when it was hit (rows with `what` = fault)."""
    trials = [t for t in results.counted("chaos") if t.memory() is not None]
    if not trials:
        return pd.DataFrame()
    trial = max(trials, key=lambda t: (float(t.record["spec"]["duration_s"]), t.id))
    samples = trial.memory()
    assert samples is not None
    start_ns = trial.window_start_ns or 0
    hits = [
        {"t_s": (fault["t0_ns"] - start_ns) / 1e9, "what": "fault"}
        for fault in trial.record.get("faults") or []
        if fault.get("t0_ns") is not None
    ]
    inside = samples[samples["t_s"].between(0, float(trial.record["spec"]["duration_s"]))]
    return pd.concat([inside, pd.DataFrame(hits)], ignore_index=True).assign(trial=trial.id)


def memory(table: pd.DataFrame) -> Figure:
    """A line for each process or group of them; the hits as ticks below."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    colours = ["ftmb", "none", "replay", "fence", "resume", "detect"]
    samples, hits = table[table["what"] != "fault"], table[table["what"] == "fault"]
    order = samples.groupby("what")["kb"].max().sort_values(ascending=False).index
    for what, colour in zip(order, colours, strict=False):
        part = samples[samples["what"] == what]
        axes.plot(part["t_s"], part["kb"] / 1024, color=COLOURS[colour], label=what)
    axes.plot(hits["t_s"], [0] * len(hits), "|", color=COLOURS["ink"], markersize=7, label="kill",
              clip_on=False)  # fmt: skip
    axes.set(xlabel="seconds", ylabel="resident memory (MB)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    figure.legend(loc="outside upper left", ncols=6, handlelength=1)
    return figure


def noise_data(results: Results) -> pd.DataFrame:
    """One row per trial and CPU in the order in which trials ran, stalls in nanoseconds."""
    table = results.noise
    if table.empty:
        return table
    table = table.sort_values(["started", "cpu"], kind="stable")
    order = {trial: place for place, trial in enumerate(table["trial"].unique())}
    return table.assign(order=table["trial"].map(order))


def noise(table: pd.DataFrame) -> Figure:
    """Longest stall and its 99.9th percentile of each trial, one panel per CPU.

    Where there are too many trials for a dot each, a dot is the largest of a few that follow one
    another.
    """
    cpus = sorted(table["cpu"].unique(), key=int)[:4]
    figure, all_axes = plt.subplots(
        1, len(cpus), figsize=(WIDTH, 2.9), sharex=True, sharey=True, squeeze=False
    )
    step = max(int(table["order"].max()) // DOTS + 1, 1)
    for axes, cpu in zip(all_axes[0], cpus, strict=True):
        part = table[table["cpu"] == cpu]
        part = part.groupby(part["order"] // step * step)[["max", "p999"]].max().reset_index()
        for key, label, colour in (("max", "longest", "ftmb"), ("p999", "99.9 %", "none")):
            axes.scatter(part["order"], part[key].clip(lower=1) / 1e6, s=11, linewidth=0,
                         color=COLOURS[colour], alpha=0.8, label=label)  # fmt: skip
        axes.axhline(STALL_NS / 1e6, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.set(title=f"CPU {cpu}", xlabel="trials in the order in which they ran")
    for axes in all_axes[0]:
        log_ticks(axes, "y")
    all_axes[0][0].set_ylabel("stall (ms)")
    all_axes[0][-1].legend(loc="upper right", ncols=2)
    return figure


PLOTS = [
    Plot(
        "logs",
        ("throughput", "latency", "snapshots", "crash", "recovery_load", "recovery_period"),
        logs_data,
        logs,
    ),
    Plot("memory", ("chaos",), memory_data, memory),
    Plot("noise", (), noise_data, noise),
]
