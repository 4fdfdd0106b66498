"""`ftmb endpoints`: client - middlebox - server, programs at both ends, kills; one record."""

from __future__ import annotations

import datetime
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from ftmb import debian, environment, lock, spec, trial
from ftmb.describe import project_root
from ftmb.endpoints import box, judge, workloads
from ftmb.endpoints import record as rec
from ftmb.endpoints.client import LIMITS_S
from ftmb.endpoints.programs import PROGRAMS
from ftmb.endpoints.spec import EndpointsSpec, require
from ftmb.endpoints.workloads import Ends, Load
from ftmb.errors import MachineError, TrialError
from ftmb.record import Check, write
from ftmb.testbed import namespaces
from ftmb.testbed.namespaces import Host, Network

CLIENT, NEAR_SERVER = "10.77.0.1", "10.77.0.2"
ROUTER, FAR_SERVER = "10.77.0.254", "198.18.0.2"
SIDES = ("client", "server")
# The end whose kernel tells how a workload comes forward, and by which of its columns.
SENDER = {
    "iperf3": ("client", "acked"),
    "download": ("server", "acked"),
    "ssh": ("client", "received"),
}
TICK_S = 0.01
SAMPLER_S = 20.0  # to begin; it has half of that to end
SETTLE_S = 0.3  # from the last kill's recovery to the next kill, at least


Counts = dict[str, int | None]


@dataclass(frozen=True)
class Kill:
    """When, and how long until the middlebox could be killed again."""

    t0_ns: int
    ready_ns: int | None


def instants(wanted: EndpointsSpec) -> list[float]:
    """Seconds after the warm-up: one random instant in each `every_s`, far enough from its end."""
    draw = random.Random(wanted.seed)
    room = wanted.every_s - min(wanted.judge_s, wanted.every_s / 2)
    return [index * wanted.every_s + draw.uniform(0, room) for index in range(wanted.kills)]


def build(net: Network) -> tuple[Host, Host, Host]:
    """client - box - server, with what both functions of config/sites want of addresses."""
    client, middle, server = (net.host(name) for name in ("client", "box", "server"))
    net.cable(client, "c0", middle, "inside")
    net.cable(server, "s0", middle, "outside")
    client.address("c0", f"{CLIENT}/24")
    client.route("default", ROUTER)
    for address in (NEAR_SERVER, FAR_SERVER):
        server.address("s0", f"{address}/24")
    return client, middle, server


class Run:
    """One run, from the first process to the last."""

    def __init__(self, wanted: EndpointsSpec, out: Path, quiet: bool) -> None:
        """out: where the record goes. Nothing is started yet."""
        self.wanted, self.out, self._quiet = wanted, out, quiet
        self.kills: list[Kill] = []
        self.loads: list[Load] = []
        self.failovers, self.begun_ns, self.ended_ns = 0, 0, 0

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        if not self._quiet:
            print(f"ftmb: {text}", file=sys.stderr, flush=True)

    def measure(self) -> None:
        """All of it. Raises FtmbError; what it made is gone in any case."""
        with ExitStack() as stack:
            place = Path(tempfile.mkdtemp(prefix="ftmb.ends."))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            net = stack.enter_context(namespaces.network())
            client, middle, server = build(net)
            middlebox = box.Box(middle, self.wanted, self.out / "box")
            stack.callback(middlebox.close)
            middlebox.start()
            middlebox.wait(lambda: None)
            self.say("the middlebox is up")
            address = FAR_SERVER if self.wanted.function == "nat" else NEAR_SERVER
            self.loads = workloads.prepare(Ends(client, server, address, place, stack), self.wanted)
            samplers = [self._sampler(host, side) for host, side in
                        zip((client, server), SIDES, strict=True)]  # fmt: skip
            for load in self.loads:
                load.start()
            self._kill_again_and_again(middlebox)
            for load in self.loads:
                load.stop()
            for sampler in samplers:
                _end(sampler)
            if self.wanted.arm != "cold":
                self.failovers = middlebox.failovers
            for load in self.loads:
                shutil.copy(load.out, self.out / load.out.name)

    def _sampler(self, host: Host, side: str) -> subprocess.Popen[str]:
        files = [str(self.out / f"{side}.{what}.csv") for what in ("connections", "counters")]
        words = ["-m", "ftmb.endpoints.sampler", *files, str(self.wanted.sample_ms)]
        sampler = host.start([sys.executable, *words], stdout=subprocess.PIPE)
        assert sampler.stdout is not None
        begun, _, _ = select.select([sampler.stdout], [], [], SAMPLER_S)
        if not begun:
            sampler.kill()
            sampler.wait()
            raise TrialError(f"the sampler of the {side} does not begin within {SAMPLER_S:g} s")
        if sampler.stdout.readline() != "ready\n":
            raise TrialError(f"the sampler of the {side} ended with {sampler.wait()}")
        return sampler

    def _tend(self) -> None:
        for load in self.loads:
            load.tend()

    def _until(self, ns: int) -> None:
        while (left_s := (ns - time.monotonic_ns()) / 1e9) > 0:
            self._tend()
            time.sleep(min(left_s, TICK_S))

    def _kill_again_and_again(self, middlebox: box.Box) -> None:
        self.begun_ns = time.monotonic_ns()
        zero_ns = self.begun_ns + round(self.wanted.warmup_s * 1e9)
        window_ns = round(self.wanted.judge_s * 1e9)
        for at_s in instants(self.wanted):
            self._until(zero_ns + round(at_s * 1e9))
            if self.kills:
                last = self.kills[-1]
                settled = (last.ready_ns or 0) + round(SETTLE_S * 1e9)
                self._until(max(settled, last.t0_ns + window_ns))
            t0_ns = middlebox.kill()
            ready_ns = None
            if self.wanted.arm != "control":
                middlebox.wait(self._tend)
                ready_ns = time.monotonic_ns()
            self.kills.append(Kill(t0_ns, ready_ns))
            self.say(f"kill {len(self.kills)} of {self.wanted.kills}" + (
                f", ready again after {(ready_ns - t0_ns) / 1e6:.0f} ms" if ready_ns else ""
            ))  # fmt: skip
        self._until(self.kills[-1].t0_ns + window_ns + round(0.2e9))
        self.ended_ns = time.monotonic_ns()


def _end(sampler: subprocess.Popen[str]) -> None:
    sampler.terminate()
    try:
        code = sampler.wait(SAMPLER_S / 2)
    except subprocess.TimeoutExpired:
        sampler.kill()
        sampler.wait()
        raise TrialError(f"a sampler did not end within {SAMPLER_S / 2:g} s") from None
    if code:
        raise TrialError(f"a sampler ended with {code}")


def _crashes(
    run: Run, samples: dict[str, pd.DataFrame], counts: dict[str, pd.DataFrame]
) -> tuple[list[rec.Crash], Counts, float]:
    """Each kill with its window; the counters outside of all windows, and how many seconds."""
    window_ns = round(run.wanted.judge_s * 1e9)
    begin_ns = run.begun_ns + round(run.wanted.warmup_s * 0.5e9)  # connections are being made
    # The looks may begin late and end early on a crowded machine; a kill's window needs all of it.
    looks = [counts[side]["t_ns"] for side in SIDES]
    begin_ns = max(begin_ns, *(int(times.iloc[0]) for times in looks))
    ended_ns = min(run.ended_ns, *(int(times.iloc[-1]) for times in looks))
    total = _both(counts, begin_ns, ended_ns)
    crashes = []
    for kill in run.kills:
        end_ns = kill.t0_ns + window_ns
        grown = _both(counts, kill.t0_ns, end_ns)
        total = {
            name: None if n is None or (whole := total[name]) is None else whole - n
            for name, n in grown.items()
        }
        told = {}
        for load in run.loads:
            if load.kind not in SENDER:
                continue
            side, forward = SENDER[load.kind]
            part = samples[f"{side} {load.kind}"]
            late_ns = judge.last_look(counts[side], end_ns)
            told[load.kind] = judge.connections(part, kill.t0_ns, end_ns, late_ns, forward)
        ready = None if kill.ready_ns is None else (kill.ready_ns - kill.t0_ns) / 1e6
        crashes.append(rec.Crash(
            t0_ns=kill.t0_ns, at_s=(kill.t0_ns - run.begun_ns) / 1e9, ready_again_ms=ready,
            counters=grown, connections=told,
        ))  # fmt: skip
    calm_s = (ended_ns - begin_ns - len(crashes) * window_ns) / 1e9
    calm = {name: None if n is None else max(n, 0) for name, n in total.items()}
    return crashes, calm, calm_s


def _both(counts: dict[str, pd.DataFrame], begin_ns: int, end_ns: int) -> Counts:
    one, two = (judge.deltas(counts[side], begin_ns, end_ns) for side in SIDES)
    return {
        name: None if n is None or (other := two[name]) is None else n + other
        for name, n in one.items()
    }


def _tables(run: Run) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Samples by side and workload, counters by side."""
    counts = {side: pd.read_csv(run.out / f"{side}.counters.csv") for side in SIDES}
    samples = {}
    for side in SIDES:
        path = run.out / f"{side}.connections.csv"
        whole = pd.read_csv(path)
        port = whole["dport" if side == "client" else "sport"]
        for kind in SENDER:
            samples[f"{side} {kind}"] = whole[port == workloads.PORTS[kind]]
        whole.to_csv(path.with_suffix(".csv.gz"), index=False)
        path.unlink()
    return samples, counts


def _checks(run: Run, crashes: list[rec.Crash], asked: dict[str, rec.Asked]) -> list[Check]:
    """What the endpoints must not have noticed."""
    found = []

    def check(name: str, figure: int, detail: str) -> None:
        verdict: Literal["pass", "fail"] = "fail" if figure else "pass"
        found.append(Check(name=name, verdict=verdict, figure=figure, detail=detail))

    told = [each for crash in crashes for each in crash.connections.values()]
    at_work = sum(each.at_work for each in told)
    lost = sum(each.lost for each in told) + sum(len(load.broken) for load in run.loads)
    check("connections", lost, f"lost, of {at_work} at work when the master was killed")
    for kind, each in asked.items():
        check(kind, each.failed, f"went wrong of {each.count:,}")
    timeouts = sum(crash.counters["timeouts"] or 0 for crash in crashes)
    check("timeouts", timeouts, "of TCP, at both ends, in what follows a kill")
    if run.wanted.arm != "cold":
        wanted = len(crashes) if run.wanted.arm == "ftmb" else 0
        check("failovers", abs(run.failovers - wanted), f"more or fewer than {wanted}")
    return found


def why_not(arm: str, failovers: int, crashes: list[rec.Crash]) -> str | None:
    """Why the figures of a run must not be used, if so: kills without a takeover show nothing."""
    if arm == "cold":
        return None  # it may take a client longer than to the next kill to begin anew
    wanted = len(crashes) if arm == "ftmb" else 0
    if failovers != wanted:
        return f"{failovers} takeovers, where {wanted} were to come"
    idle = [kind for c in crashes for kind, told in c.connections.items() if not told.at_work]
    return f"{idle[0]}: no connection was at work at a kill" if idle else None


def _record(
    run: Run, started: str, prepared: trial.Prepared, load_1min: float
) -> rec.EndpointsRecord:
    samples, counts = _tables(run)
    crashes, calm, calm_s = _crashes(run, samples, counts)
    windows = [(c.t0_ns, c.t0_ns + round(run.wanted.judge_s * 1e9)) for c in crashes]
    asked = {
        load.kind: judge.asked(
            pd.read_csv(run.out / load.out.name), windows, LIMITS_S[load.kind] * 1e3
        )
        for load in run.loads
        if load.kind != "iperf3"
    }
    shown = next((kind for kind in ("iperf3", "download") if any(
        load.kind == kind for load in run.loads)), None)  # fmt: skip
    line = None
    if shown:
        side, forward = SENDER[shown]
        line = judge.timeline(samples[f"{side} {shown}"], [c.t0_ns for c in crashes], forward)
    why = why_not(run.wanted.arm, run.failovers, crashes)
    return rec.EndpointsRecord(
        version=1, kind="endpoints", valid=why or True, started=started,
        spec=run.wanted.model_dump(), site=prepared.spec.model_dump() | {"nf": prepared.nf},
        environment=environment.environment(prepared.plan, None, load_1min),
        versions=environment.versions(prepared.description, prepared.program),
        programs=debian.versions({p for load in run.loads for p in PROGRAMS[load.kind].values()}),
        limit_mbps=next((load.mbps for load in run.loads if load.kind == "iperf3"), None),
        failovers=run.failovers, crashes=crashes, calm=calm, calm_s=calm_s, asked=asked,
        broken={load.kind: len(load.broken) for load in run.loads}, timeline=line,
        checks=_checks(run, crashes, asked),
        files={path.name: path.name for path in sorted(run.out.glob("*.csv*"))},
    )  # fmt: skip


def run(wanted: EndpointsSpec, out: Path, wait_s: float, quiet: bool = True) -> rec.EndpointsRecord:
    """Run it and write out/record.json. Raises FtmbError."""
    require(wanted)
    if os.geteuid() != 0:
        raise MachineError("network namespaces: only root can make them; run as root")
    site = project_root() / "config" / "sites" / f"{wanted.function}.yaml"
    prepared = trial.prepare(spec.load(site, list(wanted.set)))
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    out.mkdir(parents=True, exist_ok=True)
    (out / rec.RECORD_NAME).unlink(missing_ok=True)
    with lock.machine_lock(wait_s):
        load_1min = os.getloadavg()[0]
        one = Run(wanted, out.absolute(), quiet)
        one.measure()
    record = _record(one, started, prepared, load_1min)
    write(record, out)
    return record


def summary(record: rec.EndpointsRecord) -> str:
    """One line for a person."""
    told = [each for crash in record.crashes for each in crash.connections.values()]
    gaps = [each.longest_gap_ms for each in told if each.longest_gap_ms is not None]
    asked = ", ".join(
        f"{kind} {a.failed} of {a.count:,} failed" for kind, a in record.asked.items()
    )
    gap = f", longest gap {max(gaps):.0f} ms" if gaps else ""
    return (
        f"{record.spec['arm']}, {len(record.crashes)} kills: {sum(t.lost for t in told)} of "
        f"{sum(t.at_work for t in told)} connections lost, "
        f"{sum(t.collapsed for t in told)} collapsed{gap}" + (f"; {asked}" if asked else "")
    )
