"""Tables of the report: FTMB beside what people run today."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ftmb.analysis import peers, stats
from ftmb.analysis.records import Results
from ftmb.report_layout import MISSING, Table, number

COMMAND = "make trials TIER=full OF=peers"


def _interval(estimate: stats.Estimate | None, form: str) -> str:
    if estimate is None:
        return MISSING
    if not np.isfinite(estimate.value):
        return "never back"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _outage(crashes: pd.DataFrame) -> str:
    """Milliseconds; of what never came back, how often that was."""
    gone = int(np.isinf(crashes["outage_ms"]).sum())
    if gone:
        return f"{gone} of {len(crashes)} never back"
    return _interval(stats.median(list(crashes["outage_ms"])), ",.1f")


def _in_order(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The crashes of each arm, arms in their order."""
    return [
        (peers.WORDS[arm], frame[frame["arm"] == arm])
        for arm in peers.ARMS
        if (frame["arm"] == arm).any()
    ]


def survival(results: Results) -> Table:
    """What a crash does in each arm: outage, packets, TCP, mappings, replies."""
    frame = peers.crashes(results)
    rows: list[Sequence[str]] = []
    for run, part in frame.groupby("run"):
        for words, crashes in _in_order(part):
            new = crashes["externalised"].sum()
            rows.append(
                (
                    str(run), words, str(len(crashes)),
                    _outage(crashes),
                    number(crashes["floor_ms"].median(), ".1f"),
                    number(crashes["commit_ms"].median(), ",.0f"),
                    number(crashes["lost_packets"].median()),
                    f"{crashes['survived'].sum()} of {crashes['tcp'].sum()}",
                    f"{crashes['lost'].sum():,} of {crashes['checked'].sum():,}",
                    _interval(peers.rate(crashes["lost_new"].sum(), new), ",.1f"),
                    f"{crashes['misdelivered'].sum():,}",
                    _interval(peers.rate(crashes["misdelivered"].sum(),
                                         crashes["checked"].sum()), ",.1f"),
                )
            )  # fmt: skip
    head = ("run", "backup", "crashes", "outage (ms)", "floor (ms)", "commit (ms)",
            "packets unanswered", "TCP alive", "mappings lost", "of 100,000 new flows",
            "replies misdelivered", "of 100,000 checked")  # fmt: skip
    note = (
        "Outage: median, 95 % interval from resampling crashes; floor: the longest silence in the "
        "second before, median. Rates with exact 95 % Poisson intervals. With conntrackd the crash "
        "takes a whole box, with FTMB the master's process; detection is in the outage of "
        f"keepalived and FTMB only. Again: {COMMAND}."
    )
    return Table(head, rows, note, 2, True)


def growth(results: Results) -> Table:
    """Outage against the size of the table: medians and the slope."""
    frame = peers.by_table(peers.crashes(results))
    sizes = sorted(frame["table"].unique())
    rows: list[Sequence[str]] = []
    for words, crashes in _in_order(frame):
        medians = [_outage(crashes[crashes["table"] == size]) for size in sizes]
        rows.append((words, *medians, _interval(peers.slope(crashes), ",.1f")))
    head = ("backup", *(f"{size:,}" for size in sizes), "ms for 100,000 more")
    note = "Outage in milliseconds, median, by mappings in the table; a line through the medians."
    return Table(head, rows, note, 1, True, "Against the size of the table")


TABLES: dict[str, Callable[[Results], Table]] = {
    "peers_survival": survival,
    "peers_growth": growth,
}
