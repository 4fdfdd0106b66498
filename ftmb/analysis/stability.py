"""Whether the machine was quiet enough for its figures to be taken at their word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from ftmb.analysis import stats
from ftmb.analysis.records import Results


@dataclass(frozen=True)
class Stability:
    """`stable` only if every limit was kept; `findings` has a sentence for each limit."""

    stable: bool
    findings: list[str]


def judge(results: Results, claims_file: Path) -> Stability:
    """Compare stalls and the spread of repetitions with the limits in the claims file."""
    limits = yaml.safe_load(claims_file.read_text(encoding="utf-8"))["stability"]
    quiet, stalls = _stalls(results, float(limits["stalls_over_1ms_per_s"]))
    close, spread = _spread(results, float(limits["throughput_spread"]))
    return Stability(quiet and close, [stalls, spread])


def _stalls(results: Results, limit: float) -> tuple[bool, str]:
    noise = results.noise
    if noise.empty:
        return False, "no trial recorded the machine's own stalls"
    seconds = pd.to_numeric(noise["duration_s"]).sum()
    rate = float(noise["over_1ms"].sum() / seconds)
    longest = float(noise["max"].max()) / 1e6
    return (
        rate <= limit,
        f"{rate:.2f} stalls over 1 ms per second and CPU (limit {limit:g}), "
        f"the longest {longest:.1f} ms",
    )


def _spread(results: Results, limit: float) -> tuple[bool, str]:
    frame = results.frame
    frame = frame[(frame["experiment"] == "throughput") & frame["valid"]]
    worst, where = 0.0, ""
    for (nf, mode), part in frame.groupby(["nf", "mode"]):
        found = stats.spread(part["throughput_pps"].tolist())
        if found is not None and found >= worst:
            worst, where = found, f"{nf}, {mode}"
    if not where:
        return False, "no throughput was measured twice"
    return (
        worst <= limit,
        f"repetitions of the throughput differ by up to {worst:.0%} ({where}; limit {limit:.0%})",
    )
