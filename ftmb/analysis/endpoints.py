"""What the records of `ftmb endpoints` say: results/endpoints/RUN/record.json."""

from __future__ import annotations

import json
from typing import Any

from ftmb.analysis import stats
from ftmb.analysis.metrics import Part, metric
from ftmb.analysis.records import RecordError, Results

ARMS = ("control", "ftmb", "cold")
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
    """Connections whose window a timeout collapsed within the window after a kill."""
    return sum(told["collapsed"] for told in connections(record))


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
    """Windows collapsed after a kill under FTMB, beyond those of as many instants without one.

    Only of runs that have a control: what the machine itself does is not the crash's doing."""
    controls = {kind_of(run): made for run, made in _of(results, "control").items()}
    parts = []
    for run, made in _of(results, "ftmb").items():
        control = controls.get(kind_of(run))
        if control is None:
            continue
        n = min(len(made["crashes"]), len(control["crashes"]))
        share = collapsed(control) * len(made["crashes"]) / len(control["crashes"])
        note = f"{collapsed(made)} after kills, {collapsed(control)} without"
        beyond = max(collapsed(made) - share, 0.0)
        parts.append(Part(run, beyond, "", n=n, note=note, build=_build(made)))
    return parts


def gaps(record: dict[str, Any]) -> stats.Estimate | None:
    """Median over kills of the longest time in which a connection did not come forward, ms."""
    values = [t["longest_gap_ms"] for t in connections(record) if t["longest_gap_ms"] is not None]
    return stats.median(values)
