"""The trial spec: what is refused, in which words, and what --set and the defaults do."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_node import DESCRIPTION

from ftmb import spec
from ftmb.describe import Description, check_workers, nf_config
from ftmb.errors import SpecError


def load(tmp_path: Path, text: str, *sets: str) -> spec.TrialSpec:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return spec.load(path, list(sets))


def complaint(tmp_path: Path, text: str, *sets: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text, *sets)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 2
    return line


def test_an_empty_spec_is_all_defaults(tmp_path: Path) -> None:
    checked = load(tmp_path, "")
    assert checked.nf.name == "monitor"
    assert checked.ft.snapshot.engine == "stop-copy"
    assert checked.traffic.rate_pps == 200_000
    assert checked.faults == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trafic: {}", ["trafic", "unknown key", "did you mean traffic?"]),
        ("traffic: {rate: 5}", ["traffic.rate", "unknown key"]),
        ("ft: {snapshot: {period: 5}}", ["ft.snapshot.period", "did you mean period_ms?"]),
        ("ft: {mode: remus}", ["ft.mode", "'ftmb', 'none', 'direct' or 'floor'", "'remus'"]),
        ("workers: true", ["workers", "integer"]),
        ("workers: 0", ["workers", "greater than or equal to 1"]),
        ("traffic: {rate_pps: fast}", ["traffic.rate_pps"]),
        ("traffic: {rate_pps: 0}", ["rate_pps", "from 1"]),
        ("log: {pals: 1000000}", ["pals", "power of two"]),
        ("faults: [{do: kill, role: master, at_s: 7}]", ["at_s is 7", "window of 5"]),
        ("faults: [{do: burn, role: master, at_s: 1}]", ["faults.0.do", "burn"]),
        ("faults: [{do: kill, role: master}]", ["faults.0.at_s"]),
        ("{ft: {mode: none}, faults: [{at_s: 1}]}", ["nothing survives", "ft.mode none"]),
        ("{backups: 0}", ["backups"]),
        ("placement: {traffic: 0, il: 0, ol: 0, workers: [1]}", ["1 CPUs for 2 workers"]),
        ("placement: {traffic: 0, il: 0, ol: 0, worker: [1]}", ["placement.worker"]),
        ("workers: 1\nworkers: 2", ["line 2", "given twice"]),
        ("workers: [1", ["not valid YAML"]),
        ("[1, 2]", ["mapping"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    line = complaint(tmp_path, text)
    assert "spec.yaml" in line
    for word in words:
        assert word in line


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    assert "and 1 more" in complaint(tmp_path, "{trafic: {}, wrokers: 1}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.yaml.*No such file"):
        spec.load(tmp_path / "absent.yaml")


def test_set_changes_keys_in_order(tmp_path: Path) -> None:
    checked = load(
        tmp_path,
        "faults: [{at_s: 1}]",
        "traffic.rate_pps=max",
        "nf.name=nat",
        "nf.outside=198.51.100.1",
        "faults.0.at_s=random",
        "ft.snapshot.period_ms=10",
        "ft.snapshot.period_ms=20",
    )
    assert checked.traffic.rate_pps == "max"
    assert checked.nf.params == {"outside": "198.51.100.1"}
    assert checked.faults[0].at_s == "random"
    assert checked.ft.snapshot.period_ms == 20


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("workers", "key=value"),
        ("workers.two=2", "no keys of its own"),
        ("faults.3.at_s=1", "no place in a list of 1"),
        ("traffic.speed=1", "unknown key"),
        ("workers=[", "--set workers"),
    ],
)
def test_a_wrong_set_is_refused(tmp_path: Path, assignment: str, words: str) -> None:
    assert words in complaint(tmp_path, "{workers: 1, faults: [{at_s: 1}]}", assignment)


def test_random_times_follow_the_seed_and_stay_in_the_middle(tmp_path: Path) -> None:
    text = "{duration_s: 10, faults: [{at_s: random}, {at_s: random}]}"
    first = load(tmp_path, text, "traffic.seed=1").fault_times_s()
    assert first == load(tmp_path, text, "traffic.seed=1").fault_times_s()
    draws = [
        t for s in range(200) for t in load(tmp_path, text, f"traffic.seed={s}").fault_times_s()
    ]
    assert len(set(draws)) == len(draws)
    assert 1.0 <= min(draws) < 1.5
    assert 8.5 < max(draws) <= 9.0


def test_every_key_has_a_default_listed_and_explained() -> None:
    rows = {key: (default, text) for key, default, text in spec.defaults()}
    assert rows["ft.snapshot.period_ms"][0] == 100
    assert rows["traffic.profile"][0] == "udp64"
    assert rows["faults[].protect_again"][0] is True
    assert all(text for _, text in rows.values())


DESCRIBED = Description.model_validate(DESCRIPTION)


def test_nf_parameters_come_out_complete() -> None:
    config = nf_config(DESCRIBED, "nat", {"strict": True, "addresses": 2})
    assert config == {"name": "nat", "outside": "203.0.113.1", "addresses": 2, "strict": 1}


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("nta", {}, "there are: monitor, nat"),
        ("nat", {"adresses": 2}, "did you mean addresses?"),
        ("nat", {"addresses": 0}, "from 1 to 256"),
        ("nat", {"addresses": True}, "whole number"),
        ("nat", {"outside": "300.1.1.1"}, "IPv4 address"),
        ("nat", {"strict": 2}, "true or false"),
    ],
)
def test_wrong_nf_parameters_are_refused(name: str, given: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match="nf") as caught:
        nf_config(DESCRIBED, name, given)
    assert words in str(caught.value)


def test_more_workers_than_the_build_allows() -> None:
    check_workers(DESCRIBED, 8)
    with pytest.raises(SpecError, match="maximum of 8"):
        check_workers(DESCRIBED, 9)
