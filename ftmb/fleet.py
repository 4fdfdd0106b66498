"""The processes of a trial: started, listened to, faulted, finished, and gone at the end."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ftmb import events, filling, node
from ftmb.errors import TrialError
from ftmb.events import Event
from ftmb.faults import Schedule
from ftmb.generators.ground import CHILD
from ftmb.injector import Injector, in_words
from ftmb.lock import RuntimeDir
from ftmb.memory import Sampler
from ftmb.node import Plan
from ftmb.process import ENDED, Died, NodeProcess, State
from ftmb.progress import TrialProgress
from ftmb.roster import Roster
from ftmb.signals import held
from ftmb.spec import TrialSpec
from ftmb.testbed.local import Local, replica_host

# How long other processes get to say why they ended, once one has: the first to be noticed may
# only have followed the one at fault.
SETTLE_S = 0.3
# ftmb-node's exit code for "my peer is gone": a follower, never the cause.
PEER_GONE = 5
# After the drain: how long a failover may still take (and then protection as long as at the start:
# setup_timeout_s); after `finish`: how long stopping may.
RESUME_S = 5.0
FINISH_S = 20.0
# The run ends with these events: orderly, or because an input kills every master.
ENDS = ("drained", "poison")


class Fleet:
    """All processes of one trial. Use on the main thread; `close` in any case."""

    def __init__(
        self,
        program: Path,
        spec: TrialSpec,
        nf: dict[str, Any],
        plan: Plan,
        traffic: dict[str, Any],
        out: Path,
        runtime: RuntimeDir,
        progress: TrialProgress,
        testbed: Local | None = None,
    ) -> None:
        self.spec, self.plan, self.out = spec, plan, out
        self.schedule = Schedule.of(spec)
        self.events: list[Event] = []
        self.processes: dict[str, NodeProcess] = {}
        self.roster = Roster(plan, self._working)
        self.injector = Injector(self.schedule, self.roster, self.processes, spec)
        self.seen: set[str] = set()
        self.deaths: list[Died] = []
        self._program, self._nf, self._traffic = program, nf, traffic
        self._runtime, self.progress = runtime, progress
        self._testbed = testbed or Local(plan, runtime)
        self._inbox: queue.Queue[Event] = queue.Queue()
        self.memory = Sampler(runtime.path)
        self._generations: Counter[str] = Counter()
        self._leaving = False  # `finish` was sent: nothing is started any more

    def _working(self, name: str) -> bool:
        return name in self.processes and self.processes[name].working

    # -- starting ---------------------------------------------------------------------------

    def _launch(self, tree: dict[str, Any], host: str) -> Event:
        prefix = self._testbed.settle(tree, host)
        path, name = node.write_spec(tree, self.out), str(tree["process"])
        cut_off = partial(self._testbed.cut_off, host)
        program = CHILD if "generator" in tree else self._program
        with held():
            process = NodeProcess(program, path, name, self.out, self._inbox, prefix, cut_off)
            self.processes[name] = process
        self._runtime.add(name, process.pid)
        process.outdated = "false_suspicion" in self.spec.expect
        spawn = events.own("spawn", name, pid=process.pid)
        self.events.append(spawn)
        return spawn

    def _fresh_name(self, base: str) -> str:
        """`r0`, then `r0-2`, `r0-3`, ..."""
        self._generations[base] += 1
        count = self._generations[base]
        return base if count == 1 else f"{base}-{count}"

    def _launch_replica(self, slot: int) -> Event:
        name = self._fresh_name(f"r{slot}")
        tree = node.replica_spec(
            name, slot, self.spec, self.plan, self._nf, self._runtime.path, self.out
        )
        return self._launch(tree, replica_host(slot))

    def _launch_loggers(self, group: str) -> None:
        """The process that holds the roles of `group`, and from now on is who they are."""
        name = self._fresh_name(group)
        for role, holder in self.plan.processes.items():
            if holder == group:
                self.roster.loggers[role] = name
        spec, plan, run_dir = self.spec, self.plan, self._runtime.path
        traffic = self._traffic
        tree = node.logger_spec(group, name, spec, plan, self._nf, run_dir, self.out, traffic)
        self._launch(tree, group)

    def start(self) -> None:
        """Replicas first, then the loggers, which connect to them."""
        for slot in range(self.plan.replicas):
            self._launch_replica(slot)
        for name in self.plan.logger_names():
            self._launch_loggers(name)

    def wait_ready(self) -> None:
        """Until every process is ready and, in mode ftmb, protected. Raises FtmbError."""
        deadline = time.monotonic() + self.spec.setup_timeout_s
        limit = f"within {self.spec.setup_timeout_s:g} s (setup_timeout_s)"
        try:
            self.progress.stage("waiting for the processes to be ready")
            if not self.pump(lambda: not self._not_ready(), deadline):
                names = ", ".join(self._not_ready())
                raise TrialError(f"not ready {limit}: {names}; see the .stderr files in {self.out}")
            if self.spec.ft.mode == "ftmb" and self.plan.replicas > 1:
                self.progress.stage("waiting for the first committed base")
                if not self.pump(lambda: "protected" in self.seen, deadline):
                    raise TrialError(
                        f"no base was committed {limit}: the output logger never said "
                        f"`protected`; see the .stderr files in {self.out}"
                    )
        except Died as death:
            raise death.during_setup() from None
        for process in self.processes.values():
            process.become(State.RUNNING)

    def _not_ready(self) -> list[str]:
        return [p.name for p in self.processes.values() if p.state is State.STARTING]

    # -- listening --------------------------------------------------------------------------

    def pump(self, done: Callable[[], bool], deadline: float) -> bool:
        """Take events and inject faults until `done()`; False at `deadline` (time.monotonic).

        Raises Died when a process ends unexpectedly.
        """
        while not done():
            now_ns = time.monotonic_ns()
            happened = self.injector.step(now_ns)
            if happened is not None:
                self._note(happened)
                continue
            left = deadline - now_ns / 1e9
            if left <= 0:
                return False
            due_ns = self.injector.next_ns()
            if due_ns is not None:
                left = min(left, (due_ns - now_ns) / 1e9)
            self.progress.tick()
            self._sample(now_ns)
            try:
                event = self._inbox.get(timeout=max(0.0, min(left, 0.25)))
            except queue.Empty:
                self._replace_dead()
                continue
            self._handle(event)
        return True

    def _sample(self, now_ns: int) -> None:
        living = {name: p.pid for name, p in self.processes.items() if p.state not in ENDED}
        self.memory.tick(now_ns, living, self.roster.calm_ns is not None)

    def _note(self, happened: Event) -> None:
        """A fault was injected, or has ended; or a snapshot was asked for."""
        self.events.append(happened)
        if happened.name == "fault":
            faults = self.schedule.happened
            self.progress.faults(len(faults))
            self.progress.note(in_words(faults[-1], len(faults)))
            self._replace_dead()
            self._look()

    def _routine_matters(self) -> bool:
        """Does anything follow from a routine event now? Else they are taken apart at the end."""
        measuring = self.schedule.window_start_ns is not None
        return not measuring or self.schedule.listens or "commits" in self.roster.amiss

    def _handle(self, event: Event) -> None:
        if event.name == "routine" and self._routine_matters():
            for each in events.unfolded(event):
                self._handle(each)
            return
        self.events.append(event)
        if event.name == "routine":
            return
        process = self.processes[event.process]
        self.roster.take(event)
        self.seen.add(event.name)
        match event.name:
            case "exit":
                self._ended(process, event.integer("code", -1))
            case "ready" if process.state is State.STARTING:
                process.become(State.READY)
                if self.schedule.window_start_ns is not None:
                    process.become(State.RUNNING)  # a fresh process joins a running trial
            case "window_start":
                # The event follows its time by one look at the clock; `at_ns` is the time.
                self.schedule.window_start_ns = event.integer("at_ns", event.t_ns)
                self.progress.window(self.spec.duration_s)
            case "drained" | "window_end":
                self.progress.stage("draining")
        self._replace_dead()
        self._look()
        self.injector.hear(event)

    def _look(self) -> None:
        self.roster.look(time.monotonic_ns(), not self.injector.disturbed)

    def _ended(self, process: NodeProcess, code: int) -> None:
        by_poison = "poison" in self.spec.expect and code < 0
        if not process.note_exit(code) and not by_poison and not self._poisoned():
            self.deaths.append(death := Died(self._culprit(process)))
            raise death

    def _poisoned(self) -> bool:
        """True once the run has come to the end that the spec expects of a poison input."""
        return "poison" in self.spec.expect and "poison" in self.seen

    def _culprit(self, first: NodeProcess) -> NodeProcess:
        """Of the processes that end about now, the one that did not merely follow another."""
        ended = [first]
        until = time.monotonic() + SETTLE_S
        while first.exit_code == PEER_GONE and (left := until - time.monotonic()) > 0:
            try:
                event = self._inbox.get(timeout=left)
            except queue.Empty:
                break
            self.events.append(event)
            if event.name == "exit":
                process = self.processes[event.process]
                if not process.note_exit(event.integer("code", -1)):
                    ended.append(process)
        return next((p for p in ended if p.exit_code != PEER_GONE), first)

    def _replace_dead(self) -> None:
        """Fresh processes for dead ones: a logger at once, all wait for it. A replica once the
        failover is over, since starting one costs time on the same CPUs and no recovery should
        pay for it; but at once where the output logger wants one that holds the base.

        The end of a killed process is not waited for: giving back its memory may take long."""
        if self.schedule.window_start_ns is None or self._leaving or self._poisoned():
            return
        for group in self.plan.logger_names():
            role = next(r for r, holder in self.plan.processes.items() if holder == group)
            if self.processes[self.roster.loggers[role]].state in ENDED:
                self._launch_loggers(group)
        for slot, name in enumerate(self.roster.slots):
            process = self.processes[name]
            gone = process.ended or (process.state is State.KILLED and slot in self.roster.missed)
            wanted = slot in self.roster.heirs or self.roster.over(time.monotonic_ns())
            if gone and wanted and not self._withheld(slot, name):
                spawn = self._launch_replica(slot)
                self.roster.joins(slot, spawn.process, spawn.t_ns)

    def _withheld(self, slot: int, name: str) -> bool:
        """True if the fault that ended `name` is to leave its slot empty."""
        causes = [f for f in self.schedule.faults if f.process == name]
        if causes and not all(fault.spec.protect_again for fault in causes):
            self.roster.withheld.add(slot)
        return slot in self.roster.withheld

    # -- the run ----------------------------------------------------------------------------

    def measure(self) -> list[str]:
        """From `start` to the end of the drain. Returns what went wrong, in words."""
        spec = self.spec
        if spec.traffic.fill:
            filling.begin(self)
        self.processes[self.plan.traffic_name].command("start")
        length = spec.warmup_s + spec.duration_s + spec.drain_s
        try:
            if spec.traffic.fill and (wrong := filling.wait(self)):
                return [wrong]
            self.progress.stage("warming up")
            deadline = time.monotonic() + length + 30 + 0.2 * length
            if not self.pump(lambda: not self.seen.isdisjoint(ENDS), deadline):
                last = "window_end" if "window_end" in self.seen else "window_start"
                missing = "drained" if last in self.seen else last
                return [f"the workload did not finish in time (no `{missing}` event)"]
            return [] if self._poisoned() else self._settle()
        except Died as death:
            return [str(death)]
        finally:
            self.events += self.injector.stop()

    def _settle(self) -> list[str]:
        """Let what was hit come back before `finish`: outputs, loggers, protection."""
        self.events += self.injector.stop()
        self._look()
        amiss = self.roster.amiss
        trouble = []
        if not self.pump(lambda: "failover" not in amiss, time.monotonic() + RESUME_S):
            trouble.append("a failover did not end before the run did (no `resumed` event)")
        deadline = time.monotonic() + self.spec.setup_timeout_s
        if not self.pump(lambda: not self._not_ready(), deadline):
            trouble.append(f"the fresh process {self._not_ready()[0]} never became ready")
        if trouble or not self.schedule.happened:
            return trouble
        # Left unprotected, a record is still good: what the fault was to show is judged there.
        self.pump(self._protected, time.monotonic() + self.spec.setup_timeout_s)
        return trouble

    def _protected(self) -> bool:
        return self.roster.calm_ns is not None or bool(self.roster.withheld)

    def finish(self) -> list[str]:
        """Stop all and collect their statistics. Returns what went wrong, in words.

        Loggers first, and replicas only once the loggers have reported: else an output logger that
        is slow to read its `finish` would take the leaving master for a dead one. Nobody exits
        before all have reported, so that no link loses its other end while it is in use.
        """
        self.progress.stage("collecting statistics")
        self._leaving = True
        deadline = time.monotonic() + FINISH_S
        loggers = list(dict.fromkeys(self.roster.loggers.values()))
        self._tell_finish(loggers)
        trouble = self._pump_through(lambda: not self._unreported(), deadline)
        replicas = [name for name in self.processes if name not in loggers]
        self._tell_finish(replicas)
        trouble += self._pump_through(lambda: not self._silent(replicas), deadline)
        silent = set(self._silent(list(self.processes)))
        for name in self._alive():
            self.processes[name].command("exit")
        deadline = time.monotonic() + FINISH_S
        trouble += self._pump_through(lambda: set(self._alive()) <= silent, deadline)
        unwilling = [name for name in self.processes if name in silent or name in self._alive()]
        if unwilling:
            trouble.append(
                f"did not stop within {FINISH_S:g} s of `finish`: {', '.join(unwilling)}"
            )
        return trouble

    def _tell_finish(self, names: list[str]) -> None:
        for name in names:
            process = self.processes[name]
            if process.listens and process.state not in ENDED:
                process.command("finish")

    def _silent(self, names: list[str]) -> list[str]:
        """Those of the living processes that have not reported yet."""
        reported = {event.process for event in self.events if event.name == "stats"}
        return [n for n in names if n not in reported and self.processes[n].listens]

    def _alive(self) -> list[str]:
        """Those that run and listen. `close` ends the others."""
        return [process.name for process in self.processes.values() if process.listens]

    def _unreported(self) -> list[str]:
        """Roles of living loggers whose statistics have not arrived."""
        reported = {event.fields.get("role") for event in self.events if event.name == "stats"}
        return [
            role
            for role, name in self.roster.loggers.items()
            if role not in reported and not self.processes[name].ended
        ]

    def _pump_through(self, done: Callable[[], bool], deadline: float) -> list[str]:
        """Pump on past processes that die; returns those deaths in words."""
        trouble: list[str] = []
        while True:
            try:
                self.pump(done, deadline)
                return trouble
            except Died as death:
                trouble.append(str(death))

    def close(self) -> None:
        """End everything that still runs; keep the events that were on their way."""
        for process in self.processes.values():
            process.close()
        while True:
            try:
                self.events.append(self._inbox.get_nowait())
            except queue.Empty:
                break
        known = [each for event in self.events for each in events.unfolded(event)]
        self.events = sorted(known, key=lambda event: event.t_ns)
