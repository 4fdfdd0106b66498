"""The report on what functions cost: what figures, tables and metrics say of numbers made up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from ftmb import bench, experiments, figures, figures_functions, lock, report_functions
from ftmb.analysis import claims, costs, records
from ftmb.errors import MachineError

PACKET_NS, PAL_NS, REPETITIONS = 20.0, 8.0, 12


def made_bench(packet_ns: float, pal_ns: float) -> dict[str, Any]:
    """A bench in which logging costs just so much, with a little noise."""
    rng = np.random.default_rng(3)
    rows = []
    for workers in (1, 2):
        for reads in (0, 50, 100):
            for pals in (0, 1, 3, 10):
                none = 40 * workers + 12 * pals + rng.normal(0, 0.5, REPETITIONS)
                ftmb = none + packet_ns + pal_ns * pals + rng.normal(0, 0.5, REPETITIONS)
                rows.append(
                    {
                        "name": f"sweep-{workers}-{reads}-{pals}", "function": "monitor",
                        "workers": workers, "pals": pals, "none_ns": list(none),
                        "ftmb_ns": list(ftmb),
                    }
                )  # fmt: skip
    rows.append(
        {
            "name": "lb-least", "function": "lb", "workers": 1, "pals": 1.25,
            "none_ns": [50.0, 52.0, 51.0], "ftmb_ns": [80.0, 82.0, 90.2],
            "none_instructions": 300.4, "ftmb_instructions": 350.6,
        }
    )  # fmt: skip
    return {
        "version": 1, "kind": "bench_functions", "instructions": "callgrind", "rows": rows,
        "versions": synthetic.versions(),
    }  # fmt: skip


@pytest.fixture(scope="module")
def results(root: Path, tmp_path_factory: pytest.TempPathFactory) -> records.Results:
    """Synthetic records of `sweep` and `functions`, and a bench."""
    where = tmp_path_factory.mktemp("functions")
    config = experiments.load(root / "config" / "experiments.yaml")
    for name in ("sweep", "functions"):
        config["experiments"][name]["duration_s"] = 1.5
    config["experiments"]["functions"]["repetitions"] = 2
    plan = [t for t in experiments.plan(config, "full") if t.experiment in ("sweep", "functions")]
    synthetic.write(where, plan, config)
    write_bench(where, made_bench(PACKET_NS, PAL_NS))
    return records.load(where)


def write_bench(where: Path, made: dict[str, Any]) -> None:
    (where / "bench").mkdir(exist_ok=True)
    (where / "bench" / "functions.json").write_text(json.dumps(made))


def judged(root: Path, results: records.Results, name: str) -> claims.Verdict:
    (claim,) = [c for c in claims.load(root / "config" / "claims.yaml") if c.id == name]
    return claims.judge(claim, results)


def test_the_line_through_the_sweep_is_the_one_that_was_made(results: records.Results) -> None:
    fits = list(costs.fits(results))
    assert [fit.words for fit in fits][:2] == ["1 worker, 0 % reads", "1 worker, 50 % reads"]
    assert len(fits) == 6
    for fit in fits:
        assert fit.packet.value == pytest.approx(PACKET_NS, abs=0.6)
        assert fit.pal.value == pytest.approx(PAL_NS, abs=0.15)
        assert fit.pal.low < fit.pal.value < fit.pal.high
        assert fit.pal.n == REPETITIONS


def test_costs_are_judged(root: Path, results: records.Results) -> None:
    for name in ("cost-packet", "cost-pal"):
        assert judged(root, results, name).verdict == claims.HOLDS
    write_bench(results.root, made_bench(30, 12))
    for name in ("cost-packet", "cost-pal"):
        assert judged(root, results, name).verdict == claims.FAILS
    write_bench(results.root, made_bench(PACKET_NS, PAL_NS))


@pytest.mark.parametrize("versions", [{"node_sha256": "01"}, None])
def test_a_bench_of_another_build_is_not_judged(
    root: Path, results: records.Results, versions: dict[str, Any] | None
) -> None:
    made = made_bench(PACKET_NS, PAL_NS) | {"versions": versions}
    write_bench(results.root, made)
    verdict = judged(root, results, "cost-pal")
    assert verdict.verdict == claims.OPEN
    assert verdict.reason == "the bench is of another build than the records"
    write_bench(results.root, made_bench(PACKET_NS, PAL_NS))


def test_without_a_bench_nothing_is_said(root: Path, results: records.Results) -> None:
    bare = records.Results(Path(), results.trials)
    assert judged(root, bare, "cost-pal").verdict == claims.OPEN
    assert costs.rows(bare).empty
    assert report_functions.function_costs(bare).rows == []


def test_what_is_no_bench_is_refused(tmp_path: Path) -> None:
    for text, words in (("{", "not JSON"), ('{"version": 2}', "not `kind: bench_functions`")):
        (tmp_path / "bench").mkdir(exist_ok=True)
        (tmp_path / "bench" / "functions.json").write_text(text)
        with pytest.raises(records.RecordError, match=words):
            costs.bench(records.Results(tmp_path, []))


def test_pairs_of_the_pipeline(root: Path, results: records.Results) -> None:
    table = costs.pipeline(results)
    assert sorted(table["accesses"].unique()) == [0, 1, 3, 6, 10]
    for trial in results.of("sweep"):
        if trial.labels["mode"] == "ftmb":
            trial.record["throughput_pps"] = 1e6 * (
                0.97 if trial.labels["accesses"] == "1" else 0.8
            )
        else:
            trial.record["throughput_pps"] = 1e6
    one = judged(root, results, "pipeline-one")
    assert one.verdict == claims.OPEN
    assert one.reason.startswith("needs 5 CPUs, this machine has 2")
    for trial in results.trials:
        trial.record["environment"]["cpu"]["available"] = list(range(5))
    one = judged(root, results, "pipeline-one")
    assert one.verdict == claims.HOLDS
    assert one.parts[0].value == pytest.approx(0.97)
    assert judged(root, results, "pipeline-three").verdict == claims.FAILS


def lost(record: dict[str, Any]) -> None:
    record["packets"]["lost"] = 1


def never(record: dict[str, Any]) -> None:
    """The kill was not recovered from."""
    record["recovery"] = None


def harmed(results: records.Results, edit: Callable[[dict[str, Any]], None]) -> records.Results:
    """The same results with one record of `lb` altered."""
    name = next(t.id for t in results.of("functions") if t.labels["function"] == "lb")
    path = results.root / "trials" / name / "record.json"
    text = path.read_text()
    record = json.loads(text)
    edit(record)
    path.write_text(json.dumps(record))
    altered = records.load(results.root)
    path.write_text(text)
    return altered


def test_crashes_of_each_function_count(root: Path, results: records.Results) -> None:
    verdict = judged(root, results, "functions")
    assert {part.label for part in verdict.parts} >= {"nat", "monitor", "chain", "lb", "wanopt"}
    assert all(part.value == 100 for part in verdict.parts)
    assert verdict.verdict == claims.OPEN, "too few crashes"
    assert "needs 100 runs" in verdict.reason
    assert judged(root, harmed(results, lost), "functions").verdict == claims.FAILS
    assert judged(root, harmed(results, never), "functions").verdict == claims.FAILS


def test_tables_and_figures(results: records.Results) -> None:
    table = report_functions.function_costs(results)
    assert table.rows == [("lb-least", "1.25", "10.0", "51.0", "82.0", "31.0", "12", "300", "351")]
    assert len(report_functions.function_sweep(results).rows) == 6
    assert len(report_functions.function_pipeline(results).rows) == 30
    crashes = report_functions.function_crashes(results)
    assert {row[0] for row in crashes.rows} >= {"nat", "monitor", "chain", "lb", "wanopt"}
    for made in (table, crashes, report_functions.function_pipeline(results)):
        assert {len(row) for row in made.rows} == {len(made.head)}
    figures.theme()
    for plot in figures_functions.PLOTS:
        data = plot.data(results)
        assert not data.empty, plot.name
        assert "<svg" in figures.render(plot.draw(data)), plot.name


def test_a_bench_says_which_build_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And waits for a trial, as a trial does."""
    program, node = tmp_path / "tests" / "bench", tmp_path / "ftmb-node"
    program.parent.mkdir()
    node.write_text('#!/bin/sh\necho \'{"version": "1", "max_workers": 2, "nfs": []}\'\n')
    program.write_text("#!/bin/sh\necho '{\"rows\": []}'\n")
    for path in (program, node):
        path.chmod(0o755)
    monkeypatch.setenv("FTMB_LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(bench, "WAIT_S", 0)
    words = [f"--program={program}", f"--out={tmp_path / 'made.json'}"]
    assert bench.main(words) == 0
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["versions"]["node_sha256"] == hashlib.sha256(node.read_bytes()).hexdigest()
    with lock.machine_lock(0), pytest.raises(MachineError, match="another trial"):
        bench.main(words)
