"""What a generator tells of a run: the statistics of the role `traffic`. None: it does not know."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# The data plane's scheme (native/traffic/histogram.h): exact below 2048, then 1024 buckets per
# power of two.
EXACT_BITS = 11
MOST_GAPS = 256
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}


class Latencies:
    """Counts of latencies in buckets `[low, high]`, nanoseconds, both ends inclusive."""

    def __init__(self) -> None:
        """Empty."""
        self.buckets: Counter[tuple[int, int]] = Counter()
        self.max = 0

    def add(self, value_ns: int) -> None:
        """One latency."""
        shift = max(0, value_ns.bit_length() - EXACT_BITS)
        low = value_ns >> shift << shift
        self.put(low, low + (1 << shift) - 1, 1, value_ns)

    def put(self, low: int, high: int, count: int, most: int) -> None:
        """`count` latencies of a bucket that somebody else made, the largest of them `most`."""
        self.buckets[(low, high)] += count
        self.max = max(self.max, most)

    def summary(self) -> dict[str, int]:
        """As the data plane tells it: count, percentiles (the upper end of their bucket), max."""
        total = sum(self.buckets.values())
        told = {"count": total}
        if not total:
            return told
        for name, share in QUANTILES.items():
            rank, reached = max(1, -int(-share * total // 1)), 0
            for (_, high), count in sorted(self.buckets.items()):
                reached += count
                if reached >= rank:
                    told[name] = min(high, self.max)
                    break
        return told | {"max": self.max}

    def write(self, path: Path) -> None:
        """The file that the analysis reads (ftmb.analysis.histogram)."""
        rows = [[low, high, count] for (low, high), count in sorted(self.buckets.items()) if count]
        tree = {"version": 1, "unit": "ns", "count": sum(row[2] for row in rows)}
        tree |= {"min": rows[0][0] if rows else 0, "max": self.max, "buckets": rows}
        path.write_text(json.dumps(tree, separators=(",", ":")) + "\n", encoding="utf-8")


def longest(gaps: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The longest of `(start_ns, length_ns)`, in order of time."""
    return sorted(map(list, heapq.nlargest(MOST_GAPS, gaps, key=lambda gap: gap[1])))


@dataclass
class Told:
    """Counts of the whole run, warm-up included, in packets; `window_*` are of the window alone.

    offered: due by the schedule. sent: handed to the wire. delivered: distinct packets that came
    out of the other side. Those that are None were not measured.
    """

    offered: int
    sent: int
    delivered: int | None
    window_offered: int
    window_delivered: int | None
    window_ns: int
    duplicated: int | None = None
    reordered: int | None = None
    corrupted: int | None = None
    altered: int | None = None  # recognised, and with another payload than was sent
    late: int | None = None  # of the window, sent over 1 ms after their time
    mapping_changed: int | None = None
    mapping_shared: int | None = None
    exact: bool | None = None  # whether every packet that came was seen
    gaps: list[list[int]] | None = None
    latency: dict[str, int] | None = None
    # What was numbered and timed, where that is a part: sent, lost, duplicated, reordered.
    sample: dict[str, int] | None = None
    notes: dict[str, Any] = field(default_factory=dict)  # kept in the record as they are

    def fields(self) -> dict[str, Any]:
        """The fields of the event `stats`."""
        tree = asdict(self)
        notes = tree.pop("notes")
        lost = None if self.delivered is None else max(0, self.sent - self.delivered)
        return {"role": "traffic", **tree, "lost": lost, **notes}
