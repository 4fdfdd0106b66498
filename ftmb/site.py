"""A middlebox at work: `ftmb up`, `ftmb status`, `ftmb down`.

The processes stand between two network interfaces until they are told to stop; whichever dies is
replaced, whatever it died of. Others learn how it is from a file in its private directory, and end
it with a signal: nothing listens.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ftmb import events, interface, lock, trial
from ftmb.errors import MachineError, SpecError, Stopped, TrialError
from ftmb.events import Event
from ftmb.fleet import FINISH_S, Fleet
from ftmb.lock import RuntimeDir
from ftmb.process import NodeProcess
from ftmb.progress import TrialProgress
from ftmb.signals import held
from ftmb.spec import TrialSpec

STATUS = "status.json"
KEPT_EVENTS = 4096
# One that dies more often than that has a cause that starting it again does not mend.
MOST_DEATHS, DEATHS_S = 10, 60.0
# A substitute is started so long after a death: the failover has the CPUs to itself.
FAILOVER_NS = 300_000_000


@dataclass
class Status:
    """How a site is, as others read it. Times are seconds since the epoch."""

    name: str
    pid: int
    ticks: int  # when that process started: another may have its pid later
    namespace: int  # the network that the interfaces are in
    inside: str
    outside: str
    function: str
    since: float
    starting: bool = True
    master: str = ""
    view: int = 0
    protected: bool = False
    failovers: int = 0
    processes: dict[str, int] = field(default_factory=dict)

    def in_words(self) -> str:
        """One line for a person."""
        kept = "protected" if self.protected else "NOT PROTECTED"
        if self.starting:
            return f"{self.name}: starting, pid {self.pid}"
        up_s = time.time() - self.since
        return (
            f"{self.name}: {self.function} between {self.inside} and {self.outside}, {kept}, "
            f"master {self.master or 'unknown'} (view {self.view}), failovers {self.failovers}, "
            f"up {up_s:.0f} s, pid {self.pid}"
        )

    @property
    def alive(self) -> bool:
        """Whether the process that wrote this is still there."""
        return lock.start_ticks(self.pid) == self.ticks

    def clashes(self, other: Status) -> str | None:
        """In words, why the two cannot be up together; None if they can."""
        if self.name == other.name:
            return (
                f"{self.name} is up already; `ftmb down {self.name}` ends it, --name names another"
            )
        mine, theirs = {self.inside, self.outside}, {other.inside, other.outside}
        if self.namespace == other.namespace and mine & theirs:
            shared = " and ".join(sorted(mine & theirs))
            return f"interfaces: {other.name} stands at {shared} already; `ftmb down {other.name}`"
        return None


def _status(name: str, spec: TrialSpec) -> Status:
    assert spec.interfaces is not None
    pid = os.getpid()
    return Status(
        name=name,
        pid=pid,
        ticks=lock.start_ticks(pid) or 0,
        namespace=Path("/proc/self/ns/net").stat().st_ino,
        inside=spec.interfaces.inside,
        outside=spec.interfaces.outside,
        function=spec.nf.name,
        since=time.time(),
    )


class Site(Fleet):
    """The processes of one middlebox."""

    def __init__(
        self, status: Status, prepared: trial.Prepared, out: Path, runtime: RuntimeDir
    ) -> None:
        """Nothing is started yet. out: where node specs and what processes say are kept."""
        spec, plan = prepared.spec, prepared.plan
        quiet = TrialProgress()
        super().__init__(prepared.program, spec, prepared.nf, plan, {}, out, runtime, quiet)
        self.status = status
        self._path, self._published = runtime.path / STATUS, ""
        self._dead_ns: list[int] = []
        self._fenced_ns = 0
        self._done: Event | None = None
        self._publish()

    def serve(self) -> None:
        """Until a signal stops it. Raises TrialError where starting anew does not help."""
        self.status.starting = False
        self.schedule.window_start_ns = time.monotonic_ns()  # from here on the dead are replaced
        self._look()
        self._publish()
        self._tell(self.status.in_words())
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

    # -- what happens -------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        super()._handle(event)
        if len(self.events) > KEPT_EVENTS:
            del self.events[: KEPT_EVENTS // 2]
        match event.name:
            case "fenced":
                self._fenced_ns = event.t_ns
            case "replay_done":
                self._done = event
            case "protected":  # where there is no traffic, no first output tells of the new master
                self.roster.settled(event.t_ns)
                self._look()
        self._count_failover()
        self._bury()
        self._publish()

    def _count_failover(self) -> None:
        """Once both its events are here: they come from two processes, in either order."""
        done, began_ns = self._done, self._fenced_ns
        if done is None or not began_ns or began_ns > done.t_ns:
            return
        self.status.failovers += 1
        self._tell(
            f"{done.process} has taken over {(done.t_ns - began_ns) / 1e6:.1f} ms after the old "
            f"master was given up, {done.integer('packets'):,} packets replayed"
        )
        self._fenced_ns, self._done = 0, None

    def _bury(self) -> None:
        """Those that ended and are replaced leave nothing behind, however many they become."""
        here = {*self.roster.slots, *self.roster.loggers.values()}
        for name, process in list(self.processes.items()):
            if process.ended and name not in here:
                process.close()
                process.stderr_path.unlink(missing_ok=True)
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
        """Nothing is measured here."""

    def _look(self) -> None:
        before = self.status.protected
        super()._look()
        now = self.plan.replicas > 1 and self.roster.calm_ns is not None
        if now != before and self.schedule.window_start_ns is not None and not self._leaving:
            self.status.protected = now
            self._tell("protected: a backup stands by" if now else "not protected")
            self._publish()

    # -- telling ------------------------------------------------------------------------------

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


def _check(spec: TrialSpec) -> None:
    if spec.interfaces is None:
        raise SpecError(
            "interfaces: which two does the middlebox stand between? Add "
            "`interfaces: {inside: IF, outside: IF}`"
        )
    if spec.faults:
        raise SpecError("faults: `ftmb up` injects none; take them out")
    for name in (spec.interfaces.inside, spec.interfaces.outside):
        interface.check(name)
    interface.check_rights()


def _quietly(spec: TrialSpec) -> TrialSpec:
    """Comparing digests stops the workers: of one at work only where the file asks for it."""
    if "check" in spec.ft.model_fields_set:
        return spec
    return spec.model_copy(update={"ft": spec.ft.model_copy(update={"check": False})})


def up(name: str, spec: TrialSpec, out: Path | None) -> str:
    """Run a middlebox until SIGINT or SIGTERM; returns what it did in one line. Raises FtmbError.

    out: where node specs and what the processes say on stderr are kept; None: only after a failure.
    """
    _check(spec)
    status = _status(name, spec)
    for other in sites():
        if why := status.clashes(other):
            raise MachineError(why)
    prepared = trial.prepare(_quietly(spec))
    with lock.machine_lock(0, shared=True):  # a trial beside it would spoil both
        lock.refuse_left_overs()
        place = Path(tempfile.mkdtemp(prefix=f"ftmb.{name}.")) if out is None else out.absolute()
        place.mkdir(parents=True, exist_ok=True)
        summary = _run(status, prepared, place)
    if out is None:
        shutil.rmtree(place)
    return summary


def _run(status: Status, prepared: trial.Prepared, out: Path) -> str:
    runtime = RuntimeDir()
    site = Site(status, prepared, out, runtime)
    trouble: list[str] = []
    try:
        site.start()
        site.wait_ready()
        site.serve()
    except Stopped:
        if status.starting:
            return f"{status.name}: stopped before it was up"
        with held():  # a second signal waits until the first is obeyed
            trouble = site.finish()
    finally:
        with held():
            site.close()
            events.write(out / trial.FILES["events"], site.events)
            runtime.remove()
    if trouble:
        raise TrialError(f"it did not end in order: {'; '.join(trouble)}; see {out}")
    return site.summary()


def sites() -> list[Status]:
    """The middleboxes that this user runs on this machine."""
    found = []
    for base in lock.runtime_bases():
        for path in sorted(base.glob(f"{lock.PREFIX}*/{STATUS}")):
            try:
                tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                status = Status(**tree)
                mine = path.stat().st_uid == os.getuid()
            except (OSError, ValueError, TypeError):
                continue
            if mine and status.alive:
                found.append(status)
    return found


def status(as_json: bool) -> int:
    """Print what runs. 0: all of it protected; 1: some is not; 3: nothing runs."""
    found = sites()
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    elif not found:
        print("no middlebox is up; `ftmb up FILE` starts one")
    for each in found if not as_json else []:
        print(each.in_words())
    if not found:
        return 3
    return 0 if all(each.protected for each in found) else 1


def down(name: str | None) -> str:
    """End one middlebox in order, and wait for it. Raises FtmbError."""
    found = sites()
    chosen = [each for each in found if name in (None, each.name)]
    if not chosen:
        known = ", ".join(each.name for each in found) or "none"
        raise SpecError(f"no middlebox {name or ''} is up (there is: {known})".replace("  ", " "))
    if len(chosen) > 1:
        raise SpecError(f"which one? {', '.join(each.name for each in chosen)} are up")
    target = chosen[0]
    try:
        os.kill(target.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ended a moment ago
    deadline = time.monotonic() + FINISH_S * 3
    while target.alive:
        if time.monotonic() > deadline:
            raise TrialError(f"{target.name} (pid {target.pid}) did not end; `kill {target.pid}`")
        time.sleep(0.02)
    return f"{target.name} is down"
