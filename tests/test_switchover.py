"""One switchover of a site, from the question to the answers, by the events that tell of it."""

from __future__ import annotations

from typing import Any

import pytest

from ftmb import switchover
from ftmb.door import Request
from ftmb.events import Event
from ftmb.switchover import Switchover

MS = 1_000_000
ENDED: list[tuple[int, str, dict[str, Any]]] = [
    (3, "handover", {"view": 1}),
    (8, "suspect", {"slot": 0, "kind": "handover"}),
    (8, "fenced", {"view": 2}),
]
DONE: list[tuple[int, str, dict[str, Any]]] = [
    (9, "replay_done", {"view": 2, "packets": 70}),
    (10, "resumed", {"view": 2}),
]


def told(*seen: tuple[int, str, dict[str, Any]]) -> Switchover:
    switch = Switchover(Request("switchover"), "r0", asked_ns=0)
    for at, name, fields in seen:
        switch.take(Event(at * MS, "loggers", name, fields))
    return switch


def answers(switch: Switchover) -> list[dict[str, Any]]:
    switch.request.end()
    return list(switch.request.answers())


@pytest.mark.parametrize("order", [DONE, DONE[::-1]])
def test_it_answers_once_it_is_done_and_when_all_is_protected(order: Any) -> None:
    switch = told(*ENDED)
    assert not switch.done
    switch = told(*ENDED, *order)
    assert switch.done and not switch.failure
    switch.protected(900 * MS)
    first, second = answers(switch)
    assert first == {"switched": True, "old": "r0", "prepared_ms": 8.0, "paused_ms": 2.0,
                     "replay_ms": 1.0, "packets_replayed": 70}  # fmt: skip
    assert second == {"protected": True, "after_ms": 900.0}
    assert "outputs paused for 2.0 ms (70 packets" in switchover.in_words("edge", first)
    assert switchover.in_words("edge", second) == "edge: protected again, 0.9 s after it was asked"


def test_where_nothing_flows_it_ends_as_well() -> None:
    switch = told(*ENDED, DONE[0])
    switch.look(9 * MS + switchover.QUIET_NS)
    assert not switch.done
    switch.look(10 * MS + switchover.QUIET_NS)
    (only,) = answers(switch)
    assert only["paused_ms"] is None
    assert "nothing was flowing" in switchover.in_words("edge", only)


@pytest.mark.parametrize("name", ["handover_refused", "handover_given_up"])
def test_why_it_did_not_come_to_it(name: str) -> None:
    switch = told((1, name, {"why": "no backup holds the state"}))
    assert switch.done and switch.failure
    switch.fail("another reason")  # the first one counts
    assert answers(switch) == [{"failed": "no backup holds the state"}]


def test_the_replay_may_be_heard_of_before_the_end_of_the_view() -> None:
    """They come from two processes; what ended before it was asked, or the view did, is another."""
    old = [(at, "replay_done", {"view": 1, "packets": 5}) for at in (-2, 2)]
    switch = told(*old, *ENDED[:1], DONE[0], *ENDED[1:])
    assert not switch.done and not told(*old, *ENDED, DONE[1]).done
    switch.take(Event(10 * MS, "loggers", "resumed", {"view": 2}))
    (only,) = answers(switch)
    assert (only["replay_ms"], only["packets_replayed"]) == (1.0, 70)


def test_the_death_of_the_output_logger_counts_until_the_view_has_ended() -> None:
    recovered = (4, "recovered", {"what": "ol"})
    assert "output logger died" in told(ENDED[0], recovered).failure
    assert not told(ENDED[0], (4, "recovered", {"what": "il"})).done
    later = told(*ENDED, recovered, *DONE)
    assert later.done and not later.failure


def test_a_failover_is_no_switchover() -> None:
    crash: list[tuple[int, str, dict[str, Any]]] = [
        (8, "suspect", {"slot": 0, "kind": "death"}),
        (8, "fenced", {"view": 2}),
    ]
    assert not told(*crash, *DONE).done
