"""One trial: fresh processes, one experiment, one record."""

from __future__ import annotations

import datetime
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftmb import checks, environment, events, measure, memory, node, outcome, record, snapshots
from ftmb.describe import Description, check_engine, check_workers, describe, nf_config, node_path
from ftmb.errors import FtmbError, MachineError, SpecError, TrialError
from ftmb.events import Event
from ftmb.faults import Fault
from ftmb.fleet import Fleet
from ftmb.lock import RuntimeDir, machine_lock, refuse_left_overs
from ftmb.node import Plan
from ftmb.progress import TrialProgress
from ftmb.record import Environment, FaultRecord, Record, Setup, Versions, Window
from ftmb.recovery import recoveries
from ftmb.signals import held
from ftmb.spec import TrialSpec
from ftmb.testbed import external
from ftmb.testbed.local import Local
from ftmb.testbed.netns import Netns

TESTBEDS: dict[str, type[Local]] = {"local": Local, "netns": Netns}

# What a trial writes besides the specs and stderr files of its processes. Removed at the start:
# a failed trial must not leave the results of an earlier one behind.
FILES = {
    "events": "events.jsonl",
    "histogram": "histogram.json",
    "timeline": "timeline.csv",
    "samples": "samples.bin",
    "noise": "noise.json",
    "memory": "memory.csv",
    "snapshots": "snapshots.csv",
}


@dataclass(frozen=True)
class Prepared:
    """A trial that was checked as far as possible without starting anything."""

    spec: TrialSpec
    nf: dict[str, Any]
    program: Path
    description: Description
    plan: Plan


def prepare(spec: TrialSpec) -> Prepared:
    """Check the spec against the data plane and the machine. Raises SpecError, MachineError."""
    program = node_path()
    description = describe(program)
    check_workers(description, spec.workers)
    if spec.ft.mode == "ftmb":
        check_engine(description, spec.ft.snapshot.engine)
    nf = nf_config(description, spec.nf.name, spec.nf.params)
    return Prepared(spec, nf, program, description, node.make_plan(spec))


def packets(spec: TrialSpec, out: Path) -> dict[str, Any]:
    """Make the packet templates of the profile: template, capture and inside for the node spec."""
    try:
        from ftmb.traffic import profile
    except ImportError as error:
        raise MachineError(f"{error}: run `make setup`") from None
    try:
        prepared = dict(profile.prepare(spec.traffic.profile, out, spec.traffic.seed))
    except FtmbError:
        raise
    except (ValueError, OSError) as error:
        raise SpecError(f"traffic.profile: {error}") from None
    if spec.traffic.external and prepared["capture"]:
        raise SpecError(
            f"traffic.profile: the generator {spec.traffic.generator} cannot replay the capture of "
            f"{spec.traffic.profile}; take a profile of packets (udp64, imix), or native"
        )
    if spec.traffic.fill and prepared["capture"]:
        raise SpecError(
            f"traffic.fill: the profile {spec.traffic.profile} replays a capture, which brings its "
            "own flows; take fill out, or choose another profile"
        )
    return prepared


def _make_out(out: Path) -> Path:
    out = out.absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in [record.RECORD_NAME, *FILES.values()]:
            (out / name).unlink(missing_ok=True)
        for old in [*out.glob("*.stderr"), *out.glob("*.stdout")]:
            old.unlink()
    except OSError as error:
        raise MachineError(
            f"cannot write to {out}: {error.strerror}; choose another --out"
        ) from None
    return out


def _fault_records(
    spec: TrialSpec, faults: list[Fault], events: list[Event], gaps: Any
) -> list[FaultRecord]:
    """What was to happen and what did, with the outcome of the incident that each belongs to."""
    number = {id(f): i for i, group in enumerate(outcome.incidents(faults)) for f in group}
    found = iter(outcome.outcomes(spec, faults, events, gaps))
    records = []
    for fault in faults:
        result = next(found) if fault.happened else None
        records.append(
            FaultRecord(
                index=fault.index,
                do=fault.spec.do,
                role=fault.role,
                at_s=fault.at_s,
                t0_ns=fault.t0_ns,
                end_ns=fault.end_ns,
                process=fault.process,
                pid=fault.pid,
                slot=fault.slot,
                link=fault.link,
                problem=fault.problem,
                incident=number.get(id(fault)),
                guaranteed=not result.missing if result else None,
                missing=list(result.missing) if result else [],
                recovered_ms=result.recovered_ms if result else None,
                protected_again_ms=result.protected_again_ms if result else None,
                outage_ms=result.outage_ms if result else None,
            )
        )
    return records


def _first_ns(fleet: Fleet, name: str) -> int | None:
    found = (e.integer("at_ns", e.t_ns) for e in fleet.events if e.name == name)
    return next(found, None)


def _setup(fleet: Fleet) -> Setup:
    begin = _first_ns(fleet, "spawn") or 0
    window = fleet.schedule.window_start_ns or 1 << 63
    ready = [e.t_ns for e in fleet.events if e.name == "ready" and e.t_ns < window]
    protected = _first_ns(fleet, "protected")
    return Setup(
        ready_ms=(max(ready) - begin) / 1e6 if ready else 0.0,
        protected_ms=None if protected is None else (protected - begin) / 1e6,
    )


def build_record(
    prepared: Prepared,
    fleet: Fleet,
    trouble: list[str],
    machine: Environment,
    versions: Versions,
    started: str,
) -> Record:
    """The record of a run that reached its window, however it ended."""
    spec = prepared.spec
    stats = measure.Stats.of(fleet.events)
    gaps = stats.traffic.get("gaps") if stats.traffic else None
    faults = fleet.schedule.faults
    times = outcome.failover_times(spec, faults, fleet.events)
    failovers = recoveries(fleet.events, times, gaps)
    told = _fault_records(spec, faults, fleet.events, gaps)
    counts = measure.packets(spec, stats)
    latency = measure.latency(spec, stats)
    start_ns = fleet.schedule.window_start_ns or 0
    snapshot = snapshots.summary(spec, fleet.events, start_ns, stats.replicas)
    log = measure.log(spec, stats, fleet.events)
    by_name = measure.event_counts(fleet.events)
    end_ns = _first_ns(fleet, "window_end")
    sizes = memory.inside(fleet.memory.samples, start_ns, end_ns)
    flatness = None if end_ns is None else memory.flatness(sizes, start_ns, end_ns)
    verdicts = checks.checks(spec, stats, counts, log, snapshot, failovers, told, fleet.events)
    verdicts += checks.memory_check(flatness)
    delivered_pps, offered_pps = measure.rates(stats)
    strays = outcome.strays(spec, faults, failovers)
    trouble = [*trouble, *fleet.schedule.missing()]
    valid = checks.validity(spec, stats, counts, latency, strays, trouble, by_name)
    data_plane = {
        "scheduler": (stats.traffic or {}).get("scheduler"),
        "niceness": next((e.integer("niceness", 0) for e in fleet.events if e.name == "ready"), 0),
    }
    return Record(
        version=1,
        valid=valid if isinstance(valid, str) else True,
        started=started,
        spec=spec.model_dump() | {"nf": prepared.nf},
        environment=machine.model_copy(update=data_plane),
        versions=versions,
        setup=_setup(fleet),
        window=Window(start_ns=start_ns, end_ns=end_ns),
        packets=counts,
        throughput_pps=delivered_pps,
        offered_pps=offered_pps,
        late=stats.traffic["late"] if stats.traffic else None,
        sample=measure.sample(stats),
        latency_ns=latency,
        noise=measure.noise(stats),
        fill=measure.fill(stats),
        state_bytes=measure.state_bytes(stats),
        snapshot=snapshot,
        log=log,
        memory=memory.summary(sizes),
        nf=measure.nf_counters(stats),
        faults=told,
        recovery=failovers or None,
        checks=verdicts,
        events=by_name,
        stats=[{"process": e.process, **e.fields} for e in fleet.events if e.name == "stats"],
        files={key: name for key, name in FILES.items() if (fleet.out / name).exists()},
    )


def _run_fleet(fleet: Fleet) -> list[str]:
    """From the first process to the last. Returns what went wrong after the workload began."""
    fleet.start()
    fleet.wait_ready()
    trouble = fleet.measure()
    if fleet.schedule.window_start_ns is None:
        why = trouble[0] if trouble else "an input killed every master before (`poison`)"
        raise TrialError(f"the measured window never began: {why}")
    return trouble + fleet.finish()


def run(spec: TrialSpec, out: Path, lock_wait_s: float, verbose: bool = False) -> Record:
    """Run one trial and write its record to `out`. Raises FtmbError if no record can be written,
    and, after writing what there is, if a process died that no fault named.

    Whatever happens, nothing that was started is running when this returns or raises.
    """
    if spec.interfaces and not spec.traffic.external:
        raise SpecError(
            "interfaces: the generator native stands at none; for a middlebox there is `ftmb up`, "
            "for a trial at interfaces traffic.generator trex"
        )
    prepared = prepare(spec)
    out = _make_out(out)
    with machine_lock(lock_wait_s), TrialProgress(verbose) as progress:
        refuse_left_overs()
        progress.stage("preparing the traffic")
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # Before the run: git and hashing would be noise in it.
        machine = environment.environment(prepared.plan, None, os.getloadavg()[0])
        versions = environment.versions(prepared.description, prepared.program)
        traffic = node.traffic_section(spec, packets(spec, out), out)
        runtime = RuntimeDir()
        testbed = external.of(spec, TESTBEDS)(prepared.plan, runtime)
        fleet = Fleet(
            prepared.program, spec, prepared.nf, prepared.plan, traffic, out, runtime, progress,
            testbed,
        )  # fmt: skip
        try:
            testbed.build()
            trouble = _run_fleet(fleet)
        finally:
            with held():
                fleet.close()
                testbed.close()
                runtime.remove()
                events.write(out / FILES["events"], fleet.events)
                start_ns = fleet.schedule.window_start_ns or 0
                memory.write(out / FILES["memory"], fleet.memory.samples, start_ns)
                snapshots.write(out / FILES["snapshots"], fleet.events, start_ns)
        result = build_record(prepared, fleet, trouble, machine, versions, started)
        record.write(result, out)
    if fleet.deaths:
        raise TrialError(f"{fleet.deaths[0]}; see {fleet.deaths[0].process.stderr_path}")
    return result


def summary(result: Record) -> str:
    """One or two lines for a person: what the trial showed."""
    failed = [check.name for check in result.checks if check.verdict == "fail"]
    total = len(result.checks)
    parts = [f"checks {total - len(failed)} of {total} pass"]
    if failed:
        parts[0] += f" (failed: {', '.join(failed)})"
    if result.throughput_pps is not None:
        parts.insert(0, f"{result.throughput_pps:,.0f} packets/s delivered")
    if result.latency_ns is not None and result.latency_ns.p50 is not None:
        parts.insert(1, f"median {result.latency_ns.p50 / 1000:.1f} us")
    incidents = {f.incident: f for f in result.faults if f.incident is not None}
    if len(incidents) > 1:
        good = sum(bool(fault.guaranteed) for fault in incidents.values())
        parts.append(f"{good} of {len(incidents)} faults ended as guaranteed")
    times = [entry.total_ms for entry in result.recovery or [] if entry.total_ms is not None]
    if times:
        many = f" at the median of {len(times)}, {max(times):.1f} ms at most"
        middle = statistics.median(times)
        parts.append(f"recovered in {middle:.1f} ms{many if len(times) > 1 else ''}")
    return ", ".join(parts)
