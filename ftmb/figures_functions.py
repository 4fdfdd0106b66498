"""Figures of what functions cost: the sweep of `monitor`, in one process and through all."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ftmb.analysis import costs
from ftmb.analysis.records import Results
from ftmb.figures import COLOURS, WIDTH, Plot, bare

STYLES = {0: "-", 50: (0, (4, 1.5)), 100: (0, (1, 1.2))}
COLUMNS = ["panel", "reads", "accesses", "mode", "ns"]


def sweep_data(results: Results) -> pd.DataFrame:
    """Nanoseconds of a packet in the bench, medians: a row for each case and mode."""
    table = costs.rows(results)
    lines = [
        {
            "panel": f"{row['workers']} worker{'s' if row['workers'] > 1 else ''}",
            "reads": int(row["reads"]), "accesses": row["pals"], "mode": mode,
            "ns": row[f"{mode}_ns"],
        }
        for _, row in table[table["reads"].notna()].iterrows()
        for mode in ("none", "ftmb")
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=COLUMNS)


def pipeline_data(results: Results) -> pd.DataFrame:
    """Nanoseconds between two packets delivered, medians of the runs."""
    table = costs.pipeline(results)
    lines = []
    for (accesses, sharing, reads), part in table.groupby(["accesses", "sharing", "reads"]):
        for mode in ("none", "ftmb"):
            words = "both workers share" if sharing == "2" else "each worker its own"
            ns = float((1e9 / part[f"{mode}_pps"]).median())
            lines.append(
                {"panel": words, "reads": reads, "accesses": accesses, "mode": mode, "ns": ns}
            )
    return pd.DataFrame(lines, columns=COLUMNS)


def sweep(table: pd.DataFrame) -> Figure:
    """A panel for each sharing: a line for each mode and share of reads."""
    panels = sorted(table["panel"].unique())
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(WIDTH, 3.4), sharey=True, squeeze=False
    )
    for axes, panel in zip(all_axes[0], panels, strict=True):
        part = table[table["panel"] == panel]
        for (mode, reads), line in part.groupby(["mode", "reads"]):
            line = line.sort_values("accesses")
            axes.plot(line["accesses"], line["ns"], color=COLOURS[mode], linestyle=STYLES[reads],
                      marker=".", label=f"{mode}, {reads} % reads")  # fmt: skip
        axes.set_title(panel)
        axes.set_xlabel("shared accesses of a packet")
        bare(axes)
    all_axes[0, 0].set_ylabel("ns a packet")
    all_axes[0, 0].set_ylim(bottom=0)
    handles, labels = all_axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


PLOTS = [
    Plot("function_sweep", (), sweep_data, sweep),
    Plot("function_pipeline", ("sweep",), pipeline_data, sweep),
]
