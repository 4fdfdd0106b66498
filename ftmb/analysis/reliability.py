"""What the fault trials, the simulator and the model say, as tables. docs/FAULTS.md has the rows.

The unit is the incident: one fault, or faults that hit before the first was recovered from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ftmb.analysis.records import RecordError, Results, Trial

EXPERIMENT = "faults"
KINDS = ("sim", "plants", "model", "fuzz")
# The rows in the order of docs/FAULTS.md: a short name, and what happens in words.
ROWS = {
    "kill-master": "master killed",
    "stop-master": "master stopped, later continued",
    "switchover-master": "switchover: the master replaced by plan",
    "kill-backup": "backup killed",
    "stop-backup": "backup stopped, later continued",
    "kill-ol": "output logger killed",
    "kill-il": "input logger killed",
    "stop-ol": "output logger stopped",
    "stop-il": "input logger stopped",
    "cut-il": "link to the input logger cut",
    "cut-ol": "link to the output logger cut",
    "cut-ctl": "control channel of the master cut",
    "cut-state": "state channel cut",
    "second-crash": "second crash while recovering, one backup",
    "second-crash-two-backups": "second crash while recovering, two backups",
    "once-protected": "crash as soon as protected again",
    "while-receiving": "backup killed while it receives its first snapshot",
    "false-suspicion": "false suspicion of a stalled master",
    "lying-links": "crash while links lose, repeat, reorder, delay and damage",
    "poison": "an input that kills every master",
}
# Variants of the experiment whose incidents are one row, whoever was hit.
AS_ONE = ("second-crash", "second-crash-two-backups", "once-protected", "while-receiving",
          "false-suspicion", "lying-links", "poison")  # fmt: skip
COLUMNS = ["trial", "experiment", "row", "faults", "guaranteed", "missing", "counted",
           "recovered_ms", "protected_again_ms", "outage_ms"]  # fmt: skip


def read(root: Path) -> dict[str, dict[str, Any]]:
    """What lies in `root/reliability`: sim, plants, model; those that were made."""
    found = {}
    for kind in KINDS:
        path = root / "reliability" / f"{kind}.json"
        if not path.is_file():
            continue
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RecordError(f"{path} is not JSON ({error}); make it again") from error
        if not isinstance(tree, dict) or (tree.get("version"), tree.get("kind")) != (1, kind):
            raise RecordError(f"{path} is not `kind: {kind}`, version 1; make it again")
        found[kind] = tree
    return found


def variant(trial: Trial) -> str:
    """`second-crash` of `faults-second-crash-00`; empty for other experiments."""
    if trial.experiment != EXPERIMENT:
        return ""
    return trial.id.removeprefix(EXPERIMENT + "-").rsplit("-", 1)[0]


def row_of(kind: str, group: list[dict[str, Any]]) -> str | None:
    """The row of docs/FAULTS.md that an incident belongs to; None: to none.

    kind: the trial's variant.
    """
    first = group[0]
    if kind in AS_ONE:
        # The faults that only lead up to what the row is about are no incidents of it.
        leads_up = kind.startswith("second-crash") or kind == "while-receiving"
        alone = leads_up and len(group) == 1
        opens = kind == "once-protected" and first.get("index") == 0
        return None if alone or opens else kind
    if len(group) > 1:
        return None
    role = str(first["role"])
    name = f"{first['do']}-{role.partition('-')[0] if first['do'] == 'cut' else role}"
    return name if name in ROWS else None


def incidents_of(trial: Trial) -> Iterator[dict[str, Any]]:
    """The incidents of one trial, each with its row."""
    kind = variant(trial)
    labels = {"trial": trial.id, "experiment": trial.experiment, "counted": trial.counted}
    if kind == "poison":
        checks = {c["name"]: c["verdict"] for c in trial.record.get("checks") or []}
        named = checks.get("poison") == "pass"
        yield {**labels, "row": kind, "faults": 1, "guaranteed": named,
               "missing": "" if named else "no input was named"}  # fmt: skip
    groups: dict[int, list[dict[str, Any]]] = {}
    for fault in trial.record.get("faults") or []:
        if fault.get("incident") is not None:
            groups.setdefault(fault["incident"], []).append(fault)
    for group in groups.values():
        first = group[0]
        yield {
            **labels,
            "row": row_of(kind, group),
            "faults": len(group),
            "guaranteed": bool(first["guaranteed"]),
            "missing": "; ".join(first["missing"]),
            **{k: first[k] for k in ("recovered_ms", "protected_again_ms", "outage_ms")},
        }


def incidents(results: Results) -> pd.DataFrame:
    """One row per incident of all trials."""
    rows = [entry for trial in results.trials for entry in incidents_of(trial)]
    return pd.DataFrame(rows, columns=COLUMNS)


def of_row(table: pd.DataFrame, row: str) -> pd.DataFrame:
    """The incidents of a row that may be counted, or went wrong whatever the record says."""
    part = table[table["row"] == row]
    return part[part["counted"].astype(bool) | ~part["guaranteed"].astype(bool)]


def found(plant: dict[str, Any]) -> bool:
    """Whether anything found a planted bug."""
    return str(plant.get("found_by") or "none") != "none"
