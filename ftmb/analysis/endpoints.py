"""What the records of `ftmb endpoints` say: results/endpoints/RUN/record.json."""

from __future__ import annotations

import json
from typing import Any

from ftmb.analysis import stats
from ftmb.analysis.metrics import Part, metric
from ftmb.analysis.records import RecordError, Results

ARMS = ("control", "ftmb", "cold")
# What a connection does about a loss without a timeout.
SOFTER = {"reduced": "windows below 0.8", "threshold_cut": "thresholds cut"}
WORDS = {"control": "no crash", "ftmb": "FTMB", "cold": "cold restart"}


def read(results: Results) -> dict[str, dict[str, Any]]:
    """The valid records by name of the run; what was left out has none."""
    found = {}
    for path in sorted(results.root.glob("endpoints/*/record.json")):
        try:
            made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RecordError(f"{path} is not JSON ({error}); make it again") from error
        if "left_out" in made:
            continue
        if (made.get("version"), made.get("kind")) != (1, "endpoints"):
            raise RecordError(f"{path} is not `kind: endpoints`, version 1; make it again")
        if made["valid"] is True:
            found[path.parent.name] = made
    return found


def source(run: str) -> dict[str, str]:
    """Where a record lies, seen from the page that stands in the results directory."""
    return {"id": run, "href": f"endpoints/{run}/record.json"}


def kind_of(run: str) -> str:
    """`bulk` of `bulk-ftmb`: runs of the same kind differ in the arm alone."""
    return run.rpartition("-")[0]


def connections(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each kill and workload, what became of its connections."""
    return [told for crash in record["crashes"] for told in crash["connections"].values()]


def lost(record: dict[str, Any]) -> int:
    """Connections lost, and clients that ended by themselves."""
    broken = sum(record["broken"].values())
    return sum(told["lost"] for told in connections(record)) + int(broken)


def failed(record: dict[str, Any]) -> int:
    """Pages, downloads, questions and lines that went wrong."""
    return sum(asked["failed"] for asked in record["asked"].values())


def collapsed(record: dict[str, Any]) -> int:
    """Connections whose window was seen to collapse in the window after a kill."""
    return summed(record, "collapsed")


def summed(record: dict[str, Any], key: str) -> int:
    """Of all kills and workloads."""
    return sum(told[key] for told in connections(record))


def timeouts(record: dict[str, Any]) -> list[int] | None:
    """Of each kill, TCP's timeouts in the window after it, at both ends, of all connections: those
    of pages too, which are too short to be looked at. None: the kernel does not count them.

    A SYN sent again is a timeout as well, one of the far end's answer is not; none counts twice."""
    counted = []
    for crash in record["crashes"]:
        first, answers = (crash["counters"][key] for key in ("timeouts", "syn_retransmits"))
        if first is None or answers is None:
            return None
        counted.append(max(first, answers))
    return counted


def _of(results: Results, arm: str) -> dict[str, dict[str, Any]]:
    return {run: made for run, made in read(results).items() if made["spec"]["arm"] == arm}


def _build(record: dict[str, Any]) -> str:
    return str(record["versions"]["node_sha256"])


@metric
def endpoints_harmed(results: Results) -> list[Part]:
    """Connections lost and things asked for that went wrong under FTMB, of each run."""
    return [
        Part(run, lost(made) + failed(made), "", n=len(made["crashes"]), build=_build(made))
        for run, made in _of(results, "ftmb").items()
    ]


@metric
def endpoints_collapsed(results: Results) -> list[Part]:
    """Timeouts for each kill under FTMB, less those for each instant without one.

    Only of runs that have a control: what the machine itself does is not the crash's doing."""
    controls = {kind_of(run): made for run, made in _of(results, "control").items()}
    parts = []
    for run, made in _of(results, "ftmb").items():
        control = controls.get(kind_of(run))
        if control is None:
            continue
        ours, without = timeouts(made), timeouts(control)
        if ours is None or without is None:
            continue
        told = stats.rate_difference(ours, without)
        note = "; ".join(
            f"{what} {one:,} against {two:,}"
            for what, one, two in (
                ("timeouts", sum(ours), sum(without)),
                *((word, summed(made, key), summed(control, key)) for key, word in SOFTER.items()),
            )
        )
        parts.append(
            Part(run, told.value, "", told.low, told.high, told.n, note, build=_build(made))
        )
    return parts


def gaps(record: dict[str, Any]) -> stats.Estimate | None:
    """Median over kills of the longest time in which a connection did not come forward, ms."""
    values = [t["longest_gap_ms"] for t in connections(record) if t["longest_gap_ms"] is not None]
    return stats.median(values)
