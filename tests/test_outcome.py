"""What each fault was to lead to: every rule kept, and every rule broken."""

from __future__ import annotations

from typing import Any

import pytest

from ftmb import outcome, spec
from ftmb.events import Event
from ftmb.faults import Fault
from ftmb.outcome import Outcome
from ftmb.recovery import recoveries

MS = 1_000_000
T0 = 1000 * MS
Seen = tuple[int, str, str, dict[str, Any]]


def fault(do: str, role: str, at_ms: int = 0, calm: bool = True, **keys: Any) -> Fault:
    """A fault that happened to r0, `at_ms` after T0."""
    given = spec.parse({"faults": [{"do": do, "role": role, "at_s": 1} | keys]}).faults[0]
    links = {"il-master": "il-0", "ctl-master": "ctl-0", "state-backup": "state-1"}
    slot = {"master": 0, "ctl-master": 0, "backup": 1}.get(role)
    process = {"backup": "r1", "state-backup": "r1", "il": "il", "ol": "ol"}.get(role, "r0")
    return Fault(given, 0, 1.0, role, t0_ns=T0 + at_ms * MS, process=process, slot=slot,
                 link=links.get(role), calm=calm)  # fmt: skip


def events(*seen: Seen) -> list[Event]:
    return [Event(T0 + at * MS, process, name, fields) for at, process, name, fields in seen]


def judge(faults: list[Fault], *seen: Seen, **text: Any) -> Outcome:
    found = outcome.outcomes(spec.parse(text), faults, events(*seen), [[T0 + MS, 7 * MS]])
    assert len(found) == len(faults)
    return found[0]


FAILOVER: list[Seen] = [
    (1, "ol", "suspect", {"slot": 0, "kind": "death"}),
    (2, "ol", "fenced", {"view": 2}),
    (9, "ol", "resumed", {"view": 2}),
    (900, "ol", "protected", {"view": 2}),
]
FENCED_OUT: list[Seen] = [
    (500, "r0", "fenced_out", {"view": 2, "by": 1}),
    (501, "r0", "exit", {"code": 6}),
]
LOST: list[Seen] = [
    (1, "ol", "backup_lost", {"slot": 1, "kind": "death"}),
    (800, "ol", "protected", {}),
]
WOKEN: list[Seen] = [
    (1000, "r1", "fenced_out", {"view": 1, "by": 0}),
    (1001, "r1", "exit", {"code": 6}),
    (1900, "ol", "protected", {}),
]
RETURN: list[Seen] = [
    (400, "ol-2", "recovered", {"what": "ol"}),
    (450, "ol-2", "protected_again", {"what": "ol"}),
]
CUT: list[Seen] = [
    (1, "loggers", "link_cut", {"link": "il-0"}),
    (501, "loggers", "link_restored", {"link": "il-0"}),
]
STATE: list[Seen] = [
    (1, "r1", "link_cut", {"link": "state-1"}),
    (501, "r1", "link_restored", {"link": "state-1"}),
    (600, "ol", "commit", {}),
]

# What is hit, and the events that show the guaranteed outcome, all of them needed.
RULES: dict[str, tuple[Fault, list[Seen]]] = {
    "kill master": (fault("kill", "master"), [FAILOVER[2], FAILOVER[3]]),
    "stop master": (fault("stop", "master"), [*FAILOVER[2:], *FENCED_OUT]),
    "cut ctl": (fault("cut", "ctl-master"),
                [(1, "r0", "link_cut", {"link": "ctl-0"}), *FAILOVER[2:], *FENCED_OUT]),
    "switchover": (fault("switchover", "master"), [*FAILOVER[2:], *FENCED_OUT]),
    "kill backup": (fault("kill", "backup"), LOST),
    "stop backup": (fault("stop", "backup", for_s=1.0), [LOST[0], *WOKEN]),
    "kill ol": (fault("kill", "ol"), RETURN),
    "kill il": (fault("kill", "il"),
                [(400, "il-2", "recovered", {"what": "il"}),
                 (450, "ol", "protected_again", {"what": "il"})]),
    "cut il": (fault("cut", "il-master"), CUT),
    "cut state": (fault("cut", "state-backup"), STATE),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_kept_with_all_its_events_and_broken_without_any(rule: str) -> None:
    hit, needed = RULES[rule]
    assert judge([hit], *needed).missing == ()
    for left_out in needed:
        rest = [seen for seen in needed if seen is not left_out]
        assert len(judge([hit], *rest).missing) >= 1, f"not missed: {left_out[2]}"


@pytest.mark.parametrize(
    "hit",
    [
        fault("kill", "backup"), fault("kill", "il"), fault("kill", "ol"), fault("stop", "il"),
        fault("stop", "ol"), fault("cut", "il-master"), fault("stop", "master", for_s=0.01),
    ],
    ids=lambda hit: f"{hit.spec.do} {hit.role}",
)  # fmt: skip
def test_no_view_ends_when_no_master_was_hit(hit: Fault) -> None:
    every = [*LOST, *RETURN, *CUT, (400, "il-2", "recovered", {"what": "il"}),
             (450, "ol", "protected_again", {"what": "il"})]  # fmt: skip
    assert judge([hit], *every).missing == ()
    wrong = judge([hit], (2, "ol", "fenced", {"view": 2}), *every)
    assert any("although the master was not hit" in words for words in wrong.missing)
    assert judge([hit], FAILOVER[1], *every, expect=["false_suspicion"]).missing == ()


def test_a_stop_about_as_long_as_the_limit_may_go_either_way() -> None:
    hit = fault("stop", "master", for_s=0.1)
    assert judge([hit]).missing == ()
    assert judge([hit], *FAILOVER).missing == ()


def test_times_of_a_failover() -> None:
    result = judge([fault("kill", "master")], *FAILOVER)
    assert (result.recovered_ms, result.protected_again_ms, result.outage_ms) == (9, 900, 7)


def test_faults_that_overlap_are_judged_together() -> None:
    first, second = fault("kill", "master"), fault("kill", "master", at_ms=3, calm=False)
    seen = [
        FAILOVER[1], (4, "ol", "fenced", {"view": 3}), (700, "ol", "resumed", {"view": 3}),
        (1500, "ol", "protected", {}),
    ]  # fmt: skip
    result = judge([first, second], *seen)
    assert result.missing == ()
    assert (result.recovered_ms, result.protected_again_ms) == (700, 1500)
    assert outcome.incidents([first, second]) == [[first, second]]
    early = [(2, "ol", "resumed", {"view": 2}), *seen[:2], seen[3]]
    assert judge([first, second], *early).missing, "the second has no end of its own"


def test_faults_apart_are_judged_apart() -> None:
    faults = [fault("kill", "master"), fault("kill", "master", at_ms=2000)]
    first, second = outcome.outcomes(spec.parse({}), faults, events(*FAILOVER), None)
    assert first.missing == ()
    assert second.missing
    assert first.outage_ms is None


def test_a_slot_left_empty_need_not_be_protected_again() -> None:
    assert judge([fault("kill", "master", protect_again=False)], *FAILOVER[:3]).missing == ()


def test_a_fault_that_did_not_happen_has_no_outcome() -> None:
    hit = fault("kill", "master")
    hit.t0_ns = None
    assert outcome.outcomes(spec.parse({}), [hit], [], None) == []


def test_only_hits_of_a_master_explain_a_failover() -> None:
    text, seen = spec.parse({}), events(*FAILOVER)
    master, backup = fault("kill", "master"), fault("kill", "backup")
    assert outcome.failover_times(text, [master], seen) == [T0]
    assert outcome.failover_times(text, [backup], seen) == []
    maybe = fault("stop", "master", for_s=0.1)
    assert outcome.failover_times(text, [maybe], seen) == [T0]
    assert outcome.failover_times(text, [maybe], []) == []


def test_a_failover_is_a_stray_unless_an_incident_is_blamed() -> None:
    text, seen = spec.parse({}), events(*FAILOVER)
    entries = recoveries(seen, [], [])
    assert outcome.strays(text, [], entries) == entries
    assert outcome.strays(text, [fault("stop", "ol")], entries) == []
    late = fault("stop", "ol", at_ms=500)
    assert outcome.strays(text, [late], entries) == entries
