"""Placement and node specs: where everything runs, and what each process is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftmb import node, spec
from ftmb.errors import MachineError


def test_lcores_and_idling_on_machines_of_several_sizes() -> None:
    two = node.make_plan(spec.parse({}), [0, 1])
    assert (two.placement.traffic, two.placement.ol, two.placement.workers) == (0, 0, [1, 1])
    assert two.idle == "yield"
    one = node.make_plan(spec.parse({}), [3])
    assert one.placement.workers == [3, 3]
    eight = node.make_plan(spec.parse({"workers": 3}), list(range(8)))
    assert len({eight.placement.traffic, eight.placement.il, eight.placement.ol,
                *eight.placement.workers}) == 6  # fmt: skip
    assert eight.idle == "poll"
    with pytest.raises(MachineError):
        node.make_plan(spec.parse({"placement": {
            "traffic": 0, "il": 0, "ol": 0, "workers": [1, 2]}}), [0, 1])  # fmt: skip


def test_node_specs_hold_what_each_process_needs(tmp_path: Path) -> None:
    checked = spec.parse({"traffic": {"rate_pps": "max"}, "processes": {
        "traffic": "gen", "il": "loggers", "ol": "loggers"}})  # fmt: skip
    plan = node.make_plan(checked, [0, 1])
    section = node.traffic_section(
        checked, {"template": "t", "capture": "", "inside": "x"}, tmp_path
    )
    assert section["rate_pps"] == 0
    dirs = (tmp_path, tmp_path)
    gen = node.logger_spec("gen", "gen", checked, plan, {"name": "nat"}, *dirs, section)
    both = node.logger_spec("loggers", "loggers", checked, plan, {"name": "nat"}, *dirs, section)
    assert gen["lcores"] == [{"cpu": 0, "roles": ["traffic"]}]
    assert both["lcores"] == [{"cpu": 0, "roles": ["il", "ol"]}]
    assert "traffic" in gen
    assert "traffic" not in both
    assert gen["when_full"] == both["when_full"] == "wait"
    one = node.replica_spec("r1", 1, checked, plan, {"name": "nat"}, tmp_path, tmp_path)
    assert one["lcores"] == [{"cpu": 1, "roles": ["worker:0"]}, {"cpu": 1, "roles": ["worker:1"]}]


def test_the_fill_is_asked_for_by_its_rate(tmp_path: Path) -> None:
    prepared = {"template": "t", "capture": "", "inside": "x"}
    for traffic, rate in (({}, 0), ({"fill": True}, 500_000), ({"fill_pps": 7}, 0)):
        checked = spec.parse({"traffic": traffic})
        assert node.traffic_section(checked, prepared, tmp_path)["fill_pps"] == rate


def test_a_logger_that_may_be_hit_has_a_process_of_its_own() -> None:
    alone = {"traffic": "gen", "il": "il", "ol": "ol"}
    for role in ("il", "ol"):
        checked = spec.parse({"faults": [{"do": "stop", "role": role, "at_s": 1}]})
        assert node.make_plan(checked, [0, 1]).processes == alone
    cut = spec.parse({"faults": [{"do": "cut", "role": "il-master", "at_s": 1}]})
    assert set(node.make_plan(cut, [0, 1]).processes.values()) == {"loggers"}


def test_links_stand_in_the_spec_only_if_they_lie(tmp_path: Path) -> None:
    for text, expected in (({}, None), ({"links": {"il": {"drop": 0.1}}}, {"seed", "il"})):
        checked = spec.parse(text)
        plan = node.make_plan(checked, [0, 1])
        tree = node.replica_spec("r1", 1, checked, plan, {"name": "nat"}, tmp_path, tmp_path)
        assert (set(tree["links"]) if "links" in tree else None) == expected
