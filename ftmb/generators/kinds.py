"""What each generator can do, and in one line why a trial's spec asks too much of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftmb.spec import TrialSpec


@dataclass(frozen=True)
class Kind:
    """A generator outside of the data plane. None: no limit of its own."""

    most_pps: int | None
    most_flows: int | None
    replies: bool


# Python sends and receives a packet in about 0.1 ms, on a CPU that it shares with the middlebox.
KINDS = {
    "scapy": Kind(most_pps=2_000, most_flows=1_024, replies=True),
    "trex": Kind(most_pps=None, most_flows=65_536, replies=False),
}
# Latency streams of a server are few; each is a flow.
TREX_LATENCY_FLOWS = 64


def refusal(spec: TrialSpec) -> str | None:
    """Why this generator cannot drive this trial, and what could; None if it can."""
    traffic = spec.traffic
    kind = KINDS.get(traffic.generator)
    if kind is None:
        return None
    wrong = _modes(spec) + _amounts(spec, kind) + _without(spec, kind)
    wrong += _scapy(spec) if traffic.generator == "scapy" else _trex(spec)
    if not wrong:
        return None
    return f"traffic.generator {traffic.generator}: {'; '.join(wrong)}; or take native"


def _modes(spec: TrialSpec) -> list[str]:
    wrong = []
    if spec.ft.mode not in ("ftmb", "none"):
        wrong.append(
            f"it needs loggers, which stand at the interfaces: ft.mode ftmb or none, not "
            f"{spec.ft.mode}"
        )
    if spec.testbed != "local":
        wrong.append(f"it stands at interfaces of this machine: testbed local, not {spec.testbed}")
    if spec.processes != "auto":
        wrong.append("one process opens the interfaces: processes auto")
    if any(role in ("il", "ol") for fault in spec.faults for role in fault.roles):
        wrong.append("il and ol share a process with the interfaces: no faults of theirs")
    return wrong


def _amounts(spec: TrialSpec, kind: Kind) -> list[str]:
    traffic, wrong = spec.traffic, []
    if traffic.rate_pps == "max":
        wrong.append("it needs a rate_pps, not max")
    elif kind.most_pps is not None and traffic.rate_pps > kind.most_pps:
        wrong.append(f"rate_pps at most {kind.most_pps}, not {traffic.rate_pps}")
    if kind.most_flows is not None and traffic.flows > kind.most_flows:
        wrong.append(f"flows at most {kind.most_flows}, not {traffic.flows}")
    return wrong


def _without(spec: TrialSpec, kind: Kind) -> list[str]:
    """Keys that only `native` knows."""
    traffic = spec.traffic
    given = [
        name
        for name, value in (
            ("fill", traffic.fill),
            ("zipf", traffic.zipf),
            ("new_flows_per_s", traffic.new_flows_per_s),
            ("samples", traffic.samples),
            ("reply_share", traffic.reply_share and not kind.replies),
        )
        if value
    ]
    return [f"it knows no {', '.join(given)}"] if given else []


def _scapy(spec: TrialSpec) -> list[str]:
    return ["it makes its own interfaces: take interfaces out"] if spec.interfaces else []


def _trex(spec: TrialSpec) -> list[str]:
    traffic, wrong = spec.traffic, []
    if traffic.trex.server is None:
        wrong.append("the server's address is missing: traffic.trex.server")
    if spec.interfaces is None:
        wrong.append(
            "the middlebox's interfaces towards it are missing: interfaces: {inside: IF, "
            "outside: IF}"
        )
    few = traffic.rate_pps != "max" and traffic.rate_pps <= traffic.trex.latency_pps
    if few and traffic.flows > TREX_LATENCY_FLOWS:
        wrong.append(
            f"with rate_pps up to trex.latency_pps each flow is timed, at most "
            f"{TREX_LATENCY_FLOWS}, not {traffic.flows} (traffic.flows)"
        )
    return wrong
