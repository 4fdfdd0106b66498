"""Records of trials, read from a results directory and laid out as tables (pandas frames)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ftmb.analysis import histogram

PACKETS = (
    "offered",
    "refused_before_log",
    "accepted",
    "dropped_by_nf",
    "outputs_produced",
    "delivered",
    "lost",
    "lost_in_hand",
    "lost_before_log",
    "duplicated",
    "reordered",
    "corrupted",
)
PERCENTILES = ("p50", "p90", "p99", "p999", "p9999", "max", "count")
PHASES = ("detect_ms", "fence_ms", "cut_ms", "replay_ms", "resume_ms")
CLAIMS = Path(__file__).resolve().parents[2] / "config" / "claims.yaml"
FILES = {
    "histogram": "histogram.json",
    "timeline": "timeline.csv",
    "memory": "memory.csv",
    "snapshots": "snapshots.csv",
    "noise": "noise.json",
}
BUILD_KEYS = ("git", "dirty", "node_sha256", "dpdk", "compiler", "flags")
RECOVERY_KEYS = (
    "total_ms",
    "outage_ms",
    "protected_again_ms",
    "packets_replayed",
    "pals_replayed",
    "detect_kind",
    "t0_ns",
)
SNAPSHOT_MEMORY = ("undo_peak_bytes", "undo_bytes_limit", "staging_peak_bytes")
LOG_KEYS = (
    "pals",
    "bytes_per_packet",
    "input_log_peak_bytes",
    "input_log_capacity_bytes",
    "output_log_peak_bytes",
    "output_log_capacity_bytes",
)


# The one reason that spoils what is timed at the sink but not what is counted there: the generator
# sent late. Packets, checks, logs and the steps of a recovery are what they are all the same.
LATE = "the generator was late"


class RecordError(ValueError):
    """The results cannot be read; the message names the file and the remedy."""


@dataclass
class Trial:
    """One record with the directory it lies in and its place in the plan."""

    id: str
    path: Path
    record: dict[str, Any]
    experiment: str
    repetition: int
    rate_share: float | None = None
    labels: dict[str, str] = field(default_factory=dict)  # by axis of its experiment

    @property
    def problems(self) -> list[str]:
        """Why the record must not be used; empty when it may."""
        valid = self.record.get("valid", False)
        if valid is True:
            return []
        if isinstance(valid, list):
            return [str(reason) for reason in valid]
        return str(valid).split("; ") if valid else ["the record does not say that it is valid"]

    @property
    def generator(self) -> str:
        """Who made its traffic, and measured what came of it."""
        return str((_spec(self).get("traffic") or {}).get("generator", "native"))

    @property
    def counted(self) -> bool:
        """Whether counts and events may be used: valid, or not for lateness alone."""
        return all(reason.startswith(LATE) for reason in self.problems)

    @property
    def synthetic(self) -> bool:
        """True for records that a test made up."""
        return str((self.record.get("versions") or {}).get("node", "")).startswith("synthetic")

    def file(self, kind: str) -> Path | None:
        """Path of a raw file of this trial (a key of FILES), or None."""
        name = (self.record.get("files") or {}).get(kind) or FILES[kind]
        path = self.path / Path(name)
        return path if path.is_file() else None

    @cached_property
    def latency(self) -> histogram.Histogram | None:
        """The latency histogram of the measured window, or None where there is none."""
        path = self.file("histogram")
        found = histogram.read(path) if path and self.record.get("latency_ns") else None
        return found if found and found.total else None

    @property
    def window_start_ns(self) -> int | None:
        """Monotonic time at which the measured window began."""
        start = (self.record.get("window") or {}).get("start_ns")
        return int(start) if start is not None else None

    def memory(self) -> pd.DataFrame | None:
        """Resident memory once a second, by role, or None."""
        path = self.file("memory")
        return pd.read_csv(path) if path else None

    def snapshots(self) -> pd.DataFrame | None:
        """Every snapshot of the run, `t` in seconds since the window's start, or None."""
        path = self.file("snapshots")
        return pd.read_csv(path) if path else None

    @cached_property
    def stalls(self) -> histogram.Histogram | None:
        """What the hiccup meters of all CPUs saw in the window, or None."""
        path = self.file("noise")
        return histogram.read_each(path) if path else None

    def timeline(self) -> pd.DataFrame | None:
        """Offered and delivered packets and latency in 1 ms bins of the window, or None."""
        path = self.file("timeline")
        return pd.read_csv(path) if path else None


@dataclass
class Results:
    """All records of a results directory that belong to its plan."""

    root: Path
    trials: list[Trial]
    tier: str = "?"
    purposes: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    claims: Path = CLAIMS
    left_out: dict[str, str] = field(default_factory=dict)  # by trial: what the machine lacks

    @cached_property
    def reliability(self) -> dict[str, dict[str, Any]]:
        """What simulator, planted bugs and model wrote: by kind, as far as it was made."""
        from ftmb.analysis import reliability  # late: it reads records itself

        return reliability.read(self.root)

    @cached_property
    def benches(self) -> dict[str, list[str]]:
        """What the benches printed, line by line, by name, as far as they were run."""
        files = sorted(self.root.glob("bench/*.txt"))
        return {path.stem: path.read_text(encoding="utf-8").splitlines() for path in files}

    def of(self, *experiments: str, valid: bool = True) -> list[Trial]:
        """Trials of these experiments; only valid ones unless asked otherwise."""
        chosen = [t for t in self.trials if t.experiment in experiments]
        return [t for t in chosen if not t.problems] if valid else chosen

    def counted(self, *experiments: str) -> list[Trial]:
        """Trials of these experiments whose counts and events may be used."""
        return [t for t in self.of(*experiments, valid=False) if t.counted]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per trial: configuration, throughput, latency, packets, snapshots, logs."""
        return pd.DataFrame([_row(trial) for trial in self.trials])

    @cached_property
    def recoveries(self) -> pd.DataFrame:
        """One row per failover, phases in milliseconds."""
        rows = [
            {**_labels(trial), "failover": index, **_recovery(entry)}
            for trial in self.trials
            for index, entry in enumerate(trial.record.get("recovery") or [])
        ]
        return pd.DataFrame(rows)

    @cached_property
    def checks(self) -> pd.DataFrame:
        """One row per check of each trial."""
        rows = [
            {
                "trial": trial.id,
                "experiment": trial.experiment,
                "check": check.get("name"),
                "verdict": check.get("verdict"),
                "figure": check.get("figure"),
                "detail": check.get("detail", ""),
            }
            for trial in self.trials
            for check in trial.record.get("checks") or []
        ]
        columns = ["trial", "experiment", "check", "verdict", "figure", "detail"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def noise(self) -> pd.DataFrame:
        """One row per trial and CPU: what its hiccup meter saw, in nanoseconds."""
        rows = [
            {
                "trial": trial.id,
                "started": trial.record.get("started"),
                "duration_s": _spec(trial).get("duration_s"),
                "cpu": str(cpu),
                **{k: v for k, v in meter.items() if not isinstance(v, dict)},
            }
            for trial in self.trials
            for cpu, meter in (trial.record.get("noise") or {}).items()
            if isinstance(meter, dict)
        ]
        return pd.DataFrame(rows)


def load(root: Path) -> Results:
    """Read `root/trials/*/record.json`, restricted to `root/plan.json` where that exists."""
    plan_path = root / "plan.json"
    if plan_path.is_file():
        plan = json.loads(plan_path.read_text(encoding="utf-8"))
    else:
        names = sorted(path.parent.name for path in root.glob("trials/*/record.json"))
        plan = {"trials": [_guess(name) for name in names]}
    trials, missing, left_out = [], [], {}
    for entry in plan["trials"]:
        path = root / "trials" / entry["id"]
        if not (path / "record.json").is_file():
            missing.append(entry["id"])
            continue
        try:
            record = json.loads((path / "record.json").read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}/record.json is not JSON ({error}); run it again") from error
        if "left_out" in record:
            left_out[entry["id"]] = str(record["left_out"])
            continue
        trials.append(
            Trial(
                entry["id"],
                path,
                record,
                entry["experiment"],
                int(entry["repetition"]),
                entry.get("rate_share"),
                entry.get("labels", {}),
            )
        )
    if not trials:
        raise RecordError(f"no records under {root}/trials; run `snakemake --cores all` first")
    tier, purposes = plan.get("tier", "?"), plan.get("purposes", {})
    return Results(root, trials, tier, purposes, missing, left_out=left_out)


def builds(results: Results) -> list[dict[str, str]]:
    """The distinct builds that made the records, with how many records each. One is right."""
    counted: dict[tuple[tuple[str, str], ...], int] = {}
    for trial in results.trials:
        versions = trial.record.get("versions") or {}
        cpu = ((trial.record.get("environment") or {}).get("cpu") or {}).get("model", "?")
        key = (*((k, str(versions.get(k, "?"))) for k in BUILD_KEYS), ("cpu", str(cpu)))
        counted[key] = counted.get(key, 0) + 1
    return [{**dict(key), "records": str(n)} for key, n in counted.items()]


def fingerprint(results: Results) -> str:
    """Hash over all records read: ties a page to the data behind it."""
    digest = hashlib.sha256()
    for trial in sorted(results.trials, key=lambda t: t.id):
        digest.update(trial.id.encode() + (trial.path / "record.json").read_bytes())
    return digest.hexdigest()[:16]


def _guess(name: str) -> dict[str, Any]:
    experiment, repetition = name.split("-")[0], name.rsplit("-", 1)[-1]
    number = int(repetition) if repetition.isdigit() else 0
    return {"id": name, "experiment": experiment, "repetition": number}


def _spec(trial: Trial) -> dict[str, Any]:
    spec = trial.record.get("spec")
    return spec if isinstance(spec, dict) else {}


def _labels(trial: Trial) -> dict[str, Any]:
    spec = _spec(trial)
    ft, traffic = spec.get("ft") or {}, spec.get("traffic") or {}
    snapshot = ft.get("snapshot") or {}
    nf = (spec.get("nf") or {}).get("name")
    return {
        "trial": trial.id,
        "experiment": trial.experiment,
        "repetition": trial.repetition,
        "nf": nf,
        "function": trial.labels.get("function", nf),  # several of them may be chains
        "mode": ft.get("mode"),
        "engine": snapshot.get("engine"),
        "schedule": snapshot.get("schedule"),
        "period_ms": snapshot.get("period_ms"),
        "workers": spec.get("workers"),
        "profile": traffic.get("profile"),
        "flows": traffic.get("flows"),
        "zipf": traffic.get("zipf"),
        "state_bytes": trial.record.get("state_bytes"),
        "rate_pps": str(traffic.get("rate_pps")),
        "generator": trial.generator,
        "rate_share": trial.rate_share,
        "valid": not trial.problems,
        "counted": trial.counted,
    }


def _row(trial: Trial) -> dict[str, Any]:
    record = trial.record
    packets, log = record.get("packets") or {}, record.get("log") or {}
    latency, snapshot = record.get("latency_ns") or {}, record.get("snapshot") or {}
    pause = snapshot.get("pause_ns") or {}
    return {
        **_labels(trial),
        "throughput_pps": record.get("throughput_pps"),
        "offered_pps": record.get("offered_pps"),
        "late": record.get("late"),
        # A number or NaN, which no sum takes for one: what is null was not measured.
        **{key: float("nan") if packets.get(key) is None else packets[key] for key in PACKETS},
        **{f"latency_{key}": latency.get(key) for key in PERCENTILES},
        "snapshots": snapshot.get("taken"),
        "snapshots_skipped": snapshot.get("skipped"),
        "snapshots_abandoned": snapshot.get("abandoned"),
        "period_reached_ms": snapshot.get("period_reached_ms"),
        "snapshot_bytes": snapshot.get("bytes"),
        "snapshot_lines": snapshot.get("lines"),
        **{key: snapshot.get(key) for key in SNAPSHOT_MEMORY},
        **{f"pause_{key}": pause.get(key) for key in ("p50", "p99", "p999", "max")},
        **{key: log.get(key) for key in LOG_KEYS},
        "duration_s": _spec(trial).get("duration_s"),
        "faults": sum(f.get("t0_ns") is not None for f in record.get("faults") or []),
        "failovers": len(record.get("recovery") or []),
        "checks_failed": sum(c.get("verdict") != "pass" for c in record.get("checks") or []),
        "problems": "; ".join(trial.problems),
        "started": record.get("started"),
    }


def _recovery(entry: dict[str, Any]) -> dict[str, Any]:
    keys = (*PHASES, *RECOVERY_KEYS)
    marks = entry.get("marks_ns") or {}
    whole = {"replay_start", "replay_done"} <= marks.keys()
    span = (marks["replay_done"] - marks["replay_start"]) / 1e6 if whole else None
    return {key: entry.get(key) for key in keys} | {"replay_span_ms": span}
