"""The verdicts of a trial, and whether its figures may be used at all. Pure functions.

A check judges FTMB; validity judges the experiment. A lost packet fails a check in a valid record;
a generator that could not keep its schedule makes the record invalid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftmb import measure
from ftmb.events import LOUD_FAILURES, Event
from ftmb.measure import Stats, event_counts
from ftmb.memory import Flatness
from ftmb.record import Check, FaultRecord, Latency, Log, Packets, Sample
from ftmb.recovery import Recovery
from ftmb.snapshots import Snapshot
from ftmb.spec import TrialSpec

LATE_SHARE = 0.01


def _check(name: str, ok: bool, figure: float | int | None, detail: str) -> Check:
    return Check(name=name, verdict="pass" if ok else "fail", figure=figure, detail=detail)


def _once_check(counts: Packets) -> list[Check]:
    """Of loss alone where duplicates are not measured."""
    if counts.lost is None:
        return []
    # A killed output logger may take along what it had in hand: it counts that, before it does.
    beyond = counts.lost - min(max(counts.lost, 0), counts.lost_in_hand)
    hand = f", at most {counts.lost_in_hand} of them in hand" if counts.lost_in_hand else ""
    detail = f"{counts.outputs_produced} outputs, {counts.delivered} delivered, {counts.lost} lost"
    if counts.duplicated is None:
        detail += f"{hand}; duplicates are not measured"
        return [_check("nothing_lost", beyond == 0, abs(beyond), detail)]
    ok, figure = beyond == 0 and counts.duplicated == 0, abs(beyond) + counts.duplicated
    return [_check("exactly_once", ok, figure, f"{detail}{hand}, {counts.duplicated} duplicated")]


def _sample_check(sample: Sample) -> Check:
    detail = (
        f"of {sample.sent} packets numbered {sample.lost} lost, {sample.duplicated} duplicated, "
        f"{sample.reordered} out of order"
    )
    wrong = abs(sample.lost) + sample.duplicated + sample.reordered
    return _check("sample", wrong == 0, wrong, detail)


def _traffic_checks(counts: Packets, one_for_one: bool) -> list[Check]:
    checks = _once_check(counts)
    for name, count, what in (
        ("order", counts.reordered, "packets out of order within their flow"),
        ("corrupted", counts.corrupted, "packets with a wrong checksum, payload or addresses"),
    ):
        if count is not None:
            checks.append(_check(name, count == 0, count, f"{count} {what}"))
    if one_for_one:  # every input is done: it makes one output, or the drop is counted
        rest = counts.accepted - counts.dropped_by_nf - counts.outputs_produced
        checks.append(
            _check(
                "conservation",
                rest == 0,
                rest,
                f"{counts.accepted} accepted, {counts.dropped_by_nf} dropped by the function, "
                f"{counts.outputs_produced} outputs",
            )
        )
    return checks


def _replay_checks(
    ol: dict[str, Any], events: dict[str, int], recovery: Sequence[Recovery]
) -> list[Check]:
    mismatches = ol["hash_mismatches"]
    diverged = events.get("divergence", 0)
    replayed = sum(entry.packets_replayed or 0 for entry in recovery)
    dropped = ol["duplicates_dropped"]
    detail = f"{mismatches} outputs differ, {diverged} divergences"
    if recovery:
        detail += f"; {replayed} packets replayed, {dropped} repeated outputs compared and dropped"
    else:
        detail += "; no failover in this run"
    past = events.get("released_past_cut", 0)
    return [
        _check("equal_replay", mismatches == 0 and diverged == 0, mismatches + diverged, detail),
        _check("released_past_cut", past == 0, past, f"{past} outputs released beyond a cut"),
    ]


def _digest_check(seen: Sequence[Event]) -> Check:
    """Every snapshot that was committed was compared, by one that took it; and all were equal."""
    names: dict[str, set[tuple[int, int]]] = {"commit": set(), "digest_match": set()}
    for event in seen:
        if event.name in names:
            names[event.name].add((event.integer("view"), event.integer("epoch")))
    different = event_counts(seen).get("digest_mismatch", 0)
    unseen = names["commit"] - names["digest_match"]
    detail = f"{len(names['digest_match'])} snapshots equal at master and backup, "
    detail += (
        f"{different} different; {len(unseen)} of {len(names['commit'])} committed not compared"
    )
    return _check("state_digest", not different and not unseen, different + len(unseen), detail)


def _bound_checks(log: Log | None, snapshot: Snapshot | None) -> list[Check]:
    pairs: list[tuple[str, int | None, int | None]] = []
    if log is not None:
        pairs += [
            ("input_log_bound", log.input_log_peak_bytes, log.input_log_capacity_bytes),
            ("output_log_bound", log.output_log_peak_bytes, log.output_log_capacity_bytes),
        ]
    if snapshot is not None:
        pairs.append(("undo_log_bound", snapshot.undo_peak_bytes, snapshot.undo_bytes_limit))
    return [
        _check(name, peak <= bound, peak, f"peak {peak} of {bound} bytes")
        for name, peak, bound in pairs
        if peak is not None and bound is not None
    ]


def _outcome_check(faults: Sequence[FaultRecord]) -> Check:
    """Whether each incident ended as docs/FAULTS.md promises."""
    ended = {f.incident: f for f in faults if f.incident is not None}
    good = sum(bool(fault.guaranteed) for fault in ended.values())
    detail = f"{good} of {len(ended)} faults ended as guaranteed"
    for number, fault in ended.items():
        if not fault.guaranteed:
            what = f"{fault.do} {fault.role} at {fault.at_s:.3f} s"
            detail += f"; {what} (incident {number}): {', '.join(fault.missing)}"
            break
    return _check("outcome", good == len(ended), len(ended) - good, detail)


def _poison_check(events: Sequence[Event]) -> Check:
    named = [event for event in events if event.name == "poison"]
    detail = "no input was named"
    if named:
        fields = named[0].fields
        detail = f"worker {fields.get('worker')}, input {fields.get('input')}"
    return _check("poison", len(named) == 1, len(named), detail)


def _nf_checks(spec: TrialSpec, stats: Stats) -> list[Check]:
    name = spec.nf.name
    checks = [
        _check(f"{name}.{given['name']}", bool(given["ok"]), None, str(given.get("detail", "")))
        for given in (stats.active or {}).get("nf_checks", [])
    ]
    if name in {"nat", "nat-pthread"} and spec.ft.mode != "floor" and stats.traffic is not None:
        for key, what in (
            ("mapping_changed", "flows whose outside address or port changed"),
            ("mapping_shared", "outside ports given to two flows at a time"),
        ):
            count = stats.traffic[key]
            if count is not None:
                checks.append(_check(f"{name}.{key}", count == 0, count, f"{count} {what}"))
    return checks


def _loud_check(events: dict[str, int]) -> Check:
    seen = {name: events[name] for name in LOUD_FAILURES if events.get(name)}
    detail = ", ".join(f"{name} {count}" for name, count in seen.items()) or "none"
    return _check("loud_failures", not seen, sum(seen.values()), detail)


def memory_check(flatness: Flatness | None) -> list[Check]:
    """Whether memory stayed flat; no verdict where the run was too short to tell."""
    if flatness is None:
        return []
    return [_check("memory_flat", flatness.flat, flatness.worst_kb, flatness.detail)]


def checks(
    spec: TrialSpec,
    stats: Stats,
    counts: Packets | None,
    log: Log | None,
    snapshot: Snapshot | None,
    recovery: Sequence[Recovery],
    faults: Sequence[FaultRecord],
    seen: Sequence[Event],
) -> list[Check]:
    """All verdicts that the trial's figures allow."""
    events = event_counts(seen)
    found = [_loud_check(events)]
    if "poison" in spec.expect:
        found.append(_poison_check(seen))
    if counts is not None:
        # Of a poisoned input nothing comes, nor of those behind it.
        whole = spec.ft.mode != "floor" and "poison" not in spec.expect
        found += _traffic_checks(counts, whole)
        found += _nf_checks(spec, stats)
    if (numbered := measure.sample(stats)) is not None:
        found.append(_sample_check(numbered))
    if spec.ft.mode != "ftmb":
        return found
    if stats.ol is not None:
        found += _replay_checks(stats.ol, events, recovery)
    if spec.ft.check and snapshot is not None and snapshot.committed:
        found.append(_digest_check(seen))
    found += _bound_checks(log, snapshot)
    if any(fault.incident is not None for fault in faults):
        found.append(_outcome_check(faults))
    return found


def validity(
    spec: TrialSpec,
    stats: Stats,
    counts: Packets | None,
    latency: Latency | None,
    strays: Sequence[Recovery],
    trouble: Sequence[str],
    events: dict[str, int],
) -> bool | str:
    """True, or every reason why the figures must not be used, joined by `; `.

    strays: failovers that no fault explains. trouble: what went wrong while the trial ran (a
    process died, the workload did not finish, a fault did not happen). events: their counts.
    """
    reasons = list(trouble)
    if "poison" in spec.expect:
        # The run ends there by intention; what it would have shown at its end does not exist.
        if not events.get("poison"):
            reasons.append("no input killed two masters (no `poison` event)")
        return "; ".join(reasons) if reasons else True
    traffic = stats.traffic
    if traffic is None:
        reasons.append("the generator reported nothing")
    else:
        offered, late = traffic["window_offered"], traffic["late"]
        # Of a program outside nobody expects that it keeps its schedule to the millisecond.
        paced = spec.traffic.rate_pps != "max" and not spec.traffic.external
        if paced and late > LATE_SHARE * offered:
            reasons.append(f"the generator was late: {late} of {offered} packets over 1 ms")
        if traffic.get("exact") is False:
            reasons.append("the sink could not keep track of every packet")
        if traffic["delivered"] == 0:
            reasons.append("no packet was delivered")
    if stats.active is None and spec.ft.mode != "floor":
        reasons.append("no replica, or more than one, was active at the end")
    if latency is not None and latency.count == 0:
        reasons.append("no latency samples")
    if strays and "false_suspicion" not in spec.expect:
        reasons.append("a failover that no fault named")
    if counts is None and not reasons:
        reasons.append("no packet counts")
    return "; ".join(reasons) if reasons else True
