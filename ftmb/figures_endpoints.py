"""Figures of the endpoints' view: what TCP and page loads see of a crash."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ftmb.analysis import endpoints
from ftmb.analysis.records import Results
from ftmb.figures import COLOURS, WIDTH, Plot, bare

COLOUR = {"control": "muted", "ftmb": "ftmb", "cold": "none"}
DASH: dict[str, Any] = {"control": (0, (4, 2)), "ftmb": "-", "cold": (0, (1, 1))}
PANELS = (("mbps", "throughput (Mbit/s)"), ("cwnd", "congestion window (segments)"))


def window_data(results: Results) -> pd.DataFrame:
    """A row for each bin around the kills, arm and quantity, of the runs with bulk traffic."""
    rows = []
    for run, made in endpoints.read(results).items():
        line = made["timeline"]
        if endpoints.kind_of(run) != "bulk" or line is None:
            continue
        for key in ("mbps", "cwnd", "ssthresh"):
            for ms, low, mid, high in zip(
                line["ms"], *(line[key][q] for q in ("p10", "p50", "p90")), strict=True
            ):
                rows.append((made["spec"]["arm"], key, ms, low, mid, high))
    names = ["arm", "quantity", "ms", "p10", "p50", "p90"]
    return pd.DataFrame(rows, columns=names)


def window(table: pd.DataFrame) -> Figure:
    """Median over the kills, and the band that four of five lie in; all arms on one axis."""
    figure, all_axes = plt.subplots(2, 1, figsize=(WIDTH, 4.6), sharex=True)
    for axes, (key, label) in zip(all_axes, PANELS, strict=True):
        for arm in endpoints.ARMS:
            part = table[(table["arm"] == arm) & (table["quantity"] == key)]
            if part.empty:
                continue
            colour = COLOURS[COLOUR[arm]]
            axes.plot(part["ms"], part["p50"].astype(float), color=colour, linestyle=DASH[arm],
                      label=endpoints.WORDS[arm])  # fmt: skip
            axes.fill_between(part["ms"], part["p10"].astype(float), part["p90"].astype(float),
                              color=colour, alpha=0.15, linewidth=0)  # fmt: skip
        axes.axvline(0, color=COLOURS["bad"], linewidth=1)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        bare(axes)
    all_axes[-1].set_xlabel("time after the master was killed (ms)")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def pages_data(results: Results) -> pd.DataFrame:
    """Percentiles of the time of a page, in the windows after kills, by arm."""
    rows = []
    for run, made in endpoints.read(results).items():
        told = made["asked"].get("pages")
        if endpoints.kind_of(run) != "mixed" or not told or not told["ms_in_windows"]:
            continue
        for share, ms in told["ms_in_windows"].items():
            rows.append((made["spec"]["arm"], float(share), ms))
    return pd.DataFrame(rows, columns=["arm", "percentile", "ms"])


def pages(table: pd.DataFrame) -> Figure:
    """Share of the pages that took longer, against how long."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    for arm in endpoints.ARMS:
        part = table[table["arm"] == arm].sort_values("ms")
        if len(part):
            axes.plot(part["ms"], part["percentile"], marker="o", markersize=3,
                      color=COLOURS[COLOUR[arm]], linestyle=DASH[arm],
                      label=endpoints.WORDS[arm])  # fmt: skip
    axes.set(xscale="log", xlabel="time of a page (ms)", ylabel="of the pages so fast (%)")
    axes.minorticks_off()
    axes.legend(loc="lower right")
    return figure


PLOTS = [
    Plot("endpoints_window", ("endpoints",), window_data, window, endpoints=True),
    Plot("endpoints_pages", ("endpoints",), pages_data, pages, endpoints=True),
]
