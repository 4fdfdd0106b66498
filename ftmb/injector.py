"""What is done to processes at given times: kill, stop and continue, cut and restore a link, and
asking for a snapshot."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping

from ftmb.events import Event
from ftmb.faults import NS, Fault, Schedule
from ftmb.process import NodeProcess
from ftmb.roster import Roster, Target
from ftmb.spec import TrialSpec

WORDS = {"kill": "killed", "stop": "stopped", "cut": "cut", "switchover": "replaced"}
REPLICA_ROLES = ("master", "backup", "ctl-master", "ctl-backup")


class Injector:
    """Does what the schedule says is due, and asks for snapshots on demand. Whoever calls it
    appends the events it returns."""

    def __init__(
        self,
        schedule: Schedule,
        roster: Roster,
        processes: Mapping[str, NodeProcess],
        spec: TrialSpec,
    ) -> None:
        self.schedule, self.roster, self._processes = schedule, roster, processes
        self._random = random.Random(f"{spec.traffic.seed}:target")
        self._asks = deque(spec.ft.snapshot.at_s)
        self._lasting: list[Fault] = []  # stopped or cut, and not mended yet
        self._cause: dict[str, str] = {}  # event name to the process that said it last

    @property
    def disturbed(self) -> bool:
        """True while something is stopped or cut."""
        return bool(self._lasting)

    def hear(self, event: Event) -> None:
        """Faults may wait for an event."""
        self._cause[event.name] = event.process
        self.schedule.hear(event, self.roster.calm_ns)

    def next_ns(self) -> int | None:
        """CLOCK_MONOTONIC ns of the next thing to do as things are; None if there is none."""
        ends = [end for fault in self._lasting if (end := self._ends_ns(fault)) is not None]
        due = self.schedule.next_due_ns(self.roster.calm_ns)
        known = [when for when in (due, self._ask_ns()) if when is not None]
        return min([*ends, *known], default=None)

    def _ask_ns(self) -> int | None:
        start_ns = self.schedule.window_start_ns
        if not self._asks or start_ns is None or self.schedule.stopped:
            return None
        return start_ns + round(self._asks[0] * NS)

    def _ends_ns(self, fault: Fault) -> int | None:
        if fault.t0_ns is None or fault.spec.for_s is None:
            return None
        return fault.t0_ns + round(fault.spec.for_s * NS)

    def step(self, now_ns: int) -> Event | None:
        """Do one thing that is due; the event that tells of it, or None if nothing is."""
        for fault in self._lasting:
            end = self._ends_ns(fault)
            if end is not None and end <= now_ns:
                return self._mend(fault)
        ask_ns = self._ask_ns()
        if ask_ns is not None and ask_ns <= now_ns:
            return self._ask(self._asks.popleft())
        fault_due = self.schedule.due(now_ns, self.roster.calm_ns)
        return None if fault_due is None else self._inject(fault_due)

    def _ask(self, at_s: float) -> Event:
        """A snapshot on demand. While no master is there, none is taken: that is told."""
        target = self.roster.target("master", self._random, None)
        if isinstance(target, str):
            return Event(time.monotonic_ns(), "ftmb", "not_asked", {"at_s": at_s, "why": target})
        t_ns = time.monotonic_ns()
        self._processes[target.process].command("snapshot")
        return Event(t_ns, "ftmb", "snapshot_asked", {"at_s": at_s, "process": target.process})

    def _inject(self, fault: Fault) -> Event:
        cause = self._cause.get(fault.spec.after or "")
        target = self.roster.target(fault.role, self._random, cause)
        if isinstance(target, str):
            fault.problem = target
            return Event(time.monotonic_ns(), "ftmb", "no_fault", {"why": target})
        process = self._processes[target.process]
        fault.process, fault.pid = target.process, process.pid
        fault.slot, fault.link = target.slot, target.link
        fault.t0_ns = self._do(fault, process, target)
        if fault.role in REPLICA_ROLES:
            process.outdated = True
        self.roster.hit(fault)
        fields = {
            "do": fault.spec.do,
            "role": fault.role,
            "process": target.process,
            "slot": target.slot,
            "link": target.link,
            "at_s": fault.at_s,
        }
        return Event(fault.t0_ns, "ftmb", "fault", fields)

    def _do(self, fault: Fault, process: NodeProcess, target: Target) -> int:
        if fault.spec.do == "kill":
            return process.kill()
        if fault.spec.do == "switchover":
            t0_ns = time.monotonic_ns()
            self._processes[self.roster.loggers["ol"]].command("switchover")
            return t0_ns
        self._lasting.append(fault)
        if fault.spec.do == "stop":
            return process.pause()
        t0_ns = time.monotonic_ns()
        process.command(f"cut {target.link}")
        return t0_ns

    def _mend(self, fault: Fault) -> Event:
        assert fault.process is not None
        self._lasting.remove(fault)
        process = self._processes[fault.process]
        fault.end_ns = time.monotonic_ns()
        if fault.spec.do == "stop":
            process.go_on()
        elif not process.ended:
            process.command(f"restore {fault.link}")
        fields = {"do": fault.spec.do, "role": fault.role, "process": fault.process}
        return Event(fault.end_ns, "ftmb", "fault_end", fields)

    def stop(self) -> list[Event]:
        """No more faults: what is stopped goes on, what is cut is mended."""
        self.schedule.stopped = True
        return [self._mend(fault) for fault in list(self._lasting)]


def in_words(fault: Fault, number: int) -> str:
    """`fault 3: killed master r0 (pid 17)`."""
    what = fault.link or f"{fault.role} {fault.process} (pid {fault.pid})"
    return f"fault {number}: {WORDS[fault.spec.do]} {what}"
