"""Testbed `netns`: every process on a host of its own, which is a network namespace.

Data links go over cables (veth pairs) between the two hosts that they connect; control and state
channels over TCP, on a network that all hosts are connected to by a switch. Hosts share the kernel
and the CPUs, and nothing else that the roles would use: no directory, no socket file, no lock.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ftmb.lock import RuntimeDir
from ftmb.node import Plan
from ftmb.testbed import enter, namespaces
from ftmb.testbed.links import MTU, cables, hosts
from ftmb.testbed.local import Local, replica_host

CONTROL = "10.97.0"  # the network of the control channels; nothing routes there
CONTROL_LINK, SEGMENT = "control", "control"
OL_PORT, STATE_PORT = 7000, 7001
TOKEN = "token"
TOKEN_BYTES = 32  # CONTROL_TOKEN_BYTES of native/io/control_tcp.h


def namespace_name(host: str) -> str:
    """What a host's namespace is called, behind `ftmb-PID-`."""
    return host.replace("_", "-")


class Netns(Local):
    """Hosts by name, as `links.hosts` gives them."""

    def __init__(self, plan: Plan, runtime: RuntimeDir) -> None:
        """Nothing is made yet."""
        super().__init__(plan, runtime)
        self._stack = ExitStack()
        self._hosts: dict[str, namespaces.Host] = {}
        self._ports: dict[str, namespaces.Port] = {}
        self._trunks: dict[str, list[dict[str, Any]]] = {}
        self._off: set[str] = set()
        self._trial = secrets.token_hex(6)
        self._token = secrets.token_bytes(TOKEN_BYTES)

    def build(self) -> None:
        """Make namespaces, cables and the switch. Raises MachineError: no root, no veth."""
        net = self._stack.enter_context(namespaces.network())
        self._switch = net.switch("switch")
        self._switch.bridge(SEGMENT)
        for number, name in enumerate(hosts(self.plan), 1):
            host = self._hosts[name] = net.host(namespace_name(name))
            self._trunks[name] = []
            self._ports[name] = self._switch.port(SEGMENT, host, CONTROL_LINK)
            host.address(CONTROL_LINK, f"{CONTROL}.{number}/24")
            (self.runtime.path / name).mkdir(mode=0o700)
            self._write_token(name)
        for cable in cables(self.plan):
            ends = [(end, f"data{len(self._trunks[end])}") for end in (cable.a, cable.b)]
            (a, a_link), (b, b_link) = ends
            net.cable(self._hosts[a], a_link, self._hosts[b], b_link)
            for end, link in ends:
                self._hosts[end].link("set", link, mtu=MTU)
            for (end, link), (far, far_link) in zip(ends, reversed(ends), strict=True):
                peer = self._hosts[far].mac(far_link)
                self._trunks[end].append(
                    {
                        "interface": link,
                        "driver": "af_packet",
                        "links": dict.fromkeys(cable.links, peer),
                    }
                )

    def _write_token(self, name: str) -> None:
        """The same secret on every host, for its user alone."""
        path = self.runtime.path / name / TOKEN
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(self._token)

    def _address(self, host: str, port: int) -> str:
        return f"tcp:{CONTROL}.{hosts(self.plan).index(host) + 1}:{port}"

    def settle(self, tree: dict[str, Any], host: str) -> Sequence[str]:
        """See `Local`."""
        place = self.runtime.path / host
        if host in self._off:
            for trunk in self._trunks[host]:
                self._hosts[host].up(trunk["interface"])
            self._switch.move(self._ports[host], SEGMENT)
            self._off.discard(host)
        ol_host = self.plan.processes.get("ol", self.plan.traffic_name)
        control = {"ol": self._address(ol_host, OL_PORT)}
        for slot in range(self.plan.replicas):
            control[f"state-{slot}"] = self._address(replica_host(slot), STATE_PORT)
        tree["dir"] = str(place)
        tree["hosts"] = {
            "token": str(place / TOKEN),
            "trial": self._trial,
            "control": control,
            "trunks": self._trunks[host],
        }
        namespace = str(self._hosts[host].path)
        return [sys.executable, "-I", "-S", enter.__file__, namespace, str(os.getpid())]

    def cut_off(self, host: str) -> None:
        """See `Local`. The network of the control channels first: nobody hears it fall. The host
        of a logger stays: what a logger keeps outlives its process, not its host."""
        if host not in map(replica_host, range(self.plan.replicas)):
            return
        self._off.add(host)
        self._switch.cut(self._ports[host])
        for trunk in self._trunks[host]:
            self._hosts[host].down(trunk["interface"])

    def close(self) -> None:
        """See `Local`."""
        self._stack.close()
