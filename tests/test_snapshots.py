"""Snapshots of a trial: what its record says of them, their series, and those asked for."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import SPEC, Run

from ftmb import events, snapshots, spec
from ftmb.events import Event
from ftmb.faults import Schedule
from ftmb.injector import Injector

ASKED = {"ft": {"snapshot": {"schedule": "demand", "at_s": [0.1, 0.3]}}}
DEMAND = spec.parse(ASKED)


def taken(process: str, t_ms: int, pause: int, **more: Any) -> Event:
    fields = {"epoch": t_ms, "pause_ns": pause, "copy_ns": 1, "bytes": 10, "lines": 2} | more
    return Event(t_ms * 1_000_000, process, "snapshot", fields)


BASE = Event(0, "r0", "snapshot", {"pause_ns": 10**9, "bytes": 10**9})
RUN = [
    BASE,
    Event(1, "loggers", "commit", {"epoch": 1}),
    taken("r0", 1, 5),
    taken("r0", 101, 7, full=True),
    Event(102, "r0", "snapshot_skipped", {}),
    taken("r1", 900, 9),
    Event(901_000_000, "r1", "snapshot_abandoned", {"epoch": 900, "why": "undo_full"}),
    taken("r1", 1000, 90),
]


def summary(replicas: list[dict[str, Any]], seen: list[Event] = RUN) -> snapshots.Snapshot:
    result = snapshots.summary(spec.parse({}), seen, 1, replicas)
    assert result is not None
    return result


def test_snapshots_are_summed_over_masters() -> None:
    result = summary([])
    assert (result.taken, result.skipped, result.abandoned, result.committed) == (4, 1, 1, 1)
    assert (result.bytes, result.lines) == (40, 8)
    assert result.period_reached_ms == 100  # the failover between r0 and r1 is no period
    assert result.pause_ns is not None
    assert (result.pause_ns.p50, result.pause_ns.p999, result.pause_ns.max) == (7, 90, 90)
    assert result.fork_ns is None
    assert result.undo_peak_bytes is None
    assert snapshots.summary(spec.parse({"ft": {"mode": "none"}}), RUN, 0, []) is None


def test_what_only_one_engine_has() -> None:
    fork = spec.parse({"ft": {"snapshot": {"engine": "fork"}}})
    seen = [taken("r0", 5, 9, fork_ns=4), taken("r0", 9, 9, fork_ns=6)]
    forked = snapshots.summary(fork, seen, 1, [])
    assert forked is not None
    assert forked.fork_ns is not None
    assert (forked.fork_ns.p50, forked.fork_ns.max) == (4, 6)
    peaks = {"undo_peak_bytes": 500, "undo_bytes_limit": 1000, "staging_peak_bytes": 70}
    result = summary([{"snapshot": peaks}, {"snapshot": peaks | {"undo_peak_bytes": 30}}, {}])
    assert (result.undo_peak_bytes, result.undo_bytes_limit) == (500, 1000)
    assert result.staging_peak_bytes == 70
    without = summary([{"snapshot": {"undo_peak_bytes": 0, "undo_bytes_limit": 0}}])
    assert (without.undo_peak_bytes, without.undo_bytes_limit) == (None, None)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1, 4)])
def test_percentiles_are_values_that_occurred(share: float, expected: int) -> None:
    assert snapshots.percentile([4, 1, 3, 2], share) == expected


def test_the_series_has_one_line_for_each(tmp_path: Path) -> None:
    snapshots.write(tmp_path / "s.csv", RUN, 1_000_000)
    with (tmp_path / "s.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["t", "epoch", "pause_ns", "copy_ns", "bytes", "lines", "full"]
    assert [float(row["t"]) for row in rows] == [-0.001, 0.0, 0.1, 0.899, 0.999]
    assert [row["full"] for row in rows] == ["0", "0", "1", "0", "0"]
    assert rows[2]["pause_ns"] == "7"


def test_on_demand_the_master_is_asked_at_the_times_given(run: Run, tmp_path: Path) -> None:
    code, record, err = run(SPEC | ASKED)
    assert code == 0, err
    assert record is not None
    seen = events.read(next(tmp_path.rglob("events.jsonl")))
    start_ns = record["window"]["start_ns"]
    orders = [(e.t_ns - start_ns) / 1e9 for e in seen if e.name == "snapshot_asked"]
    assert orders == [pytest.approx(0.1, abs=0.09), pytest.approx(0.3, abs=0.09)]
    answers = [e for e in seen if e.name == "snapshot" and e.fields["epoch"] == 9]
    assert [event.process for event in answers] == ["r0", "r0"]
    assert record["snapshot"]["schedule"] == "demand"
    assert record["files"]["snapshots"] == "snapshots.csv"


def test_while_no_master_is_there_nobody_is_asked() -> None:
    schedule = Schedule(window_start_ns=1_000_000_000)
    roster = SimpleNamespace(target=lambda *_: "no master was alive then (r0)", calm_ns=None)
    injector = Injector(schedule, cast(Any, roster), {}, DEMAND)
    assert injector.next_ns() == 1_100_000_000
    assert injector.step(1_099_999_999) is None
    told = injector.step(1_100_000_000)
    assert told is not None
    assert (told.name, told.fields["at_s"]) == ("not_asked", 0.1)
    assert injector.next_ns() == 1_300_000_000  # the next one is still asked for
    injector.stop()
    assert injector.next_ns() is None
