"""The report beside conntrackd: what table, figure, metrics and claims say of crashes made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from ftmb import experiments, figures, figures_peers, report_peers
from ftmb.analysis import claims, peers, records, stats

SIZES = (1_000, 10_000, 100_000)
CRASHES = 12


def crash(arm: str, outage_ms: float, lost: int = 0, misdelivered: int = 0) -> dict[str, Any]:
    gap = {"ms": outage_ms, "restored": True, "lost": 3, "floor_ms": 1.5}
    return {
        "arm": arm, "outage": gap, "outage_down": gap, "commit_ms": None,
        "packets": {"sent": 100, "returned": 97},
        "mappings": {"externalised": 4_000, "checked": 9_000, "lost": lost, "lost_new": lost,
                     "unknown": 0, "misdelivered": misdelivered},
        "tcp": {"connections": 32, "survived": 32},
    }  # fmt: skip


def write(where: Path, run: str, table: int, made: list[dict[str, Any]], **more: Any) -> None:
    tree = {
        "version": 1, "kind": "peers", "valid": True, "versions": synthetic.versions(),
        "spec": {"table": table, "relay_ms": 0, "new_per_s": 1_000}, "crashes": made, **more,
    }  # fmt: skip
    (where / "peers" / run).mkdir(parents=True, exist_ok=True)
    (where / "peers" / run / "record.json").write_text(json.dumps(tree), encoding="utf-8")


@pytest.fixture
def results(root: Path, tmp_path: Path) -> records.Results:
    """Crashes whose outage grows by 1,000 ms for 100,000 mappings with `safe`, not with `ftmb`."""
    config = experiments.load(root / "config" / "experiments.yaml")
    plan = [t for t in experiments.plan(config, "quick") if t.experiment == "floor"]
    synthetic.write(tmp_path, plan, config)
    rng = np.random.default_rng(5)
    for table in SIZES:
        made = []
        for _ in range(CRASHES):
            made.append(crash("ftmb", 4 + rng.uniform(-0.5, 0.5)))
            made.append(crash("safe", 5 + table / 100 + rng.uniform(-0.5, 0.5), lost=1))
        write(tmp_path, f"table-{table}", table, made)
    return records.load(tmp_path)


def judged(root: Path, results: records.Results, name: str) -> claims.Verdict:
    (claim,) = [c for c in claims.load(root / "config" / "claims.yaml") if c.id == name]
    return claims.judge(claim, results)


@pytest.mark.parametrize(
    ("count", "low", "high"),  # the exact interval of a Poisson mean, as in tables
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.390), (100, 81.364, 121.627)],
)
def test_poisson_intervals_are_those_of_the_tables(count: int, low: float, high: float) -> None:
    found = stats.poisson(count, 2.0)
    assert (found.low * 2, found.high * 2) == pytest.approx((low, high), abs=1e-3)
    assert found.value == count / 2


def test_the_slopes_are_those_that_were_made(results: records.Results) -> None:
    frame = peers.crashes(results)
    safe = peers.slope(frame[frame["arm"] == "safe"])
    ours = peers.slope(frame[frame["arm"] == "ftmb"])
    assert safe is not None and ours is not None
    assert safe.value == pytest.approx(1_000, abs=1)
    assert ours.low <= 0 <= ours.high and ours.n == CRASHES
    assert peers.slope(frame[frame["table"] == 1_000]) is None


def test_all_claims_hold_of_what_came_to_no_harm(root: Path, results: records.Results) -> None:
    for name in ("peers-lost", "peers-misdelivered", "peers-outage"):
        assert judged(root, results, name).verdict == claims.HOLDS, name


@pytest.mark.parametrize("key", ["lost", "misdelivered"])
def test_one_is_too_many(root: Path, results: records.Results, key: str) -> None:
    write(results.root, "arms", 5_000, [crash("ftmb", 4, **{key: 1})])
    assert judged(root, results, f"peers-{key}").verdict == claims.FAILS


def test_an_outage_that_grows_or_never_ends_is_seen(root: Path, results: records.Results) -> None:
    write(results.root, "table-1m", 1_000_000, [crash("ftmb", 100)] * CRASHES)
    assert judged(root, results, "peers-outage").verdict == claims.FAILS
    gone = crash("ftmb", 100)
    gone["outage"] = gone["outage"] | {"restored": False}
    write(results.root, "table-1m", 1_000_000, [gone] * CRASHES)
    assert judged(root, results, "peers-outage").verdict == claims.FAILS


def test_too_few_crashes_are_not_judged(root: Path, results: records.Results) -> None:
    for table in SIZES:
        write(results.root, f"table-{table}", table, [crash("ftmb", 4)] * 2)
    for name in ("peers-lost", "peers-outage"):
        assert judged(root, results, name).verdict == claims.OPEN


def test_a_box_that_never_comes_back_confirms_nothing(root: Path, results: records.Results) -> None:
    gone = crash("ftmb", 4)
    gone["outage"] = gone["outage"] | {"restored": False}
    gone["mappings"] = gone["mappings"] | {"unknown": 9_000}
    write(results.root, "arms", 5_000, [gone])
    assert judged(root, results, "peers-lost").verdict == claims.FAILS
    misdelivered = judged(root, results, "peers-misdelivered")
    assert misdelivered.verdict == claims.OPEN and "never back after 1 of 37" in misdelivered.reason


def test_what_was_not_heard_of_again_is_not_counted_as_kept(
    root: Path, results: records.Results
) -> None:
    some = crash("ftmb", 4)
    some["mappings"] = some["mappings"] | {"unknown": 3}
    write(results.root, "arms", 5_000, [some])
    for name in ("peers-lost", "peers-misdelivered"):
        found = judged(root, results, name)
        assert (found.verdict, found.reason[:10]) == (claims.OPEN, "3 mappings"), name
        assert found.parts[0].note.startswith(f"{37 * 9_000 - 3:,} mappings seen again")


def test_too_few_new_flows_are_not_judged(root: Path, results: records.Results) -> None:
    for table in SIZES:
        some = crash("ftmb", 4)
        some["mappings"] = some["mappings"] | {"externalised": 100_000 // 36}
        write(results.root, f"table-{table}", table, [some] * CRASHES)
    for name in ("peers-lost", "peers-misdelivered"):
        found = judged(root, results, name)
        assert found.verdict == claims.OPEN and "needs 100,000 new flows" in found.reason, name


@pytest.mark.parametrize("without", [1_000, 100_000])
def test_a_slope_over_a_short_range_is_not_judged(
    root: Path, results: records.Results, without: int
) -> None:
    write(results.root, f"table-{without}", without, [])
    found = judged(root, results, "peers-outage")
    assert found.verdict == claims.OPEN and found.reason.startswith("needs tables of 1,000 to")


def test_a_table_that_the_kernel_does_not_take_is_told(
    root: Path, results: records.Results
) -> None:
    where = results.root / "peers" / "table-300k"
    where.mkdir()
    (where / "record.json").write_text('{"left_out": "the kernel takes 262144"}')
    (part,) = judged(root, results, "peers-outage").parts
    assert part.note.endswith("table-300k left out: the kernel takes 262144")


def test_tables_and_figure(results: records.Results, tmp_path: Path) -> None:
    made = [crash("nosync", 9, 9_000, 400), crash("safe", 80), crash("ftmb", 4)]
    made[0]["outage"] = made[0]["outage"] | {"restored": False}
    write(results.root, "arms", 5_000, made)
    survival = report_peers.survival(results)
    rows = {(row[0], row[1]): row for row in survival.rows}
    assert rows["arms", "no copy"][3] == "1 of 1 never back"
    assert rows["table-1000", "FTMB"][8] == "0 of 108,000"
    growth = {row[0]: row for row in report_peers.growth(results).rows}
    assert set(growth) == {"commit, take over", "FTMB"}
    assert all(len(row) == len(survival.head) for row in survival.rows)
    (plot,) = figures_peers.PLOTS
    figures.write(results, tmp_path / "figures", [plot.name])
    assert "FTMB" in (tmp_path / "figures" / "peers.svg").read_text(encoding="utf-8")


def test_what_was_left_out_is_no_record(results: records.Results) -> None:
    before = len(peers.read(results))
    (results.root / "peers" / "relay").mkdir()
    (results.root / "peers" / "relay" / "record.json").write_text('{"left_out": "no root"}')
    write(results.root, "spoilt", 1, [crash("ftmb", 1)], valid="the machine stood still")
    assert len(peers.read(results)) == before
    write(results.root, "spoilt", 1, [], kind="other")
    with pytest.raises(records.RecordError, match="not `kind: peers`"):
        peers.read(results)
