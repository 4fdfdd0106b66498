"""What a middlebox at work is like, in Prometheus' text format (version 0.0.4).

Names, units and types follow Prometheus' conventions: base units, `_total` for what only grows.
docs/DEPLOY.md has the table of all of them. The text is made on the site's main thread from what
the processes told last; whoever fetches it costs that thread nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Upper bounds of the histograms' buckets, seconds.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
Told = Mapping[str, Any]
Sample = tuple[str, Mapping[str, str], float | int]  # suffix of the name, labels, value


class Histogram:
    """Durations, in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        at = next((i for i, bound in enumerate(BOUNDS_S) if seconds <= bound), len(BOUNDS_S))
        self._counts[at] += 1
        self._sum_s += seconds

    def samples(self, labels: Mapping[str, str]) -> Iterator[Sample]:
        """Cumulative buckets, sum and count."""
        so_far = 0
        for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], self._counts, strict=True):
            so_far += count
            yield "_bucket", {**labels, "le": bound}, so_far
        yield "_sum", labels, round(self._sum_s, 9)
        yield "_count", labels, so_far


@dataclass
class Counts:
    """What the site itself counts. Times are seconds since the epoch."""

    failovers: int = 0
    switchovers: int = 0
    switchovers_failed: int = 0
    replays: Histogram = field(default_factory=Histogram)
    takeovers: dict[str, Histogram] = field(
        default_factory=lambda: {"failover": Histogram(), "switchover": Histogram()}
    )
    restarts: Counter[str] = field(default_factory=Counter)  # by slot or group of loggers
    started: dict[str, float] = field(default_factory=dict)  # by process


@dataclass(frozen=True)
class Known:
    """All that the metrics are made of."""

    site: str
    info: Mapping[str, str]
    since: float
    protected: bool
    view: int
    period_s: float
    counts: Counts
    il: Told
    ol: Told
    master: Told
    told_at: float  # when that of il, ol, master told that is silent longest; 0: none yet
    ol_told_at: float


# Of what the processes tell: name of the metric, its key, what it is. All only grow.
COUNTERS: dict[str, list[tuple[str, str, str]]] = {
    "il": [
        ("packets_received", "received", "Frames that came in at both interfaces."),
        ("packets_accepted", "accepted", "Of these, logged and handed on."),
        ("packets_refused", "refused", "Refused because a log was full."),
        ("packets_malformed", "malformed", "Dropped: too short, too long, or in pieces."),
        ("ticks", "ticks", "Inputs without a packet, for time-outs."),
        ("input_log_written_bytes", "logged_bytes", "Bytes written to the input log."),
        ("inputs_resent", "resent", "Inputs sent again, lost on a link or for a replay."),
    ],
    "ol": [
        ("packets_sent", "sent", "Frames that left at both interfaces."),
        ("outputs_released", "released", "Outputs whose past was stored."),
        ("pals", "pals", "Accesses to shared state that were logged."),
        ("outputs_repeated", "duplicates", "Outputs of a replay, compared and dropped."),
        ("outputs_lost_in_hand", "lost_in_hand", "At most so many a killed output logger lost."),
        ("frames_rejected", "bad", "Frames of an ended view, or damaged."),
        ("commits", "commits", "Snapshots that a backup holds whole."),
    ],
    "master": [
        ("packets_processed", "inputs", "Packets that the function handled."),
        ("packets_dropped_by_function", "dropped", "Of these, without an output."),
        ("outputs_resent", "resent", "Frames to the output logger sent again."),
        ("worker_waits", "waits", "Times that a worker waited for shared state."),
        ("snapshots", "snapshots", "Snapshots begun by this master."),
        ("snapshots_abandoned", "snapshots_abandoned", "Of these, given up."),
        ("snapshot_written_bytes", "snapshot_bytes", "Bytes of their deltas."),
    ],
}


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    found = list(samples)
    if not found:
        return
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for suffix, labels, value in found:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{suffix}{{{pairs}}} {_number(value)}"


def text(known: Known) -> str:
    """All metrics; those that no process has told of yet are left out."""
    return "\n".join(_lines(known)) + "\n"


def _lines(known: Known) -> Iterator[str]:
    here, counts = {"site": known.site}, known.counts

    def one(name: str, kind: str, help_text: str, value: float | int | None) -> Iterator[str]:
        samples: list[Sample] = [] if value is None else [("", here, value)]
        return _family(f"ftmb_{name}", kind, help_text, samples)

    yield from _family(
        "ftmb_site_info", "gauge", "What it is; always 1.", [("", {**here, **known.info}, 1)]
    )
    yield from one("start_time_seconds", "gauge", "When it was started.", known.since)
    yield from one("telemetry_timestamp_seconds", "gauge",
                   "When the logger or master that is silent longest last told.",
                   known.told_at or None)  # fmt: skip
    yield from one("protected", "gauge", "1: a backup can take over; 0: none can.",
                   int(known.protected))  # fmt: skip
    yield from one("view", "gauge", "Number of the view: grows with each new master.", known.view)
    yield from one("failovers_total", "counter", "Masters lost and replaced.", counts.failovers)
    yield from one("switchovers_total", "counter", "Masters replaced by plan.", counts.switchovers)
    yield from one("switchovers_failed_total", "counter", "Refused or given up.",
                   counts.switchovers_failed)  # fmt: skip
    yield from _own(known, here)
    told = {"il": known.il, "ol": known.ol, "master": known.master}
    for role, entries in COUNTERS.items():
        for name, key, help_text in entries:
            yield from one(f"{name}_total", "counter", help_text, told[role].get(key))
    yield from _levels(known, here)


def _own(known: Known, here: Mapping[str, str]) -> Iterator[str]:
    counts = known.counts
    yield from _family("ftmb_replay_duration_seconds", "histogram",
                       "From the start of a new master's replay to its end.",
                       counts.replays.samples(here))  # fmt: skip
    takeovers = [
        sample
        for kind, found in counts.takeovers.items()
        for sample in found.samples({**here, "kind": kind})
    ]
    yield from _family("ftmb_takeover_duration_seconds", "histogram",
                       "From the old master's fence to the end of the new one's replay.",
                       takeovers)  # fmt: skip
    yield from _family("ftmb_process_start_time_seconds", "gauge", "Of each process.",
                       [("", {**here, "process": name}, when)
                        for name, when in sorted(counts.started.items())])  # fmt: skip
    yield from _family("ftmb_process_restarts_total", "counter", "Fresh processes in a dead place.",
                       [("", {**here, "place": place}, count)
                        for place, count in sorted(counts.restarts.items())])  # fmt: skip


def _levels(known: Known, here: Mapping[str, str]) -> Iterator[str]:
    logs = {"input": known.il, "output": known.ol}
    for key, name, help_text in (
        ("log_bytes", "ftmb_log_bytes", "Filled, since the last commit."),
        ("log_capacity_bytes", "ftmb_log_limit_bytes", "Where input would be refused."),
    ):
        samples: list[Sample] = [
            ("", {**here, "log": log}, told[key]) for log, told in logs.items() if key in told
        ]
        yield from _family(name, "gauge", help_text, samples)
    ages = known.ol.get("commit_age_ns", -1)
    last = known.ol_told_at - ages / 1e9 if ages >= 0 else None
    rows = (
        ("outputs_held", "Outputs that wait for their past to be stored.", known.ol.get("held")),
        ("backups", "That hold the base.", known.ol.get("backups")),
        ("last_commit_timestamp_seconds", "When a snapshot was last committed.", last),
        ("snapshot_period_seconds", "As the file says.", known.period_s),
        ("snapshot_duration_seconds", "From the last one's cut to its commit.",
         known.master["snapshot_ns"] / 1e9 if "snapshot_ns" in known.master else None),
        ("state_bytes", "Allocated memory of the function.", known.master.get("state_bytes")),
    )  # fmt: skip
    for name, help_text, value in rows:
        found: list[Sample] = [] if value is None else [("", here, value)]
        yield from _family(f"ftmb_{name}", "gauge", help_text, found)
