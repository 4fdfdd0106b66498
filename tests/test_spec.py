"""The trial spec: what is refused, in which words, and what --set and the defaults do."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_node import DESCRIPTION

from ftmb import spec
from ftmb.describe import Description, check_engine, check_workers, nf_config
from ftmb.errors import MachineError, SpecError


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
    assert checked.ft.snapshot.engine == "cow"
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
        ("traffic: {flows: 40000000}", ["traffic.flows", "33554432"]),
        (
            "traffic: {flows: 10000000, fill: true, fill_pps: 1000}",
            ["10000000 flows at 1000", "10000 s", "raise fill_pps or lower flows"],
        ),
        ("log: {pals: 1000000}", ["pals", "power of two"]),
        ("log: {pals: 268435456}", ["log.pals", "4 GiB"]),
        ("faults: [{do: kill, role: master, at_s: 7}]", ["at_s is 7", "window of 5"]),
        ("faults: [{do: burn, role: master, at_s: 1}]", ["faults.0.do", "burn"]),
        ("faults: [{do: kill, role: master}]", ["faults.0", "at_s is missing"]),
        ("faults: [{do: switchover, role: il, at_s: 1}]", ["replaces the master, not il"]),
        ("faults: [{at_s: 1, after: fenced}]", ["at_s and after exclude each other"]),
        ("faults: [{at_s: 1, delay_ms: 5}]", ["delay_ms goes with after"]),
        ("faults: [{do: cut, role: master, at_s: 1}]", ["do: cut needs", "a link", "not master"]),
        ("faults: [{do: stop, role: il-master, at_s: 1}]", ["do: stop needs", "master, backup"]),
        ("faults: [{role: maestro, at_s: 1}]", ["faults.0.role", "'master', 'backup'"]),
        ("faults: [{role: [], at_s: 1}]", ["role is an empty list"]),
        ("faults: [{do: stop, at_s: 1, for_s: 0}]", ["for_s", "greater than 0"]),
        ("faults: [{repeat: {every_s: [2, 1]}}]", ["every_s is [shortest, longest]"]),
        ("faults: [{repeat: {every_s: [1]}}]", ["faults.0.repeat.every_s"]),
        ("faults: [{repeat: {every_s: [1, 2], cont: 1}}]", ["unknown key", "mean count?"]),
        (
            "{processes: {traffic: a, il: b, ol: b}, faults: [{do: stop, role: ol, at_s: 1}]}",
            ["ol shares its process with il", "processes to auto"],
        ),
        (
            "{processes: {traffic: a, il: a, ol: b}, faults: [{role: [ol, il], at_s: 1}]}",
            ["il shares its process with traffic"],
        ),
        ("links: {il: {drop: 0.6}}", ["links.il.drop", "less than or equal to 0.5"]),
        ("links: {il: {dorp: 0.1}}", ["links.il.dorp", "did you mean drop?"]),
        ("{links: {ol: {drop: 0.1}}, ft: {mode: none}}", ["links", "use ft.mode ftmb"]),
        ("ft: {snapshot: {engine: copy}}", ["ft.snapshot.engine", "'cow', 'stop-copy'", "'copy'"]),
        ("ft: {snapshot: {schedule: log, period_ms: 5}}", ["period_ms means nothing", "to period"]),
        ("ft: {snapshot: {log_mb: 8}}", ["log_mb means nothing", "set schedule to log"]),
        ("ft: {snapshot: {replay_target_ms: 8}}", ["replay_target_ms", "schedule to adaptive"]),
        ("ft: {snapshot: {at_s: [1]}}", ["at_s means nothing", "set schedule to demand"]),
        ("ft: {snapshot: {schedule: demand}}", ["no times", "give at_s", "engine to none"]),
        ("ft: {snapshot: {schedule: demand, at_s: [2, 1]}}", ["ascending", "[2.0, 1.0]"]),
        ("ft: {snapshot: {schedule: demand, at_s: [7]}}", ["at_s has 7", "window of 5"]),
        ("ft: {snapshot: {engine: none, schedule: log}}", ["engine none", "another engine"]),
        ("ft: {snapshot: {engine: fork, undo_mb: 8}}", ["undo_mb", "engine to cow"]),
        ("ft: {snapshot: {period_ms: 0.5}}", ["period_ms", "greater than or equal to 1"]),
        ("expect: [wonders]", ["expect.0", "wonders"]),
        ("{backups: 4}", ["backups"]),
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


def test_every_key_has_a_default_listed_and_explained() -> None:
    rows = {key: (default, text) for key, default, text in spec.defaults()}
    assert rows["ft.snapshot.period_ms"][0] == 20
    assert rows["traffic.profile"][0] == "udp64"
    assert rows["faults[].protect_again"][0] is True
    assert rows["faults[].repeat.count"][0] is None
    assert rows["links.il.drop"][0] == rows["links.state.repeat"][0] == 0
    assert all(text for _, text in rows.values())


DESCRIBED = Description.model_validate(DESCRIPTION)


def test_nf_parameters_come_out_complete() -> None:
    config = nf_config(DESCRIBED, "nat", {"strict": True, "addresses": 2})
    assert config == {"name": "nat", "outside": "203.0.113.1", "addresses": 2, "strict": 1}


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("nta", {}, "there are: chain, monitor, nat"),
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


def test_stages_of_a_chain_come_out_complete() -> None:
    stages = {"stage1": {"name": "nat", "addresses": 2}, "stage2": {"name": "monitor"}}
    config = nf_config(DESCRIBED, "chain", stages)
    assert config == {
        "name": "chain",
        "stage1": nf_config(DESCRIBED, "nat", {"addresses": 2}),
        "stage2": {"name": "monitor", "shared": 1},
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nf.stage1: a chain needs its first function"),
        ({"stage1": "nat"}, "nf.stage1: a stage is a function, as {name: nat"),
        ({"stage1": {"shared": 1}}, "nf.stage1: a stage is a function"),
        ({"stage1": {"name": "nta"}}, "nf.stage1.name: no network function 'nta'"),
        ({"stage1": {"name": "nat", "addresses": 0}}, "nf.stage1.addresses: nat wants"),
        ({"stage1": {"name": "nat", "adresses": 2}}, "nf.stage1.adresses: nat has no such"),
        ({"stage2": {"name": "nat"}}, "nf.stage1: there is none, though a later stage"),
        ({"stage4": {"name": "nat"}}, "nf.stage4: chain has no such parameter; did you mean stage"),
    ],
)
def test_wrong_stages_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        nf_config(DESCRIBED, "chain", given)
    assert str(caught.value).startswith(words)


def test_more_workers_than_the_build_allows() -> None:
    check_workers(DESCRIBED, 8)
    with pytest.raises(SpecError, match="maximum of 8"):
        check_workers(DESCRIBED, 9)


def test_an_engine_that_the_machine_lacks() -> None:
    check_engine(DESCRIBED, "stop-copy")
    with pytest.raises(MachineError, match=r"page cannot be used here: no PAGEMAP_SCAN"):
        check_engine(DESCRIBED, "page")
