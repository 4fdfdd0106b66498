"""From what the processes reported to the figures of a record. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ftmb.events import LOUD_FAILURES, Event
from ftmb.record import Fill, Latency, Log, Noise, Packets, Sample
from ftmb.spec import TrialSpec


@dataclass(frozen=True)
class Stats:
    """The `stats` events by role. None: no process reported that role."""

    traffic: dict[str, Any] | None
    il: dict[str, Any] | None
    ol: dict[str, Any] | None
    replicas: list[dict[str, Any]]

    @property
    def active(self) -> dict[str, Any] | None:
        """The master at the end; its counts cover the whole run, they live in its state."""
        active = [r for r in self.replicas if r.get("condition") == "active"]
        return active[0] if len(active) == 1 else None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Stats:
        """Gather them. A role's later report replaces its earlier one."""
        roles: dict[str, dict[str, Any]] = {}
        replicas = []
        for event in events:
            if event.name != "stats":
                continue
            role = str(event.fields.get("role"))
            if role == "replica":
                replicas.append({**event.fields, "process": event.process})
            else:
                roles[role] = event.fields
        return cls(roles.get("traffic"), roles.get("il"), roles.get("ol"), replicas)


def packets(spec: TrialSpec, stats: Stats) -> Packets | None:
    """The counts of the run; None if traffic or the master did not report."""
    traffic, active, il = stats.traffic, stats.active, stats.il
    if traffic is not None and spec.ft.mode == "floor":
        # No function in between: what was sent is what should arrive.
        sent = traffic["sent"]
        active = {"inputs": sent, "outputs": sent, "dropped_by_nf": 0}
    if traffic is None or active is None:
        return None
    produced, delivered = int(active["outputs"]), traffic["delivered"]
    refused = il["refused"] if il else 0
    accepted = il["accepted"] if il else active["inputs"]
    return Packets(
        offered=traffic["offered"],
        refused_before_log=refused,
        accepted=accepted,
        dropped_by_nf=active["dropped_by_nf"],
        outputs_produced=produced,
        delivered=delivered,
        lost=None if delivered is None else produced - delivered,
        lost_in_hand=int((stats.ol or {}).get("lost_in_hand", 0)),
        lost_before_log=traffic["offered"] - accepted - refused,
        duplicated=traffic["duplicated"],
        reordered=traffic["reordered"],
        corrupted=_corrupted(spec, traffic),
    )


def _corrupted(spec: TrialSpec, traffic: dict[str, Any]) -> int | None:
    """Beyond repair, with the wrong addresses, or not to be recognised at all; with another payload
    than was sent, unless that is what the function is for."""
    if traffic["corrupted"] is None:
        return None
    kinds = ["corrupted", "wrong_tuple", "unmatched"]
    kinds += [] if "altered" in spec.expect else ["altered"]
    return sum(traffic.get(kind, 0) for kind in kinds)


def sample(stats: Stats) -> Sample | None:
    """What was numbered, where that is a part of the packets."""
    given = (stats.traffic or {}).get("sample")
    return None if given is None else Sample.model_validate(given)


def rates(stats: Stats) -> tuple[float | None, float | None]:
    """Delivered and offered packets per second over the window."""
    traffic = stats.traffic
    if traffic is None or not traffic["window_ns"]:
        return None, None
    seconds = traffic["window_ns"] / 1e9
    delivered = traffic["window_delivered"]
    return None if delivered is None else delivered / seconds, traffic["window_offered"] / seconds


def latency(spec: TrialSpec, stats: Stats) -> Latency | None:
    """Latencies of the window; None with rate max, where no intended send times exist."""
    if stats.traffic is None or spec.traffic.rate_pps == "max":
        return None
    if spec.traffic.external and stats.traffic["latency"] is None:
        return None
    given = stats.traffic.get("latency") or {"count": 0}
    if not given["count"]:
        return Latency(count=0)
    return Latency.model_validate({key: given.get(key) for key in Latency.model_fields})


def fill(stats: Stats) -> Fill | None:
    """The fill, None where there was none."""
    given = (stats.traffic or {}).get("fill") or {"flows": 0}
    if not given["flows"]:
        return None
    return Fill(flows=given["flows"], delivered=given["delivered"], took_s=given["took_ns"] / 1e9)


def state_bytes(stats: Stats) -> int | None:
    """Size of the state; None where no master reported."""
    return (stats.active or {}).get("state_bytes")


def noise(stats: Stats) -> dict[str, Noise] | None:
    """The machine's stalls per CPU; None if the meter did not report."""
    given = (stats.traffic or {}).get("noise")
    if given is None:
        return None
    keys = Noise.model_fields
    return {str(cpu): Noise(**{k: meter[k] for k in keys}) for cpu, meter in given.items()}


def log(spec: TrialSpec, stats: Stats, events: Sequence[Event]) -> Log | None:
    """Log sizes; None but in mode ftmb, or if a logger did not report."""
    il, ol = stats.il, stats.ol
    if spec.ft.mode != "ftmb" or il is None or ol is None:
        return None
    accepted = il["accepted"]
    return Log(
        pals=ol["pals"],
        pal_bytes=ol["pal_bytes"],
        bytes_per_packet=ol["pal_bytes"] / accepted if accepted else None,
        input_log_peak_bytes=il["log_peak_bytes"],
        input_log_capacity_bytes=il["log_capacity_bytes"],
        output_log_peak_bytes=ol["log_peak_bytes"],
        output_log_capacity_bytes=ol["log_capacity_bytes"],
        full_events=sum(e.name == "log_full" for e in events),
    )


def nf_counters(stats: Stats) -> dict[str, float]:
    """The function's own counters, as the master at the end reports them."""
    active = stats.active
    return dict(active.get("nf") or {}) if active else {}


def event_counts(events: Iterable[Event]) -> dict[str, int]:
    """How often each event occurred, by name; loud failures told by `fatal` count too."""
    counts: dict[str, int] = {}
    for event in events:
        names = {event.name}
        if event.name == "fatal":
            # A process that stops on a loud failure says its name at the head of its last words.
            cause = str(event.fields.get("message", "")).partition(":")[0]
            names |= {cause} & set(LOUD_FAILURES)
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
