"""The report on snapshots: what figures and tables say of records that are known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from ftmb import (
    experiments,
    figures,
    figures_engines,
    figures_machine,
    figures_periods,
    figures_snapshots,
    report_snapshots,
)
from ftmb.analysis import claims, records, snapshots

EXPERIMENTS = ("tail", "cow_cost", *snapshots.RECOVERY, "schedules")


def made(root: Path, where: Path, repetitions: int) -> records.Results:
    """Synthetic records of the full tier's experiments on snapshots, of the smaller states."""
    config = experiments.load(root / "config" / "experiments.yaml")
    for name in EXPERIMENTS:
        config["experiments"][name]["repetitions"] = repetitions
        config["experiments"][name]["duration_s"] = 1.5
    plan = [t for t in experiments.plan(config, "full") if t.experiment in EXPERIMENTS]
    plan = [t for t in plan if t.labels.get("state") not in ("nat512", "monitor512", "monitor64")]
    synthetic.write(where, plan, config)
    return records.load(where)


@pytest.fixture(scope="module")
def results(root: Path, tmp_path_factory: pytest.TempPathFactory) -> records.Results:
    return made(root, tmp_path_factory.mktemp("snapshots"), 2)


def change(results: records.Results, trial: str, edit: Any) -> records.Results:
    """The same results with one record altered."""
    path = results.root / "trials" / trial / "record.json"
    text = path.read_text()
    record = json.loads(text)
    edit(record)
    path.write_text(json.dumps(record))
    altered = records.load(results.root)
    path.write_text(text)
    return altered


def test_every_figure_shows_something(results: records.Results) -> None:
    plots = figures_snapshots.PLOTS + figures_engines.PLOTS + figures_periods.PLOTS
    figures.theme()
    for plot in plots:
        table = plot.data(results)
        assert not table.empty, plot.name
        assert "<svg" in figures.render(plot.draw(table)), plot.name
        whole = table.select_dtypes("number")
        assert not np.isinf(whole.to_numpy(dtype=float)).any(), plot.name


def test_workflow_makes_every_figure(root: Path) -> None:
    text = (root / "workflow" / "rules" / "common.smk").read_text()
    listed = re.findall(r'"(\w+)"', text[text.index("FIGURES = [") : text.index("# A measuring")])
    assert sorted(listed) == sorted(figures.plots())


def test_in_time_has_a_panel_for_each_engine_and_marks_its_snapshots(
    results: records.Results,
) -> None:
    table = figures_snapshots.in_time_data(results)
    assert list(table["engine"].unique()) == list(snapshots.ENGINES)
    for engine, part in table.groupby("engine"):
        bins, marks = part[part["what"] == "bin"], part[part["what"] == "snapshot"]
        assert len(bins) == figures_snapshots.EXCERPT_MS
        assert len(marks) == (0 if engine == "none" else 10), engine
        assert (marks["end_ms"] >= marks["t_ms"]).all()
        assert marks["end_ms"].between(0, figures_snapshots.EXCERPT_MS + 20).all()


def test_curves_have_the_pair_and_the_machine_beside_them(results: records.Results) -> None:
    table = figures_snapshots.curves_data(results)
    words = set(table["words"])
    assert {"none", "none, again", "cow, 20 ms", "cow, 5 ms", figures_snapshots.NOISE} <= words
    noise = table[table["words"] == figures_snapshots.NOISE]
    trials = [t for t in results.of("tail") if t.labels["load"] == "200k"]
    # Both CPUs of each trial.
    assert noise["samples"].unique().tolist() == [len(trials) * 2 * 20_000]
    assert (figures_snapshots.curves_half_data(results)["load"].str.contains("50 %")).all()


def test_ratios_are_judged_by_the_claims_and_need_their_runs(results: records.Results) -> None:
    table = figures_snapshots.ratios_data(results)
    judged = table[table["bound"].notna()]
    assert sorted(zip(judged["kind"], judged["level"], strict=True)) == [
        ("cow-20", "p50"), ("cow-20", "p99"), ("cow-20", "p99.9"), ("cow-5", "p99"),
    ]  # fmt: skip
    assert set(judged["verdict"]) == {claims.OPEN}, "two pairs are not ten"
    assert figures_snapshots.ratios_half_data(results)["bound"].isna().all()
    assert (table["n"] == 2).all()


def test_ratios_hold_or_fail_with_enough_runs(root: Path, tmp_path: Path) -> None:
    config = experiments.load(root / "config" / "experiments.yaml")
    kept = ("none", "again", "cow-20")
    plan = [
        trial
        for trial in experiments.plan(config, "full")
        if trial.labels.get("state") == "nat64" and trial.labels.get("load") == "200k"
        and trial.experiment == "tail" and trial.labels["snapshots"] in kept
    ]  # fmt: skip
    synthetic.write(tmp_path, plan, config)
    found = {(r.kind, r.level): r for r in snapshots.ratios(records.load(tmp_path))}
    for level in snapshots.LEVELS:
        assert found["cow-20", level].verdict == claims.HOLDS
        assert found["again", level].verdict == "", "a pair of the same is no claim"
    # All latencies with snapshots three times as long: beyond any noise.
    for trial in plan:
        if trial.labels["snapshots"] == "cow-20":
            path = tmp_path / "trials" / trial.id / "histogram.json"
            tree = json.loads(path.read_text())
            tree["buckets"] = [[3 * a, 3 * b, n] for a, b, n in tree["buckets"]]
            path.write_text(json.dumps(tree))
    found = {(r.kind, r.level): r for r in snapshots.ratios(records.load(tmp_path))}
    assert {found["cow-20", level].verdict for level in snapshots.LEVELS} == {claims.FAILS}
    assert found["cow-20", "p99"].estimate.value == pytest.approx(3, rel=0.1)


def test_a_crash_that_was_never_recovered_from_is_counted(results: records.Results) -> None:
    name = next(t.id for t in results.of("recovery_cow") if t.labels["load"] == "200k")

    def never(record: dict[str, Any]) -> None:
        record["recovery"][0]["total_ms"] = None

    table = figures_periods.recovery_data(change(results, name, never))
    assert table["total_ms"].isna().sum() == 1
    figures.theme()
    assert "1 never" in figures.render(figures_periods.recovery(table))


def test_recovery_names_the_tolerance_where_it_is_judged(results: records.Results) -> None:
    table = snapshots.crashes(results)
    assert set(table["experiment"]) == set(snapshots.RECOVERY)
    bounds = table.groupby(["experiment", "load"])["bound"].first().dropna().to_dict()
    assert bounds == {("recovery_cow", "given"): 5.0, ("recovery_cow", "share"): 10.0}
    assert sorted(table["period_ms"].unique()) == [5, 10, 20, 50, 100, 200]


def test_runs_of_one_configuration_have_one_size(results: records.Results) -> None:
    name = next(t.id for t in results.of("recovery_cow") if t.labels["load"] == "200k")
    table = snapshots.crashes(change(results, name, lambda r: r.update(state_bytes=63_000_000)))
    at_64 = table[table["experiment"] == "recovery_cow"]
    assert at_64["state_mb"].unique().tolist() == [66]
    assert sorted(table["state_mb"].unique()) == [1.7, 9.2, 66, 520]


def test_the_time_of_a_fork_is_that_of_the_engine_fork(results: records.Results) -> None:
    name = next(t.id for t in results.of("tail") if t.labels["snapshots"] == "cow-20")

    def zeros(record: dict[str, Any]) -> None:
        record["snapshot"]["fork_ns"] = {"p50": 0, "p99": 0, "p999": 0, "max": 0}

    table = figures_engines.stop_by_size_data(change(results, name, zeros))
    assert set(table[table["what"] == "fork"]["engine"]) == {"fork"}


def test_tables_have_a_row_for_each_kind(results: records.Results) -> None:
    ratios = report_snapshots.snapshot_ratios(results)
    assert [row[1] for row in ratios.rows[:6]] == [
        "none, again", "cow, 5 ms", "cow, 20 ms", "page, 20 ms", "fork, 20 ms", "stop-copy, 20 ms",
    ]  # fmt: skip
    assert "≤ 1.15 cannot be judged" in ratios.rows[2][3]
    engines = report_snapshots.snapshot_engines(results)
    assert len(engines.rows) == 10, "five kinds at two loads"
    assert any("of 16.8" in row[10] for row in engines.rows)
    assert len(report_snapshots.snapshot_cost(results).rows) == 8
    for table in (ratios, engines):
        assert {len(row) for row in table.rows} == {len(table.head)}


FLIP: dict[str, Any] = {
    "kind": "bench_flip",
    "nf": "nat",
    "megabytes": 64,
    "flips": 20000,
    "lost": 0,
    "wait_p999_ns": 3100,
    "wait_max_ns": 9000,
}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, claims.HOLDS),
        ({"wait_p999_ns": 21000}, claims.FAILS),
        ({"flips": 500}, claims.OPEN),
    ],
)
def test_the_wait_at_a_flip_is_judged(
    root: Path, tmp_path: Path, changes: dict[str, Any], verdict: str
) -> None:
    (tmp_path / "bench").mkdir()
    lines = [json.dumps(FLIP | changes), json.dumps(FLIP | {"nf": "monitor"})]
    (tmp_path / "bench" / "flip.txt").write_text("as printed\n" + "\n".join(lines) + "\n")
    (claim,) = [c for c in claims.load(root / "config" / "claims.yaml") if c.id == "flip-wait"]
    assert claims.judge(claim, records.Results(tmp_path, [])).verdict == verdict


def test_benches_are_shown_as_printed_or_how_to_run_them(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "flip.txt").write_text(
        f"nat, 64 MB\n\n  worker 0   p50  0.00\n{json.dumps(FLIP)}\n"
    )
    rows = report_snapshots.snapshot_benches(records.Results(tmp_path, [])).rows
    assert rows[:2] == [("flip", "nat, 64 MB"), ("", "worker 0   p50  0.00")]
    assert rows[2:] == [("cow", "not made: make bench")]


def plot(name: str) -> figures.Plot:
    return figures.plots()[name]


def test_what_is_missing_says_what_makes_it(results: records.Results) -> None:
    nothing = records.Results(Path(), [])
    assert figures.reason(nothing, plot("cow_cost")) == (
        'no record of cow_cost: make trials OF="cow_cost"'
    )
    lacking = records.Results(Path(), [], left_out={"tail-a-00": "engine page: no such call"})
    assert "left out: engine page" in figures.reason(lacking, plot("snapshots_tail"))
    quick = records.Results(Path(), results.of("tail"), "quick")
    assert figures.reason(quick, plot("snapshots_tail_half")) == (
        'no valid record of tail has what this figure shows: make trials TIER=full OF="tail"'
    )
    invalid = records.Results(Path(), [records.Trial("x", Path(), {"valid": "no"}, "tail", 0)])
    assert "among those of tail" in figures.reason(invalid, plot("snapshots_tail"))


def test_stalls_of_a_long_session_still_fit_the_page() -> None:
    rows = [
        {"order": order, "cpu": cpu, "max": 1e6 * (1 + order), "p999": 1e4}
        for order in range(3000)
        for cpu in ("0", "1")
    ]
    figures.theme()
    drawn = figures_machine.noise(pd.DataFrame(rows))
    longest = max(float(np.max(dots.get_offsets()[:, 1]))
                  for axes in drawn.axes for dots in axes.collections)  # fmt: skip
    assert longest == 3000, "the longest stall is shown"
    assert len(figures.render(drawn)) <= figures.MAX_BYTES


def test_an_axis_of_less_than_two_decades_has_ticks() -> None:
    drawn = figures.nothing("")
    axes = drawn.add_subplot()
    axes.set_xlim(1.5, 18)
    figures.log_ticks(axes, "x")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "5", "10"]
