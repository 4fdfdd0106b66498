"""Figure of the comparison with what people run today: outage, and what was lost."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ftmb.analysis import peers
from ftmb.analysis.records import Results
from ftmb.figures import COLOURS, WIDTH, Plot, bare

COLOUR = {"nosync": "floor", "stock": "p200", "safe": "none", "keepalived": "p50", "ftmb": "ftmb"}
MARK = {"nosync": "x", "stock": "^", "safe": "s", "keepalived": "D", "ftmb": "o"}
NARROW, BROAD = 0.03, 0.12


def data(results: Results) -> pd.DataFrame:
    """A row for each crash of the runs over tables and of the run with all arms."""
    frame = peers.crashes(results)
    frame = frame[frame["run"].str.startswith(("table", "arms"))]
    return frame[["run", "arm", "table", "outage_ms", "floor_ms", "lost", "misdelivered"]]


def draw(table: pd.DataFrame) -> Figure:
    """Left: outage against the table; right: mappings lost and misdelivered in each crash."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.6), width_ratios=[3, 2])
    rng = np.random.default_rng(1)
    arms = [arm for arm in peers.ARMS if (table["arm"] == arm).any()]
    for arm in arms:
        part = table[(table["arm"] == arm) & np.isfinite(table["outage_ms"])]
        spread = part["table"] * np.exp(rng.uniform(-NARROW, NARROW, len(part)))
        left.scatter(spread, part["outage_ms"], s=14, color=COLOURS[COLOUR[arm]],
                     marker=MARK[arm], linewidths=0.9, label=peers.WORDS[arm])  # fmt: skip
        medians = part.groupby("table")["outage_ms"].median()
        left.plot(medians.index, medians, color=COLOURS[COLOUR[arm]], linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="mappings in the table", ylabel="outage (ms)")
    all_arms = table[table["run"].str.startswith("arms")]
    for place, arm in enumerate(arms):
        part = all_arms[all_arms["arm"] == arm]
        for shift, key, fill in ((-0.15, "lost", True), (0.15, "misdelivered", False)):
            colour = COLOURS[COLOUR[arm]]
            right.scatter(place + shift + rng.uniform(-BROAD, BROAD, len(part)), part[key], s=14,
                          marker=MARK[arm], linewidths=0.9, color=colour if fill else "none",
                          edgecolors=None if MARK[arm] == "x" else colour)  # fmt: skip
    right.set_yscale("symlog", linthresh=1)
    right.set_ylim(bottom=-0.3)
    right.set_xticks(range(len(arms)), [peers.WORDS[arm].replace(", ", ",\n") for arm in arms],
                     rotation=30, ha="right")  # fmt: skip
    right.set_ylabel("in each crash: lost | misdelivered")
    for axes in (left, right):
        bare(axes)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=5)
    return figure


PLOTS = [Plot("peers", (), data, draw)]
