"""Claims and their verdicts. What is claimed is data (`config/claims.yaml`); this judges it.

A verdict is `holds` only if the whole interval satisfies the relation, `does not hold` only if the
whole interval violates it, and otherwise `cannot be judged`, with the reason.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# They register their metrics.
from ftmb.analysis import costs, endpoints, peers, snapshot_metrics  # noqa: F401
from ftmb.analysis.metrics import METRICS, Part
from ftmb.analysis.records import Results, builds

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be judged"
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
KEYS = {
    "id", "statement", "source", "metric", "relation", "bound", "unit", "tolerance", "needs",
    "section",
}  # fmt: skip
NEEDS = {"cpus", "n", "parts", "why"}


class ClaimError(ValueError):
    """The claims file is wrong; the message names the claim and the key."""


@dataclass(frozen=True)
class Claim:
    """One claim as the file states it."""

    id: str
    statement: str
    source: str
    metric: str
    relation: str
    bound: float
    tolerance: str
    unit: str
    section: str = ""
    needs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A claim with what was measured, the verdict, and why it could not be had if it could not."""

    claim: Claim
    verdict: str
    parts: list[Part]
    reason: str = ""


def load(path: Path) -> list[Claim]:
    """Read and check the claims file."""
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ClaimError(f"{path}: {error}") from error
    claims = []
    for entry in (text or {}).get("claims", []):
        name = entry.get("id", "?")
        if unknown := sorted(set(entry) - KEYS):
            raise ClaimError(f"{path}: claim {name}: unknown key {unknown[0]!r}")
        if unknown := sorted(set(entry.get("needs", {})) - NEEDS):
            raise ClaimError(f"{path}: claim {name}: unknown key needs.{unknown[0]}")
        if entry.get("metric") not in METRICS:
            raise ClaimError(f"{path}: claim {name}: no metric {entry.get('metric')!r}")
        if entry.get("relation") not in RELATIONS:
            raise ClaimError(f"{path}: claim {name}: no relation {entry.get('relation')!r}")
        try:
            claims.append(Claim(**{**entry, "bound": float(entry["bound"])}))
        except (TypeError, KeyError) as error:
            raise ClaimError(f"{path}: claim {name}: {error}") from error
    if not claims:
        raise ClaimError(f"{path}: no claims in it")
    names = [claim.id for claim in claims]
    if len(set(names)) < len(names):
        raise ClaimError(f"{path}: two claims share an id")
    return claims


def judge(claim: Claim, results: Results) -> Verdict:
    """The verdict on one claim."""
    parts = METRICS[claim.metric](results)
    if not parts:
        return Verdict(claim, OPEN, [], f"no valid record to judge it by{_left_out(results)}")
    made = {build["node_sha256"] for build in builds(results)}
    if len(made) > 1:
        return Verdict(claim, OPEN, parts, "the records come from different builds")
    if made and any(part.build not in (None, *made) for part in parts):
        return Verdict(claim, OPEN, parts, "the bench is of another build than the records")
    lacking = _lacking(claim, results, parts)
    if lacking:
        return Verdict(claim, OPEN, parts, lacking)
    outcomes = [_part(claim, part) for part in parts]
    if FAILS in outcomes:
        return Verdict(claim, FAILS, parts)
    noisy = [_noisy(claim, part) for part in parts if _noisy(claim, part)]
    if noisy:
        return Verdict(claim, OPEN, parts, noisy[0])
    if OPEN in outcomes:
        unsure = [p.label for p, o in zip(parts, outcomes, strict=True) if o == OPEN]
        where = f" of {', '.join(filter(None, unsure))}" if any(unsure) else ""
        return Verdict(claim, OPEN, parts, f"the interval{where} includes the bound: too few runs")
    return Verdict(claim, HOLDS, parts)


def _part(claim: Claim, part: Part) -> str:
    """Verdict on one part: by both ends of its interval, or by its value where it has none."""
    relation = RELATIONS[claim.relation]
    ends = [e for e in (part.low, part.high) if e is not None] or [part.value]
    met = [relation(end, claim.bound) for end in ends]
    if not any(met) and _noisy(claim, part):
        # Noise as large as the tolerance is no excuse for what lies beyond both.
        beyond = claim.bound + max(abs(end - 1) for end in part.twin or ())
        return FAILS if all(end > beyond for end in ends) else OPEN
    return HOLDS if all(met) else FAILS if not any(met) else OPEN


def judge_part(claim: Claim, part: Part) -> str:
    """The verdict on one part alone, where it has the runs that the claim needs."""
    if part.lacks or part.n < claim.needs.get("n", 0):
        return OPEN
    outcome = _part(claim, part)
    return outcome if outcome == FAILS or not _noisy(claim, part) else OPEN


def _noisy(claim: Claim, part: Part) -> str:
    """Why a ratio cannot be judged: two runs of the same differ by more than is tolerated."""
    if part.twin is None or claim.relation not in ("<", "<="):
        return ""
    low, high = part.twin
    if max(abs(low - 1), abs(high - 1)) <= claim.bound - 1:
        return ""
    return (
        f"{part.label}: the same measured twice differs by {low:.2f} to {high:.2f}, more than the "
        f"tolerance; {part.note.rpartition('; ')[2]}"
    )


def _lacking(claim: Claim, results: Results, parts: list[Part]) -> str:
    """What this machine or this session lacks to judge the claim; empty if nothing."""
    wanted = claim.needs.get("cpus", 0)
    fewer = [cpus for trial in results.trials if (cpus := _cpus(trial.record)) < wanted]
    if fewer:
        why = claim.needs.get("why", "")
        return f"needs {wanted} CPUs, this machine has {min(fewer)}{': ' + why if why else ''}"
    # A violation that was counted decides, however little there is. A figure that varies from run
    # to run, which is one with an interval, needs its runs for either verdict.
    if any(part.low is None and _part(claim, part) == FAILS for part in parts):
        return ""
    runs = min(part.n for part in parts)
    if runs < claim.needs.get("n", 0):
        return f"needs {claim.needs['n']} runs, has {runs}{_left_out(results)}"
    if short := [part.lacks for part in parts if part.lacks]:
        return short[0]
    if len(parts) < claim.needs.get("parts", 0):
        shown = ", ".join(part.label for part in parts)
        return f"measured for {shown} only{_left_out(results)}"
    return ""


def _left_out(results: Results) -> str:
    broken = sum(bool(trial.problems) for trial in results.trials)
    return f" ({broken} records are not valid, see the end)" if broken else ""


def _cpus(record: dict[str, Any]) -> int:
    cpu = (record.get("environment") or {}).get("cpu") or {}
    return len(cpu.get("available") or []) or int(cpu.get("cores") or 1)


def judge_all(claims: list[Claim], results: Results) -> list[Verdict]:
    """All verdicts, in the order of the file."""
    return [judge(claim, results) for claim in claims]
