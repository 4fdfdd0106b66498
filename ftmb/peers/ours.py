"""The arm `ftmb`: what `ftmb up` starts, between the same two segments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from ftmb import lock
from ftmb.errors import TrialError
from ftmb.peers import places
from ftmb.peers.flows import end
from ftmb.peers.kernel import Crash, wait_until
from ftmb.peers.spec import PeersSpec
from ftmb.peers.topology import Topology
from ftmb.site_fleet import STATUS

UP_S = 60.0
FREE_PORTS = 64_512  # of an outside address


def _mac(text: str) -> int:
    return int(text.replace(":", ""), 16)


def site(spec: PeersSpec) -> dict[str, Any]:
    """The spec of its middlebox: a NAT with the same outside addresses as the others."""
    return {
        "nf": {
            "name": "nat",
            "outside": places.outside(0),
            "addresses": spec.outside,
            "capacity": min(spec.outside * FREE_PORTS, spec.flows + spec.flows // 2),
            "mac": _mac(places.INSIDE_MAC),
            "inside_address": places.INSIDE,
            "inside_mac": _mac(places.CLIENT_MAC),
            "outside_mac": _mac(places.SERVER_MAC),
        },
        # A death is seen at once; a master that a crowded machine holds up is not meant here.
        "ft": {"snapshot": {"period_ms": spec.snapshot_ms}, "detect_ms": 1_000},
        "interfaces": {"inside": "inside", "outside": "outside"},
    }


class Ours:
    """A protected NAT in one box. The crash is SIGKILL of the process that is master.

    Its backup is a process of the same machine, so it survives the death of a process; the other
    arms' crash is that of a machine, whose cables are cut.
    """

    def __init__(self, spec: PeersSpec, topology: Topology, run: Path) -> None:
        """It is up, with a backup."""
        host, _ = topology.box("box", True)
        topology.shared_addresses()
        # Both sides have one MAC address here.
        topology.server.neighbour("eth0", places.OUTSIDE, places.INSIDE_MAC)
        file, out = run / "site.yaml", run / "site"
        file.write_text(yaml.safe_dump(site(spec)), encoding="utf-8")
        self._said = run / "site.said"
        self._name = f"peers{os.getpid()}"
        # The comparison holds the machine's lock for all that it starts.
        surroundings = {**os.environ, "FTMB_LOCK": str(run / "lock")}
        with self._said.open("w") as said:
            self._process = host.start(
                [sys.executable, "-m", "ftmb", "up", file, "--name", self._name, "--out", out],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=surroundings,
            )  # fmt: skip
        self._status: dict[str, Any] = {}
        wait_until(self._protected, "ftmb up is not protected", UP_S)

    def _look(self) -> dict[str, Any]:
        if self._process.poll() is not None:
            said = self._said.read_text(errors="replace").strip().splitlines()
            raise TrialError(f"ftmb up ended: {said[-1] if said else 'it said nothing'}")
        for base in lock.runtime_bases():
            for path in base.glob(f"{lock.PREFIX}*/{STATUS}"):
                try:
                    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                except (OSError, ValueError):
                    continue  # it is being replaced, or its owner has just gone
                if tree.get("pid") == self._process.pid:
                    return tree
        return {}

    def _protected(self) -> bool:
        self._status = self._look()
        return bool(self._status.get("protected"))

    def filled(self) -> None:
        """Nothing to wait for: what has come out is safe."""

    def crash(self) -> Crash:
        """Kill the master; it is over once the spare has taken over."""
        before = self._look()
        pid = before["processes"][before["master"]]
        begin_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self._look().get("failovers", 0) > before["failovers"],
                   "no backup took over", UP_S)  # fmt: skip
        # No later than that: the status file is looked at every 20 ms.
        return Crash(begin_ns, begin_ns, time.monotonic_ns())

    def close(self) -> None:
        """End it in order, so that its directory and its processes go."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            end(self._process, "ftmb up", UP_S)

    def dropped(self) -> dict[str, int | None]:
        """There is no relay between its processes."""
        return {}
