"""Every row of docs/FAULTS.md with real processes: what is hit, what must happen, what must not.

The specs are those of the experiment `faults`, shortened; the snapshot engines take turns. The
record's own verdicts are compared with events and counts that are looked at here once more.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, RunFtmb
from real_trials import engine_in_turn

from ftmb import experiments
from ftmb.analysis import reliability
from ftmb.analysis.records import Trial

pytestmark = pytest.mark.slow

CONFIG = experiments.load(ROOT / "config" / "experiments.yaml")
PLAN = {trial.id: trial for trial in experiments.plan(CONFIG, "quick")}
Events = list[dict[str, Any]]


# Where nobody is to be missed for his silence, a crowded machine must not make it so.
SILENT = ("stop-replicas", "cut-control", "false-suspicion")


def shortened(variant: str, **changes: Any) -> dict[str, Any]:
    """The spec of a variant, for as long as a fault or three take."""
    short: dict[str, Any] = {"duration_s": 2.4, "drain_s": 0.7}
    if variant not in SILENT:
        short["ft"] = {"detect_ms": 400}
    return experiments.merge(PLAN[f"faults-{variant}-00"].spec, short | changes)


class Shown:
    """What a trial showed: its record, its events, its incidents by row."""

    def __init__(self, run: RunFtmb, spec: dict[str, Any], out: Path, variant: str) -> None:
        ran = run(spec, out="trial")
        assert ran.record is not None, f"exit code {ran.code}: {ran.err}"
        self.record = ran.record
        lines = (out / "events.jsonl").read_text(encoding="utf-8").splitlines()
        self.events: Events = [json.loads(line) for line in lines]
        self.names = Counter(event["event"] for event in self.events)
        engine = ran.record["snapshot"]["engine"]
        assert (engine, self.failed()) == (engine, [])
        assert ran.code == 0, ran.err
        valid = ran.record["valid"]
        # The machine may hold the generator up; that says nothing about FTMB.
        assert valid is True or valid.startswith("the generator was late"), valid
        trial = Trial(f"faults-{variant}-00", out, self.record, "faults", 0)
        self.rows = Counter(entry["row"] for entry in reliability.incidents_of(trial))

    def failed(self) -> list[str]:
        return [f"{c['name']}: {c['detail']}" for c in self.record["checks"]
                if c["verdict"] != "pass"]  # fmt: skip

    def of(self, name: str) -> Events:
        return [event for event in self.events if event["event"] == name]

    def exits(self) -> Counter[int]:
        """How processes ended that were not ended by the trial: by code."""
        return Counter(event["code"] for event in self.of("exit") if event["code"] not in (0, -9))

    def assert_exactly_once(self) -> None:
        """Counts that must add up, computed here once more."""
        counts = self.record["packets"]
        assert counts["accepted"] > 10_000
        assert counts["outputs_produced"] == counts["accepted"] - counts["dropped_by_nf"]
        lost = counts["outputs_produced"] - counts["delivered"]
        assert 0 <= lost <= counts["lost_in_hand"]
        assert [counts[k] for k in ("duplicated", "reordered", "corrupted")] == [0, 0, 0]


@pytest.fixture
def show(trial: RunFtmb, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """show(variant, key=value, ...): runs the variant, checks it, returns what it showed."""
    engine = {"ft": {"snapshot": {"engine": engine_in_turn(request)}}}

    def run(variant: str, **changes: Any) -> Shown:
        spec = experiments.merge(shortened(variant, **changes), engine)
        return Shown(trial, spec, tmp_path / "trial", variant)

    return run


def test_backup_killed(show: Any) -> None:
    shown = show("kill-backup")
    shown.assert_exactly_once()
    assert shown.rows["kill-backup"] >= 1
    assert shown.names["fenced"] == 0, "traffic goes on in the same view"
    assert shown.names["backup_lost"] == len(shown.record["faults"])
    assert shown.record["packets"]["refused_before_log"] == 0
    assert not shown.exits()


@pytest.mark.parametrize("role", ["il", "ol"])
def test_logger_killed(show: Any, role: str) -> None:
    fault = {"do": "kill", "role": role, "repeat": {"every_s": [0, 0.3]}}
    shown = show("kill-loggers", faults=[fault])
    shown.assert_exactly_once()
    assert shown.rows[f"kill-{role}"] >= 1
    kills = len(shown.record["faults"])
    recovered = [event for event in shown.of("recovered") if event["what"] == role]
    assert [event["process"] for event in recovered] == [f"{role}-{n + 2}" for n in range(kills)]
    assert shown.names["fenced"] == 0
    assert not shown.exits()
    counts = shown.record["packets"]
    if role == "il":
        assert counts["lost"] == 0
    else:
        assert counts["lost_before_log"] == 0


def test_master_stopped_and_fenced_out(show: Any) -> None:
    fault = {"do": "stop", "role": "master", "for_s": 0.5, "repeat": {"every_s": [0, 0.3]}}
    shown = show("stop-replicas", faults=[fault])
    shown.assert_exactly_once()
    stops = shown.rows["stop-master"]
    assert stops >= 1
    assert {event["kind"] for event in shown.of("suspect")} == {"silence"}
    assert shown.names["fenced_out"] == stops
    assert shown.exits() == {6: stops}


def test_switchover(show: Any) -> None:
    fault = {"do": "switchover", "role": "master", "repeat": {"every_s": [0, 0.2]}}
    shown = show("switchover", faults=[fault])
    shown.assert_exactly_once()
    assert shown.record["packets"]["lost"] == shown.record["packets"]["refused_before_log"] == 0
    made = shown.rows["switchover-master"]
    assert made == shown.names["handover"] >= 1
    assert {event["kind"] for event in shown.of("suspect")} == {"handover"}
    assert shown.names["fenced"] == shown.names["fenced_out"] == made
    assert shown.exits() == {6: made}


@pytest.mark.parametrize("role", ["master", "backup", "ol"])
def test_death_during_a_switchover(show: Any, role: str) -> None:
    """As soon as it has begun. It ends as a failover, is given up, or had ended before."""
    begun = {"do": "switchover", "role": "master", "at_s": 0.3}
    death = {"do": "kill", "role": role, "after": "handover"}
    apart = {"traffic": "loggers", "il": "loggers", "ol": "ol"}
    shown = show("switchover", faults=[begun, death], processes=apart, duration_s=1.5)
    shown.assert_exactly_once()
    assert len(shown.record["faults"]) == 2
    assert shown.names["handover"] == 1
    ended = [event for event in shown.of("suspect") if event["kind"] == "handover"]
    if role != "ol":  # it may have said nothing more
        assert shown.names["handover_given_up"] + len(ended) == 1
    assert shown.names["state_lost"] == 0


def test_master_stopped_for_good(show: Any) -> None:
    """It wakes when the run is over, and is fenced out even then."""
    fault = {"do": "stop", "role": "master", "at_s": 0.5, "for_s": None}
    shown = show("stop-replicas", faults=[fault])
    shown.assert_exactly_once()
    assert shown.exits() == {6: 1}


def test_backup_stopped_and_replaced(show: Any) -> None:
    fault = {"do": "stop", "role": "backup", "for_s": 0.8, "repeat": {"every_s": [0, 0.3]}}
    shown = show("stop-replicas", faults=[fault])
    shown.assert_exactly_once()
    stops = shown.rows["stop-backup"]
    assert stops >= 1
    assert [event["kind"] for event in shown.of("backup_lost")] == ["silence"] * stops
    assert shown.names["fenced"] == 0
    assert shown.exits() == {6: stops}


@pytest.mark.parametrize("role", ["il", "ol"])
def test_logger_stopped(show: Any, role: str) -> None:
    fault = {"do": "stop", "role": role, "for_s": 0.4, "repeat": {"every_s": [0, 0.3]}}
    shown = show("stop-loggers", faults=[fault])
    shown.assert_exactly_once()
    assert shown.rows[f"stop-{role}"] >= 1
    assert shown.names["fenced"] == shown.names["suspect"] == shown.names["backup_lost"] == 0
    assert shown.record["packets"]["lost_before_log"] == 0
    assert shown.record["packets"]["lost"] == 0


def test_links_cut(show: Any) -> None:
    shown = show("cut-links", duration_s=4)
    shown.assert_exactly_once()
    assert {"cut-il", "cut-ol", "cut-state"} <= set(shown.rows)
    assert shown.names["link_cut"] == shown.names["link_restored"] == len(shown.record["faults"])
    assert shown.names["fenced"] == shown.names["suspect"] == shown.names["backup_lost"] == 0
    assert shown.record["packets"]["lost"] == 0


def test_control_channel_of_the_master_cut(show: Any) -> None:
    shown = show("cut-control")
    shown.assert_exactly_once()
    assert shown.rows["cut-ctl"] >= 1
    assert {event["kind"] for event in shown.of("suspect")} == {"silence"}
    assert shown.exits() == {6: shown.rows["cut-ctl"]}


def test_second_crash_with_one_backup(show: Any) -> None:
    """A fresh process in the slot of the promoted one finds the base there, and goes on."""
    shown = show("second-crash", duration_s=3.5)
    shown.assert_exactly_once()
    assert shown.rows["second-crash"] >= 1
    assert shown.names["heir_wanted"] >= 1
    assert shown.names["base_loaded"] >= 1


def test_second_crash_with_two_backups(show: Any) -> None:
    """The other backup is there: nobody has to be started first."""
    shown = show("second-crash-two-backups", duration_s=3.5)
    shown.assert_exactly_once()
    assert shown.rows["second-crash-two-backups"] >= 1
    assert shown.names["heir_wanted"] == 0


def test_crash_as_soon_as_protected(show: Any) -> None:
    shown = show("once-protected")
    shown.assert_exactly_once()
    assert shown.rows["once-protected"] >= 1


def test_backup_killed_while_it_receives_its_first_snapshot(show: Any) -> None:
    shown = show("while-receiving", duration_s=3)
    shown.assert_exactly_once()
    assert shown.rows["while-receiving"] >= 1
    assert shown.names["backup_lost"] >= shown.rows["while-receiving"]


def test_false_suspicion_is_safe(show: Any) -> None:
    shown = show("false-suspicion")
    shown.assert_exactly_once()
    assert shown.rows["false-suspicion"] >= 1
    assert shown.names["fenced"] >= 1


def test_poison_input_is_named(show: Any) -> None:
    shown = show("poison")
    assert shown.rows == {"poison": 1}
    (poison,) = shown.of("poison")
    crashes = {(event["worker"], event["input"]) for event in shown.of("crash")}
    assert crashes == {(poison["worker"], poison["input"])}
    assert len(shown.of("crash")) == 2
    assert shown.exits()[4] == 1


def test_links_that_lie(show: Any) -> None:
    """Frames lost, repeated, reordered, delayed and damaged, and a crash on top of it."""
    shown = show("lying-links")
    shown.assert_exactly_once()
    assert shown.rows["lying-links"] >= 1
    assert shown.names["divergence"] == shown.names["hash_mismatch"] == 0


def test_chaos(trial: RunFtmb, tmp_path: Path, root: Path) -> None:
    """Any role, at random, one after the other."""
    spec = yaml.safe_load((root / "config" / "examples" / "chaos.yaml").read_text())
    spec |= {"duration_s": 8, "drain_s": 0.7}
    spec["faults"][0]["role"] = ["master", "backup", "il", "ol"]
    shown = Shown(trial, spec, tmp_path / "trial", "chaos")
    shown.assert_exactly_once()
    assert len(shown.record["faults"]) >= 4
    assert shown.record["memory"]["samples"] >= 5
