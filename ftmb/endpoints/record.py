"""record.json of `ftmb endpoints`: what real programs noticed of the crashes of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ftmb.errors import SpecError
from ftmb.model import Model
from ftmb.record import RECORD_NAME, Check, Environment, Versions


class Connections(Model):
    """Connections of one workload that were at work when the master was killed."""

    at_work: int = Field(description="established, and came forward within the second before")
    lost: int = Field(description="gone at the window's end, or nothing came forward any more")
    longest_gap_ms: float | None = Field(description="without progress, of those that live")
    median_gap_ms: float | None
    retransmitted: int = Field(description="segments sent again")
    timeouts: int | None = Field(description="retransmission timeouts; null: kernel before 6.7")
    collapsed: int = Field(
        description="connections whose window a timeout was seen to collapse; with `timeouts` null "
        "a lower bound, and counters.timeouts is what is exact"
    )
    reduced: int = Field(description="connections whose window went below 0.8 of what it was")
    threshold_cut: int = Field(description="connections whose slow-start threshold was lowered")


class Crash(Model):
    """One kill, or in the control one instant without; and the window after it."""

    t0_ns: int = Field(description="CLOCK_MONOTONIC, just before")
    at_s: float = Field(description="seconds into the run")
    ready_again_ms: float | None = Field(
        description="until the middlebox could be killed again: protected; cold: it forwards. "
        "null: in the control"
    )
    counters: dict[str, int | None] = Field(
        description="of both ends' kernels: by how much they grew; null: a kernel lacks it"
    )
    connections: dict[str, Connections] = Field(description="by workload")


class Asked(Model):
    """What a client asked for, one by one. Times from when each was due, milliseconds."""

    count: int
    failed: int
    in_windows: int = Field(description="under way in the window after a kill")
    failed_in_windows: int
    errors: dict[str, int] = Field(description="how often each went wrong, in the client's words")
    ms: dict[str, float] | None = Field(
        description="percentiles; one that went wrong took as long as a client waits, at least"
    )
    ms_in_windows: dict[str, float] | None


class Timeline(Model):
    """Around the kills, bin by bin; percentiles over all kills."""

    ms: list[float] = Field(description="a bin's begin, after the kill")
    mbps: dict[str, list[float | None]] = Field(description="all connections together")
    cwnd: dict[str, list[float | None]] = Field(description="mean over connections, segments")
    ssthresh: dict[str, list[float | None]] = Field(description="the same, of those that have one")


class EndpointsRecord(Model):
    """One run. Several kills share it; each has its own window."""

    version: Literal[1]
    kind: Literal["endpoints"]
    valid: Literal[True] | str = Field(description="true, or why the figures must not be used")
    started: str = Field(description="wall clock, ISO 8601, UTC")
    spec: dict[str, Any] = Field(description="the effective spec, every key")
    site: dict[str, Any] = Field(description="the effective spec of the middlebox")
    environment: Environment
    versions: Versions
    programs: dict[str, str] = Field(description="Debian packages and their versions")
    limit_mbps: float | None = Field(description="what iperf3 was held to; null: nothing")
    failovers: int = Field(description="as the middlebox counts them")
    crashes: list[Crash]
    calm: dict[str, int | None] = Field(
        description="counters outside of the windows, both ends' kernels"
    )
    calm_s: float = Field(description="how long that is")
    asked: dict[str, Asked] = Field(description="by workload")
    broken: dict[str, int] = Field(description="how often a client ended by itself, by workload")
    timeline: Timeline | None = Field(description="of iperf3, or else the download; null: neither")
    checks: list[Check]
    files: dict[str, str] = Field(description="raw results beside the record")


def read(path: Path) -> EndpointsRecord:
    """A checked record. Raises SpecError if the file is none."""
    try:
        return EndpointsRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: cannot read the record: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(f"{path}: not a record of this version: {where}: {first['msg']}") from None


__all__ = ["RECORD_NAME", "Asked", "Connections", "Crash", "EndpointsRecord", "Timeline", "read"]
