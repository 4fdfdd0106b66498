"""The plan of the trials, and the workflow that runs them: lint, format, dry run, priorities."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftmb import experiments, spec
from ftmb.analysis import reliability

BIN = Path(sys.executable).parent
BUDGET_S = 600
BUILD_AND_REPORT_S = 110
PER_JOB_S = 0.2


@pytest.fixture(scope="module")
def config(root: Path) -> dict[str, Any]:
    """The experiments of the project."""
    return experiments.load(root / "config" / "experiments.yaml")


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]], cwd=root, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workflow's files in a fresh directory, so that nothing measured before matters."""
    path = tmp_path_factory.mktemp("project")
    for name in ("workflow", "config", "profiles", "report", "envs", "ftmb"):
        shutil.copytree(root / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "Snakefile", path)
    (path / "native").mkdir()
    return path


@pytest.mark.slow
def test_lint_is_clean(project: Path) -> None:
    done = run(project, "snakemake", "--lint")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_workflow_is_formatted(root: Path) -> None:
    done = run(root, "snakefmt", "--check", "workflow", "Snakefile")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_dry_run_from_the_root_lists_every_trial(project: Path, config: dict[str, Any]) -> None:
    done = run(project, "snakemake", "--cores", "all", "--dry-run")
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    assert "profiles/default" in text
    for trial in experiments.plan(config, "quick"):
        assert f"results/trials/{trial.id}/record.json" in text, trial.id
    jobs = dict(
        line.split() for line in text.splitlines() if len(line.split()) == 2 and "rule" not in line
    )
    assert int(jobs["trial"]) == len(experiments.plan(config, "quick"))
    for rule in ("native", "preflight", "rates", "analysis", "figures", "report"):
        assert jobs[rule] == "1", rule


@pytest.mark.slow
def test_a_mistyped_key_of_the_configuration_is_refused(project: Path) -> None:
    done = run(project, "snakemake", "--cores", "1", "-n", "--config", "teir=full")
    assert done.returncode != 0
    assert "teir" in done.stdout + done.stderr


def test_measuring_rules_take_every_core(root: Path) -> None:
    text = (root / "workflow" / "rules" / "trial.smk").read_text()
    for rule in text.split("\nrule ")[1:]:
        if "ftmb trial" in rule:
            assert "threads: ALL_CORES" in rule
            assert "log:" in rule
    common = (root / "workflow" / "rules" / "common.smk").read_text()
    assert "ALL_CORES = 999" in common


def test_every_spec_of_both_tiers_is_accepted(config: dict[str, Any]) -> None:
    rates = {name: {"maximum_pps": 1_234_567} for name in ("nat", "monitor")}
    for tier in experiments.TIERS:
        for trial in experiments.plan(config, tier):
            spec.parse(experiments.resolve(trial, rates), trial.id)


def test_a_fill_counts_towards_the_time_of_a_trial() -> None:
    traffic = {"flows": 12_000_000, "fill": True}
    tree = {"duration_s": 2, "traffic": traffic}
    assert experiments.Trial("t", "t", 0, tree).expected_s == 26
    traffic["fill"] = False
    assert experiments.Trial("t", "t", 0, tree).expected_s == 2


def test_quick_tier_fits_its_time(config: dict[str, Any]) -> None:
    trials = experiments.plan(config, "quick")
    measured = sum(trial.expected_s + PER_JOB_S for trial in trials)
    assert measured + BUILD_AND_REPORT_S <= BUDGET_S


def test_crashes_cover_every_combination(config: dict[str, Any]) -> None:
    crashes = [t for t in experiments.plan(config, "quick") if t.experiment == "crash"]
    kinds = [(t.spec["nf"]["name"], t.spec["ft"]["snapshot"]["period_ms"],
              t.spec["traffic"]["profile"]) for t in crashes]  # fmt: skip
    assert Counter(kinds) == Counter(
        2 * list(itertools.product(("nat", "monitor"), (20, 100), ("udp64", "imix")))
    )
    in_turn = sorted(crashes, key=lambda t: t.repetition)
    assert [t.spec["nf"]["name"] for t in in_turn[:4]] == ["nat", "monitor"] * 2
    assert len({t.spec["traffic"]["seed"] for t in crashes}) == len(crashes)


def test_variants_are_experiments_of_their_own_name(config: dict[str, Any]) -> None:
    for tier in ("quick", "full"):
        trials = [t for t in experiments.plan(config, tier) if t.experiment == "faults"]
        names = Counter(t.id.removeprefix("faults-").rsplit("-", 1)[0] for t in trials)
        assert set(names) == set(config["experiments"]["faults"]["variants"])
        assert min(names.values()) >= 1
    poison = next(t for t in trials if t.id == "faults-poison-00")
    assert poison.spec["nf"]["name"] == "mortal"
    assert poison.spec["traffic"]["rate_pps"] == 30000
    assert poison.spec["duration_s"] == 3


def test_every_row_of_the_faults_has_a_variant(config: dict[str, Any]) -> None:
    """What docs/FAULTS.md promises is what is tried."""
    reached = set()
    for name, entry in config["experiments"]["faults"]["variants"].items():
        reached |= {name} & set(reliability.AS_ONE)
        for fault in entry["spec"].get("faults", []):
            roles = fault["role"] if isinstance(fault["role"], list) else [fault["role"]]
            alone = [{"do": fault["do"], "role": role, "index": 0} for role in roles]
            reached |= {reliability.row_of(name, [one]) for one in alone}
    reached |= {"kill-master"}  # crash and chaos
    assert reached - {None} == set(reliability.ROWS)


def test_order_is_shuffled_and_the_same_every_time(config: dict[str, Any]) -> None:
    first, second = experiments.plan(config, "quick"), experiments.plan(config, "quick")
    assert [t.id for t in first] == [t.id for t in second]
    assert [t.position for t in first] == list(range(len(first)))
    names = [t.experiment for t in first]
    changes = sum(a != b for a, b in itertools.pairwise(names))
    assert changes > len(names) / 2


def test_shares_wait_for_what_they_are_shares_of(config: dict[str, Any]) -> None:
    for tier in experiments.TIERS:
        trials = experiments.plan(config, tier)
        sources = [t.position for t in trials if t.experiment == experiments.RATE_SOURCE]
        waiting = [t.position for t in trials if t.rate_share is not None]
        assert max(sources) < min(waiting)


def test_only_specs_that_changed_are_written_again(tmp_path: Path, config: dict[str, Any]) -> None:
    experiments.write_specs(experiments.plan(config, "quick"), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.yaml")}
    changed = experiments.merge(config, {"experiments": {"crash": {"duration_s": 2}}})
    changed["order_seed"] = 1
    experiments.write_specs(experiments.plan(changed, "quick"), tmp_path)
    for path, stamp in before.items():
        assert (path.stat().st_mtime_ns != stamp) == path.name.startswith("crash-"), path.name


def test_share_becomes_a_rate(config: dict[str, Any]) -> None:
    trial = next(t for t in experiments.plan(config, "quick") if t.id == "latency-nat-ftmb-00")
    assert trial.rate_share == 0.5
    made = experiments.resolve(trial, {"nat": {"maximum_pps": 1_234_567}})
    assert made["traffic"]["rate_pps"] == 620_000
    assert trial.spec["traffic"]["rate_pps"] == "share:0.5"
    with pytest.raises(experiments.PlanError, match="no measured maximum for nat"):
        experiments.resolve(trial, {})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"version": 2}, "version: 1"),
        ({"wishes": 1}, "unknown key 'wishes'"),
        ({"experiments": {"crash": {"trails": 3}}}, "experiments.crash: unknown key 'trails'"),
        ({"experiments": {"latency": {"trials": 3}}}, "`cycle` and `trials` go together"),
    ],
)
def test_a_wrong_experiments_file_is_named(
    tmp_path: Path, config: dict[str, Any], change: dict[str, Any], what: str
) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(yaml.safe_dump(experiments.merge(config, change)))
    with pytest.raises(experiments.PlanError, match=what):
        experiments.load(path)


def test_a_share_is_resolved_in_a_file(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    experiments.write_specs(experiments.plan(config, "quick"), tmp_path)
    name = "latency-nat-ftmb-00.yaml"
    assert not (tmp_path / name).exists()
    rates, out = tmp_path / "rates.json", tmp_path / name
    words = ["resolve", str(tmp_path / "share" / name), "--rates", str(rates), "--out", str(out)]
    rates.write_text('{"nat": {"maximum_pps": 1000000}}')
    assert experiments.main(words) == 0
    assert yaml.safe_load(out.read_text())["traffic"]["rate_pps"] == 500_000
    rates.write_text("{}")
    assert experiments.main(words) == 2
    assert "no measured maximum" in capsys.readouterr().err


def test_plan_and_list_agree(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(root / "config" / "experiments.yaml"), "--tier", "full"]
    assert experiments.main(["plan", *words, "--out", str(tmp_path / "plan.json")]) == 0
    assert experiments.main(["list", *words]) == 0
    listed = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[:-1]]
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert [trial["id"] for trial in planned["trials"]] == listed
    assert planned["tier"] == "full"


def test_what_is_compared_runs_side_by_side(config: dict[str, Any]) -> None:
    for tier in experiments.TIERS:
        trials = [t for t in experiments.plan(config, tier) if t.experiment == "tail"]
        blocks: dict[tuple[Any, ...], list[experiments.Trial]] = {}
        for trial in trials:
            place = (trial.labels["state"], trial.labels["load"], trial.repetition)
            blocks.setdefault(place, []).append(trial)
        orders = set()
        for block in blocks.values():
            places = sorted(trial.position for trial in block)
            assert places == list(range(places[0], places[0] + len(block)))
            assert len({trial.spec["traffic"]["seed"] for trial in block}) == 1
            in_turn = sorted(block, key=lambda trial: trial.position)
            orders.add(tuple(trial.labels["snapshots"] for trial in in_turn))
        assert {len(order) for order in orders} == {7}
        assert len(orders) > 1, "the order within a block is drawn anew for each"


def test_axes_are_named_choices_some_of_one_tier_only(config: dict[str, Any]) -> None:
    quick, full = (
        {t.id: t for t in experiments.plan(config, tier) if t.experiment == "tail"}
        for tier in experiments.TIERS
    )
    assert {t.labels["state"] for t in quick.values()} == {"nat64"}
    assert {t.labels["load"] for t in full.values()} == {"200k", "half"}
    large = full["tail-half-monitor512-cow-20-03"]
    assert large.rate_share == 0.5
    assert large.spec["nf"] == {"name": "monitor", "flows": 6_250_000}
    assert large.spec["log"]["input_mb"] == 512
    assert large.spec["ft"]["snapshot"] == {"engine": "cow", "period_ms": 20}
    with pytest.raises(experiments.PlanError, match="together names no axis: 'time'"):
        experiments._check_axes("x", {"axes": {"a": {"b": {}}}, "together": "time"})
    with pytest.raises(experiments.PlanError, match="`axes` and `product` exclude"):
        experiments._check_axes("x", {"axes": {"a": {"b": {}}}, "product": {}})
    with pytest.raises(experiments.PlanError, match=r"x.axes.a.b: unknown key 'nf'"):
        experiments._check_axes("x", {"axes": {"a": {"b": {"nf": 1}}}})
