"""Events: what becomes of the lines that processes write."""

from __future__ import annotations

import json
from typing import Any

from ftmb import events


def _line(trees: list[dict[str, Any]]) -> str:
    return json.dumps({"routine": trees}, separators=(",", ":"))


def test_a_line_of_one_event() -> None:
    event = events.parse_line("r0", '{"t_ns":7,"process":"other","event":"view","slot":1}')
    assert event == events.Event(7, "r0", "view", {"slot": 1})
    assert event is not None and events.unfolded(event) == [event]


def test_routine_events_share_a_line_until_somebody_asks() -> None:
    trees = [{"t_ns": n, "process": "x", "event": "commit", "epoch": n} for n in (3, 4)]
    folded = events.parse_line("ol", _line([*trees, {"event": "without a time"}]))
    assert folded is not None and folded.name == "routine"
    assert events.unfolded(folded) == [
        events.Event(n, "ol", "commit", {"epoch": n}) for n in (3, 4)
    ]


def test_what_a_killed_process_did_not_finish_writing_is_left_out() -> None:
    whole = _line([{"t_ns": 3, "event": "commit"}])
    for length in range(len(events.ROUTINE), len(whole)):
        folded = events.parse_line("ol", whole[:length])
        assert folded is not None and events.unfolded(folded) == []


def test_what_is_no_event() -> None:
    for line in ("", "EAL: hello", "[1]", '{"event":"view"}', '{"t_ns":"7","event":"view"}'):
        assert events.parse_line("r0", line) is None
