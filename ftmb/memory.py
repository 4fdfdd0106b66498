"""Resident memory of the processes and of the runtime directory, once a second, and its verdict.

Sampled by the fleet while it listens; what is made of the samples is pure.
"""

from __future__ import annotations

import csv
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ftmb.model import Model

INTERVAL_NS = 1_000_000_000
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
DIRECTORY, REPLICAS = "directory", "replicas"
# A run shorter than this says nothing of growth. What grew by less than this is called flat:
# allocators and page tables breathe.
LEAST_S = 60.0
GROWTH, GROWTH_KB = 0.05, 8 * 1024
LEAST_SAMPLES = 3


@dataclass(frozen=True)
class Sample:
    """At one time: kilobytes by name of a process, without its generation, and of the directory.

    calm: nothing was being recovered from.
    """

    t_ns: int
    kb: dict[str, int]
    calm: bool

    def grouped(self) -> dict[str, int]:
        """The same, all replicas as one: they take turns at being the master, who needs more."""
        result: dict[str, int] = {}
        for name, size in self.kb.items():
            group = REPLICAS if is_replica(name) else name
            result[group] = result.get(group, 0) + size
        return result


class MemoryOf(Model):
    first_kb: int
    last_kb: int
    peak_kb: int
    slope_kb_per_s: float = Field(description="of a straight line through the calm samples")


class Memory(Model):
    """Resident memory in the window; `replicas` is all of them, `directory` the files in memory."""

    samples: int
    of: dict[str, MemoryOf]


def is_replica(name: str) -> bool:
    """`r0`, `r1`, ...: by the name that the fleet gives them."""
    return name[:1] == "r" and name[1:].isdigit()


def resident_kb(pid: int) -> int:
    """Resident memory of a process, 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_KB
    except (OSError, IndexError):
        return 0


def directory_kb(path: Path) -> int:
    """What the files of a directory take up. Sparse files count by what is there."""
    total = 0
    for entry in os.scandir(path):
        try:
            total += entry.stat(follow_symlinks=False).st_blocks // 2
        except FileNotFoundError:
            pass  # it went away meanwhile; the others count
    return total


class Sampler:
    """Takes a sample when a second has passed since the last."""

    def __init__(self, directory: Path) -> None:
        self.samples: list[Sample] = []
        self._directory = directory
        self._next_ns = 0

    def tick(self, now_ns: int, pids: Mapping[str, int], calm: bool) -> None:
        """pids: the living processes by name, generation included."""
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + INTERVAL_NS
        kb = {DIRECTORY: directory_kb(self._directory)}
        for name, pid in pids.items():
            base = name.partition("-")[0]
            kb[base] = kb.get(base, 0) + resident_kb(pid)
        self.samples.append(Sample(now_ns, kb, calm))


def inside(samples: Sequence[Sample], start_ns: int, end_ns: int | None) -> list[Sample]:
    """Those of the window."""
    return [s for s in samples if start_ns <= s.t_ns and (end_ns is None or s.t_ns <= end_ns)]


def _slope(points: Sequence[tuple[float, int]]) -> float:
    if len(points) < 2:
        return 0.0
    times, sizes = [t for t, _ in points], [float(size) for _, size in points]
    return statistics.linear_regression(times, sizes).slope


def summary(samples: Sequence[Sample]) -> Memory | None:
    """What a record holds of the samples of its window; None without any."""
    if not samples:
        return None
    series: dict[str, list[tuple[Sample, int]]] = {}
    for sample in samples:
        for name, size in sample.grouped().items():
            series.setdefault(name, []).append((sample, size))
    found = {}
    for name, points in sorted(series.items()):
        calm = [(sample.t_ns / 1e9, size) for sample, size in points if sample.calm]
        found[name] = MemoryOf(
            first_kb=points[0][1],
            last_kb=points[-1][1],
            peak_kb=max(size for _, size in points),
            slope_kb_per_s=round(_slope(calm), 3),
        )
    return Memory(samples=len(samples), of=found)


@dataclass(frozen=True)
class Flatness:
    """The verdict on growth. worst_kb: largest growth of a median beyond what is let pass."""

    flat: bool
    worst_kb: int
    detail: str


def flatness(samples: Sequence[Sample], start_ns: int, end_ns: int) -> Flatness | None:
    """Compares medians of the second and the last quarter of the window, calm samples only.

    The first quarter is left out: there pages are touched for the first time. None where the run
    is too short or too seldom calm to tell.
    """
    if (end_ns - start_ns) / 1e9 < LEAST_S:
        return None
    quarter = (end_ns - start_ns) // 4
    calm = [s for s in samples if s.calm]
    early = [s for s in calm if start_ns + quarter <= s.t_ns < start_ns + 2 * quarter]
    late = [s for s in calm if start_ns + 3 * quarter <= s.t_ns <= end_ns]
    if min(len(early), len(late)) < LEAST_SAMPLES:
        return None
    details, worst, flat = [], 0, True
    for name in sorted(late[-1].grouped()):
        before = round(statistics.median([s.grouped().get(name, 0) for s in early]))
        after = round(statistics.median([s.grouped().get(name, 0) for s in late]))
        allowed = round(before * GROWTH + GROWTH_KB)
        flat &= after - before <= allowed
        worst = max(worst, after - before - allowed)
        details.append(f"{name} {before / 1024:.0f} to {after / 1024:.0f} MB")
    return Flatness(flat, worst, ", ".join(details))


def write(path: Path, samples: Sequence[Sample], start_ns: int) -> None:
    """All samples as CSV: seconds since the window's start, whose, kilobytes, calm or not."""
    with path.open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["t_s", "what", "kb", "calm"])
        for sample in samples:
            for name, size in sample.grouped().items():
                rows.writerow([round((sample.t_ns - start_ns) / 1e9, 3), name, size, +sample.calm])
