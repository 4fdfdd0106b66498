"""The processes of a middlebox at work: those of a trial, but whatever dies is replaced, and what
is asked at the door is answered. `ftmb up` (site.py) starts one."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftmb import door, events, switchover, trial
from ftmb.errors import MachineError, TrialError
from ftmb.events import Event
from ftmb.exporter import Exporter
from ftmb.fleet import Fleet
from ftmb.lock import RuntimeDir
from ftmb.notify import Notifier
from ftmb.process import NodeProcess
from ftmb.progress import TrialProgress
from ftmb.switchover import Switchover
from ftmb.watch import Watch

if TYPE_CHECKING:
    from ftmb.site import Status

STATUS = "status.json"
KEPT_EVENTS = 4096
# One that dies more often than that has a cause that starting it again does not mend.
MOST_DEATHS, DEATHS_S = 10, 60.0
# A substitute is started so long after a death: the failover has the CPUs to itself.
FAILOVER_NS = 300_000_000


class Site(Fleet):
    """The processes of one middlebox."""

    def __init__(
        self, status: Status, prepared: trial.Prepared, out: Path, runtime: RuntimeDir
    ) -> None:
        """No process is started yet. out: where node specs and what processes say are kept.
        Raises MachineError."""
        spec, plan = prepared.spec, prepared.plan
        quiet = TrialProgress()
        super().__init__(prepared.program, spec, prepared.nf, plan, {}, out, runtime, quiet)
        self.status = status
        self.status.directory = str(runtime.path)
        self._path, self._published = runtime.path / STATUS, ""
        self._watch, self._notifier = Watch(status.name, spec), Notifier()
        self._switch: Switchover | None = None
        self._exporter = Exporter(spec.metrics, lambda: self._watch.text) if spec.metrics else None
        try:
            self._door = door.Door(runtime.path, self._asked)
        except MachineError:
            if self._exporter:
                self._exporter.close()
            raise
        self._dead_ns: list[int] = []
        self._fenced_ns, self._planned = 0, False
        self._done: Event | None = None
        self._publish()

    def serve(self) -> None:
        """Until a signal stops it. Raises TrialError where starting anew does not help."""
        self.status.starting = False
        self.schedule.window_start_ns = time.monotonic_ns()  # from here on the dead are replaced
        self._look()
        self._publish()
        self._tell(self.status.in_words())
        self._notifier.say("READY=1", f"STATUS={self.status.in_words()}")
        self.pump(lambda: "poison" in self.seen, float("inf"))
        raise TrialError(
            "one input kills every master that handles it (`poison`), the next would die of it "
            f"too; see the .stderr files in {self.out}"
        )

    def summary(self) -> str:
        """What the loggers counted, once they have reported."""
        told: dict[str, int] = {}
        for event in self.events:
            if event.name == "stats":
                for key in ("received", "accepted", "refused", "malformed"):
                    told[key] = told.get(key, 0) + event.integer(key)
        counts = ", ".join(f"{key} {value:,}" for key, value in told.items())
        return f"{self.status.name}: stopped; failovers {self.status.failovers}; packets {counts}"

    def _launch(self, tree: dict[str, Any], host: str) -> Event:
        spawn = super()._launch(tree, host)
        self._watch.take(spawn)
        return spawn

    # -- what happens -------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if event.name == "request":
            self._answer(event.fields["request"])
            return
        self._watch.take(event)
        if event.name == "telemetry":
            self._publish_metrics()
            return
        super()._handle(event)
        if len(self.events) > KEPT_EVENTS:
            del self.events[: KEPT_EVENTS // 2]
        match event.name:
            case "suspect":
                self._planned = event.fields.get("kind") == "handover"
            case "fenced":
                self._fenced_ns = event.t_ns
            case "replay_done":
                self._done = event
            case "protected":  # where there is no traffic, no first output tells of the new master
                self.roster.settled(event.t_ns)
                self._look()
        self._follow_switchover(event)
        self._count_failover()
        self._bury()
        self._publish()

    def _count_failover(self) -> None:
        """Once both its events are here: they come from two processes, in either order."""
        done, began_ns = self._done, self._fenced_ns
        if done is None or not began_ns or began_ns > done.t_ns:
            return
        planned, counts = self._planned, self._watch.counts
        if planned:
            self.status.switchovers += 1
        else:
            self.status.failovers += 1
        counts.failovers, counts.switchovers = self.status.failovers, self.status.switchovers
        counts.takeovers["switchover" if planned else "failover"].add((done.t_ns - began_ns) / 1e9)
        self._tell(
            f"{done.process} has taken over {(done.t_ns - began_ns) / 1e6:.1f} ms after the old "
            f"master was {'relieved' if planned else 'given up'}, {done.integer('packets'):,} "
            "packets replayed"
        )
        self._fenced_ns, self._done = 0, None

    def _bury(self) -> None:
        """Those that ended and are replaced leave nothing behind, however many they become."""
        here = {*self.roster.slots, *self.roster.loggers.values()}
        for name, process in list(self.processes.items()):
            if process.ended and name not in here:
                process.bury()
                self._runtime.forget(name)
                del self.processes[name]

    def _name(self, slot: int) -> str:
        return self.roster.slots[slot]

    def _ended(self, process: NodeProcess, code: int) -> None:
        if self.schedule.window_start_ns is None:
            super()._ended(process, code)
            return
        if process.note_exit(code) or self._leaving:
            return
        now_ns = time.monotonic_ns()
        since_ns = now_ns - round(DEATHS_S * 1e9)
        self._dead_ns = [t for t in self._dead_ns if t > since_ns] + [now_ns]
        how = f"{process.name} ended ({process.how_it_ended()}): {process.last_words()}"
        if len(self._dead_ns) > MOST_DEATHS:
            raise TrialError(
                f"{len(self._dead_ns)} processes ended within {DEATHS_S:g} s, the last: {how}; see "
                f"{process.stderr_path}"
            )
        self._tell(f"{how}; it is replaced")

    def _withheld(self, slot: int, name: str) -> bool:
        recent = self._dead_ns and time.monotonic_ns() - self._dead_ns[-1] < FAILOVER_NS
        return bool(recent) and slot not in self.roster.heirs

    def _sample(self, now_ns: int) -> None:
        """What is to be done whether or not anything happens; at least four times a second."""
        self._notifier.alive()
        if self.schedule.window_start_ns is not None and not self._leaving:
            self._watch.ask(self.processes.values(), now_ns)
        if self._switch:
            self._switch.look(now_ns)

    # -- what is asked ------------------------------------------------------------------------

    def _asked(self, request: door.Request) -> None:
        """On the door's thread: pass it on."""
        self._inbox.put(events.own("request", request=request))

    def _answer(self, request: door.Request) -> None:
        if request.what == "metrics":
            request.answer(metrics=self._watch.text)
            request.end()
        elif request.what == "switchover":
            self._begin_switchover(request)
        else:
            request.answer(failed="there is `metrics` and `switchover`")
            request.end()

    def _begin_switchover(self, request: door.Request) -> None:
        fresh = switchover.fresh(request, self._name(self.roster.master_slot))
        if self.status.starting or self._leaving:
            fresh.fail("it is starting, or ending")
        elif self._switch:
            fresh.fail("one is under way")
        elif not self._working(self.roster.loggers["ol"]):
            fresh.fail("the output logger is not ready")
        if fresh.done:
            return
        self._switch = fresh
        self.processes[fresh.old].outdated = True  # it ends when its view has
        self.processes[self.roster.loggers["ol"]].command("switchover")

    def _follow_switchover(self, event: Event) -> None:
        switch = self._switch
        if switch is None:
            return
        switch.take(event)
        if event.name == "protected" and switch.ended_ns and not switch.failure:
            switch.protected(event.t_ns)
            self._switch = None
        if switch.failure:
            self._watch.counts.switchovers_failed += 1
            if switch.old in self.processes:
                self.processes[switch.old].outdated = bool(switch.ended_ns)
            self._tell(f"no switchover: {switch.failure}")
            self._switch = None

    def _look(self) -> None:
        before = self.status.protected
        super()._look()
        now = self.plan.replicas > 1 and self.roster.calm_ns is not None
        if now != before and self.schedule.window_start_ns is not None and not self._leaving:
            self.status.protected = now
            self._tell("protected: a backup stands by" if now else "not protected")
            self._publish()

    # -- telling ------------------------------------------------------------------------------

    def _publish_metrics(self) -> None:
        status = self.status
        self._watch.publish(status.master, status.protected, status.view)

    def close(self) -> None:
        """End everything; nobody is let in any more."""
        self._notifier.say("STOPPING=1")
        if self._switch:
            self._switch.fail("the middlebox was ended")
        self._door.close()
        if self._exporter:
            self._exporter.close()
        super().close()
        for event in self.events:
            if event.name == "request":
                event.fields["request"].end()
        self.events = [event for event in self.events if event.name != "request"]

    def _tell(self, text: str) -> None:
        print(f"ftmb: {text}", file=sys.stderr, flush=True)

    def _publish(self) -> None:
        """Write the file that `ftmb status` reads, if something in it has changed."""
        status = self.status
        status.master, status.view = self._name(self.roster.master_slot), self.roster.view
        status.processes = {name: p.pid for name, p in self.processes.items() if p.listens}
        text = json.dumps(asdict(status))
        if text != self._published:
            self._published = text
            fresh = self._path.with_suffix(".new")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(self._path)
            self._publish_metrics()
            self._notifier.say(f"STATUS={status.in_words()}")
