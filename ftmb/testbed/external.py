"""Where a trial stands whose generator is outside of the data plane: at two interfaces."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ftmb import interface
from ftmb.errors import MachineError
from ftmb.generators.ground import BOX, FAR
from ftmb.lock import RuntimeDir
from ftmb.node import Plan
from ftmb.spec import TrialSpec
from ftmb.testbed import enter, namespaces
from ftmb.testbed.local import Local


class AtInterfaces(Local):
    """The machine's own interfaces; the generator's process is started as a Python module."""

    def __init__(self, plan: Plan, runtime: RuntimeDir) -> None:
        """Nothing is made yet."""
        super().__init__(plan, runtime)
        self._prefix: list[str] = []  # to where the interfaces are

    def settle(self, tree: dict[str, Any], host: str) -> Sequence[str]:
        """Those that open interfaces go where these are."""
        if "generator" in tree:
            return [*self._prefix, sys.executable, "-m"]
        if "interfaces" not in tree or "slot" in tree:
            return ()
        if not self._prefix:
            for name in tree["interfaces"].values():
                interface.check(name)
            interface.check_rights()
        return self._prefix


class AtCables(AtInterfaces):
    """Two cables in a network namespace of the trial's own: nobody else speaks there."""

    def __init__(self, plan: Plan, runtime: RuntimeDir) -> None:
        """Nothing is made yet."""
        super().__init__(plan, runtime)
        self._stack = ExitStack()

    def build(self) -> None:
        """Make namespace and cables. Raises MachineError."""
        if os.geteuid() != 0:
            raise MachineError(
                "traffic.generator scapy: it needs a network namespace with two cables, which only "
                "root can make; run as root, or take native"
            )
        net = self._stack.enter_context(namespaces.network())
        host = net.host("trial")
        for side, name in BOX.items():
            net.cable(host, name, host, FAR[side])
        launcher = [sys.executable, "-I", "-S", enter.__file__]
        self._prefix = [*launcher, str(host.path), str(os.getpid())]

    def close(self) -> None:
        """Take the namespace away."""
        self._stack.close()


def of(spec: TrialSpec, others: Mapping[str, type[Local]]) -> type[Local]:
    """The testbed of a trial: what its generator needs, else what the spec names."""
    if spec.traffic.generator == "scapy":
        return AtCables
    return AtInterfaces if spec.traffic.external else others[spec.testbed]
