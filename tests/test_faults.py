"""The fault schedule, and the phases of a recovery from events."""

from __future__ import annotations

from typing import Any

from ftmb import spec
from ftmb.events import Event
from ftmb.faults import Schedule
from ftmb.recovery import outage_ms, recoveries

MS = 1_000_000


def schedule(*times: object) -> Schedule:
    faults = [{"do": "kill", "role": "master", "at_s": t} for t in times]
    return Schedule.of(spec.parse({"faults": faults}))


def test_nothing_is_due_before_the_window_starts() -> None:
    plan = schedule(1.0)
    assert plan.next_due_ns() is None
    assert plan.due(10**18) is None


def test_faults_come_in_the_order_of_time() -> None:
    plan = schedule(3.0, 1.0)
    plan.window_start_ns = 1000 * MS
    assert plan.next_due_ns() == 2000 * MS
    assert plan.due(1999 * MS) is None
    first = plan.due(2000 * MS)
    assert first is not None
    assert first.at_s == 1.0
    first.t0_ns = 2000 * MS
    assert plan.next_due_ns() == 4000 * MS


def test_a_fault_with_a_problem_is_not_tried_again() -> None:
    plan = schedule(1.0)
    plan.window_start_ns = 0
    fault = plan.due(2000 * MS)
    assert fault is not None
    fault.problem = "no master"
    assert plan.due(3000 * MS) is None
    assert not fault.happened


def failover(view: int, t0: int) -> list[Event]:
    """Events of a failover whose steps come 1, 2, 4, 8 and 16 ms after each other."""
    steps: list[tuple[str, int, dict[str, Any]]] = [
        ("suspect", 1, {"slot": 0, "kind": "death"}),
        ("fenced", 3, {"view": view}),
        ("cut", 7, {"view": view, "pals": [1, 2], "dropped_pals": 5}),
        ("replay_start", 8, {"view": view}),
        ("replay_done", 15, {"view": view, "packets": 100, "pals": 300}),
        ("resumed", 31, {"view": view}),
        ("protected", 90, {"epoch": 9}),
    ]
    return [Event(t0 + at * MS, "loggers", name, fields) for name, at, fields in steps]


def test_phases_follow_one_another() -> None:
    t0 = 500 * MS
    (entry,) = recoveries(failover(2, t0), [t0], [[t0, 40 * MS], [0, 900], [t0 + 99 * MS, 3 * MS]])
    phases = (entry.detect_ms, entry.fence_ms, entry.cut_ms, entry.replay_ms, entry.resume_ms)
    assert phases == (1, 2, 4, 8, 16)
    assert entry.total_ms == 31
    assert (entry.packets_replayed, entry.pals_replayed, entry.pals_dropped) == (100, 300, 5)
    assert entry.detect_kind == "death"
    assert entry.outage_ms == 40
    assert entry.protected_again_ms == 90


def test_two_failovers_are_kept_apart() -> None:
    first, second = 500 * MS, 2000 * MS
    events = failover(2, first) + failover(3, second)
    gaps = [[first + MS, 33 * MS], [second + MS, 55 * MS]]
    one, two = recoveries(events, [first, second], gaps)
    assert (one.view, two.view) == (2, 3)
    assert (one.outage_ms, two.outage_ms) == (33, 55)
    assert one.total_ms == two.total_ms == 31


def test_an_unfinished_failover_has_nulls() -> None:
    t0 = 500 * MS
    (entry,) = recoveries(failover(2, t0)[:3], [t0], [])
    assert entry.cut_ms == 4
    assert entry.replay_ms is entry.resume_ms is entry.total_ms is None


def test_a_fault_without_any_reaction_is_an_entry_too() -> None:
    (entry,) = recoveries([], [5], None)
    assert entry.detect_ms is None
    assert entry.outage_ms is None


def test_a_failover_without_a_fault_is_listed_as_such() -> None:
    (entry,) = recoveries(failover(2, 500 * MS), [], [])
    assert entry.t0_ns is None
    assert entry.view == 2
    assert entry.total_ms is None
    assert entry.replay_ms == 8


def test_a_second_failover_after_one_fault_is_unexplained() -> None:
    t0 = 500 * MS
    events = failover(2, t0) + failover(3, 1000 * MS)
    named, other = recoveries(events, [t0], [])
    assert (named.t0_ns, named.view) == (t0, 2)
    assert (other.t0_ns, other.view) == (None, 3)


def test_the_outage_is_a_gap_that_spans_or_follows_the_fault() -> None:
    gaps = [[0, 50], [90, 20], [150, 15], [400, 99]]
    assert outage_ms([[g[0] * MS, g[1] * MS] for g in gaps], 100 * MS, 300 * MS) == 20
    assert outage_ms([], 100, 300) == 0
