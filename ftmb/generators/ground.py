"""Where a trial's generator stands, and what its processes are started with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftmb import interface
from ftmb.errors import MachineError
from ftmb.spec import TrialSpec

# Names in the namespace of a trial with `scapy`: the middlebox's interfaces, and their far ends.
BOX = {"inside": "inside", "outside": "outside"}
FAR = {"inside": "far-inside", "outside": "far-outside"}


@dataclass(frozen=True)
class Ground:
    """prefix: words before the command of those whose interfaces are in another namespace."""

    prefix: Sequence[str] = ()

    def command(self, tree: dict[str, Any], program: Path) -> list[str]:
        """What the process of a spec is started with. program: the data plane."""
        if "generator" in tree:
            return [*self.prefix, sys.executable, "-m", "ftmb.generators.child"]
        logger = any("il" in lcore["roles"] for lcore in tree["lcores"])
        return [*(self.prefix if logger else ()), str(program)]


NATIVE = Ground()


@contextmanager
def standing(spec: TrialSpec) -> Iterator[Ground]:
    """What the generator of a trial needs, for as long as the block lasts. Raises MachineError."""
    if spec.traffic.generator == "scapy":
        with _namespace() as ground:
            yield ground
        return
    if spec.traffic.external:
        for name in interfaces(spec).values():
            interface.check(name)
        interface.check_rights()
    yield NATIVE


def interfaces(spec: TrialSpec) -> dict[str, str]:
    """The middlebox's own interfaces by side; empty where the generator is the data plane's."""
    if spec.traffic.generator == "scapy":
        return BOX
    return {} if spec.interfaces is None else spec.interfaces.model_dump()


@contextmanager
def _namespace() -> Iterator[Ground]:
    """Two cables in a network namespace: nobody else speaks there."""
    from ftmb.testbed import enter, namespaces

    if os.geteuid() != 0:
        raise MachineError(
            "traffic.generator scapy: it needs a network namespace with two cables, which only "
            "root can make; run as root, or take native"
        )
    with namespaces.network() as net:
        host = net.host("trial")
        for side, name in BOX.items():
            net.cable(host, name, host, FAR[side])
        launcher = [sys.executable, "-I", "-S", enter.__file__]
        yield Ground([*launcher, str(host.path), str(os.getpid())])


def child_spec(spec: TrialSpec, traffic: dict[str, Any]) -> dict[str, Any]:
    """The spec of the generator's process. traffic: as in the node spec (node.traffic_section)."""
    name = spec.traffic.generator
    far = FAR if name == "scapy" else {}
    return {
        "version": 1,
        "process": name,
        "generator": name,
        "traffic": traffic,
        "interfaces": far,
        "trex": spec.traffic.trex.model_dump(),
    }
