"""The network of a comparison, the same for every arm.

    client ── inside ──┬── box A ──┬── outside ── server
                       └── box B ──┘
    box A ── state link ── box B      (by way of the relay, where it is to be long)

`inside`, `outside` and the state link are segments of one switch, so that one rule cuts all cables
of a box at once. Where no keepalived moves addresses, both boxes have the same ones, and B's cables
lead nowhere until it takes over: what is measured is the takeover, not ARP.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ftmb import debian
from ftmb.errors import MachineError
from ftmb.peers import configs, places
from ftmb.testbed.namespaces import Host, Network, Port, Switch

SIDES = ("inside", "outside")


@dataclass
class Cables:
    """The switch's ends of a box's cables."""

    inside: Port
    outside: Port
    sync: Port | None = None

    @property
    def names(self) -> list[str]:
        """Of all of them."""
        return [port.name for port in (self.inside, self.outside, self.sync) if port]


class Topology:
    """Client, server and switch. Boxes are added by the arms."""

    def __init__(self, net: Network) -> None:
        """Everything but the boxes. Raises MachineError."""
        self.net = net
        self.client, self.server = net.host("client"), net.host("server")
        self.switch: Switch = net.switch("switch")
        try:
            self.switch.host.set("bridge.bridge-nf-call-iptables", 0)
        except MachineError:
            pass  # bridges do not ask netfilter here
        for side in SIDES:
            self.switch.bridge(side)
        self.switch.port("inside", self.client, "eth0", places.CLIENT_MAC)
        self.switch.port("outside", self.server, "eth0", places.SERVER_MAC)
        self.client.address("eth0", f"{places.CLIENT}/16")
        self.client.route("default", places.INSIDE)
        self.server.address("eth0", f"{places.SERVER}/24")
        self.server.route(places.POOL, places.OUTSIDE)
        self._cutter: subprocess.Popen[str] | None = None
        self._mover: subprocess.Popen[str] | None = None

    def box(self, name: str, reachable: bool, own_macs: bool = False) -> tuple[Host, Cables]:
        """A box with `inside` and `outside`. reachable: its cables are in from the beginning.

        own_macs: not the ones that both share.
        """
        host = self.net.host(name)
        ports = []
        for side, mac in zip(SIDES, (places.INSIDE_MAC, places.OUTSIDE_MAC), strict=True):
            port = self.switch.port(side, host, side, None if own_macs else mac)
            if not reachable:
                self.switch.cut(port)
            ports.append(port)
        return host, Cables(*ports)

    def shared_addresses(self) -> None:
        """Client and server know the MAC addresses that both boxes have, and never ask."""
        self.client.neighbour("eth0", places.INSIDE, places.INSIDE_MAC)
        self.server.neighbour("eth0", places.OUTSIDE, places.OUTSIDE_MAC)

    def kernel_box(self, host: Host, number: int, addresses: int, run: Path, own: bool) -> None:
        """Make a box a router with NAT. own: its own addresses, keepalived brings the others."""
        inside, outside = places.OWN[number] if own else (places.INSIDE, places.OUTSIDE)
        host.address("inside", f"{inside}/16")
        host.address("outside", f"{outside}/24")
        for index in range(addresses):
            host.address("outside", f"{places.outside(index)}/32")
        for key, value in {
            "ipv4.ip_forward": 1,
            "ipv4.conf.all.rp_filter": 0,
            "ipv4.conf.all.send_redirects": 0,
            "netfilter.nf_conntrack_events": 1,  # 2: not for entries older than the listener
            "netfilter.nf_conntrack_tcp_loose": 0,  # else connections live on without state
            "netfilter.nf_conntrack_udp_timeout": 300,
            "netfilter.nf_conntrack_udp_timeout_stream": 300,
        }.items():
            host.set(key, value)
        host.neighbour("inside", places.CLIENT, places.CLIENT_MAC)
        host.neighbour("outside", places.SERVER, places.SERVER_MAC)
        host.route(f"{places.FIRST_FLOW}/20", places.CLIENT)
        rules = run / f"{host.name}.nft"
        rules.write_text(configs.nat(addresses), encoding="utf-8")
        host.run([debian.path("nft"), "-f", rules])

    def state_link(self, a: tuple[Host, Cables], b: tuple[Host, Cables], relayed: bool) -> None:
        """The link between two boxes. relayed: its halves end at `left` and `right` of a host of
        their own, for the relay to join."""
        for number, (host, cables) in enumerate((a, b)):
            bridge = f"sync{number if relayed else ''}"
            if relayed or number == 0:
                self.switch.bridge(bridge)
            cables.sync = self.switch.port(bridge, host, "sync")
            host.address("sync", f"{places.SYNC[number]}/30")
        if relayed:
            far = self.net.host("relay")
            self.switch.port("sync0", far, "left")
            self.switch.port("sync1", far, "right")

    # -- the crash ------------------------------------------------------------------------------

    def prepare_cut(self, cables: Cables) -> None:
        """Load the chain, and have a process wait for its rule: starting one takes as long as the
        takeover that is measured."""
        host = self.switch.host
        loader = host.start(
            [debian.path("nft"), "-f", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        _, said = loader.communicate(configs.cut_table(cables.names), timeout=30)
        if loader.returncode:
            raise MachineError(f"nft cannot cut cables: {(said.splitlines() or ['?'])[0]}")
        self._cutter = host.start([debian.path("nft"), "-f", "-"], stdin=subprocess.PIPE)

    def cut(self) -> tuple[int, int]:
        """All that the box sends is dropped from now on; between which two instants (ns) it was."""
        assert self._cutter is not None
        begin_ns = time.monotonic_ns()
        self._cutter.communicate(configs.CUT_RULE, timeout=30)
        if self._cutter.returncode:
            raise MachineError("nft refused to cut the cables")
        return begin_ns, time.monotonic_ns()

    def prepare_swap(self) -> None:
        """Have a process wait for the moves, as for the cut."""
        self._mover = self.switch.host.start(["ip", "-batch", "-"], stdin=subprocess.PIPE)

    def swap(self, dead: Cables, heir: Cables) -> None:
        """The heir's cables take the places of the dead box's."""
        assert self._mover is not None
        moves = [f"link set {port.name} nomaster" for port in (dead.inside, dead.outside)]
        moves += [f"link set {getattr(heir, side).name} master {side}" for side in SIDES]
        self._mover.communicate("\n".join(moves) + "\n", timeout=30)
        if self._mover.returncode:
            raise MachineError("ip refused to move the cables")
