"""A middlebox at work: `ftmb up`, `ftmb status`, `ftmb down`.

The processes stand between two network interfaces until they are told to stop; whichever dies is
replaced, whatever it died of. Others learn how it is from a file in its private directory, ask
through a socket that is there too (door.py), and end it with a signal. Nothing listens on a network
unless its file names an address for metrics.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ftmb import door, events, interface, lock, switchover, trial
from ftmb.errors import MachineError, SpecError, Stopped, TrialError
from ftmb.fleet import FINISH_S
from ftmb.lock import RuntimeDir
from ftmb.signals import held
from ftmb.site_fleet import STATUS, Site
from ftmb.spec import TrialSpec

# How long who asks waits for the next answer.
ASK_S, SWITCHOVER_S = 10.0, 120.0


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
    switchovers: int = 0
    directory: str = ""
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
            f"switchovers {self.switchovers}, up {up_s:.0f} s, pid {self.pid}"
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
    try:
        return _serve(Site(status, prepared, out, runtime), out)
    finally:
        with held():
            runtime.remove()


def _serve(site: Site, out: Path) -> str:
    trouble: list[str] = []
    try:
        site.start()
        site.wait_ready()
        site.serve()
    except Stopped:
        if site.status.starting:
            return f"{site.status.name}: stopped before it was up"
        with held():  # a second signal waits until the first is obeyed
            trouble = site.finish()
    finally:
        with held():
            site.close()
            events.write(out / trial.FILES["events"], site.events)
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


def _chosen(name: str | None) -> Status:
    found = sites()
    chosen = [each for each in found if name in (None, each.name)]
    if not chosen:
        known = ", ".join(each.name for each in found) or "none"
        raise SpecError(f"no middlebox {name or ''} is up (there is: {known})".replace("  ", " "))
    if len(chosen) > 1:
        raise SpecError(f"which one? {', '.join(each.name for each in chosen)} are up")
    return chosen[0]


def down(name: str | None) -> str:
    """End one middlebox in order, and wait for it. Raises FtmbError."""
    target = _chosen(name)
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


def metrics(name: str | None) -> str:
    """What one middlebox is like, in Prometheus' text format. Raises FtmbError."""
    target = _chosen(name)
    answer = next(door.ask(Path(target.directory), "metrics", ASK_S), None)
    if answer is None:
        raise MachineError(f"{target.name} is asked by too many, or ending; ask again")
    return str(answer["metrics"])


def switch(name: str | None, wait: bool) -> None:
    """Replace the master of one middlebox by its backup; print what came of it. Raises FtmbError.

    wait: until it is protected again."""
    target = _chosen(name)
    for answer in door.ask(Path(target.directory), "switchover", SWITCHOVER_S):
        if "failed" in answer:
            raise TrialError(f"{target.name}: no switchover: {answer['failed']}")
        print(switchover.in_words(target.name, answer), flush=True)
        if "protected" in answer or not wait:
            return
    raise TrialError(f"{target.name} ended before that was done; see `ftmb status`")
