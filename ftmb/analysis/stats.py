"""Intervals. The repetition is the unit: packets of one run are not independent, runs are.

Each interval comes from resampling whole runs (percentile bootstrap, 95 %, fixed seed). With few
runs it can be no wider than their range; the report prints n beside it for that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def _medians(rng: np.random.Generator, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of each resample of the runs."""
    drawn: NDArray[np.float64] = rng.choice(values, (RESAMPLES, len(values)))
    return np.median(drawn, axis=1)


def _estimate(value: float, resampled: NDArray[np.float64], n: int) -> Estimate:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high), n)


def median(values: Sequence[float]) -> Estimate | None:
    """Median of runs with its interval; None without runs."""
    array = np.asarray(values, dtype=float)
    if len(array) == 0:
        return None
    rng = np.random.default_rng(SEED)
    return _estimate(float(np.median(array)), _medians(rng, array), len(array))


def ratio(over: Sequence[float], under: Sequence[float]) -> Estimate | None:
    """Ratio of two medians, with the interval of the ratio; None without runs on both sides."""
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if len(a) == 0 or len(b) == 0 or (b <= 0).any():
        return None
    rng = np.random.default_rng(SEED)
    resampled = _medians(rng, a) / _medians(rng, b)
    return _estimate(float(np.median(a) / np.median(b)), resampled, min(len(a), len(b)))


def paired_ratio(over: Sequence[float], under: Sequence[float]) -> Estimate | None:
    """Median of the ratios of runs that belong together, one to one; whole pairs are resampled.

    What a stretch of the session did to both of a pair cancels out.
    """
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} runs against {len(b)} make no pairs")
    if len(a) == 0 or (b <= 0).any():
        return None
    return median(list(a / b))


def difference(over: Sequence[float], under: Sequence[float]) -> Estimate | None:
    """Difference of two medians, with the interval of the difference."""
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if len(a) == 0 or len(b) == 0:
        return None
    rng = np.random.default_rng(SEED)
    resampled = _medians(rng, a) - _medians(rng, b)
    return _estimate(float(np.median(a) - np.median(b)), resampled, min(len(a), len(b)))


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


def poisson(count: int, exposure: float, level: float = LEVEL) -> Estimate:
    """Rate of rare events with its exact interval: the rates at which seeing so few, or so many,
    has probability (1 - level) / 2. n is the count."""
    if count < 0 or exposure <= 0:
        raise ValueError(f"{count} events in {exposure}")
    tail = (1 - level) / 2
    high = _mean_where(lambda mean: _poisson_at_most(count, mean) > tail, count)
    low = 0.0
    if count:
        low = _mean_where(lambda mean: 1 - _poisson_at_most(count - 1, mean) < tail, count)
    return Estimate(count / exposure, low / exposure, high / exposure, count)


def rate_difference(over: Sequence[int], under: Sequence[int]) -> Estimate:
    """Mean number of rare events for each of `over` less that of `under`, with its interval.

    From the exact intervals of both rates (square-and-add); wider where events come in clusters,
    by the square root of how much their variance exceeds their mean."""
    (a, a_low, a_high), (b, b_low, b_high) = (_clustered(counts) for counts in (over, under))
    low, high = float(np.hypot(a_low, b_high)), float(np.hypot(a_high, b_low))
    return Estimate(a - b, a - b - low, a - b + high, min(len(over), len(under)))


def _clustered(counts: Sequence[int]) -> tuple[float, float, float]:
    """Rate, and how far its interval reaches down and up."""
    rate = poisson(sum(counts), len(counts))
    wider = 1.0
    if len(counts) > 1 and rate.value > 0:
        wider = max(1.0, float(np.sqrt(np.var(counts, ddof=1) / rate.value)))
    return rate.value, (rate.value - rate.low) * wider, (rate.high - rate.value) * wider


def _mean_where(below: Callable[[float], bool], count: int) -> float:
    """The mean at which a condition that holds for small ones ends, by halving."""
    low, high = 0.0, count + 10 * np.sqrt(count + 1) + 10
    for _ in range(100):
        middle = (low + high) / 2
        if below(middle):
            low = middle
        else:
            high = middle
    return float(high)


def _poisson_at_most(k: int, mean: float) -> float:
    """Probability of at most k events where `mean` are expected; logarithms, for large k."""
    if mean <= 0:
        return 1.0
    terms = np.arange(k + 1)
    logs = terms * np.log(mean) - mean - np.concatenate(([0.0], np.cumsum(np.log(terms[1:]))))
    return float(min(1.0, np.exp(logs).sum()))


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
