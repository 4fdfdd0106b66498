"""Where the processes of a trial stand: all of them on this machine, with nothing between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftmb.lock import RuntimeDir
from ftmb.node import Plan


def replica_host(slot: int) -> str:
    """The name of the host of a replica; a process of loggers stands on the host of its name."""
    return f"replica-{slot}"


class Local:
    """The testbed `local`. Others do for each of these what they need to; `close` in any case."""

    def __init__(self, plan: Plan, runtime: RuntimeDir) -> None:
        """Nothing is made yet."""
        self.plan, self.runtime = plan, runtime

    def build(self) -> None:
        """Make the hosts and what connects them. Raises MachineError."""

    def settle(self, tree: dict[str, Any], host: str) -> Sequence[str]:
        """Complete the node spec of a process that is about to start on `host`, and connect that
        host if it was cut off. Returns the words that start a command there."""
        return ()

    def cut_off(self, host: str) -> None:
        """The host crashes: nothing of it is heard any more. Its process is killed right after."""

    def close(self) -> None:
        """Take everything down again. Its processes have ended."""
