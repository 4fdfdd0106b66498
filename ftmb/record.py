"""record.json: what one trial showed. Everything after a trial is a pure function of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ftmb.errors import SpecError
from ftmb.memory import Memory
from ftmb.model import Model
from ftmb.recovery import Recovery
from ftmb.snapshots import Snapshot
from ftmb.spec import TrialSpec

RECORD_NAME = "record.json"


class Packets(Model):
    """Counts of the whole run, warm-up and drain included. Packets, never ticks.

    Null is what the generator does not measure, which is not the same as none.
    """

    offered: int = Field(description="due by the generator's schedule")
    refused_before_log: int = Field(description="refused by the input logger, before logging")
    accepted: int = Field(description="accepted by the input logger; direct: by the replica")
    dropped_by_nf: int = Field(description="by the function's own decision")
    outputs_produced: int = Field(description="by the master, across failovers, each once")
    delivered: int | None = Field(description="distinct packets that reached the sink")
    lost: int | None = Field(description="outputs_produced - delivered, after the drain")
    lost_in_hand: int = Field(
        description="at most so many of them were on their way out of an output logger when it died"
    )
    lost_before_log: int = Field(
        description="offered, neither accepted nor refused: they met a dead input logger, as a wire"
    )
    duplicated: int | None
    reordered: int | None = Field(description="within a flow")
    corrupted: int | None = Field(
        description="checksum, payload or addresses wrong, or not recognisable"
    )


class Sample(Model):
    """Packets that were numbered, where that is a part of them: those of TRex's latency streams."""

    sent: int
    lost: int
    duplicated: int
    reordered: int


class Latency(Model):
    """From the intended send time to the sink, nanoseconds."""

    count: int
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    p9999: float | None = None
    max: float | None = None


class Fill(Model):
    """The first packet of each flow, sent before the warm-up."""

    flows: int
    delivered: int = Field(description="as many as flows, or the trial would have ended there")
    took_s: float


class Noise(Model):
    """Stalls of the machine itself on one CPU, nanoseconds, seen by the hiccup meter."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float
    over_1ms: int


class Log(Model):
    """Sizes of the logs. Peaks and capacities are over all workers, bytes."""

    pals: int
    pal_bytes: int
    bytes_per_packet: float | None = Field(description="PAL bytes per accepted packet")
    input_log_peak_bytes: int
    input_log_capacity_bytes: int
    output_log_peak_bytes: int
    output_log_capacity_bytes: int
    full_events: int = Field(description="how often a log was full")


class FaultRecord(Model):
    index: int = Field(description="its place in the spec's list of faults")
    do: str
    role: str
    at_s: float = Field(description="planned, seconds into the window; else when it happened")
    t0_ns: int | None = Field(description="CLOCK_MONOTONIC just before; null: it did not happen")
    end_ns: int | None = Field(description="when what was stopped or cut went on")
    process: str | None
    pid: int | None
    slot: int | None
    link: str | None
    problem: str | None = Field(description="why it did not happen")
    incident: int | None = Field(
        description="faults with the same number hit before the first of them was recovered from; "
        "what follows is of all of them together"
    )
    guaranteed: bool | None = Field(description="the events are those that are guaranteed")
    missing: list[str] = Field(description="what was to happen and did not, or the other way")
    recovered_ms: float | None = Field(
        description="first fault to the first new output, or to a logger's return; null: there "
        "was nothing to recover, or it did not"
    )
    protected_again_ms: float | None = Field(description="first fault to full protection")
    outage_ms: float | None = Field(description="longest gap at the sink; 0: none of note")


class Window(Model):
    """The measured window, CLOCK_MONOTONIC ns."""

    start_ns: int
    end_ns: int | None


class Check(Model):
    name: str
    verdict: Literal["pass", "fail"]
    figure: float | int | None = Field(description="the number that was judged")
    detail: str


class Cpu(Model):
    model: str
    cores: int
    available: list[int]
    governor: str | None
    hypervisor: str | None
    microcode: str | None


class Environment(Model):
    """The machine and what the trial made of it."""

    cpu: Cpu
    memory_mb: int
    kernel: str
    kernel_command_line: str
    os: str
    clocksource: str
    thp: str
    niceness: int = Field(description="of the data plane's processes; below 0: before others")
    load_1min: float = Field(description="load of the machine before the trial")
    placement: dict[str, Any]
    processes: dict[str, str]
    idle: str
    scheduler: str | None = Field(description="of the noise meters: fifo or other")


class Versions(Model):
    ftmb: str
    node: str
    node_git: str
    node_sha256: str
    compiler: str
    flags: str
    dpdk: str
    git: str | None
    dirty: bool | None
    python: str
    packages: dict[str, str]


class Setup(Model):
    """How long setting up took, milliseconds from the first process's start."""

    ready_ms: float
    protected_ms: float | None


class Record(Model):
    """One trial. Measurements are null where the run did not get that far; `valid` says why."""

    version: Literal[1]
    valid: Literal[True] | str = Field(description="true, or why the figures must not be used")
    started: str = Field(description="wall clock, ISO 8601, UTC")
    spec: dict[str, Any] = Field(description="the effective spec, every key")
    environment: Environment
    versions: Versions
    setup: Setup
    window: Window
    packets: Packets | None
    throughput_pps: float | None
    offered_pps: float | None
    late: int | None = Field(
        description="packets of the window sent over 1 ms late by the generator's fault"
    )
    sample: Sample | None = Field(None, description="null where all packets are numbered")
    latency_ns: Latency | None = Field(description="null with rate max")
    noise: dict[str, Noise] | None
    fill: Fill | None = Field(description="null without one")
    state_bytes: int | None = Field(
        description="allocated part of the master's arena: what a full snapshot holds"
    )
    snapshot: Snapshot | None = Field(description="null but in mode ftmb")
    log: Log | None = Field(description="null but in mode ftmb")
    memory: Memory | None = Field(description="null: the run ended within a second")
    nf: dict[str, float] = Field(description="counters of the network function")
    faults: list[FaultRecord]
    recovery: list[Recovery] | None = Field(description="one per failover; null without")
    endpoints: None = None
    checks: list[Check]
    events: dict[str, int] = Field(description="how often each event occurred")
    stats: list[dict[str, Any]] = Field(description="what each role reported, as it did")
    files: dict[str, str] = Field(description="raw results beside the record")


def write(record: Model, out: Path) -> Path:
    """Write out/record.json in one step, so that no half of one is ever seen; its path."""
    path = out / RECORD_NAME
    fresh = path.with_suffix(".json.new")
    fresh.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)
    return path


def leave_out(out: Path, why: str) -> None:
    """In the place of a record: why the trial cannot be run on this machine."""
    out.mkdir(parents=True, exist_ok=True)
    tree = {"version": 1, "left_out": why}
    (out / RECORD_NAME).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """A checked record. Raises SpecError if the file is none."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: cannot read the record: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(f"{path}: not a record of this version: {where}: {first['msg']}") from None


def schema(which: Literal["record", "trial", "endpoints"]) -> str:
    """The JSON Schema (draft 2020-12) of a record or of a trial spec, as text."""
    from ftmb.endpoints.record import EndpointsRecord  # late: it needs what stands above

    models: dict[str, type[Model]] = {"record": Record, "trial": TrialSpec}
    model = models.get(which, EndpointsRecord)
    return json.dumps(model.model_json_schema(), indent=2, sort_keys=True) + "\n"
