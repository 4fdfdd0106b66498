"""Records: written, read back, described by the committed schema; checks and validity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ftmb import checks, measure, record, snapshots, spec
from ftmb.errors import SpecError
from ftmb.events import Event
from ftmb.faults import Schedule
from ftmb.measure import Stats
from ftmb.record import FaultRecord
from ftmb.recovery import recoveries

SCHEMAS = Path(__file__).parents[1] / "ftmb" / "schemas"


@pytest.mark.parametrize("which", ["record", "trial"])
def test_the_committed_schema_is_the_models(which: Any) -> None:
    committed = (SCHEMAS / f"{which}.schema.json").read_text(encoding="utf-8")
    assert committed == record.schema(which), f"run: ftmb schema {which} > {SCHEMAS.name}/..."
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


def traffic(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "offered": 100, "sent": 100, "late": 0, "delivered": 90, "duplicated": 0, "reordered": 0,
        "corrupted": 0, "window_offered": 80, "window_delivered": 72, "window_ns": 2_000_000_000,
        "gaps": [], "mapping_changed": 0, "mapping_shared": 0,
        "latency": {"count": 72, "p50": 1, "p90": 2, "p99": 3, "p999": 4, "p9999": 5, "max": 6},
    }  # fmt: skip
    return base | changes


def replica(**changes: Any) -> dict[str, Any]:
    base = {"condition": "active", "inputs": 98, "outputs": 90, "dropped_by_nf": 8,
            "nf_checks": []}  # fmt: skip
    return base | changes


IL = {"accepted": 98, "refused": 2, "log_peak_bytes": 5, "log_capacity_bytes": 9}
OL = {"pals": 196, "pal_bytes": 1568, "hash_mismatches": 0, "duplicates_dropped": 0,
      "log_peak_bytes": 5, "log_capacity_bytes": 9}  # fmt: skip


SECOND = {"view": 1, "epoch": 2}


def judged(
    text: dict[str, Any] | None = None, faults: list[FaultRecord] | None = None,
    events: dict[str, int] | None = None, trouble: list[str] | None = None, **parts: Any,
) -> tuple[dict[str, str], bool | str]:  # fmt: skip
    """Verdicts by name, and validity, of a run with these statistics."""
    checked = spec.parse(text or {})
    stats = Stats(
        parts.get("traffic", traffic()), parts.get("il", IL), parts.get("ol", OL),
        parts.get("replicas", [replica(), replica(condition="standby")]),
    )  # fmt: skip
    counts = measure.packets(checked, stats)
    log = measure.log(checked, stats, [])
    taken = [Event(1, "r0", "snapshot", {"pause_ns": 7}), Event(2, "loggers", "commit", SECOND)]
    snapshot = snapshots.summary(checked, taken, 0, stats.replicas)
    latency = measure.latency(checked, stats)
    seen = [Event(3, "r1", name) for name, count in (events or {}).items() for _ in range(count)]
    seen += parts.get("seen", [Event(1, "r1", "digest_match", SECOND), taken[1]])
    found = checks.checks(checked, stats, counts, log, snapshot, [], faults or [], seen)
    by_name = measure.event_counts(seen)
    strays = parts.get("strays", [])
    valid = checks.validity(checked, stats, counts, latency, strays, trouble or [], by_name)
    return {check.name: check.verdict for check in found}, valid


def test_a_good_run_passes_everything() -> None:
    verdicts, valid = judged({"nf": {"name": "nat"}})
    assert set(verdicts.values()) == {"pass"}
    assert set(verdicts) == {
        "loud_failures", "exactly_once", "order", "corrupted", "conservation", "equal_replay",
        "released_past_cut", "state_digest", "input_log_bound", "output_log_bound",
        "nat.mapping_changed", "nat.mapping_shared",
    }  # fmt: skip
    assert valid is True


@pytest.mark.parametrize(
    ("parts", "failing"),
    [
        ({"traffic": traffic(delivered=89)}, {"exactly_once"}),
        ({"traffic": traffic(duplicated=1)}, {"exactly_once"}),
        # A loss and a repetition must not cancel out.
        ({"traffic": traffic(delivered=91, duplicated=0)}, {"exactly_once"}),
        ({"traffic": traffic(reordered=1)}, {"order"}),
        ({"traffic": traffic(corrupted=1)}, {"corrupted"}),
        ({"traffic": traffic(mapping_changed=1)}, {"nat.mapping_changed"}),
        ({"traffic": traffic(mapping_shared=1)}, {"nat.mapping_shared"}),
        ({"replicas": [replica(dropped_by_nf=7)]}, {"conservation"}),
        # Committed, and nobody compared it: not by luck, and not because it was another one.
        ({"seen": [Event(2, "loggers", "commit", SECOND)]}, {"state_digest"}),
        ({"seen": [Event(1, "r1", "digest_match", SECOND | {"view": 2}),
                   Event(2, "loggers", "commit", SECOND)]}, {"state_digest"}),
        ({"replicas": [replica(nf_checks=[{"name": "ports", "ok": False, "detail": "x"}])]},
         {"nat.ports"}),
        ({"ol": OL | {"hash_mismatches": 1}}, {"equal_replay"}),
        ({"ol": OL | {"log_peak_bytes": 10}}, {"output_log_bound"}),
        ({"il": IL | {"log_peak_bytes": 10}}, {"input_log_bound"}),
        ({"events": {"divergence": 1}}, {"equal_replay", "loud_failures"}),
        ({"events": {"digest_mismatch": 1}}, {"state_digest", "loud_failures"}),
        ({"events": {"released_past_cut": 1}}, {"released_past_cut", "loud_failures"}),
        ({"events": {"state_lost": 1}}, {"loud_failures"}),
    ],
)  # fmt: skip
def test_each_wrong_figure_fails_its_check(parts: dict[str, Any], failing: set[str]) -> None:
    verdicts, _ = judged({"nf": {"name": "nat"}}, **parts)
    assert {name for name, verdict in verdicts.items() if verdict == "fail"} == failing


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"traffic": traffic(late=2)}, "generator was late: 2 of 80"),
        ({"traffic": traffic(exact=False)}, "could not keep track"),
        ({"traffic": traffic(delivered=0)}, "no packet was delivered"),
        ({"traffic": traffic(latency={"count": 0})}, "no latency samples"),
        ({"traffic": None}, "generator reported nothing"),
        ({"replicas": [replica(), replica()]}, "no replica, or more than one, was active"),
        ({"trouble": ["process r1 died"]}, "process r1 died"),
    ],
)
def test_each_reason_makes_a_record_invalid(parts: dict[str, Any], reason: str) -> None:
    _, valid = judged(**parts)
    assert isinstance(valid, str)
    assert reason in valid


def test_one_late_packet_in_a_hundred_is_still_valid() -> None:
    assert judged(traffic=traffic(late=1, window_offered=100))[1] is True


def test_a_fault_that_did_not_happen_invalidates() -> None:
    text = {"faults": [{"at_s": 1.5}]}
    schedule = Schedule.of(spec.parse(text))
    _, valid = judged(text, trouble=schedule.missing())
    assert isinstance(valid, str)
    assert "1.500 s did not happen" in valid


def fault(incident: int, *missing: str, **changes: Any) -> FaultRecord:
    tree: dict[str, Any] = {
        "index": 0, "do": "kill", "role": "master", "at_s": 1.0, "t0_ns": 5, "end_ns": None,
        "process": "r0", "pid": 7, "slot": 0, "link": None, "problem": None, "incident": incident,
        "guaranteed": not missing, "missing": list(missing), "recovered_ms": 1.0,
        "protected_again_ms": 2.0, "outage_ms": 3.0,
    }  # fmt: skip
    return FaultRecord.model_validate(tree | changes)


def test_an_outcome_that_was_not_guaranteed_fails_its_check() -> None:
    assert judged(faults=[fault(0), fault(0), fault(1)])[0]["outcome"] == "pass"
    assert judged(faults=[fault(0), fault(1, "no failover")])[0]["outcome"] == "fail"


def test_what_an_output_logger_had_in_hand_may_be_lost() -> None:
    hand = {"ol": OL | {"lost_in_hand": 2}}
    assert judged(traffic=traffic(delivered=88), **hand)[0]["exactly_once"] == "pass"
    assert judged(traffic=traffic(delivered=87), **hand)[0]["exactly_once"] == "fail"
    assert judged(traffic=traffic(delivered=91), **hand)[0]["exactly_once"] == "fail"
    assert judged(traffic=traffic(duplicated=1), **hand)[0]["exactly_once"] == "fail"


def test_what_met_a_dead_input_logger_is_counted() -> None:
    stats = Stats(traffic(offered=107), IL, OL, [replica()])
    counts = measure.packets(spec.parse({}), stats)
    assert counts is not None
    assert (counts.lost_before_log, counts.refused_before_log, counts.accepted) == (7, 2, 98)


def test_a_failover_that_no_fault_named_invalidates_unless_expected() -> None:
    (stray,) = recoveries([Event(5, "loggers", "fenced", {"view": 2})], [], [])
    assert "a failover that no fault named" in str(judged(strays=[stray])[1])
    assert judged({"expect": ["false_suspicion"]}, strays=[stray])[1] is True


def test_altered_payloads_are_corrupted_unless_expected() -> None:
    assert judged(traffic=traffic(altered=3))[0]["corrupted"] == "fail"
    assert judged({"expect": ["altered"]}, traffic=traffic(altered=3))[0]["corrupted"] == "pass"
    both = traffic(altered=3, corrupted=1)
    assert judged({"expect": ["altered"]}, traffic=both)[0]["corrupted"] == "fail"


def test_a_named_poison_input_is_a_success() -> None:
    text = {"expect": ["poison"]}
    named = [Event(9, "loggers", "poison", {"worker": 1, "input": 17})]
    verdicts, valid = judged(text, seen=named, traffic=None)
    assert (verdicts["poison"], valid) == ("pass", True)
    verdicts, valid = judged(text)
    assert verdicts["poison"] == "fail"
    assert "no input killed two masters" in str(valid)


def test_rate_max_has_no_latency_and_no_lateness() -> None:
    text = {"traffic": {"rate_pps": "max"}}
    stats = Stats(traffic(), IL, OL, [replica()])
    assert measure.latency(spec.parse(text), stats) is None
    assert judged(text, traffic=traffic(late=99))[1] is True


def test_rates_are_those_of_the_window() -> None:
    assert measure.rates(Stats(traffic(), IL, OL, [replica()])) == (36.0, 40.0)


def test_direct_mode_counts_without_loggers() -> None:
    direct = spec.parse({"ft": {"mode": "direct"}})
    counts = measure.packets(direct, Stats(traffic(), None, None, [replica()]))
    assert counts is not None
    assert (counts.accepted, counts.refused_before_log, counts.lost) == (98, 0, 0)


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"version": 2}', encoding="utf-8")
    with pytest.raises(SpecError, match="not a record of this version"):
        record.read(path)
    with pytest.raises(SpecError, match="No such file"):
        record.read(tmp_path / "absent.json")


def test_a_process_that_stops_loudly_is_counted_by_the_failures_name() -> None:
    events = [
        Event(1, "r1", "fatal", {"message": "divergence: the logs contradict each other"}),
        Event(2, "r0", "fatal", {"message": "no memory"}),
    ]
    assert measure.event_counts(events) == {"divergence": 1, "fatal": 2}
