"""record.json of a comparison: one entry for each crash, and what it was made with."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ftmb import debian, environment
from ftmb.describe import describe, node_path
from ftmb.model import Model
from ftmb.peers.judge import Gap, Mappings, Packets
from ftmb.peers.spec import Arm, PeersSpec
from ftmb.record import Versions

PACKAGES = ("conntrackd", "nftables", "keepalived")


class Tcp(Model):
    """TCP connections that were held across the crash."""

    connections: int
    survived: int = Field(description="what was sent after the takeover came back in time")
    reset: int
    stall_ms: float | None = Field(description="median of the survivors' longest silences")


class CrashRecord(Model):
    """One crash of one arm. Times are milliseconds."""

    arm: Arm
    number: int = Field(description="same in all arms: the same instant of the same traffic")
    crash_s: float = Field(description="planned, seconds after the traffic began")
    happened_s: float
    cut_ms: float = Field(description="the crash lies within so long; 0: at one instant")
    takeover_ms: float = Field(description="crash until all steps of the takeover were over")
    commit_ms: float | None
    switch_ms: float | None
    entries_failed: int | None = Field(description="that conntrackd could not commit")
    outage: Gap = Field(description="answers to probes: both directions in one")
    outage_up: Gap = Field(description="probes at the server")
    outage_down: Gap = Field(description="the server's own, to where the first probe came from")
    mappings: Mappings
    packets: Packets
    dropped: dict[str, int | None] = Field(
        description="by client, server, relay, for lack of room; null: it did not tell"
    )
    tcp: Tcp
    scheduler: str = Field(description="of client and server: fifo or other")
    took_s: float


class Machine(Model):
    """What it ran on."""

    cpu: str
    cores: int
    memory_mb: int
    kernel: str
    os: str
    conntrack_max: int | None
    load_1min: float = Field(description="before the first crash")


class PeersRecord(Model):
    """One comparison."""

    version: Literal[1]
    kind: Literal["peers"]
    valid: Literal[True] | str = Field(description="true, or why figures must not be used")
    started: str = Field(description="wall clock, ISO 8601, UTC")
    spec: dict[str, Any]
    machine: Machine
    versions: Versions
    daemons: dict[str, str] = Field(description="Debian packages and their versions")
    flows_sha256: str = Field(description="of the traffic program")
    crashes: list[CrashRecord]


def validity(spec: PeersSpec, crashes: list[CrashRecord]) -> Literal[True] | str:
    """True, or why figures must not be used: arms unequal, or losses that are the testbed's own."""
    planned = spec.crashes * len(spec.arms)
    if len(crashes) < planned:
        return f"not finished: {len(crashes)} of {planned} crashes"
    for crash in crashes:
        for who, count in crash.dropped.items():
            if count != 0:
                what = "did not tell what it dropped" if count is None else f"dropped {count}"
                return f"arm {crash.arm}, crash {crash.number}: the {who} {what}"
    return True


def with_crashes(record: PeersRecord, spec: PeersSpec, crashes: list[CrashRecord]) -> PeersRecord:
    """The record with the crashes that there are, and whether they may be used."""
    return record.model_copy(update={"crashes": crashes, "valid": validity(spec, crashes)})


def begin(spec: PeersSpec, flows: Path) -> PeersRecord:
    """A record without crashes: machine, versions, spec. Made first: hashing would be noise."""
    most = environment.read_text("/proc/sys/net/netfilter/nf_conntrack_max")
    return PeersRecord(
        version=1,
        kind="peers",
        valid=validity(spec, []),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        spec=spec.model_dump(mode="json"),
        machine=Machine(
            cpu=environment.cpu_field("model name") or platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_mb=environment.memory_mb(),
            kernel=platform.release(),
            os=environment.os_name(),
            conntrack_max=None if most is None else int(most),
            load_1min=os.getloadavg()[0],
        ),
        versions=environment.versions(describe(), node_path()),
        daemons=debian.versions(PACKAGES),
        flows_sha256=hashlib.sha256(flows.read_bytes()).hexdigest(),
        crashes=[],
    )


def schema(which: Literal["peers", "peers-record"]) -> str:
    """The JSON Schema of a spec or of a record, as text."""
    model: type[Model] = PeersSpec if which == "peers" else PeersRecord
    return json.dumps(model.model_json_schema(), indent=2, sort_keys=True) + "\n"
