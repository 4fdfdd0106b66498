"""From what was sampled and noted to the figures of a record. Pure functions of tables.

`samples` has a row for each connection and moment, columns as `tcp.COLUMNS` after `t_ns`; `counts`
those of `tcp.COUNTERS`; `noted` what a client asked for, as `client.HEAD`. Times: ns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ftmb.endpoints import tcp
from ftmb.endpoints.record import Asked, Connections, Timeline

BEFORE_NS = 1_000_000_000  # a connection is alive if it came forward within so long
BIN_NS = 20_000_000
FROM_NS, TO_NS = -300_000_000, 1_500_000_000  # of a timeline, around a kill
NO_THRESHOLD = 0x7FFFFFFF
REDUCED = 0.8  # CUBIC takes 0.7 of the window after a loss
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)


def between(table: pd.DataFrame, begin_ns: int, end_ns: int) -> pd.DataFrame:
    """The rows from begin to end, of a table in the order of its times."""
    first, last = np.searchsorted(table["t_ns"].to_numpy(), [begin_ns, end_ns])
    return table.iloc[first:last]


def deltas(counts: pd.DataFrame, begin_ns: int, end_ns: int) -> dict[str, int | None]:
    """By how much each counter grew from the last look before the begin to the first after the end.

    None: the kernel does not have it. Raises ValueError where it was not looked at."""
    times = counts["t_ns"].to_numpy()
    first = int(np.searchsorted(times, begin_ns, "right")) - 1
    last = int(np.searchsorted(times, end_ns))
    if first < 0 or last >= len(counts):
        raise ValueError("the counters were not looked at before and after")
    grown = counts.iloc[last][list(tcp.COUNTERS)] - counts.iloc[first][list(tcp.COUNTERS)]
    return {str(name): None if pd.isna(value) else int(value) for name, value in grown.items()}


def last_look(counts: pd.DataFrame, end_ns: int) -> int:
    """When connections were last looked at before the end, whether there were any or not."""
    times = counts["t_ns"].to_numpy()
    return int(times[np.searchsorted(times, end_ns) - 1])


def connections(
    samples: pd.DataFrame, kill_ns: int, end_ns: int, late_ns: int, forward: str = "acked"
) -> Connections:
    """What became of the connections that were at work when the master was killed.

    late_ns: the last look before the end; forward: the column that grows as long as a connection
    works."""
    before = between(samples, kill_ns - BEFORE_NS, kill_ns)
    after = between(samples, kill_ns, end_ns)
    later = dict(iter(after.groupby(["sport", "dport"])))
    told = []
    for key, part in before.groupby(["sport", "dport"]):
        values = part[forward].to_numpy()
        if values[-1] == values[0] or part["state"].iloc[-1] != tcp.ESTABLISHED:
            continue
        told.append(_one(part, later.get(key), kill_ns, late_ns, forward))
    frame = pd.DataFrame(told, columns=["lost", "gap_ns", "retrans", "rtos", "collapsed", "reduced",
                                        "cut"])  # fmt: skip
    kept = frame[~frame["lost"].astype(bool)]
    return Connections(
        at_work=len(frame),
        lost=int(frame["lost"].sum()),
        longest_gap_ms=_ms(kept["gap_ns"].max()) if len(kept) else None,
        median_gap_ms=_ms(kept["gap_ns"].median()) if len(kept) else None,
        retransmitted=int(frame["retrans"].sum()),
        timeouts=None if (frame["rtos"] < 0).any() else int(frame["rtos"].sum()),
        collapsed=int(frame["collapsed"].sum()),
        reduced=int(frame["reduced"].sum()),
        threshold_cut=int(frame["cut"].sum()),
    )


def _ms(value: float) -> float:
    return round(float(value) / 1e6, 3)


def _one(
    before: pd.DataFrame, after: pd.DataFrame | None, kill_ns: int, late_ns: int, forward: str
) -> tuple[bool, float, int, int, bool, bool, bool]:
    """Of one connection: lost, longest gap, segments sent again, timeouts, window collapsed by a
    timeout, window reduced, slow-start threshold cut."""
    last = before.iloc[-1]
    if after is None or after["state"].iloc[-1] != tcp.ESTABLISHED:
        return True, 0.0, 0, 0, False, False, False
    gone = int(after["t_ns"].iloc[-1]) < late_ns
    whole = pd.concat([before, after])
    steps = whole.loc[whole[forward].diff().fillna(1) > 0, "t_ns"].to_numpy()
    stuck = bool(after[forward].iloc[-1] == last[forward])
    ends = np.append(steps, late_ns)
    gaps = np.diff(ends)[ends[1:] > kill_ns]
    rtos = -1 if last["rtos"] < 0 else int(after["rtos"].iloc[-1] - last["rtos"])
    in_loss = (after["ca_state"] == tcp.LOSS) & (last["ca_state"] != tcp.LOSS)
    collapsed = bool(in_loss.any() or rtos > 0)
    threshold = int(after["ssthresh"].min())
    return (
        gone or stuck,
        float(gaps.max()) if len(gaps) else 0.0,
        int(after["retrans"].iloc[-1] - last["retrans"]),
        rtos,
        collapsed,
        bool(after["cwnd"].min() < REDUCED * last["cwnd"]),
        threshold != NO_THRESHOLD and threshold < int(last["ssthresh"]),
    )


def asked(noted: pd.DataFrame, windows: Iterable[tuple[int, int]], limit_ms: float) -> Asked:
    """What was asked for in all, and in these windows: since before, so what was under way too.

    limit_ms: what went wrong took at least so long, however soon that was known."""
    spans = list(windows)
    due, done = noted["due_ns"].to_numpy(), noted["done_ns"].to_numpy()
    inside = np.zeros(len(noted), dtype=bool)
    for begin, end in spans:
        inside |= (done >= begin) & (due < end)
    good = (noted["outcome"] == "ok").to_numpy()
    took = (done - due) / 1e6
    took = np.where(good, took, np.maximum(took, limit_ms))
    errors = noted["outcome"][~good].value_counts()
    return Asked(
        count=len(noted),
        failed=int((~good).sum()),
        failed_in_windows=int((~good & inside).sum()),
        in_windows=int(inside.sum()),
        errors={str(name): int(n) for name, n in errors.items()},
        ms=_percentiles(took),
        ms_in_windows=_percentiles(took[inside]),
    )


def _percentiles(values: np.ndarray) -> dict[str, float] | None:
    if len(values) == 0:
        return None
    told = np.percentile(values, PERCENTILES)
    return {f"{p:g}": round(float(v), 3) for p, v in zip(PERCENTILES, told, strict=True)}


def timeline(samples: pd.DataFrame, kills: Sequence[int], forward: str = "acked") -> Timeline:
    """Throughput (Mbit/s, of all connections) and windows around the kills: over all kills, median,
    10th and 90th percentile of each bin; its begin in ms after the kill."""
    edges = np.arange(FROM_NS, TO_NS + 1, BIN_NS)
    rates, windows, thresholds = [], [], []
    for kill_ns in kills:
        part = between(samples, kill_ns + FROM_NS - BIN_NS, kill_ns + TO_NS + BIN_NS)
        if part.empty:
            continue
        grown = part.groupby(["sport", "dport"])[forward].diff().fillna(0)
        place = np.digitize(part["t_ns"].to_numpy() - kill_ns, edges) - 1
        frame = pd.DataFrame({"bin": place, "grown": grown.to_numpy(),
                              "cwnd": part["cwnd"].to_numpy(), "cut": part["ssthresh"].where(
                                  part["ssthresh"] != NO_THRESHOLD).to_numpy()})  # fmt: skip
        by_bin = frame.groupby("bin").agg({"grown": "sum", "cwnd": "mean", "cut": "mean"})
        by_bin = by_bin.reindex(range(len(edges) - 1))
        rates.append(by_bin["grown"].fillna(0) * 8e3 / BIN_NS)
        windows.append(by_bin["cwnd"])
        thresholds.append(by_bin["cut"])
    return Timeline(
        ms=[float(edge) / 1e6 for edge in edges[:-1]],
        mbps=_spread(rates),
        cwnd=_spread(windows),
        ssthresh=_spread(thresholds),
    )


def _spread(series: list[pd.Series]) -> dict[str, list[float | None]]:
    if not series:
        return {"p10": [], "p50": [], "p90": []}
    table = pd.concat(series, axis=1)
    told = {}
    for name, q in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
        values = table.quantile(q, axis=1)
        told[name] = [None if np.isnan(v) else round(float(v), 2) for v in values]
    return told
