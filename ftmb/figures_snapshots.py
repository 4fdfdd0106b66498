"""Figures of snapshots and latency: in time, by percentile, and as ratios with their verdicts."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ftmb.analysis import claims
from ftmb.analysis.histogram import merge
from ftmb.analysis.records import Results, Trial
from ftmb.analysis.snapshots import (
    ENGINES,
    LEVELS,
    Group,
    comparisons,
    kind_words,
    median_run,
    ratios,
    snapshot_spec,
)
from ftmb.figures import COLOURS, DASHES, MARKERS, WIDTH, Plot, bare, engine_colour, log_ticks
from ftmb.figures_latency import LEFT_EDGE, curve, percentile_axis

EXCERPT_MS = 200
NEAREST_MS = 20.0
NOISE = "the machine itself"
# Ratios beyond these are drawn at the edge, with their number.
EDGES = (0.7, 2.0)
SIGNS = {claims.HOLDS: ("✓", "good"), claims.FAILS: ("✗", "bad"), claims.OPEN: ("?", "open")}


def in_time_data(results: Results) -> pd.DataFrame:
    """1 ms bins of an excerpt, one run of each engine; a further row for each snapshot in it."""
    parts = []
    for group in list(comparisons(results, "tail"))[:1]:
        for engine in ENGINES:
            kind = _usual(group, engine)
            trial = median_run(group.kinds[kind], LEVELS["p99.9"]) if kind else None
            if kind and trial:
                labels = {"engine": engine, "words": kind_words(kind, trial), "load": group.words}
                parts += [part.assign(**labels, trial=trial.id) for part in _excerpt(trial)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _usual(group: Group, engine: str) -> str | None:
    """The kind of an engine whose period is nearest to the usual one."""
    specs = {kind: snapshot_spec(trials[0]) for kind, trials in group.kinds.items()}
    found = [kind for kind, spec in specs.items() if spec["engine"] == engine]
    return min(found, key=lambda k: abs(specs[k]["period_ms"] - NEAREST_MS), default=None)


def _excerpt(trial: Trial) -> Iterator[pd.DataFrame]:
    bins, marks = trial.timeline(), trial.snapshots()
    if bins is None:
        return
    first = 1000 * float(trial.record["spec"]["duration_s"]) / 4
    inside = bins[bins["t_ms"].between(first, first + EXCERPT_MS - 1)]
    columns = ["delivered", "latency_p50_ns", "latency_max_ns"]
    yield inside.assign(t_ms=inside["t_ms"] - first, what="bin")[["t_ms", "what", *columns]]
    if marks is not None and snapshot_spec(trial)["engine"] != "none":
        took_ns = marks[["pause_ns", "copy_ns"]].max(axis=1)
        end = 1e3 * marks["t"] - first
        marks = marks.assign(what="snapshot", t_ms=end - took_ns / 1e6, end_ms=end)
        marks = marks[(marks["end_ms"] >= 0) & (marks["t_ms"] < EXCERPT_MS)]
        yield marks[["what", "t_ms", "end_ms", "pause_ns", "bytes"]]


def in_time(table: pd.DataFrame) -> Figure:
    """One panel per engine on common axes: largest and median latency of each millisecond."""
    engines = [engine for engine in ENGINES if engine in set(table["engine"])]
    figure, all_axes = plt.subplots(
        len(engines), 1, figsize=(WIDTH, 0.8 + 1.25 * len(engines)), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axes, engine in zip(all_axes[:, 0], engines, strict=True):
        part = table[table["engine"] == engine]
        bins, marks = part[part["what"] == "bin"], part[part["what"] == "snapshot"]
        for _, mark in marks.iterrows():
            width = max(mark["end_ms"] - mark["t_ms"], 0.15)
            axes.axvspan(mark["t_ms"], mark["t_ms"] + width, color=COLOURS["line"], linewidth=0)
            axes.plot(mark["t_ms"], 0.97, marker="v", markersize=5, color=COLOURS["ink"],
                      transform=axes.get_xaxis_transform(), linewidth=0)  # fmt: skip
        for column, width, tone in (
            ("latency_max_ns", 1.2, engine_colour(engine)),
            ("latency_p50_ns", 1.0, COLOURS["muted"]),
        ):
            # Where nothing arrived there is no latency, and no line.
            latency = bins[column].where(bins["delivered"] > 0) / 1e3
            axes.step(bins["t_ms"], latency, where="post", linewidth=width, color=tone)
        pause = marks["pause_ns"].median() / 1e3 if len(marks) else float("nan")
        waits = f", median wait of a worker {pause:,.0f} µs" if len(marks) else ""
        axes.set_title(f"{part['words'].iloc[0]}: {len(marks)} snapshots{waits}")
    for axes in all_axes[:, 0]:
        log_ticks(axes, "y")
        axes.set_xlim(0, EXCERPT_MS)
    all_axes[-1, 0].set_xlabel("time in the excerpt (ms)")
    figure.supylabel("latency (µs)", fontsize=9.5, color=COLOURS["ink"])
    handles = [
        Line2D([], [], color=COLOURS["ink"], label="largest of each millisecond"),
        Line2D([], [], color=COLOURS["muted"], linewidth=1, label="median of each millisecond"),
        Line2D([], [], color=COLOURS["ink"], marker="v", linewidth=0, label="snapshot begins"),
        Patch(color=COLOURS["line"], label="until its lines are gathered"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, handlelength=1.4)
    return figure


def _curves(results: Results, judged: bool) -> pd.DataFrame:
    """Percentile curves of each group by kind, and those of the machine's own stalls."""
    parts = []
    for group in comparisons(results, "tail"):
        if (group.load == "200k") != judged:
            continue
        for kind, trials in group.kinds.items():
            spec = snapshot_spec(trials[0])
            labels = {"engine": spec["engine"], "period_ms": float(spec["period_ms"])}
            words = kind_words(kind, trials[0])
            parts.append(curve(trials, 20, load=group.words, words=words, **labels))
        parts.append(_stalls(group))
    parts = [part for part in parts if not part.empty]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _stalls(group: Group) -> pd.DataFrame:
    single = [trial.stalls for trial in group.trials if trial.stalls]
    if not single:
        return pd.DataFrame()
    merged = merge(single)
    rows = [
        {"load": group.words, "words": NOISE, "engine": "machine", "x": round(x, 6),
         "percentile": 100 * (1 - 1 / x), "latency_ns": value}
        for x, value in merged.curve(20)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(samples=merged.total, runs=len(single))


def curves_data(results: Results) -> pd.DataFrame:
    """Curves at the load that is judged."""
    return _curves(results, judged=True)


def curves_half_data(results: Results) -> pd.DataFrame:
    """Curves at half of the maximum."""
    return _curves(results, judged=False)


def grid(count: int, height: float = 3.0, top: float = 0.6) -> tuple[Figure, list[Axes]]:
    """Panels two abreast on common axes."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure, all_axes = plt.subplots(
        rows, columns, figsize=(WIDTH, top + height * rows), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for spare in all_axes.flat[count:]:
        spare.set_visible(False)
    return figure, list(all_axes.flat[:count])


def curves(table: pd.DataFrame) -> Figure:
    """One panel per group; colour by engine, dashes by period, the machine's stalls as an area."""
    loads = list(table["load"].unique())
    figure, panels = grid(len(loads), 3.1)
    for axes, load in zip(panels, loads, strict=True):
        mine = table[(table["load"] == load) & (table["x"] >= LEFT_EDGE)]
        floor = table["latency_ns"].min() / 1e3
        for words, part in mine.groupby("words", sort=False):
            if words == NOISE:
                axes.fill_between(part["x"], floor, part["latency_ns"] / 1e3, linewidth=0,
                                  color=COLOURS["line"], alpha=0.8, zorder=0)  # fmt: skip
            else:
                _line(axes, part, str(words))
        runs = mine[mine["engine"] != "machine"]["runs"].max()
        axes.set_title(f"{load}, n = {runs:.0f}")
        percentile_axis(axes, mine["x"].max())
        axes.set_xlabel("")
    for axes in panels[-2:]:
        axes.set_xlabel("percentile (%)")
    for axes in panels[::2]:
        axes.set_ylabel("latency (µs)")
    _curve_legend(figure, table)
    return figure


def _line(axes: Axes, part: pd.DataFrame, words: str) -> None:
    engine = part["engine"].iloc[0]
    colour = engine_colour(engine)
    dashes = DASHES.get(part["period_ms"].iloc[0], (0, (5, 1.5, 1, 1.5)))
    if engine == "none":
        dashes = (0, (4, 1.5)) if words.endswith("again") else "-"
    axes.plot(part["x"], part["latency_ns"] / 1e3, color=colour, linestyle=dashes,
              linewidth=2.2 if engine == "none" else 1.5, label=words)  # fmt: skip
    # A mark where p50, p90, p99, ... lie: lines can be told apart without colour.
    places = [2.0, *(10.0**k for k in range(1, 7))]
    at = part[[bool(np.isclose(x, places, rtol=0.03).any()) for x in part["x"]]]
    if engine != "none":
        axes.plot(at["x"], at["latency_ns"] / 1e3, MARKERS[engine], color=colour, markersize=4)


def _curve_legend(figure: Figure, table: pd.DataFrame) -> None:
    handles: dict[str, Line2D | Patch] = {}
    for axes in figure.axes:
        for line in axes.get_lines():
            words = str(line.get_label())
            engine = words.partition(",")[0]
            if engine in ENGINES and words not in handles:
                marker = "" if engine == "none" else MARKERS[engine]
                handles[words] = Line2D([], [], color=line.get_color(), marker=marker, markersize=4,
                                        linestyle=line.get_linestyle())  # fmt: skip
    if NOISE in set(table["words"]):
        handles[NOISE] = Patch(color=COLOURS["line"])
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=5,
                  handlelength=2.2, columnspacing=1.4)  # fmt: skip


def _ratio_rows(results: Results, judged: bool) -> pd.DataFrame:
    rows = [
        {"load": r.group.words, "words": r.words, "kind": r.kind,
         "engine": snapshot_spec(r.group.kinds[r.kind][0])["engine"], "level": r.level,
         "ratio": r.estimate.value, "low": r.estimate.low, "high": r.estimate.high,
         "n": r.estimate.n, "bound": r.bound, "verdict": r.verdict}
        for r in ratios(results)
        if (r.group.load == "200k") == judged
    ]  # fmt: skip
    return pd.DataFrame(rows)


def ratios_data(results: Results) -> pd.DataFrame:
    """Ratios to the runs without snapshots at the load that is judged."""
    return _ratio_rows(results, judged=True)


def ratios_half_data(results: Results) -> pd.DataFrame:
    """The same at half of the maximum, where nothing is judged."""
    return _ratio_rows(results, judged=False)


def forest(table: pd.DataFrame) -> Figure:
    """A row for each kind, a panel for each percentile; the A/A pair's interval as a band."""
    places, labels, y = {}, {}, 0.0
    for load, part in table.groupby("load", sort=False):
        labels[y] = f"{load}, n = {part['n'].max()}"
        y += 1
        for words in part["words"].unique():
            places[load, words] = y
            y += 1
        y += 0.4
    figure, all_axes = plt.subplots(
        1, len(LEVELS), figsize=(WIDTH, 0.9 + 0.22 * y), sharex=True, sharey=True
    )
    for axes, level in zip(all_axes, LEVELS, strict=True):
        part = table[table["level"] == level]
        for _, row in part.iterrows():
            _ratio(axes, row, places[row["load"], row["words"]])
        for load, mine in part.groupby("load", sort=False):
            rows = [place for (at, _), place in places.items() if at == load]
            for _, twin in mine[mine["kind"] == "again"].iterrows():
                left, right = np.clip([twin["low"], twin["high"]], *EDGES)
                axes.fill_betweenx([min(rows) - 0.5, max(rows) + 0.5], left, right, linewidth=0,
                                   color=COLOURS["line"], alpha=0.7, zorder=0)  # fmt: skip
        axes.axvline(1, color=COLOURS["muted"], linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(EDGES[0] * 0.97, EDGES[1] * 1.38)
        axes.set_xticks([0.8, 1, 1.25, 1.6, 2], ["0.8", "1", "1.25", "1.6", "2"])
        axes.minorticks_off()
        axes.set(title=level, xlabel="ratio to none")
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        bare(axes, "x")
    all_axes[0].set_yticks(list(places.values()), [words for _, words in places])
    for place, text in labels.items():
        all_axes[0].annotate(text, (0, place), xytext=(-86, 0), textcoords="offset points",
                             xycoords=("axes fraction", "data"), va="center",
                             fontweight="bold", annotation_clip=False)  # fmt: skip
    all_axes[0].set_ylim(y - 0.6, -0.7)
    _forest_legend(figure, table)
    return figure


def _ratio(axes: Axes, row: pd.Series, place: float) -> None:
    colour = engine_colour(row["engine"])
    low, value, high = np.clip([row["low"], row["ratio"], row["high"]], *EDGES)
    axes.plot([low, high], [place, place], color=colour, linewidth=2)
    marker = ">" if row["ratio"] > EDGES[1] else MARKERS[row["engine"]]
    marker = "<" if row["ratio"] < EDGES[0] else marker
    axes.plot(value, place, marker, color=colour, markersize=6,
              markeredgewidth=1.6)  # fmt: skip
    if pd.notna(row["bound"]):
        axes.plot([row["bound"]] * 2, [place - 0.42, place + 0.42], color=COLOURS["bad"],
                  linewidth=1.6)  # fmt: skip
    sign, tone = SIGNS.get(row["verdict"], ("", "muted"))
    text = f"{row['ratio']:.2f}" if row["ratio"] < 10 else f"{row['ratio']:,.0f}"
    axes.annotate(f"{text} {sign}".strip(), (EDGES[1] * 1.06, place), va="center", fontsize=8.5,
                  color=COLOURS[tone], annotation_clip=False)  # fmt: skip


def _forest_legend(figure: Figure, table: pd.DataFrame) -> None:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=COLOURS["muted"], marker="o", label="median of pairs, 95 % interval"),
        Patch(color=COLOURS["line"], label="interval of the A/A pair (none, again)"),
    ]
    if table["bound"].notna().any():
        handles.append(Line2D([], [], color=COLOURS["bad"], marker="|", markersize=9, linewidth=0,
                              markeredgewidth=1.6, label="tolerance"))  # fmt: skip
        handles += [Line2D([], [], color=COLOURS[tone], marker=f"${sign}$", linewidth=0, label=word)
                    for word, (sign, tone) in SIGNS.items()]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.4)


PLOTS = [
    Plot("snapshots_in_time", ("tail",), in_time_data, in_time),
    Plot("snapshots_tail", ("tail",), curves_data, curves),
    Plot("snapshots_ratios", ("tail",), ratios_data, forest),
    Plot("snapshots_tail_half", ("tail",), curves_half_data, curves),
    Plot("snapshots_ratios_half", ("tail",), ratios_half_data, forest),
]
