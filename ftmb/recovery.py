"""Failovers, phase by phase, from the merged events of a trial. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pydantic import Field

from ftmb.events import Event
from ftmb.model import Model

NS_PER_MS = 1e6


class Recovery(Model):
    """One failover. Phases follow one another; null: the step was not reached."""

    t0_ns: int | None = Field(description="CLOCK_MONOTONIC ns of the fault; null: no fault of ours")
    view: int | None = Field(description="the view that began")
    detect_kind: str | None = Field(
        description="death (lock released), silence (heart-beats) or handover (switchover)"
    )
    detect_ms: float | None = Field(description="fault to suspicion")
    fence_ms: float | None = Field(description="suspicion to the end of the old view")
    cut_ms: float | None = Field(description="end of the old view to the consistent cut")
    replay_ms: float | None = Field(
        description="cut to the end of replay, or to the first new output if that came before: a "
        "worker past its own log does not wait for the others"
    )
    resume_ms: float | None = Field(
        description="from there to the first new output released; 0 if that ended the phase before"
    )
    total_ms: float | None = Field(description="fault to the first new output released")
    packets_replayed: int | None
    pals_replayed: int | None
    pals_dropped: int | None = Field(description="PALs beyond the cut")
    outage_ms: float | None = Field(
        description="longest gap at the sink that begins after the fault or spans it; "
        "0: none above the meter's threshold"
    )
    protected_again_ms: float | None = Field(description="fault to the next committed base")
    marks_ns: dict[str, int] = Field(description="CLOCK_MONOTONIC ns of each step")


def _first(
    events: Sequence[Event], name: str, after: int, before: int, view: int | None = None
) -> Event | None:
    for event in events:
        same = view is None or event.fields.get("view", view) == view
        if event.name == name and after <= event.t_ns < before and same:
            return event
    return None


def _span_ms(marks: dict[str, int], start: str, end: str) -> float | None:
    if start not in marks or end not in marks:
        return None
    return (marks[end] - marks[start]) / NS_PER_MS


def outage_ms(gaps: Sequence[Sequence[int]], t0_ns: int, until_ns: int) -> float:
    """The longest of `gaps` ([start_ns, length_ns]) that begins in [t0, until) or spans t0.

    0 if there is none: the sink lists gaps above its threshold only.
    """
    longest = 0
    for start, length in gaps:
        if start < until_ns and start + length > t0_ns:
            longest = max(longest, length)
    return longest / NS_PER_MS


def _one(
    events: Sequence[Event],
    t0_ns: int | None,
    begin: int,
    until: int,
    gaps: Sequence[Sequence[int]] | None,
) -> Recovery:
    """The failover whose steps lie in [begin, until)."""
    marks: dict[str, int] = {} if t0_ns is None else {"fault": t0_ns}
    found: dict[str, Event] = {}
    suspect = _first(events, "suspect", begin, until)
    fenced = _fence(events, suspect.t_ns if suspect else begin, until)
    view = fenced.integer("view") if fenced and "view" in fenced.fields else None
    for name, event in (("suspect", suspect), ("fenced", fenced)):
        if event:
            found[name] = event
    at = fenced.t_ns if fenced else begin
    for name in ("cut", "replay_start", "replay_done", "resumed"):
        event = _first(events, name, at, until, view) if fenced else None
        if event is None:
            continue
        found[name] = event
        at = event.t_ns if name == "cut" else at
    marks |= {name: event.t_ns for name, event in found.items()}
    done = found.get("replay_done")
    resumed = found.get("resumed")
    # Workers go on independently: one may deliver new output while another still replays.
    ends = [event.t_ns for event in (done, resumed) if event]
    steps = marks | ({"replayed": min(ends)} if ends else {})
    again = _first(events, "protected", resumed.t_ns, until) if resumed else None
    if again:
        marks["protected"] = again.t_ns
    return Recovery(
        t0_ns=t0_ns,
        view=view,
        detect_kind=str(suspect.fields["kind"]) if suspect and "kind" in suspect.fields else None,
        detect_ms=_span_ms(marks, "fault", "suspect"),
        fence_ms=_span_ms(marks, "suspect", "fenced"),
        cut_ms=_span_ms(marks, "fenced", "cut"),
        replay_ms=_span_ms(steps, "cut", "replayed"),
        resume_ms=_span_ms(steps, "replayed", "resumed"),
        total_ms=_span_ms(marks, "fault", "resumed"),
        packets_replayed=done.integer("packets") if done else None,
        pals_replayed=done.integer("pals") if done else None,
        pals_dropped=found["cut"].integer("dropped_pals") if "cut" in found else None,
        outage_ms=None if gaps is None or t0_ns is None else outage_ms(gaps, t0_ns, until),
        protected_again_ms=_span_ms(marks, "fault", "protected"),
        marks_ns=marks,
    )


def _fence(events: Sequence[Event], begin: int, until: int) -> Event | None:
    """The end of the old view: where the first successor died as well, before anything new came
    out, the last of the ends."""
    found = None
    for event in events:
        if not begin <= event.t_ns < until:
            continue
        if event.name == "fenced":
            found = event
        elif event.name == "resumed" and found is not None:
            break
    return found


def _views_ended(events: Sequence[Event], begin: int, until: int) -> list[int]:
    """When failovers began; views that ended before anything new came out are one with them."""
    found = []
    open_since = None
    for event in events:
        if event.name == "fenced" and begin <= event.t_ns < until and open_since is None:
            found.append(open_since := event.t_ns)
        elif event.name == "resumed":
            open_since = None
    return found


def _unexplained(
    events: Sequence[Event], begin: int, until: int, gaps: Sequence[Sequence[int]] | None
) -> list[Recovery]:
    steps = itertools.pairwise([*_views_ended(events, begin, until), until])
    return [_one(events, None, start, end, gaps) for start, end in steps]


def recoveries(
    events: Sequence[Event], fault_times_ns: Sequence[int], gaps: Sequence[Sequence[int]] | None
) -> list[Recovery]:
    """One entry per injected fault, and one per failover that no fault of ours explains.

    events: merged, in the order of time. fault_times_ns: when masters were killed, ascending.
    gaps: the sink's longest gaps as [start_ns, length_ns]; None if the sink reported nothing.
    """
    forever = 1 << 63
    # Before the first fault, and after the first failover that follows each one, a view that ends
    # has no fault of ours to explain it.
    result = _unexplained(events, 0, fault_times_ns[0] if fault_times_ns else forever, gaps)
    for t0_ns, until in itertools.pairwise([*fault_times_ns, forever]):
        ends = _views_ended(events, t0_ns, until)
        mine = ends[1] if len(ends) > 1 else until
        result.append(_one(events, t0_ns, t0_ns, mine, gaps))
        result += _unexplained(events, mine, until, gaps)
    return result
