"""The analysis: histograms, intervals, metrics, verdicts, against values known beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from ftmb import experiments
from ftmb.analysis import claims, histogram, metrics, records, stability, stats
from ftmb.analysis.rates import main as rates_main
from ftmb.analysis.rates import rates


def exact(samples: list[int]) -> histogram.Histogram:
    """A histogram with one bucket per value: percentiles of it can be told by sorting."""
    values, counts = np.unique(np.array(samples, dtype=np.int64), return_counts=True)
    return histogram.Histogram(values, values, counts.astype(np.int64))


def test_percentiles_are_those_of_the_sorted_samples() -> None:
    samples = list(np.random.default_rng(1).integers(1, 10_000, 5000))
    made = exact(samples)
    for p in (0.01, 0.5, 0.9, 0.99, 0.998):
        assert made.percentile(p) == sorted(samples)[int(np.ceil(p * 5000)) - 1]
    assert made.mean() == pytest.approx(np.mean(samples))
    assert made.maximum() == max(samples)


def test_percentile_needs_ten_samples_above_it() -> None:
    made = exact(list(range(1, 1001)))
    assert made.percentile(0.99) == 990
    assert made.percentile(0.991) is None
    assert made.percentile(0.9999) is None


def test_merged_percentiles_are_those_of_all_samples_and_no_average() -> None:
    slow, fast = [1000] * 100, [1] * 900
    merged = histogram.merge([exact(slow), exact(fast)])
    assert merged.total == 1000
    assert merged.percentile(0.5) == 1
    assert merged.percentile(0.95) == 1000


def test_curve_rises_and_ends_where_samples_run_out() -> None:
    made = exact(list(range(1, 100_001)))
    points = made.curve(per_decade=10)
    assert points[-1][0] <= 100_000 / histogram.MIN_ABOVE * 1.001
    assert [y for _, y in points] == sorted(y for _, y in points)
    assert {round(x): y for x, y in points}[10] == pytest.approx(90_000, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ({"version": 2, "unit": "ns", "buckets": []}, "version"),
        ({"version": 1, "unit": "us", "buckets": []}, "ns"),
        ({"version": 1, "unit": "ns", "buckets": [[5, 6, 1], [1, 2, 1]]}, "order"),
        ({"version": 1, "unit": "ns", "buckets": [[1, 2, -1]]}, "negative"),
    ],
)
def test_a_wrong_histogram_is_refused(tmp_path: Path, text: dict[str, Any], what: str) -> None:
    path = tmp_path / "histogram.json"
    path.write_text(json.dumps(text))
    with pytest.raises(ValueError, match=what):
        histogram.read(path)


def test_failure_bound_is_exact() -> None:
    assert stats.failure_bound(0, 50) == pytest.approx(1 - 0.05 ** (1 / 50), abs=1e-9)
    assert 0.058 < stats.failure_bound(0, 50) < 0.06
    # Values of the Clopper-Pearson bound, from tables.
    assert stats.failure_bound(1, 20) == pytest.approx(0.2161, abs=1e-4)
    assert stats.failure_bound(2, 10) == pytest.approx(0.5069, abs=1e-4)
    assert stats.failure_bound(5, 5) == 1.0
    with pytest.raises(ValueError, match="6 failures in 5"):
        stats.failure_bound(6, 5)


def test_interval_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        found = stats.median(list(rng.normal(10, 1, 30)))
        assert found is not None
        covered += found.low <= 10 <= found.high
    assert covered >= 52


def test_ratio_and_difference() -> None:
    a, b = [2.0, 2.1, 1.9], [1.0, 1.05, 0.95]
    found = stats.ratio(a, b)
    assert found is not None
    assert found.value == pytest.approx(2.0)
    assert 1.9 / 1.05 - 1e-9 <= found.low <= found.value <= found.high <= 2.1 / 0.95 + 1e-9
    off = stats.difference(a, b)
    assert off is not None
    assert off.value == pytest.approx(1.0)
    assert stats.ratio(a, []) is None
    assert stats.median([]) is None
    assert stats.ratio(a, [0.0]) is None


@pytest.fixture(scope="module")
def plan(root: Path) -> tuple[dict[str, Any], list[experiments.Trial]]:
    """The experiments of the project, with fewer crashes."""
    config = experiments.load(root / "config" / "experiments.yaml")
    config["experiments"]["crash"]["trials"] = 8
    return config, experiments.plan(config, "quick")


@pytest.fixture
def made(
    tmp_path: Path, plan: tuple[dict[str, Any], list[experiments.Trial]]
) -> tuple[Path, list[experiments.Trial]]:
    """A results directory with synthetic records of three experiments."""
    config, trials = plan
    wanted = ("throughput", "crash", "nosnapshots")
    chosen = [t for t in trials if t.experiment in wanted]
    synthetic.write(tmp_path, chosen, config)
    return tmp_path, chosen


def change(root: Path, trial: str, **changes: Any) -> None:
    """Alter a record: dotted keys written with two underscores."""
    path = root / "trials" / trial / "record.json"
    record = json.loads(path.read_text())
    for key, value in changes.items():
        *way, last = key.split("__")
        here = record
        for step in way:
            here = here[step]
        here[last] = value
    path.write_text(json.dumps(record))


def verdict(root: Path, name: str, project: Path) -> claims.Verdict:
    """The verdict on one claim of the project, from the records under `root`."""
    found = claims.load(project / "config" / "claims.yaml")
    return claims.judge(next(c for c in found if c.id == name), records.load(root))


def test_every_claim_names_a_metric_and_gets_a_verdict(made: Any, root: Path) -> None:
    for judged in claims.judge_all(
        claims.load(root / "config" / "claims.yaml"), records.load(made[0])
    ):
        assert judged.verdict in (claims.HOLDS, claims.FAILS, claims.OPEN)
        assert judged.parts or judged.reason


def test_throughput_claim_holds_fails_and_stays_open(made: Any, root: Path) -> None:
    results, trials = made
    assert verdict(results, "throughput", root).verdict == claims.HOLDS
    ours = [t.id for t in trials if t.id.startswith("throughput-nat-ftmb")]
    change(results, ours[0], throughput_pps=0.8e6)
    judged = verdict(results, "throughput", root)
    assert judged.verdict == claims.OPEN
    assert "nat" in judged.reason
    for name in ours:
        change(results, name, throughput_pps=0.8e6)
    assert verdict(results, "throughput", root).verdict == claims.FAILS


def test_too_few_crashes_cannot_hold_but_can_fail(made: Any, root: Path) -> None:
    results, trials = made
    judged = verdict(results, "crashes", root)
    assert (judged.verdict, judged.reason) == (claims.OPEN, "needs 50 runs, has 8")
    assert judged.parts[0].n == 8
    crash = next(t.id for t in trials if t.experiment == "crash")
    change(results, crash, packets__lost=1)
    assert verdict(results, "crashes", root).verdict == claims.FAILS


def test_harm_counts_even_in_an_invalid_record(made: Any, root: Path) -> None:
    results, trials = made
    crash = next(t.id for t in trials if t.experiment == "crash")
    change(results, crash, valid="a process died that no fault named")
    assert verdict(results, "exactly-once", root).verdict == claims.HOLDS
    change(results, crash, packets__duplicated=1)
    assert verdict(results, "exactly-once", root).verdict == claims.FAILS


def test_one_function_alone_cannot_hold_for_both(made: Any, root: Path) -> None:
    results, trials = made
    for trial in trials:
        if trial.id.startswith("throughput-nat"):
            change(results, trial.id, valid="no packet was delivered")
    judged = verdict(results, "throughput", root)
    assert judged.verdict == claims.OPEN
    assert judged.reason.startswith("measured for monitor only (9 records are not valid")


def test_a_late_generator_spoils_timing_but_not_counts(made: Any, root: Path) -> None:
    results, trials = made
    late = f"{records.LATE}: 9 of 10 packets over 1 ms"
    for trial in trials:
        change(results, trial.id, valid=late)
    read = records.load(results)
    assert read.of("crash") == []
    assert len(read.counted("crash")) == 8
    assert verdict(results, "throughput", root).verdict == claims.OPEN
    assert verdict(results, "exactly-once", root).verdict == claims.HOLDS
    change(results, trials[0].id, valid=f"{late}; no packet was delivered")
    assert trials[0].id not in {t.id for t in records.load(results).counted(trials[0].experiment)}


def test_lateness_is_told_by_the_words_of_the_record(root: Path) -> None:
    """The record's reasons are text; this one is relied upon, so its words must not drift."""
    assert f'"{records.LATE}: ' in (root / "ftmb" / "checks.py").read_text()


def test_a_failed_check_is_harm(made: Any, root: Path) -> None:
    results, trials = made
    crash = next(t.id for t in trials if t.experiment == "crash")
    bad = [{"name": "equal_replay", "verdict": "fail", "figure": 2, "detail": "two differ"}]
    change(results, crash, checks=bad)
    assert verdict(results, "exactly-once", root).verdict == claims.FAILS


def test_a_recovery_that_never_ended_is_not_forgotten(made: Any, root: Path) -> None:
    results, trials = made
    assert verdict(results, "paper-recovery", root).verdict == claims.HOLDS
    crash = next(t.id for t in trials if t.experiment == "crash")
    record = json.loads((results / "trials" / crash / "record.json").read_text())
    record["recovery"][0]["total_ms"] = None
    change(results, crash, recovery=record["recovery"])
    judged = verdict(results, "paper-recovery", root)
    assert judged.verdict == claims.FAILS
    assert "never finished" in judged.parts[0].note


def test_records_of_two_builds_are_not_judged(made: Any, root: Path) -> None:
    results, trials = made
    change(results, trials[0].id, versions__node_sha256="ff")
    judged = verdict(results, "throughput", root)
    assert (judged.verdict, judged.parts != []) == (claims.OPEN, True)
    assert "different builds" in judged.reason


def test_cpus_that_a_claim_needs(made: Any, root: Path) -> None:
    judged = verdict(made[0], "paper-throughput", root)
    assert judged.verdict == claims.OPEN
    assert judged.reason.startswith("needs 5 CPUs, this machine has 2")


def test_environment_is_unstable_when_runs_or_the_machine_are(made: Any, root: Path) -> None:
    results, trials = made
    limits = root / "config" / "claims.yaml"
    assert stability.judge(records.load(results), limits).stable
    direct = next(t.id for t in trials if t.id.startswith("throughput-nat-direct"))
    change(results, direct, throughput_pps=1e6)
    assert not stability.judge(records.load(results), limits).stable
    change(results, direct, throughput_pps=4.1e6, noise__0__over_1ms=10_000)
    assert not stability.judge(records.load(results), limits).stable


def test_only_planned_records_are_read(made: Any) -> None:
    results, trials = made
    synthetic.write_trial(_directory(results, "crash-old-99"), trials[0])
    assert "crash-old-99" not in {t.id for t in records.load(results).trials}
    (results / "trials" / trials[0].id / "record.json").unlink()
    assert records.load(results).missing == [trials[0].id]
    (results / "plan.json").unlink()
    assert "crash-old-99" in {t.id for t in records.load(results).trials}


def _directory(results: Path, name: str) -> Path:
    path = results / "trials" / name
    path.mkdir()
    return path


def test_no_records_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(records.RecordError, match="no records under"):
        records.load(tmp_path)


def test_rates_prefer_valid_records(tmp_path: Path) -> None:
    def one(pps: float, valid: Any) -> dict[str, Any]:
        spec = {"ft": {"mode": "ftmb"}, "nf": {"name": "nat"}}
        return {"spec": spec, "throughput_pps": pps, "valid": valid}

    found = rates([one(1e6, True), one(3e6, True), one(2e6, True), one(9e6, "late")])
    assert found == {"nat": {"maximum_pps": 2_000_000, "runs": 3, "valid": True}}
    assert rates([one(9e6, "late")])["nat"]["valid"] is False
    path = tmp_path / "record.json"
    path.write_text(json.dumps(one(1e6, True)))
    assert rates_main(["--out", str(tmp_path / "rates.json"), str(path)]) == 0
    assert json.loads((tmp_path / "rates.json").read_text())["nat"]["maximum_pps"] == 1_000_000
    assert rates_main(["--out", str(tmp_path / "no.json"), str(tmp_path / "none.json")]) == 2


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"metric": "wishes"}, "no metric 'wishes'"),
        ({"relation": "~"}, "no relation '~'"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"needs": {"gpus": 1}}, "unknown key needs.gpus"),
    ],
)
def test_a_wrong_claim_is_named(tmp_path: Path, entry: dict[str, Any], what: str) -> None:
    good = {"id": "c", "statement": "s", "source": "s", "metric": "log_fill", "relation": "<=",
            "bound": 1, "tolerance": "t", "unit": "%"}  # fmt: skip
    path = tmp_path / "claims.yaml"
    path.write_text(json.dumps({"claims": [good | entry]}))
    with pytest.raises(claims.ClaimError, match=f"claim c: {what}"):
        claims.load(path)


def test_metrics_have_a_sentence_each() -> None:
    assert all(function.__doc__ for function in metrics.METRICS.values())
