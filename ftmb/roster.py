"""Who is who in a running trial, and whether the guarantees hold just now. Fed with events.

Nothing here touches a process; what the fleet does is decided by what this knows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ftmb.events import Event
from ftmb.faults import Fault
from ftmb.node import Plan

# Of these a state `unprotected` is told, and its end.
LOGGERS = ("il", "ol")
# How long after its replay a failover may still be without any output before nothing comes out.
QUIET_NS = 500_000_000


@dataclass(frozen=True)
class Target:
    """Whom a fault hits. link: what is cut, and `process` is who is told so."""

    process: str
    slot: int | None = None
    link: str | None = None


class Roster:
    """Names of the processes by slot and by role, the master's slot, and what is amiss."""

    def __init__(self, plan: Plan, running: Callable[[str], bool]) -> None:
        """running: whether a process of that name is there and at work."""
        self.slots = [f"r{slot}" for slot in range(plan.replicas)]
        self.loggers = dict(plan.processes)  # role to the process that holds it now
        self.master_slot = 0
        self.view = 1
        # What is amiss, and since when; an event that is older than that does not end it.
        self.amiss: dict[str, int] = {}
        self.calm_ns: int | None = None
        self.replayed_ns: int | None = None  # when the latest failover had replayed
        self.heirs: set[int] = set()  # slots in which a fresh process is wanted at once
        self.withheld: set[int] = set()  # slots that nobody fills again
        self.missed: set[int] = set()  # slots whose loss the output logger has noticed
        self._running = running

    # -- events -----------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Learn from an event, in the order in which they arrive."""
        match event.name:
            case "view" if "slot" in event.fields:
                self.master_slot = event.integer("slot")
            case "replay_start" | "replay_done" if event.process in self.slots:
                self.master_slot = self.slots.index(event.process)
                if event.name == "replay_done" and event.integer("view", 0) >= self.view:
                    self.replayed_ns = event.t_ns
            case "fenced":
                self.view = max(self.view, event.integer("view", self.view + 1))
                self._end("handover", event.t_ns)
                self._begin("failover", event.t_ns)
                self._begin("backup", event.t_ns)
                self._follow()
            case "resumed":
                if event.integer("view", self.view) >= self.view:
                    self._end("failover", event.t_ns)
                    self.heirs.clear()
            case "handover_refused" | "handover_given_up":
                self._end("handover", event.t_ns)
            case "recovered" if event.fields.get("what") == "ol":
                self._end("handover", event.t_ns)  # the new process knows of none
            case "heir_wanted":
                self._begin("failover", event.t_ns)
                self.heirs |= {int(slot) for slot in event.fields.get("slots", [])}
            case "suspect" | "backup_lost":
                self.missed.add(event.integer("slot"))
            case "unprotected":
                self._begin(str(event.fields.get("what")), event.t_ns)
            case "protected":
                if event.integer("backups", len(self.slots)) >= self._wanted():
                    self._end("backup", event.t_ns)
            case "protected_again":
                self._end(str(event.fields.get("what")), event.t_ns)
            case "link_restored" if str(event.fields.get("link")).startswith("state-"):
                self._begin("commits", event.t_ns)  # what was cut carried them
            case "commit":
                self._end("commits", event.t_ns)

    def settled(self, t_ns: int) -> None:
        """A backup holds the new master's state: the failover is over, came out what may."""
        self._end("failover", t_ns)

    def _begin(self, what: str, t_ns: int) -> None:
        self.amiss[what] = max(t_ns, self.amiss.get(what, 0))
        if what == "failover":
            self.replayed_ns = None

    def _end(self, what: str, t_ns: int) -> None:
        if what in self.amiss and t_ns >= self.amiss[what]:
            del self.amiss[what]

    def over(self, now_ns: int) -> bool:
        """Is no failover under way? One is over with its first new output, but where nothing comes
        out (no traffic, or all of it dropped) the end of the replay must do."""
        quiet = self.replayed_ns is not None and now_ns - self.replayed_ns > QUIET_NS
        return "failover" not in self.amiss or quiet

    def _wanted(self) -> int:
        return len(self.slots) - 1 - len(self.withheld)

    def _follow(self) -> None:
        """The old view has ended. Who takes over is told later; with one candidate it is plain."""
        others = [s for s, name in enumerate(self.slots) if s != self.master_slot]
        alive = [slot for slot in others if self._running(self.slots[slot])]
        if alive:
            self.master_slot = alive[0]

    def hit(self, fault: Fault) -> None:
        """A fault was injected: what it takes away is amiss until an event says otherwise."""
        assert fault.t0_ns is not None
        if fault.spec.do == "kill":
            if fault.role == "master":
                self._begin("failover", fault.t0_ns)
                self._begin("backup", fault.t0_ns)
            else:
                self._begin(fault.role, fault.t0_ns)
        elif fault.spec.do == "switchover":
            self._begin("handover", fault.t0_ns)

    def joins(self, slot: int, name: str, t_ns: int) -> None:
        """A fresh replica was started; the next commit that counts is one that it has."""
        self.slots[slot] = name
        self.heirs.discard(slot)
        self.missed.discard(slot)
        self._begin("backup", t_ns)

    def look(self, now_ns: int, undisturbed: bool) -> None:
        """Note since when all is well. undisturbed: nothing is stopped or cut."""
        slots = [name for slot, name in enumerate(self.slots) if slot not in self.withheld]
        there = all(map(self._running, [*slots, *self.loggers.values()]))
        if not (undisturbed and there) or self.amiss:
            self.calm_ns = None
        elif self.calm_ns is None:
            self.calm_ns = now_ns

    # -- targets ----------------------------------------------------------------------------

    def target(self, role: str, draw: random.Random, cause: str | None) -> Target | str:
        """Whom `role` means now, or in words why there is none.

        cause: the process whose event the fault waited for.
        """
        kind, _, whose = role.rpartition("-")
        if not kind and role in LOGGERS:
            return self._alive(Target(self.loggers[role]))
        slot = self.master_slot if whose == "master" else self._backup(draw, cause)
        if slot is None:
            return "no backup was alive then"
        if not kind:
            return self._alive(Target(self.slots[slot], slot))
        teller = self.loggers[kind] if kind in LOGGERS else self.slots[slot]
        return self._alive(Target(teller, slot, f"{kind}-{slot}"))

    def _backup(self, draw: random.Random, cause: str | None) -> int | None:
        alive = [
            slot
            for slot, name in enumerate(self.slots)
            if slot != self.master_slot and self._running(name)
        ]
        named = [slot for slot in alive if self.slots[slot] == cause]
        return (named or [draw.choice(alive)])[0] if alive else None

    def _alive(self, target: Target) -> Target | str:
        if self._running(target.process):
            return target
        who = "master" if target.slot == self.master_slot else "process"
        return f"no {who} was alive then ({target.process})"
