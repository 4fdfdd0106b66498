"""What a function costs: the bench in one process, and the sweep through the whole pipeline.

The bench is `results/bench/functions.json` (`make bench`); its rows hold the times of each
repetition, in mode `none` and under FTMB. A cost is the difference of the two: of one packet where
none of its accesses is logged, and of each PAL more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ftmb.analysis import stats
from ftmb.analysis.metrics import Part, harmful, judgeable, metric
from ftmb.analysis.records import RecordError, Results

PAL_BYTES = 8
SWEEP = "sweep-"
COLUMNS = ["name", "function", "workers", "reads", "pals", "none_ns", "ftmb_ns", "spread",
           "none_instructions", "ftmb_instructions"]  # fmt: skip


def bench(results: Results) -> dict[str, Any] | None:
    """What `make bench` wrote, if it was run."""
    path = results.root / "bench" / "functions.json"
    if not path.is_file():
        return None
    try:
        made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is not JSON ({error}); make it again") from error
    if (made.get("version"), made.get("kind")) != (1, "bench_functions"):
        raise RecordError(f"{path} is not `kind: bench_functions`, version 1; make it again")
    return made


def build(results: Results) -> str:
    """Hash of the data plane that `make bench` was run with."""
    versions = (bench(results) or {}).get("versions") or {}
    return str(versions.get("node_sha256", "not known"))


def rows(results: Results) -> pd.DataFrame:
    """A line for each case: medians over repetitions, and how far those of `ftmb` lie apart."""
    made = bench(results)
    lines = []
    for row in (made or {}).get("rows", []):
        parts = row["name"].split("-")
        lines.append(
            {
                **{key: row.get(key) for key in COLUMNS},
                "reads": int(parts[2]) if row["name"].startswith(SWEEP) else None,
                "none_ns": float(np.median(row["none_ns"])),
                "ftmb_ns": float(np.median(row["ftmb_ns"])),
                "spread": stats.spread(row["ftmb_ns"]),
            }
        )
    return pd.DataFrame(lines, columns=COLUMNS)


@dataclass(frozen=True)
class Fit:
    """A straight line through the cost of a packet against its PALs, in nanoseconds."""

    words: str
    packet: stats.Estimate  # with no PAL
    pal: stats.Estimate  # of each


def fits(results: Results) -> Iterator[Fit]:
    """The sweep of `monitor`, by workers that share and by reads."""
    made = bench(results)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in (made or {}).get("rows", []):
        if row["name"].startswith(SWEEP):
            _, workers, reads, _ = row["name"].split("-")
            words = f"{workers} worker{'s' if workers != '1' else ''}, {reads} % reads"
            groups.setdefault(words, []).append(row)
    for words, cases in groups.items():
        pals = np.array([case["pals"] for case in cases])
        if len(set(pals)) < 2:
            continue
        cost = np.array([case["ftmb_ns"] for case in cases]) - np.array(
            [case["none_ns"] for case in cases]
        )
        yield Fit(words, *_line(pals, cost))


def _line(
    pals: NDArray[np.float64], cost: NDArray[np.float64]
) -> tuple[stats.Estimate, stats.Estimate]:
    """Intercept and slope through the medians; repetitions (columns of `cost`) are resampled."""
    n = cost.shape[1]
    rng = np.random.default_rng(stats.SEED)
    drawn = rng.integers(0, n, (stats.RESAMPLES, n))
    medians = np.median(cost[:, drawn], axis=2)  # [case, resample]
    slopes, packets = np.polyfit(pals, medians, 1)
    slope, packet = np.polyfit(pals, np.median(cost, axis=1), 1)
    return _estimate(packet, packets, n), _estimate(slope, slopes, n)


def _estimate(value: float, resampled: NDArray[np.float64], n: int) -> stats.Estimate:
    tail = 100 * (1 - stats.LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return stats.Estimate(float(value), float(low), float(high), n)


def _parts(results: Results, measured: Callable[[Fit], stats.Estimate]) -> list[Part]:
    found = [(fit.words, measured(fit)) for fit in fits(results)]
    made = build(results)
    return [Part(words, e.value, "ns", e.low, e.high, e.n, build=made) for words, e in found]


@metric
def cost_of_packet(results: Results) -> list[Part]:
    """Nanoseconds that FTMB adds to a packet without an access, in the bench."""
    return _parts(results, lambda fit: fit.packet)


@metric
def cost_of_pal(results: Results) -> list[Part]:
    """Nanoseconds that each PAL adds, in the bench."""
    return _parts(results, lambda fit: fit.pal)


def pipeline(results: Results) -> pd.DataFrame:
    """Throughput of each pair of runs of the experiment `sweep`, with FTMB and without."""
    pairs: dict[tuple[str, ...], dict[str, Any]] = {}
    for trial in results.of("sweep"):
        labels = trial.labels
        if "mode" not in labels:
            continue  # records without a plan say nothing of axes
        key = (labels["accesses"], labels["sharing"], labels["reads"], str(trial.repetition))
        pairs.setdefault(key, {})[labels["mode"]] = trial.record["throughput_pps"]
    lines = [
        {
            "accesses": int(key[0]), "sharing": key[1], "reads": int(key[2]),
            "none_pps": pair["none"], "ftmb_pps": pair["ftmb"],
        }
        for key, pair in pairs.items()
        if {"none", "ftmb"} <= pair.keys()
    ]  # fmt: skip
    columns = ["accesses", "sharing", "reads", "none_pps", "ftmb_pps"]
    return pd.DataFrame(lines, columns=columns)


def _ratio(results: Results, accesses: int) -> list[Part]:
    table = pipeline(results)
    part = table[
        (table["accesses"] == accesses) & (table["sharing"] == "2") & (table["reads"] == 0)
    ]
    share = stats.paired_ratio(list(part["ftmb_pps"]), list(part["none_pps"]))
    if share is None:
        return []
    return [Part("", share.value, "×", share.low, share.high, share.n)]


@metric
def pipeline_ratio_one(results: Results) -> list[Part]:
    """Throughput with FTMB over that without, one shared access a packet."""
    return _ratio(results, 1)


@metric
def pipeline_ratio_three(results: Results) -> list[Part]:
    """The same with three."""
    return _ratio(results, 3)


@metric
def functions_unharmed(results: Results) -> list[Part]:
    """Share of crashes that did no harm, of each network function (percent)."""
    frame = judgeable(results.frame[results.frame["experiment"] == "functions"])
    parts = []
    for function, trials in frame.groupby("function") if not frame.empty else []:
        crashed = trials["failovers"].clip(lower=1)
        bad = trials.apply(harmful, axis=1) | (trials["counted"] & (trials["failovers"] < 1))
        count, harmed = int(crashed.sum()), int(crashed[bad].sum())
        share = 100 * (1 - harmed / count)
        note = f"{count - harmed} of {count} crashes"
        trials_of = list(trials["trial"])
        parts.append(Part(str(function), share, "%", None, None, count, note, trials_of))
    return parts
