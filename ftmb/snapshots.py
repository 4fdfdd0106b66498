"""What a record says of its snapshots, and their series, from the merged events. Pure functions."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ftmb.events import Event
from ftmb.model import Model
from ftmb.spec import TrialSpec

SERIES = ("epoch", "pause_ns", "copy_ns", "bytes", "lines", "full")


class Pause(Model):
    """Nanoseconds; each percentile is one of the values."""

    p50: float
    p99: float
    p999: float
    max: float


class Snapshot(Model):
    """Snapshots since the window's start, of all masters of the run, those killed included."""

    engine: str
    schedule: str
    period_ms: float
    period_reached_ms: float | None = Field(description="median time between two snapshots")
    taken: int
    skipped: int = Field(description="fell due while one was uncommitted")
    abandoned: int = Field(description="given up: an undo log was full, or nobody has it")
    committed: int = Field(description="in the whole run, the first full base included")
    pause_ns: Pause | None = Field(
        description="longest wait of a worker for each snapshot: cow: at the first shared access "
        "of the new epoch; others: stopped"
    )
    copy_ns: Pause | None = Field(description="beside the traffic, until the delta was complete")
    fork_ns: Pause | None = Field(description="of fork(2) itself; engine fork only")
    bytes: int = Field(description="of all snapshots together")
    lines: int = Field(description="of all snapshots together")
    undo_peak_bytes: int | None = Field(
        description="most that a worker's undo log held, of masters that lived to report; engine "
        "cow only"
    )
    undo_bytes_limit: int | None = Field(description="its bound")
    staging_peak_bytes: int | None = Field(
        description="most that lay ready to be sent, of masters that lived to report"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value with at least `share` of all at or below it. `values` is not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _pause(values: list[float]) -> Pause | None:
    if not values:
        return None
    halves = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return Pause(**{k: percentile(values, p) for k, p in halves.items()}, max=max(values))


def _peaks(replicas: Sequence[dict[str, Any]]) -> dict[str, int | None]:
    """The bounded memory of engines, the largest of any process that reported."""
    found: dict[str, int | None] = {}
    for key in ("undo_peak_bytes", "undo_bytes_limit", "staging_peak_bytes"):
        told = [r.get("snapshot", {}).get(key) for r in replicas]
        found[key] = max((int(value) for value in told if value is not None), default=None)
    if not found["undo_bytes_limit"]:  # no undo log but with engine cow
        found["undo_peak_bytes"] = found["undo_bytes_limit"] = None
    return found


def summary(
    spec: TrialSpec, events: Sequence[Event], start_ns: int, replicas: Sequence[dict[str, Any]]
) -> Snapshot | None:
    """From events, since a killed master leaves no statistics; None but in mode ftmb.

    start_ns: the window's start: the first full base, before any traffic, stops nobody.
    """
    if spec.ft.mode != "ftmb":
        return None
    since = [event for event in events if event.t_ns >= start_ns]
    taken = [event for event in since if event.name == "snapshot"]
    steps = [
        (b.t_ns - a.t_ns) / 1e6 for a, b in itertools.pairwise(taken) if a.process == b.process
    ]
    asked = spec.ft.snapshot
    forks = [float(e.integer("fork_ns")) for e in taken if asked.engine == "fork"]
    return Snapshot(
        engine=asked.engine,
        schedule=asked.schedule,
        period_ms=asked.period_ms,
        period_reached_ms=percentile(steps, 0.5) if steps else None,
        taken=len(taken),
        skipped=sum(e.name == "snapshot_skipped" for e in since),
        abandoned=sum(e.name == "snapshot_abandoned" for e in since),
        committed=sum(e.name == "commit" for e in events),
        pause_ns=_pause([float(e.integer("pause_ns")) for e in taken]),
        copy_ns=_pause([float(e.integer("copy_ns")) for e in taken]),
        fork_ns=_pause(forks),
        bytes=sum(e.integer("bytes") for e in taken),
        lines=sum(e.integer("lines") for e in taken),
        **_peaks(replicas),
    )


def write(path: Path, events: Sequence[Event], start_ns: int) -> None:
    """Every snapshot of the run as CSV; t: seconds since the window's start at which its delta was
    complete."""
    with path.open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["t", *SERIES])
        for event in events:
            if event.name == "snapshot":
                figures = [event.integer(key) for key in SERIES]
                rows.writerow([f"{(event.t_ns - start_ns) / 1e9:.6f}", *figures])
