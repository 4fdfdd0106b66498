"""Latency histograms as the data plane dumps them: counts in log-linear buckets.

Percentiles are computed from merged counts. They are never averaged, and never printed where fewer
than `MIN_ABOVE` samples lie above them, because such a number is mostly chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VERSION = 1
MIN_ABOVE = 10


@dataclass(frozen=True)
class Histogram:
    """Buckets `[lower, upper]` in nanoseconds with their counts, in rising order."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    count: NDArray[np.int64]

    @cached_property
    def total(self) -> int:
        """Number of samples."""
        return int(self.count.sum())

    @cached_property
    def _reached(self) -> NDArray[np.int64]:
        return np.cumsum(self.count)

    def percentile(self, p: float) -> float | None:
        """Value (ns) below or at which the share `p` (0..1) of samples lies.

        None where fewer than MIN_ABOVE samples lie above it: too few to print.
        """
        if self.total == 0 or self.total * (1 - p) < MIN_ABOVE - 1e-6:
            return None
        return float(self._value(np.array([p]))[0])

    def mean(self) -> float | None:
        """Mean (ns), each sample taken at the middle of its bucket."""
        if self.total == 0:
            return None
        return float(np.average((self.lower + self.upper) / 2, weights=self.count))

    def maximum(self) -> float | None:
        """Upper bound (ns) of the highest bucket that holds a sample."""
        return float(self.upper[self.count > 0][-1]) if self.total else None

    def curve(self, per_decade: int = 40) -> list[tuple[float, float]]:
        """Pairs (1/(1-p), value in ns), evenly spaced on a log axis, cut where samples run out."""
        decades = np.log10(max(self.total / MIN_ABOVE, 1.0))
        x = 10 ** np.arange(0, decades + 1e-9, 1 / per_decade)
        if self.total == 0:
            return []
        values = self._value(1 - 1 / x)
        return [(float(a), float(b)) for a, b in zip(x, values, strict=True)]

    def _value(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        rank = np.clip(np.ceil(p * self.total - 1e-6), 1, self.total)
        return self.upper[np.searchsorted(self._reached, rank)].astype(float)


def read(path: Path) -> Histogram:
    """Read a histogram file. Raises ValueError where it is not one."""
    text = json.loads(path.read_text(encoding="utf-8"))
    if text.get("version") != VERSION or text.get("unit") != "ns":
        raise ValueError(f"{path}: not a histogram of version {VERSION} in ns")
    return _of(text["buckets"])


def read_each(path: Path) -> Histogram:
    """The histograms of a file with one for each CPU, merged. ValueError where it is none."""
    text = json.loads(path.read_text(encoding="utf-8"))
    if text.get("version") != VERSION or text.get("unit") != "ns":
        raise ValueError(f"{path}: not histograms of version {VERSION} in ns")
    return merge(_of(one["buckets"]) for one in text["cpus"].values())


def merge(parts: Iterable[Histogram]) -> Histogram:
    """The histogram of all samples together. Buckets must come from the same bucket scheme."""
    counts: dict[tuple[int, int], int] = {}
    for part in parts:
        for lower, upper, count in zip(part.lower, part.upper, part.count, strict=True):
            key = (int(lower), int(upper))
            counts[key] = counts.get(key, 0) + int(count)
    return _of([[lower, upper, count] for (lower, upper), count in sorted(counts.items())])


def _of(buckets: list[list[int]]) -> Histogram:
    table = np.array(buckets, dtype=np.int64).reshape(-1, 3)
    lower, upper, count = table[:, 0], table[:, 1], table[:, 2]
    if (count < 0).any() or (upper < lower).any() or (np.diff(lower) <= 0).any():
        raise ValueError("histogram: buckets out of order, or a negative count")
    return Histogram(lower, upper, count)
