"""The verdicts of a trial, and whether its figures may be used at all. Pure functions.

A check judges FTMB; validity judges the experiment. A lost packet fails a check in a valid record;
a generator that could not keep its schedule makes the record invalid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftmb.events import LOUD_FAILURES
from ftmb.faults import Fault
from ftmb.measure import Stats
from ftmb.record import Check, Latency, Log, Packets, Snapshot
from ftmb.recovery import Recovery
from ftmb.spec import TrialSpec

LATE_SHARE = 0.01
# Functions that forward every packet they do not drop, so that counts must add up.
ONE_FOR_ONE = ("monitor", "nat")


def _check(name: str, ok: bool, figure: float | int | None, detail: str) -> Check:
    return Check(name=name, verdict="pass" if ok else "fail", figure=figure, detail=detail)


def _traffic_checks(counts: Packets, one_for_one: bool) -> list[Check]:
    wrong = abs(counts.lost) + counts.duplicated
    checks = [
        _check(
            "exactly_once",
            counts.lost == 0 and counts.duplicated == 0,
            wrong,
            f"{counts.outputs_produced} outputs, {counts.delivered} delivered, "
            f"{counts.lost} lost, {counts.duplicated} duplicated",
        ),
        _check(
            "order",
            counts.reordered == 0,
            counts.reordered,
            f"{counts.reordered} packets out of order within their flow",
        ),
        _check(
            "corrupted",
            counts.corrupted == 0,
            counts.corrupted,
            f"{counts.corrupted} packets with a wrong checksum, payload or addresses",
        ),
    ]
    if one_for_one:
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


def _digest_check(replicas: Sequence[dict[str, Any]], events: dict[str, int]) -> Check:
    matched = sum(r.get("digest_matched", 0) for r in replicas)
    mismatched = sum(r.get("digest_mismatched", 0) for r in replicas)
    # A replica that was killed reports nothing at the end, but its event was seen.
    mismatched = max(mismatched, events.get("digest_mismatch", 0))
    return _check(
        "state_digest",
        mismatched == 0 and matched >= 1,
        mismatched,
        f"{matched} digests of master and backup equal, {mismatched} different",
    )


def _bound_checks(log: Log) -> list[Check]:
    pairs = (
        ("input_log_bound", log.input_log_peak_bytes, log.input_log_capacity_bytes),
        ("output_log_bound", log.output_log_peak_bytes, log.output_log_capacity_bytes),
    )
    return [
        _check(name, peak <= bound, peak, f"peak {peak} of {bound} bytes")
        for name, peak, bound in pairs
    ]


def _recovered_check(faults: Sequence[Fault], recovery: Sequence[Recovery]) -> Check:
    kills = [fault for fault in faults if fault.happened]
    back = sum(entry.total_ms is not None for entry in recovery if entry.t0_ns is not None)
    return _check(
        "recovered",
        back == len(kills),
        back,
        f"{back} of {len(kills)} failovers reached their first new output",
    )


def _nf_checks(spec: TrialSpec, stats: Stats) -> list[Check]:
    name = spec.nf.name
    checks = [
        _check(f"{name}.{given['name']}", bool(given["ok"]), None, str(given.get("detail", "")))
        for given in (stats.active or {}).get("nf_checks", [])
    ]
    if name == "nat" and spec.ft.mode != "floor" and stats.traffic is not None:
        for key, what in (
            ("mapping_changed", "flows whose outside address or port changed"),
            ("mapping_shared", "outside ports given to two flows at a time"),
        ):
            count = stats.traffic[key]
            checks.append(_check(f"nat.{key}", count == 0, count, f"{count} {what}"))
    return checks


def _loud_check(events: dict[str, int]) -> Check:
    seen = {name: events[name] for name in LOUD_FAILURES if events.get(name)}
    detail = ", ".join(f"{name} {count}" for name, count in seen.items()) or "none"
    return _check("loud_failures", not seen, sum(seen.values()), detail)


def checks(
    spec: TrialSpec,
    stats: Stats,
    counts: Packets | None,
    log: Log | None,
    snapshot: Snapshot | None,
    recovery: Sequence[Recovery],
    faults: Sequence[Fault],
    events: dict[str, int],
) -> list[Check]:
    """All verdicts that the trial's figures allow. events: counts of events by name."""
    found = [_loud_check(events)]
    if counts is not None:
        one_for_one = spec.nf.name in ONE_FOR_ONE and spec.ft.mode != "floor"
        found += _traffic_checks(counts, one_for_one)
        found += _nf_checks(spec, stats)
    if spec.ft.mode != "ftmb":
        return found
    if stats.ol is not None:
        found += _replay_checks(stats.ol, events, recovery)
    if spec.ft.check and snapshot is not None and snapshot.committed and stats.replicas:
        found.append(_digest_check(stats.replicas, events))
    if log is not None:
        found += _bound_checks(log)
    if faults:
        found.append(_recovered_check(faults, recovery))
    return found


def validity(
    spec: TrialSpec,
    stats: Stats,
    counts: Packets | None,
    latency: Latency | None,
    recovery: Sequence[Recovery],
    faults: Sequence[Fault],
    trouble: Sequence[str],
) -> bool | str:
    """True, or every reason why the figures must not be used, joined by `; `.

    trouble: what went wrong while the trial ran (a process died, the workload did not finish).
    """
    reasons = list(trouble)
    for fault in faults:
        if not fault.happened:
            why = fault.problem or "the run ended before"
            reasons.append(f"the fault at {fault.at_s:.3f} s did not happen: {why}")
    traffic = stats.traffic
    if traffic is None:
        reasons.append("the generator reported nothing")
    else:
        offered, late = traffic["window_offered"], traffic["late"]
        if spec.traffic.rate_pps != "max" and late > LATE_SHARE * offered:
            reasons.append(f"the generator was late: {late} of {offered} packets over 1 ms")
        if traffic.get("exact") is False:
            reasons.append("the sink could not keep track of every packet")
        if traffic["delivered"] == 0:
            reasons.append("no packet was delivered")
    if stats.active is None and spec.ft.mode != "floor":
        reasons.append("no replica, or more than one, was active at the end")
    if latency is not None and latency.count == 0:
        reasons.append("no latency samples")
    if any(entry.t0_ns is None for entry in recovery):
        reasons.append("a failover that no fault named")
    if counts is None and not reasons:
        reasons.append("no packet counts")
    return "; ".join(reasons) if reasons else True
