"""Which runs of `ftmb endpoints` and `ftmb peers` the evaluation has, for the workflow.

`python -m ftmb.planned FILE TIER` prints their names; FILE: config/endpoints.yaml or peers.yaml."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KEYS = {"spec", "set", "quick", "full"}


@dataclass(frozen=True)
class Planned:
    """One run: its spec, and what is changed in it."""

    spec: str
    assignments: list[str]

    @property
    def words(self) -> str:
        """For a command line."""
        return " ".join(f"--set {shlex.quote(each)}" for each in self.assignments)


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
    print("\n".join(plan(Path(sys.argv[1]), sys.argv[2])))
