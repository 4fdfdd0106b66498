"""What tests with real processes share: a short spec, and what every sound trial shows."""

from __future__ import annotations

import copy
import os
from functools import cache
from typing import Any

import pytest
from conftest import Ran, RunFtmb

from ftmb.describe import describe

BASE: dict[str, Any] = {
    "nf": {"name": "nat"},
    # Deaths are seen at once. Silence of a master that a crowded machine did not let run is not
    # what these tests are about; those of faults have it.
    "ft": {"detect_ms": 500},
    "workers": 2,
    "traffic": {"profile": "udp64", "rate_pps": 50_000, "flows": 2_000, "new_flows_per_s": 500,
                "reply_share": 0.2, "seed": 7},
    "warmup_s": 0.2,
    "duration_s": 1.0,
    "drain_s": 0.7,
}  # fmt: skip
KILL = {"do": "kill", "role": "master", "at_s": 0.5}


@cache
def engines() -> list[str]:
    """The engines that take snapshots, as far as this machine has them."""
    known = [engine.name for engine in describe().engines if engine.missing is None]
    return [name for name in ("cow", "fork", "page", "stop-copy") if name in known]


def engine_in_turn(request: pytest.FixtureRequest) -> str:
    """The engine of a test: the tests of a file take turns, whichever of them are run.
    $FTMB_TEST_ENGINE is one for all."""
    names = [name for name in vars(request.module) if name.startswith("test_")]
    place = names.index(request.function.__name__)
    place += sum(getattr(getattr(request.node, "callspec", None), "indices", {}).values())
    return os.environ.get("FTMB_TEST_ENGINE") or engines()[place % len(engines())]


def spec(**changes: Any) -> dict[str, Any]:
    """BASE with changes; a mapping is merged into the one that is there."""
    tree = copy.deepcopy(BASE)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            tree[key] |= value
        else:
            tree[key] = value
    return tree


def failed_checks(record: dict[str, Any]) -> list[str]:
    return [f"{c['name']}: {c['detail']}" for c in record["checks"] if c["verdict"] != "pass"]


def sound(trial: RunFtmb, tree: dict[str, Any], *sets: str) -> dict[str, Any]:
    """Runs a trial in which every check must pass; its record.

    A generator that the machine did not let run in time says nothing about FTMB: that one reason
    for a record that is not valid is let pass, since these tests judge function, not speed.
    """
    ran = trial(tree, *sets, out="trial")
    assert ran.record is not None, f"exit code {ran.code}: {ran.err}"
    assert failed_checks(ran.record) == []
    assert ran.code == 0, ran.err
    valid = ran.record["valid"]
    assert valid is True or valid.startswith("the generator was late"), valid
    return ran.record


def assert_exactly_once(record: dict[str, Any]) -> None:
    """Counts that must add up, computed here once more from the record's raw numbers."""
    counts = record["packets"]
    assert counts["accepted"] > 10_000
    assert counts["delivered"] == counts["accepted"] - counts["dropped_by_nf"]
    assert [counts[k] for k in ("lost", "duplicated", "reordered", "corrupted")] == [0, 0, 0, 0]


def assert_refused(ran: Ran, *words: str) -> None:
    """One clear line on stderr that holds the words, and a non-zero exit."""
    assert ran.code not in (0, None), ran.out
    lines = [line for line in ran.err.splitlines() if line.strip()]
    assert len(lines) == 1, ran.err
    for word in words:
        assert word in lines[0], lines[0]
