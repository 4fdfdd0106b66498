"""Snapshots of real processes: every engine and every schedule, what is taken and what is equal."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import RunFtmb
from real_trials import assert_exactly_once, engines, sound, spec

pytestmark = pytest.mark.slow


def check_of(record: dict[str, Any], name: str) -> dict[str, Any]:
    (check,) = [c for c in record["checks"] if c["name"] == name]
    return dict(check)


@pytest.mark.parametrize("engine", ["cow", "fork", "page", "stop-copy"])
def test_every_engine_takes_what_the_backup_finds_equal(
    trial: RunFtmb, tmp_path: Path, engine: str
) -> None:
    if engine not in engines():
        pytest.skip(f"`ftmb doctor` says why this machine has no {engine}")
    record = sound(trial, spec(ft={"snapshot": {"engine": engine}}))
    assert_exactly_once(record)
    shown = record["snapshot"]
    assert shown["engine"] == engine
    assert shown["taken"] >= 5
    assert shown["abandoned"] == 0
    assert shown["lines"] > 0
    assert (shown["fork_ns"] is not None) == (engine == "fork")
    assert (shown["undo_bytes_limit"] is not None) == (engine == "cow")
    assert check_of(record, "state_digest")["verdict"] == "pass"
    with (tmp_path / "trial" / "snapshots.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if float(row["t"]) >= 0]
    assert len(rows) == shown["taken"]
    assert sum(int(row["lines"]) for row in rows) == shown["lines"]
    # What was not touched is not sent: 50,000 packets a second do not touch all of the state.
    assert min(int(row["bytes"]) for row in rows) < record["state_bytes"] / 2


def events_of(path: Path, name: str) -> list[dict[str, Any]]:
    lines = (path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def test_schedule_demand_takes_one_for_each_asked(trial: RunFtmb, tmp_path: Path) -> None:
    asked = {"schedule": "demand", "at_s": [0.2, 0.5, 0.8]}
    record = sound(trial, spec(ft={"snapshot": asked}))
    assert len(events_of(tmp_path / "trial", "snapshot_asked")) == 3
    start_ns = record["window"]["start_ns"]
    taken = [e for e in events_of(tmp_path / "trial", "snapshot") if e["t_ns"] >= start_ns]
    # A backup that is slow to take one on a crowded machine may be given all of the state anew.
    assert len([event for event in taken if not event["full"]]) == 3


def test_schedule_log_takes_one_for_so_much_input(trial: RunFtmb) -> None:
    """Ten megabytes of log in the window: one of them for each snapshot, roughly."""
    record = sound(
        trial,
        spec(
            ft={"snapshot": {"schedule": "log", "log_mb": 1}},
            traffic={"rate_pps": 100_000},
            duration_s=1.3,
        ),
    )
    per_packet = 80  # header and frame in the input log
    megabytes = 100_000 * 1.3 * per_packet / 2**20
    assert megabytes / 3 < record["snapshot"]["taken"] < 2 * megabytes


def test_schedule_adaptive_takes_more_where_more_is_to_be_replayed(trial: RunFtmb) -> None:
    target = {"schedule": "adaptive", "replay_target_ms": 2}
    slow = sound(trial, spec(ft={"snapshot": target}, traffic={"rate_pps": 20_000}))
    fast = sound(trial, spec(ft={"snapshot": target}, traffic={"rate_pps": 150_000}))
    assert 0 < slow["snapshot"]["taken"] < fast["snapshot"]["taken"]


FORGETS: dict[str, Any] = {"name": "mortal", "forgets": True}


def test_a_function_that_forgets_a_mark_is_found_and_named(trial: RunFtmb, tmp_path: Path) -> None:
    """Its counters are behind what it never changes: the second line of the shared memory."""
    ran = trial(spec(nf=FORGETS, ft={"snapshot": {"engine": "cow"}}), out="trial")
    assert ran.record is not None, ran.err
    digests = check_of(ran.record, "state_digest")
    assert digests["verdict"] == "fail"
    assert ran.code == 0  # it ran, and its record says what it shows
    found = events_of(tmp_path / "trial", "digest_mismatch")
    assert found
    assert {event["where"] for event in found} == {"shared memory"}
    assert len({event["offset"] for event in found}) == 1


def test_an_engine_without_marks_does_not_mind_one_that_forgets(trial: RunFtmb) -> None:
    record = sound(trial, spec(nf=FORGETS, ft={"snapshot": {"engine": "stop-copy"}}))
    assert record["snapshot"]["taken"] >= 5
