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
    assert plan.missing() == ["the fault at 1.000 s did not happen: no master"]


def of(duration_s: float = 10, seed: int = 1, **fault: Any) -> Schedule:
    """The schedule of one fault, whose window starts at 0."""
    tree = {"duration_s": duration_s, "faults": [fault], "traffic": {"seed": seed}}
    plan = Schedule.of(spec.parse(tree))
    plan.window_start_ns = 0
    return plan


def test_random_times_follow_the_seed_and_stay_in_the_middle() -> None:
    draws = [of(seed=seed, at_s="random").next_due_ns() or 0 for seed in range(200)]
    assert draws == [of(seed=seed, at_s="random").next_due_ns() for seed in range(200)]
    assert len(set(draws)) == len(draws)
    assert 1000 * MS <= min(draws) < 1500 * MS
    assert 8500 * MS < max(draws) <= 9000 * MS


def test_a_fault_after_an_event_waits_for_it() -> None:
    plan = of(after="replay_start", delay_ms=5)
    plan.hear(Event(10 * MS, "loggers", "fenced"))
    assert plan.next_due_ns() is None
    plan.hear(Event(20 * MS, "r1", "replay_start"))
    assert plan.next_due_ns() == 25 * MS
    assert plan.due(25 * MS) is not None
    plan.hear(Event(30 * MS, "r0", "replay_start"))
    assert plan.next_due_ns() is None, "once"


def test_events_before_the_window_start_nothing() -> None:
    plan = of(after="protected")
    plan.window_start_ns = None
    plan.hear(Event(10 * MS, "loggers", "protected"))
    plan.window_start_ns = 20 * MS
    assert plan.next_due_ns() is None
    assert plan.missing() == ["the fault after protected did not happen: the run ended before"]


def test_a_repeated_fault_after_an_event_does_not_answer_itself() -> None:
    plan = of(after="replay_start", repeat={"every_s": [1, 1]})
    plan.hear(Event(100 * MS, "r1", "replay_start"))
    assert plan.due(100 * MS) is not None
    plan.hear(Event(1200 * MS, "r0", "replay_start"))  # what it caused
    plan.hear(Event(1300 * MS, "r0", "replay_start"), calm_ns=50 * MS)  # calm before it
    assert plan.due(1300 * MS) is None
    plan.hear(Event(1400 * MS, "ol", "protected"), calm_ns=1350 * MS)
    plan.hear(Event(1500 * MS, "r1", "replay_start"))  # of another's fault
    assert plan.due(1500 * MS) is not None


def test_repeated_faults_wait_until_all_is_well_and_then_a_drawn_time() -> None:
    plan = of(role="master", repeat={"every_s": [0.1, 0.3]})
    assert plan.next_due_ns(None) is None
    first = plan.next_due_ns(500 * MS) or 0
    assert 600 * MS <= first <= 800 * MS
    fault = plan.due(first, 500 * MS)
    assert fault is not None
    fault.t0_ns = first
    assert plan.next_due_ns(None) is None
    second = plan.next_due_ns(3000 * MS) or 0
    assert 3100 * MS <= second <= 3300 * MS
    assert second - 3000 * MS != first - 500 * MS


def test_the_last_repetition_leaves_time_to_recover() -> None:
    plan = of(role="master", repeat={"every_s": [0, 0]})
    assert plan.next_due_ns(8000 * MS) == 8000 * MS
    assert plan.next_due_ns(8001 * MS) is None
    assert of(3, role="master", repeat={"every_s": [0, 0]}).next_due_ns(1900 * MS)


def test_repetitions_are_counted() -> None:
    plan = of(role="backup", when="any", at_s=1.0, repeat={"every_s": [1, 1], "count": 3})
    times = []
    while (when := plan.next_due_ns()) is not None:
        fault = plan.due(when)
        assert fault is not None
        fault.t0_ns = when
        times.append(when // MS)
    assert times == [1000, 2000, 3000]
    assert plan.missing() == []
    few = of(role="backup", when="any", repeat={"every_s": [3, 3], "count": 3})
    few.due(3000 * MS)
    assert few.missing() == ["the repeated fault 0 happened 2 times too few"]


def test_roles_are_drawn_by_the_seed() -> None:
    def drawn(seed: int) -> list[str]:
        fault = {"role": ["master", "il", "ol"], "when": "any", "repeat": {"every_s": [0.1, 0.1]}}
        plan = of(seed=seed, **fault)
        found = []
        while (when := plan.next_due_ns()) is not None:
            found.append(getattr(plan.due(when), "role", ""))
        return found

    assert drawn(1) == drawn(1) != drawn(2)
    assert all(set(drawn(1)[i : i + 3]) == {"master", "il", "ol"} for i in (0, 3, 6))


def test_a_stopped_schedule_is_silent() -> None:
    plan = of(at_s=1.0)
    plan.stopped = True
    assert plan.due(2000 * MS) is None


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


def test_views_that_end_before_they_deliver_are_one_failover() -> None:
    t0 = 500 * MS
    early = [Event(t0 + 2 * MS, "loggers", "fenced", {"view": 2}),
             Event(t0 + 2 * MS + 1, "loggers", "cut", {"view": 2, "dropped_pals": 9})]  # fmt: skip
    events = sorted(failover(3, t0) + early, key=lambda event: event.t_ns)
    (entry,) = recoveries(events, [t0], [])
    assert (entry.view, entry.fence_ms, entry.cut_ms, entry.total_ms) == (3, 2, 4, 31)


def test_the_outage_is_a_gap_that_spans_or_follows_the_fault() -> None:
    gaps = [[0, 50], [90, 20], [150, 15], [400, 99]]
    assert outage_ms([[g[0] * MS, g[1] * MS] for g in gaps], 100 * MS, 300 * MS) == 20
    assert outage_ms([], 100, 300) == 0
