"""What the processes of a trial with a generator outside of the data plane are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftmb.spec import TrialSpec

# In the place of the data plane's program, behind `python -m`: the generator's process.
CHILD = Path("ftmb.generators.child")
# Names in the namespace of a trial with `scapy`: the middlebox's interfaces, and their far ends.
BOX = {"inside": "inside", "outside": "outside"}
FAR = {"inside": "far-inside", "outside": "far-outside"}


def interfaces(spec: TrialSpec) -> dict[str, str]:
    """The middlebox's own interfaces by side; empty where the generator is the data plane's."""
    if spec.traffic.generator == "scapy":
        return BOX
    return {} if spec.interfaces is None else spec.interfaces.model_dump()


def child_spec(spec: TrialSpec, traffic: dict[str, Any]) -> dict[str, Any]:
    """The spec of the generator's process. traffic: as in the node spec (node.traffic_section)."""
    name = spec.traffic.generator
    return {
        "version": 1,
        "process": name,
        "generator": name,
        "traffic": traffic,
        "interfaces": FAR if name == "scapy" else {},
        "trex": spec.traffic.trex.model_dump(),
    }
