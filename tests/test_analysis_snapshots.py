"""Metrics and verdicts on snapshots: pairs, their twin, what cannot be judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from ftmb import experiments
from ftmb.analysis import claims, histogram, records, snapshot_metrics, stats

Factor = Callable[[experiments.Trial], float]
REPETITIONS = 12


@pytest.fixture(scope="module")
def config(root: Path) -> dict[str, Any]:
    return experiments.load(root / "config" / "experiments.yaml")


@pytest.fixture
def chosen(config: dict[str, Any]) -> list[experiments.Trial]:
    """The full tier's trials that the claims on snapshots are judged by."""
    names = ("tail", "cow_cost", "recovery_cow", "recovery_cow_state")
    plan = [t for t in experiments.plan(config, "full") if t.experiment in names]
    return [t for t in plan if t.labels.get("load") != "half" or t.experiment != "tail"]


def session(kind: int) -> float:
    """What the machine did to a repetition: to both of a pair alike."""
    return 1 + 0.5 * (kind % 3)


def read(trials: list[experiments.Trial], factor: Factor) -> records.Results:
    """Records of these trials, as if read: latencies, throughput, recovery scaled by `factor`."""
    body = np.random.default_rng(5).lognormal(11, 0.4, 20_000)
    made = []
    for trial in trials:
        by = factor(trial) * session(trial.repetition)
        start, replayed = 10**9, 6000
        took = round(replayed / 200_000 / 3 * factor(trial) * 1e9)
        marks = {"replay_start": start, "replay_done": start + took}
        entry = {"t0_ns": 1, "total_ms": 4 * factor(trial), "packets_replayed": replayed}
        record = {
            "valid": True,
            "spec": {"duration_s": 5, "traffic": {"rate_pps": 200_000}},
            "environment": {"cpu": {"available": [0, 1]}, "placement": {"workers": [1, 1]}},
            "noise": {"0": {"over_1ms": 5}, "1": {"over_1ms": 10}},
            "throughput_pps": 2e6 / by,
            "recovery": [entry | {"marks_ns": marks}] if trial.spec.get("faults") else None,
        }
        one = records.Trial(
            trial.id, Path(), record, trial.experiment, trial.repetition, None, trial.labels
        )
        samples = synthetic.histogram(body * by)["buckets"]
        low, high, count = (
            np.array(column, dtype=np.int64) for column in zip(*samples, strict=True)
        )
        one.__dict__["latency"] = histogram.Histogram(low, high, count)
        made.append(one)
    return records.Results(Path(), made)


def verdict(results: records.Results, name: str, project: Path) -> claims.Verdict:
    found = claims.load(project / "config" / "claims.yaml")
    return claims.judge(next(c for c in found if c.id == name), results)


def scaled(changes: dict[str, float]) -> Factor:
    """By the name of the choice on the axis `snapshots`."""
    return lambda trial: changes.get(trial.labels.get("snapshots", ""), 1.0)


TAILS = ("tail-p50", "tail-p99", "tail-p999", "tail-often")


def test_pairs_cancel_what_the_session_did() -> None:
    rng = np.random.default_rng(1)
    drift = rng.uniform(1, 4, 20)
    found = stats.paired_ratio(list(1.02 * drift), list(drift))
    assert found is not None
    assert found.low == pytest.approx(1.02) and found.high == pytest.approx(1.02)
    apart = stats.ratio(list(1.02 * drift), list(drift))
    assert apart is not None
    assert apart.high - apart.low > 0.1
    assert stats.paired_ratio([], []) is None
    with pytest.raises(ValueError, match="no pairs"):
        stats.paired_ratio([1.0], [1.0, 2.0])


def test_tail_claims_hold_where_the_ratios_are_small(
    chosen: list[experiments.Trial], root: Path
) -> None:
    changes = {"cow-20": 1.03, "cow-5": 1.1, "stop-copy-20": 9.0, "fork-20": 4.0}
    results = read(chosen, scaled(changes))
    for name in (*TAILS, "tail-others", "cow-cost"):
        judged = verdict(results, name, root)
        assert judged.verdict == claims.HOLDS, (name, judged.reason)
        assert min(part.n for part in judged.parts) == REPETITIONS
    part = verdict(results, "tail-p99", root).parts[0]
    assert part.value == pytest.approx(1.03, rel=0.02)
    assert "without against without 1.00 to 1.00" in part.note
    assert "stalls over 1 ms a second" in part.note
    cost = {part.label: part for part in verdict(results, "cow-cost", root).parts}
    assert set(cost) == {"monitor", "nat"}
    assert cost["nat"].value == pytest.approx(100 * (1 - 1 / 1.03))
    assert "ns of a worker's CPU" in cost["nat"].note


def test_tail_claims_fail_where_they_are_not(chosen: list[experiments.Trial], root: Path) -> None:
    results = read(chosen, scaled({"cow-20": 1.5, "cow-5": 1.5}))
    for name in (*TAILS, "tail-others", "cow-cost"):
        assert verdict(results, name, root).verdict == claims.FAILS, name


def test_noise_beyond_the_tolerance_leaves_it_open(
    chosen: list[experiments.Trial], root: Path
) -> None:
    """A twin that differs by a fifth: neither 3 % nor 10 % more can be told from it; 90 % can."""
    for times, expected in ((1.03, claims.OPEN), (1.1, claims.OPEN), (1.9, claims.FAILS)):
        results = read(chosen, scaled({"again": 1.2, "cow-20": times}))
        judged = verdict(results, "tail-p50", root)
        assert judged.verdict == expected
        if expected == claims.OPEN:
            assert "the same measured twice differs by 1.20 to 1.2" in judged.reason
            assert "stalls over 1 ms a second" in judged.reason
        # A tolerance wider than that can be judged by.
        wide = verdict(results, "tail-p999", root).verdict
        assert wide == (claims.FAILS if times == 1.9 else claims.HOLDS)


def test_half_load_is_not_judged(config: dict[str, Any], root: Path) -> None:
    plan = [t for t in experiments.plan(config, "full") if t.experiment == "tail"]
    half = [t for t in plan if t.labels["load"] == "half" and t.repetition < 2]
    results = read(half, scaled({}))
    assert verdict(results, "tail-p50", root).parts == []


def test_recovery_is_judged_by_all_crashes(chosen: list[experiments.Trial], root: Path) -> None:
    results = read(chosen, lambda trial: 1.0)
    judged = verdict(results, "recovery-200k", root)
    assert judged.parts[0].value == 4.0
    assert judged.verdict == claims.OPEN  # one crash in each here, and 100 are wanted
    assert judged.reason.startswith("needs 100 runs, has 10")
    assert verdict(results, "replay-speed", root).parts[0].value == pytest.approx(3, rel=0.01)
    state = verdict(results, "recovery-state", root)
    assert state.parts[0].value == 1
    trial = next(t for t in results.trials if t.labels.get("load") == "half")
    trial.record["recovery"][0]["total_ms"] = None
    assert max(snapshot_metrics.totals([trial])) == float("inf")


def test_a_trial_that_the_machine_cannot_run_is_left_out(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    plan = [t for t in experiments.plan(config, "quick") if t.experiment == "tail"]
    tail = [t for t in plan if t.repetition == 0]
    synthetic.write(tmp_path, tail, config)
    (page,) = [t.id for t in tail if t.labels["snapshots"] == "page-20"]
    text = '{"version": 1, "left_out": "no PAGEMAP_SCAN"}'
    (tmp_path / "trials" / page / "record.json").write_text(text, encoding="utf-8")
    results = records.load(tmp_path)
    assert results.left_out == {page: "no PAGEMAP_SCAN"}
    assert results.missing == []
    assert len(results.trials) == len(tail) - 1
    assert {trial.labels["state"] for trial in results.trials} == {"nat64"}
