"""Made-up snapshots for synthetic records: each engine with the costs that one would expect of it.

Nothing here was ever measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LINE = 128
BYTES_PER_FLOW = 43
SERIES = "t,epoch,pause_ns,copy_ns,bytes,lines,full"


def state_bytes(effective: dict[str, Any]) -> int:
    """Size of the state: so much for each flow."""
    return 1_000_000 + BYTES_PER_FLOW * int(effective["traffic"]["flows"])


def period_ms(effective: dict[str, Any]) -> float:
    """Time between two snapshots, whatever the schedule."""
    asked = effective["ft"]["snapshot"]
    return {"log": 35.0, "demand": 250.0, "adaptive": 14.0}.get(
        asked["schedule"], float(asked["period_ms"])
    )


def dirty_lines(effective: dict[str, Any]) -> float:
    """Lines that the traffic of one period touches: nearly one for each packet, until they meet."""
    rate = effective["traffic"]["rate_pps"]
    packets = (1_600_000 if rate == "max" else rate) * period_ms(effective) / 1000
    every = state_bytes(effective) / LINE
    return float(every * (1 - np.exp(-packets / every)))


def pause_ns(effective: dict[str, Any], rng: np.random.Generator, count: int) -> np.ndarray:
    """How long the workers wait for each snapshot."""
    engine, size = effective["ft"]["snapshot"]["engine"], state_bytes(effective)
    typical = {
        "cow": 3_000.0,
        "page": 60_000 + 900.0 * dirty_lines(effective) / 8,
        "fork": 250_000 + 8.0 * size / 1000,
    }.get(engine, 100_000 + 0.12 * size)
    return typical * rng.lognormal(0, 0.5 if engine == "cow" else 0.15, count)


def taken(effective: dict[str, Any]) -> int:
    """Snapshots in the window."""
    if effective["ft"]["snapshot"]["engine"] == "none":
        return 0
    return max(int(effective["duration_s"] * 1000 / period_ms(effective)), 1)


def series(effective: dict[str, Any], rng: np.random.Generator) -> str:
    """snapshots.csv: the first base, full and before the window, then the deltas."""
    size, count = state_bytes(effective), taken(effective)
    pauses = pause_ns(effective, rng, count)
    rows = [SERIES, f"-0.500000,1,{0.1 * size:.0f},{0.1 * size:.0f},{size},{size // LINE},1"]
    step = period_ms(effective) / 1000
    for index, pause in enumerate(pauses):
        lines = int(dirty_lines(effective) * rng.normal(1, 0.03))
        t = (index + 0.5) * step
        cells = (pause, pause + 40 * lines, lines * (LINE + 8), lines)
        rows.append(f"{t:.6f},{index + 2}," + ",".join(f"{c:.0f}" for c in cells) + ",0")
    return "\n".join(rows) + "\n"


def summary(effective: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The record's part on snapshots."""
    asked = effective["ft"]["snapshot"]
    engine, count = asked["engine"], taken(effective)
    pauses = pause_ns(effective, rng, max(count, 1))
    quantiles = np.percentile(pauses, [50, 99, 99.9, 100])
    pause = dict(zip(("p50", "p99", "p999", "max"), map(float, quantiles), strict=True))
    lines = int(dirty_lines(effective)) * count
    fork = {name: 0.7 * value for name, value in pause.items()}
    return {
        "engine": engine, "schedule": asked["schedule"], "period_ms": asked["period_ms"],
        "period_reached_ms": period_ms(effective) * 1.02 if count else None, "taken": count,
        "skipped": 0, "abandoned": 0, "committed": count + 1,
        "pause_ns": pause if count else None, "copy_ns": pause if count else None,
        "fork_ns": fork if engine == "fork" else None,
        "bytes": (LINE + 8) * lines, "lines": lines,
        "undo_peak_bytes": 400_000 if engine == "cow" else None,
        "undo_bytes_limit": 16 << 20 if engine == "cow" else None,
        "staging_peak_bytes": 3_000_000,
    }  # fmt: skip


def caught(effective: dict[str, Any], rng: np.random.Generator, count: int) -> np.ndarray:
    """What snapshots add to `count` latencies (ns): who arrives in a pause waits for its rest."""
    snapshots = taken(effective)
    if effective["ft"]["mode"] != "ftmb" or not snapshots:
        return np.zeros(count)
    pause = pause_ns(effective, rng, count)
    share = np.minimum(pause / 1e6 / period_ms(effective), 0.5)
    return np.where(rng.random(count) < share, pause * rng.random(count), 0.0)
