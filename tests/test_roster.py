"""Who is who while a trial runs, whom a role means, and when all is well."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ftmb import node, spec
from ftmb.events import Event
from ftmb.faults import Fault
from ftmb.roster import QUIET_NS, Roster, Target


class Stage:
    """A roster whose processes all run until told otherwise, and a clock."""

    def __init__(self, **text: Any) -> None:
        separate = {"traffic": "gen", "il": "il", "ol": "ol"}
        plan = node.make_plan(spec.parse({"processes": separate} | text), [0, 1])
        self.dead: set[str] = set()
        self.now = 0
        self.roster = Roster(plan, lambda name: name not in self.dead)

    def say(self, name: str, process: str = "ol", **fields: Any) -> None:
        self.now += 10
        self.roster.take(Event(self.now, process, name, fields))
        self.roster.look(self.now, True)

    def hit(self, role: str, name: str | None = None) -> None:
        self.now += 10
        given = spec.parse({"faults": [{"role": role, "at_s": 1}]}).faults[0]
        self.roster.hit(Fault(given, 0, 1.0, role, t0_ns=self.now))
        if name:
            self.dead.add(name)
        self.roster.look(self.now, True)

    def whom(self, role: str, cause: str | None = None) -> Target | str:
        return self.roster.target(role, random.Random(1), cause)

    @property
    def calm(self) -> bool:
        return self.roster.calm_ns is not None


def test_roles_and_links_at_the_start() -> None:
    stage = Stage()
    assert stage.whom("master") == Target("r0", 0)
    assert stage.whom("backup") == Target("r1", 1)
    assert stage.whom("il") == Target("il")
    assert stage.whom("il-master") == Target("il", 0, "il-0")
    assert stage.whom("ol-backup") == Target("ol", 1, "ol-1")
    assert stage.whom("state-backup") == Target("r1", 1, "state-1")
    assert stage.whom("ctl-master") == Target("r0", 0, "ctl-0")


def test_a_failover_without_traffic_is_over_some_time_after_its_replay() -> None:
    stage = Stage()
    stage.say("replay_done", "r0", view=1)
    stage.hit("master", "r0")
    assert not stage.roster.over(stage.now + QUIET_NS + 1)  # the replay of an earlier view
    stage.say("fenced", view=2)
    stage.say("replay_done", "r1", view=2)
    assert not stage.roster.over(stage.now + QUIET_NS // 2)
    assert stage.roster.over(stage.now + QUIET_NS + 1)
    stage.hit("master", "r1")
    assert not stage.roster.over(stage.now + QUIET_NS + 1)


def test_a_state_channel_is_well_again_with_the_next_commit() -> None:
    stage = Stage()
    stage.say("link_restored", "r1", link="il-1")
    assert stage.calm
    stage.say("link_restored", "r1", link="state-1")
    assert not stage.calm
    stage.say("commit", epoch=7)
    assert stage.calm


def test_roles_change_with_the_view() -> None:
    stage = Stage()
    stage.hit("master", "r0")
    assert stage.whom("master") == "no master was alive then (r0)"
    stage.say("fenced", view=2)
    assert stage.whom("master") == Target("r1", 1)
    assert stage.whom("backup") == "no backup was alive then"
    stage.say("view", view=2, slot=1)
    stage.roster.joins(0, "r0-2", stage.now)
    assert stage.whom("backup") == Target("r0-2", 0)
    assert stage.whom("il-master") == Target("il", 1, "il-1")


def test_of_several_backups_the_one_that_replays_is_the_master() -> None:
    stage = Stage(backups=2)
    stage.hit("master", "r0")
    stage.say("fenced", view=2)
    stage.say("replay_start", "r2", view=2)
    assert stage.whom("master") == Target("r2", 2)
    assert stage.whom("backup") == Target("r1", 1)


def test_the_backup_that_spoke_is_the_one_meant() -> None:
    stage = Stage(backups=3)
    assert stage.whom("backup", "r2") == Target("r2", 2)
    assert {getattr(stage.roster.target("backup", random.Random(n), None), "process", None)
            for n in range(40)} == {"r1", "r2", "r3"}  # fmt: skip


def test_all_is_well_again_once_a_fresh_backup_is_protected() -> None:
    stage = Stage()
    stage.say("commit")
    assert stage.calm
    stage.hit("master", "r0")
    assert not stage.calm
    stage.say("fenced", view=2)
    stage.say("view", view=2, slot=1)
    stage.say("resumed", view=2)
    assert not stage.calm
    stage.roster.joins(0, "r0-2", stage.now)
    stage.say("ready", "r0-2")
    assert not stage.calm
    stage.say("protected", view=2, backups=1)
    assert stage.calm


def test_a_message_from_before_the_fault_does_not_end_it() -> None:
    stage = Stage()
    stage.hit("backup", "r1")
    stage.dead.clear()
    stage.roster.take(Event(stage.now - 5, "ol", "protected", {}))
    stage.roster.look(stage.now, True)
    assert not stage.calm


@pytest.mark.parametrize("role", ["il", "ol"])
def test_a_logger_is_missed_until_its_return_is_told(role: str) -> None:
    stage = Stage()
    stage.hit(role)
    stage.say("recovered", what=role)
    assert not stage.calm
    stage.say("protected_again", what="il" if role == "ol" else "ol")
    assert not stage.calm
    stage.say("protected_again", what=role)
    assert stage.calm


def test_fewer_backups_than_there_should_be_are_not_all() -> None:
    stage = Stage(backups=2)
    stage.hit("backup", "r2")
    stage.dead.clear()
    stage.say("protected", backups=1)
    assert not stage.calm
    stage.say("protected", backups=2)
    assert stage.calm


def test_a_slot_left_empty_is_not_waited_for() -> None:
    stage = Stage(backups=2)
    stage.hit("backup", "r2")
    stage.roster.withheld.add(2)
    stage.say("protected", backups=1)
    assert stage.calm


def test_a_wanted_heir_keeps_the_failover_open() -> None:
    stage = Stage()
    stage.hit("master", "r0")
    stage.say("fenced", view=2)
    stage.say("heir_wanted", base_view=1, base_epoch=4, slots=[1])
    assert stage.roster.heirs == {1}
    stage.roster.joins(1, "r1-2", stage.now)
    assert stage.roster.heirs == set()
    stage.say("resumed", view=1)
    assert "failover" in stage.roster.amiss, "an older view's end is not this one's"
    stage.say("resumed", view=2)
    assert "failover" not in stage.roster.amiss


def test_what_is_stopped_or_cut_disturbs() -> None:
    stage = Stage()
    stage.roster.look(5, False)
    assert not stage.calm
    stage.roster.look(6, True)
    assert stage.roster.calm_ns == 6
    stage.roster.look(9, True)
    assert stage.roster.calm_ns == 6
