"""Made-up records of `ftmb endpoints`, as far as analysis and report look at them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftmb.endpoints import tcp

MS = [float(ms) for ms in range(-300, 1500, 20)]
ARMS = ("ftmb", "control", "cold")


def record(
    kind: str, arm: str, kills: int = 30, timeouts: Sequence[int | None] = (), **told: Any
) -> dict[str, Any]:
    """One run. timeouts: after each kill, in place of `kills` without.
    told: what became of the connections of each kill, beside that nothing did."""
    line = {q: [100.0 if ms < 0 or ms > 60 else 0.0 for ms in MS] for q in ("p10", "p50", "p90")}
    connections = {"at_work": 32, "lost": 0, "longest_gap_ms": 60.0, "median_gap_ms": 40.0,
                   "retransmitted": 0, "timeouts": 0, "collapsed": 0, "reduced": 0,
                   "threshold_cut": 0} | told  # fmt: skip
    asked = {"count": 1000, "failed": 0, "in_windows": 100, "failed_in_windows": 0, "errors": {},
             "ms": {"50": 3.0, "99": 60.0}, "ms_in_windows": {"50": 5.0, "99": 70.0}}  # fmt: skip
    crash = {"counters": dict.fromkeys(tcp.COUNTERS, 0), "connections": {"iperf3": connections}}
    crashes = [crash | {"counters": crash["counters"] | {"timeouts": n}}
               for n in timeouts or [0] * kills]  # fmt: skip
    return {
        "version": 1, "kind": "endpoints", "valid": True, "spec": {"arm": arm},
        "versions": {"node_sha256": "0" * 64}, "broken": {"iperf3": 0},
        "asked": {"pages": asked} if kind == "mixed" else {}, "crashes": crashes,
        "timeline": {"ms": MS, "mbps": line, "cwnd": line, "ssthresh": line},
    }  # fmt: skip


def write(root: Path, run: str, tree: dict[str, Any]) -> None:
    """As root/endpoints/RUN/record.json."""
    place = root / "endpoints" / run
    place.mkdir(parents=True, exist_ok=True)
    (place / "record.json").write_text(json.dumps(tree), encoding="utf-8")


def write_all(root: Path) -> None:
    """Every kind and arm."""
    for kind in ("bulk", "mixed", "firewall"):
        for arm in ARMS:
            write(root, f"{kind}-{arm}", record(kind, arm))
