"""The network functions beside nat and monitor, each in a trial whose master is killed.

What is counted is at least a sixth of what a quick machine counts, or is there at all: a slow one
accepts fewer packets in the same time."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import RunFtmb
from real_trials import KILL, assert_exactly_once, failed_checks, sound, spec

pytestmark = pytest.mark.slow


def crashed(trial: RunFtmb, nf: dict[str, Any], **traffic: Any) -> dict[str, Any]:
    """A trial of the function in which the master is killed, and every check passes."""
    tree = spec(nf=nf, ft={"snapshot": {"period_ms": 20}}, traffic=traffic, faults=[KILL])
    record = sound(trial, tree)
    assert_exactly_once(record)
    names = {check["name"] for check in record["checks"]}
    assert {"exactly_once", "equal_replay", "conservation", "outcome"} <= names
    assert any(name.startswith(f"{nf['name']}.") for name in names)
    return record


def test_ratelimit(trial: RunFtmb) -> None:
    """2,000 flows are 125 hosts, which offer 24 Mbit/s, 10 of it the first one. Within their limits
    they offer 9, of which 6 may pass: both limits are met."""
    limits = {"user_kbps": 200, "user_burst": 2000, "total_kbps": 6_000, "total_burst": 6_000}
    record = crashed(trial, {"name": "ratelimit"} | limits, zipf=1.0)
    function = record["nf"]
    assert function["dropped_user"] > 0
    assert function["dropped_total"] > 0
    assert function["dropped_no_room"] == function["dropped_malformed"] == 0


def test_firewall(trial: RunFtmb) -> None:
    """Replies of UDP flows pass, what begins outside does not."""
    record = crashed(trial, {"name": "firewall"})
    function = record["nf"]
    assert function["opened"] >= function["connections"] >= 1000
    assert function["forwarded"] > 1000
    assert function["dropped_no_room"] == function["dropped_rule"] == 0


@pytest.mark.parametrize("least", [0, 1], ids=["maglev", "least"])
def test_lb(trial: RunFtmb, least: int) -> None:
    """The generator's servers are 16 virtual addresses; what answers goes through unchanged."""
    record = crashed(trial, {"name": "lb", "backends": 5, "least": least})
    function = record["nf"]
    assert function["opened"] >= function["connections"] >= 1000
    assert function["balanced"] > 1000
    assert function["passed"] > 0
    assert function["fewest_of_a_backend"] > function["most_of_a_backend"] / 2


def test_what_comes_from_outside_is_the_same_in_the_replay(trial: RunFtmb) -> None:
    """Every third packet of a worker leaves with a number that no other process would find."""
    record = crashed(trial, {"name": "mortal", "draws": 3})
    assert record["nf"]["packets"] > 10_000


def test_chain(trial: RunFtmb) -> None:
    """A NAT, a firewall behind it, a monitor: each function's own checks hold after the crash."""
    stages = {
        "stage1": {"name": "nat"},
        "stage2": {"name": "firewall"},
        "stage3": {"name": "monitor"},
    }
    record = crashed(trial, {"name": "chain"} | stages)
    function = record["nf"]
    passed = function["nat.outbound"] + function["nat.inbound"]
    assert function["monitor.packets"] == function["firewall.forwarded"] == passed
    assert function["nat.mappings_created"] >= function["firewall.opened"] >= 1000
    assert function["dropped_turned"] == 0
    names = {check["name"] for check in record["checks"]}
    assert {"chain.nat.slots", "chain.firewall.counts", "chain.monitor.sums"} <= names


@pytest.mark.parametrize("capacity", [24, 16384], ids=["crowded", "roomy"])
def test_wanopt(trial: RunFtmb, capacity: int) -> None:
    """Both ends of a line in a chain: what one encodes the other restores, and the sink compares
    every payload with what was sent. Few contents: with a small cache they push each other out all
    the time, and where the workers' order at the two ends differs, the decoder may lack one."""
    ends = {
        "stage1": {"name": "wanopt", "capacity": capacity},
        "stage2": {"name": "wanopt", "capacity": capacity, "line": 0},
    }
    record = crashed(trial, {"name": "chain"} | ends, profile="imix")
    function = record["nf"]
    for end, other in ("wanopt", "wanopt2"), ("wanopt2", "wanopt"):
        assert function[f"{end}.passed"] > 0
        assert function[f"{end}.chunks_found"] > 0
        lacked = function[f"{other}.dropped_missing"]
        assert function[f"{end}.shortened"] == function[f"{other}.restored"] + lacked > 0
        assert function[f"{end}.dropped_report"] == lacked
        if capacity == 24:
            assert function[f"{end}.chunks_replaced"] > record["packets"]["accepted"] / 60
        else:
            assert function[f"{end}.chunks_replaced"] <= 1000
    drops = {name for name, count in function.items() if ".dropped_" in name and count}
    assert {name.split("_")[1] for name in drops} <= {"missing", "report"}


def test_payloads_that_change_are_seen(trial: RunFtmb) -> None:
    """An encoder alone: its packets are whole and in order, but not what was sent."""
    tree = spec(nf={"name": "wanopt"}, traffic={"profile": "imix"})
    record = trial(tree, out="trial").record
    assert record is not None
    assert [check.split(":")[0] for check in failed_checks(record)] == ["corrupted"]
    assert record["packets"]["corrupted"] == record["nf"]["shortened"] > 0


@pytest.mark.parametrize("drop", [0, 1], ids=["count", "drop"])
def test_ids(trial: RunFtmb, drop: int) -> None:
    """Hosts with many flows begin more of them than eight servers in a window: they scan, and where
    that is not only counted, what they begin is dropped."""
    limits = {"drop": drop, "scan_hosts": 8, "scan_ports": 0, "window_ms": 500}
    record = crashed(trial, {"name": "ids"} | limits, zipf=1.0)
    function = record["nf"]
    assert function["opened"] > 0
    assert function["scanners"] > 0
    assert function["attempts"] >= function["opened"]
    assert function["malformed"] == function["flood"] == 0
    assert (function["dropped_scan"] > 0) == bool(drop)
