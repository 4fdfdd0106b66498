"""Figures of the report: each is a table, and a drawing of that table and of nothing else.

`PLOTS` lists them. `data` turns records into the table that the page offers for download; `draw`
turns the table into an SVG. Colours are written into the SVG as the hex values of `COLOURS`; where
the page embeds it they become CSS variables, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftmb.analysis.records import Results

# Name of the CSS variable (without its dashes) and the colour in light mode.
COLOURS = {
    "ink": "#1c2128",
    "muted": "#5c6570",
    "line": "#d5dae1",
    "floor": "#98a1ab",
    "direct": "#6e7b8b",
    "none": "#2b6cb0",
    "ftmb": "#d2480e",
    "p20": "#6a3d9e",
    "p50": "#b23a86",
    "p100": "#d9572f",
    "p200": "#c98a12",
    "detect": "#3d74b9",
    "fence": "#7d62ab",
    "cut": "#b4588f",
    "replay": "#d7802a",
    "resume": "#4f9a68",
    "bad": "#b3261f",
    "good": "#1a7f4b",
    "open": "#7a5b00",
    "cow": "#cf4a12",
    "page": "#00806a",
    "fork": "#a8488a",
    "stop-copy": "#0b62ab",
}
# Engines differ in shape too, and periods in dashes, so that grey print can be read.
MARKERS = {"none": "|", "cow": "o", "page": "D", "fork": "^", "stop-copy": "s"}
DASHES: dict[float, Any] = {5.0: (0, (1, 1)), 10.0: (0, (3, 1.2)), 20.0: "-"}
PERIODS = (20.0, 50.0, 100.0, 200.0)
MAX_BYTES = 300_000
WIDTH = 9.2


@dataclass(frozen=True)
class Plot:
    """One figure: which experiments feed it, how its table is made, how it is drawn."""

    name: str
    experiments: tuple[str, ...]
    data: Callable[[Results], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    endpoints: bool = False  # it is of the records of `ftmb endpoints`


def theme() -> None:
    """Plain axes, text kept as text, ids that do not change from run to run."""
    sns.set_theme(
        style="ticks",
        rc={
            "svg.fonttype": "none",
            "svg.hashsalt": "ftmb",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9.5,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 9.5,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.title_fontsize": 9,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.edgecolor": COLOURS["muted"],
            "axes.labelcolor": COLOURS["ink"],
            "text.color": COLOURS["ink"],
            "xtick.color": COLOURS["muted"],
            "ytick.color": COLOURS["muted"],
            "grid.color": COLOURS["line"],
            "grid.linewidth": 0.7,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "figure.constrained_layout.use": True,
            "lines.linewidth": 1.6,
            "path.simplify_threshold": 0.4,
        },
    )


def period_colour(period_ms: float) -> str:
    """Colour of a snapshot period; one that has no colour of its own takes the nearest one's."""
    nearest = min(PERIODS, key=lambda known: abs(known - period_ms))
    return COLOURS[f"p{nearest:.0f}"]


def engine_colour(engine: str) -> str:
    """Colour of a snapshot engine; of none: ink, since all others are compared with it."""
    return COLOURS["ink" if engine == "none" else engine]


def nothing(text: str) -> Figure:
    """A drawing for a table without rows."""
    figure = plt.figure(figsize=(WIDTH, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=COLOURS["muted"])
    return figure


def reason(results: Results, plot: Plot) -> str:
    """Why a figure has nothing to show, and what makes it show something."""
    named = " or ".join(plot.experiments)
    made = results.of(*plot.experiments, valid=False)
    full = " TIER=full" if made and results.tier == "quick" else ""
    command = f'make trials{full} OF="{" ".join(plot.experiments)}"'
    lacking = {why for trial, why in results.left_out.items() if trial.startswith(plot.experiments)}
    if lacking and not made:
        return f"left out: {'; '.join(sorted(lacking))}"
    if not made and plot.experiments:
        return f"no record of {named}: {command}"
    valid = results.of(*plot.experiments) if plot.experiments else []
    if not valid:
        return f"no valid record for this figure{' among those of ' + named if named else ''}"
    return f"no valid record of {named} has what this figure shows: {command}"


def bare(axes: Axes, which: str = "y") -> None:
    """Keep grid lines of one direction only."""
    axes.grid(visible=False, axis="x" if which == "y" else "y")


def log_ticks(axes: Axes, which: str) -> None:
    """A log axis labelled with plain numbers at the decades inside its range, or closer."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    for steps in ((1.0,), (1.0, 2.0, 5.0)):
        every = [step * 10.0**k for k in range(-6, 10) for step in steps]
        ticks = [tick for tick in every if low <= tick <= high]
        if len(ticks) > 1:
            break
    axis.set_ticks(ticks, [f"{t:,.0f}" if t >= 1 else f"{t:g}" for t in ticks])
    axes.minorticks_off()


def render(figure: Figure) -> str:
    """The figure as SVG text without dates; raises where it is too large for the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    if len(text) > MAX_BYTES:
        raise ValueError(f"figure of {len(text)} bytes; at most {MAX_BYTES} fit the page")
    return text


def embed(svg: str, name: str, title: str) -> str:
    """SVG text made ready to stand inside the page: own ids, CSS colours, a title to read out."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|xlink:href="#|href="#|url\(#)', rf"\g<1>{name}-", body)
    for variable, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \2px", body)
    head = re.match(r"<svg[^>]*>", body)
    if head is None:
        raise ValueError(f"{name}: not an SVG")
    box = re.search(r'viewBox="[^"]*"', head[0])
    opening = (
        f'<svg class="plot" role="img" aria-labelledby="{name}-title" {box[0] if box else ""} '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{name}-title">{title}</title>'
    )
    return opening + body[head.end() :]


def plots() -> dict[str, Plot]:
    """All figures by name, in the order of the page."""
    from ftmb import (
        figures_endpoints,
        figures_engines,
        figures_functions,
        figures_latency,
        figures_machine,
        figures_peers,
        figures_periods,
        figures_recovery,
        figures_snapshots,
    )

    every = [
        *figures_latency.PLOTS,
        *figures_snapshots.PLOTS,
        *figures_engines.PLOTS,
        *figures_recovery.PLOTS,
        *figures_periods.PLOTS,
        *figures_functions.PLOTS,
        *figures_endpoints.PLOTS,
        *figures_peers.PLOTS,
        *figures_machine.PLOTS,
    ]
    return {plot.name: plot for plot in every}


def write(results: Results, out: Path, only: list[str] | None = None) -> list[Path]:
    """Write table and drawing of each figure into the directory `out`; the paths written."""
    theme()
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in plots().items():
        if only and name not in only:
            continue
        table = plot.data(results)
        drawn = nothing(reason(results, plot)) if table.empty else plot.draw(table)
        (out / f"{name}.csv").write_text(
            table.to_csv(index=False, float_format="%.9g"), encoding="utf-8"
        )
        (out / f"{name}.svg").write_text(render(drawn), encoding="utf-8")
        written += [out / f"{name}.csv", out / f"{name}.svg"]
    return written
