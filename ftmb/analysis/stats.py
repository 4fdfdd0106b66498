"""Intervals. The repetition is the unit: packets of one run are not independent, runs are.

Each interval comes from resampling whole runs (percentile bootstrap, 95 %, fixed seed). With few
runs it can be no wider than their range; the report prints n beside it for that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
SEED = 20150817


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval and the number of runs behind it."""

    value: float
    low: float
    high: float
    n: int


def _interval(draw: Callable[[np.random.Generator], float]) -> tuple[float, float]:
    rng = np.random.default_rng(SEED)
    values = np.array([draw(rng) for _ in range(RESAMPLES)])
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _again(rng: np.random.Generator, values: np.ndarray) -> float:
    return float(np.median(rng.choice(values, len(values))))


def median(values: Sequence[float]) -> Estimate | None:
    """Median of runs with its interval; None without runs."""
    array = np.asarray(values, dtype=float)
    if len(array) == 0:
        return None
    low, high = _interval(lambda rng: _again(rng, array))
    return Estimate(float(np.median(array)), low, high, len(array))


def ratio(over: Sequence[float], under: Sequence[float]) -> Estimate | None:
    """Ratio of two medians, with the interval of the ratio; None without runs on both sides."""
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if len(a) == 0 or len(b) == 0 or (b <= 0).any():
        return None
    low, high = _interval(lambda rng: _again(rng, a) / _again(rng, b))
    return Estimate(float(np.median(a) / np.median(b)), low, high, min(len(a), len(b)))


def difference(over: Sequence[float], under: Sequence[float]) -> Estimate | None:
    """Difference of two medians, with the interval of the difference."""
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if len(a) == 0 or len(b) == 0:
        return None
    low, high = _interval(lambda rng: _again(rng, a) - _again(rng, b))
    return Estimate(float(np.median(a) - np.median(b)), low, high, min(len(a), len(b)))


def failure_bound(failures: int, trials: int, level: float = LEVEL) -> float:
    """Upper bound (exact, one-sided) of the probability of failure after `failures` in `trials`.

    The p at which seeing so few failures has probability 1 - level; with none it is
    1 - (1 - level)^(1/n), which the rule of three approximates by 3/n.
    """
    if not 0 <= failures <= trials or trials == 0:
        raise ValueError(f"{failures} failures in {trials} trials")
    if failures == trials:
        return 1.0
    low, high = failures / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(failures, trials, middle) > 1 - level:
            low = middle
        else:
            high = middle
    return high


def _at_most(k: int, n: int, p: float) -> float:
    """Probability of at most k successes in n draws of probability p."""
    term, total = (1 - p) ** n, 0.0
    for i in range(k + 1):
        total += term
        term *= (n - i) / (i + 1) * (p / (1 - p) if p < 1 else 0.0)
    return total


def spread(values: Sequence[float]) -> float | None:
    """Range of the runs as a share of their median: how much repetitions differ."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or np.median(array) == 0:
        return None
    return float((array.max() - array.min()) / np.median(array))
