"""Which runs of `ftmb endpoints` the evaluation has: config/endpoints.yaml, for the workflow.

`python -m ftmb.endpoints.plan TIER` prints their names."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PLAN = Path("config/endpoints.yaml")
KEYS = {"spec", "set", "quick", "full"}


@dataclass(frozen=True)
class Planned:
    """One run: its spec, and what is changed in it."""

    spec: str
    assignments: list[str]

    @property
    def words(self) -> str:
        """For a command line."""
        return " ".join(f"--set {each}" for each in self.assignments)


def plan(path: Path, tier: str) -> dict[str, Planned]:
    """The runs of a tier by name. Raises ValueError with the offending key."""
    tree: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = {}
    for name, entry in tree.items():
        if unknown := sorted(set(entry) - KEYS):
            raise ValueError(f"{path}: {name}: unknown key {unknown[0]!r}")
        if tier in entry:
            found[name] = Planned(entry["spec"], [*entry.get("set", []), *entry[tier]])
    return found


if __name__ == "__main__":
    print("\n".join(plan(PLAN, sys.argv[1])))
