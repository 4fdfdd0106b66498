"""What the records of `ftmb peers` say: results/peers/RUN/record.json, a row for each crash."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from ftmb.analysis import stats
from ftmb.analysis.metrics import Part, metric
from ftmb.analysis.records import RecordError, Results

ARMS = ("nosync", "stock", "safe", "keepalived", "ftmb")
WORDS = {
    "nosync": "no copy",
    "stock": "take over, commit",
    "safe": "commit, take over",
    "keepalived": "keepalived",
    "ftmb": "FTMB",
}
PER = 100_000  # mappings that a rate or a slope is given for
LEAST_NEW = 100_000  # new flows that none of which may come to harm
SMALL, LARGE = 1_000, 100_000  # mappings; a slope is told of tables from at most to at least that
COLUMNS = ["run", "arm", "table", "relay_ms", "new_per_s", "outage_ms", "restored", "floor_ms",
           "lost_packets", "commit_ms", "externalised", "checked", "lost", "lost_new",
           "unknown", "misdelivered", "tcp", "survived", "build"]  # fmt: skip


def _all(results: Results) -> dict[str, dict[str, Any]]:
    """The records by name of the run, also of those that were left out."""
    found = {}
    for path in sorted(results.root.glob("peers/*/record.json")):
        try:
            made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RecordError(f"{path} is not JSON ({error}); make it again") from error
        if "left_out" not in made and (made.get("version"), made.get("kind")) != (1, "peers"):
            raise RecordError(f"{path} is not `kind: peers`, version 1; make it again")
        found[path.parent.name] = made
    return found


def read(results: Results) -> dict[str, dict[str, Any]]:
    """The valid records by name of the run; what was left out has none."""
    return {run: made for run, made in _all(results).items() if made.get("valid") is True}


def left_out(results: Results) -> dict[str, str]:
    """Why this machine could not make them, by name of the run."""
    made = _all(results)
    return {run: each["left_out"] for run, each in made.items() if "left_out" in each}


def crashes(results: Results) -> pd.DataFrame:
    """A row for each crash of each run."""
    rows = [
        {
            "run": run,
            "arm": crash["arm"],
            **{key: made["spec"][key] for key in ("table", "relay_ms", "new_per_s")},
            "outage_ms": crash["outage"]["ms"] if crash["outage"]["restored"] else np.inf,
            "restored": crash["outage"]["restored"] and crash["outage_down"]["restored"],
            "floor_ms": crash["outage"]["floor_ms"],
            "lost_packets": crash["packets"]["sent"] - crash["packets"]["returned"],
            "commit_ms": crash["commit_ms"],
            **{key: crash["mappings"][key] for key in ("externalised", "checked", "lost",
                                                       "lost_new", "unknown", "misdelivered")},
            "tcp": crash["tcp"]["connections"],
            "survived": crash["tcp"]["survived"],
            "build": made["versions"]["node_sha256"],
        }
        for run, made in read(results).items()
        for crash in made["crashes"]
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _ours(results: Results) -> tuple[pd.DataFrame, str | None]:
    frame = crashes(results)
    frame = frame[frame["arm"] == "ftmb"]
    builds = set(frame["build"])
    return frame, builds.pop() if len(builds) == 1 else "several" if builds else None


def rate(count: float, exposure: float) -> stats.Estimate | None:
    """Events for each 100,000, with an exact Poisson interval; None without exposure."""
    return stats.poisson(int(count), exposure / PER) if exposure else None


def _counted(frame: pd.DataFrame, build: str | None, count: int) -> list[Part]:
    """A sum that must be 0: no interval, one is too many; how little it bounds is in the note."""
    if frame.empty:
        return []
    new, unknown = int(frame["externalised"].sum()), int(frame["unknown"].sum())
    gone = int((~frame["restored"].astype(bool)).sum())
    bound = stats.poisson(count, new / PER).high if new else float("inf")
    note = (
        f"{int(frame['checked'].sum()) - unknown:,} mappings seen again in {len(frame)} crashes, "
        f"{new:,} of flows begun while it ran; bounds the rate of those below {bound:.2g} in "
        f"{PER:,} (95 %)"
    )
    lacks = ""
    if gone:
        lacks = f"never back after {gone} of {len(frame)} crashes: it harmed nobody by being gone"
    elif unknown:
        lacks = f"{unknown:,} mappings were not heard of again: neither kept nor lost"
    elif new < LEAST_NEW:
        lacks = f"needs {LEAST_NEW:,} new flows seen before a crash, has {new:,}"
    return [Part("", count, "", None, None, len(frame), note, [], None, build, lacks)]


@metric
def peers_lost(results: Results) -> list[Part]:
    """Mappings that were seen outside before a crash under FTMB and are not there after it.

    All that were not heard of again are, where it never came back."""
    frame, build = _ours(results)
    gone = frame[~frame["restored"].astype(bool)]
    return _counted(frame, build, int(frame["lost"].sum() + gone["unknown"].sum()))


@metric
def peers_misdelivered(results: Results) -> list[Part]:
    """Replies to addresses seen before a crash under FTMB that reached another flow."""
    frame, build = _ours(results)
    return _counted(frame, build, int(frame["misdelivered"].sum()))


def slope(frame: pd.DataFrame) -> stats.Estimate | None:
    """Milliseconds of outage for each 100,000 mappings more; None for one size of table.

    Crashes of one size are resampled together. One that was never over makes it infinite."""
    sizes = [
        (size / PER, part["outage_ms"].to_numpy(dtype=float))
        for size, part in frame.groupby("table")
    ]
    if len(sizes) < 2:
        return None
    n = min(len(sample) for _, sample in sizes)
    if not np.isfinite(frame["outage_ms"]).all():
        return stats.Estimate(np.inf, np.inf, np.inf, n)
    rng = np.random.default_rng(stats.SEED)
    drawn = np.array([
        np.median(rng.choice(sample, (stats.RESAMPLES, len(sample))), axis=1)
        for _, sample in sizes
    ])  # fmt: skip
    places = np.array([size for size, _ in sizes])
    slopes = np.polyfit(places, drawn, 1)[0]
    value = np.polyfit(places, [np.median(sample) for _, sample in sizes], 1)[0]
    low, high = np.percentile(slopes, [2.5, 97.5])
    return stats.Estimate(float(value), float(low), float(high), n)


def by_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The crashes whose tables are compared: those of runs named `table-...`."""
    return frame[frame["run"].str.startswith("table")]


@metric
def peers_slope(results: Results) -> list[Part]:
    """How much longer FTMB is out for each 100,000 mappings more (milliseconds)."""
    frame, build = _ours(results)
    frame = by_table(frame)
    found = slope(frame)
    if found is None:
        return []
    others = by_table(crashes(results))
    safe = slope(others[others["arm"] == "safe"])
    small, large = frame["table"].min(), frame["table"].max()
    note = f"tables of {small:,} to {large:,}"
    if safe:
        note += f"; conntrackd, commit first: {safe.value:,.0f} ms"
    for run, why in left_out(results).items():
        if run.startswith("table"):
            note += f"; {run} left out: {why}"
    lacks = ""
    if small > SMALL or large < LARGE:
        lacks = f"needs tables of {SMALL:,} to {LARGE:,} mappings, has {small:,} to {large:,}"
    ends = (found.low, found.high)
    return [Part("", found.value, "ms", *ends, found.n, note, [], None, build, lacks)]
