"""The generator `scapy`: slow, and at home wherever two veth pairs can be made.

It sends and receives with scapy's sockets at the far ends of the middlebox's interfaces, packet by
packet. It counts everything that the native generator counts of a packet; its latencies hold the
delays of a Python program, and are there to see an outage, not to compare systems.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ftmb.errors import MachineError
from ftmb.generators.flows import Flow, Packets, Parsed, make_flows
from ftmb.generators.told import Latencies, Told, longest

INSIDE, OUTSIDE = 0, 1
BURST = 16
LATE_NS = 1_000_000
KEPT_GAPS = 4096
BUFFER_BYTES = 32 << 20
# asm-generic/socket.h, linux/socket.h, linux/if_packet.h
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 33, 263, 6, 23
COUNTED = (
    "offered", "sent", "delivered", "window_offered", "window_delivered", "duplicated",
    "reordered", "corrupted", "altered", "late", "mapping_changed", "mapping_shared",
)  # fmt: skip


class ScapyTraffic:
    """See ftmb.generators.child.Generator."""

    def __init__(self, tree: dict[str, Any]) -> None:
        """tree: the child's spec. Nothing is opened yet."""
        self._traffic = traffic = tree["traffic"]
        self._names = [tree["interfaces"]["inside"], tree["interfaces"]["outside"]]
        self._packets = Packets(traffic["seed"])
        self._random = random.Random(traffic["seed"])
        self._step_ns = 1e9 / traffic["rate_pps"]
        self._sockets: list[Any] = []
        self._flows: list[Flow] = []
        self._outside: dict[tuple[int, bytes, bytes], int] = {}  # who has which outside port
        self._latencies = Latencies()
        self._gaps: list[tuple[int, int]] = []
        self._t0_ns, self._window = 0, (0, 0)
        self._planned = 0
        self._last_ns = 0
        self._count: dict[str, Any] = dict.fromkeys(COUNTED, 0)

    def open(self) -> None:
        """Open both interfaces, read the templates."""
        from scapy.all import conf
        from scapy.utils import RawPcapReader

        with RawPcapReader(self._traffic["template"]) as reader:
            templates = [bytes(frame) for frame, _ in reader]
        self._flows = make_flows(self._traffic["flows"], self._traffic["inside"], templates)
        for name in self._names:
            try:
                opened = conf.L2socket(iface=name, promisc=True)
            except (OSError, ValueError) as error:  # the latter: there is no such interface
                raise MachineError(
                    f"scapy cannot open the interface {name}: {error}; run as root"
                ) from None
            opened.ins.setblocking(False)
            # scapy's own are full after 0.2 s in which this program does not get a CPU.
            opened.ins.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            opened.ins.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self._sockets.append(opened)

    def start(self, t0_ns: int, window_ns: tuple[int, int]) -> None:
        """Note the times."""
        self._t0_ns, self._window, self._last_ns = t0_ns, window_ns, t0_ns

    def step(self, until_ns: int) -> None:
        """Send what is due, then receive until the next is."""
        for _ in range(BURST):
            due_ns = self._due_ns()
            if due_ns is None or due_ns > time.monotonic_ns():
                break
            self._send(due_ns)
        next_ns = min(until_ns, self._due_ns() or until_ns)
        wait_s = max(0.0, (next_ns - time.monotonic_ns()) / 1e9)
        ready, _, _ = select.select(self._sockets, [], [], wait_s)
        for each in ready:
            self._receive(each, self._sockets.index(each))

    def _due_ns(self) -> int | None:
        """When the next packet is; None: there is none any more, or not yet."""
        due_ns = self._t0_ns + round(self._planned * self._step_ns)
        return due_ns if self._t0_ns and due_ns < self._window[1] else None

    def _send(self, due_ns: int) -> None:
        flow = self._flows[self._planned % len(self._flows)]
        self._planned += 1
        in_window = due_ns >= self._window[0]
        since_ns = due_ns - self._t0_ns
        answers = self._random.random() < self._traffic["reply_share"] and flow.outside
        frame = (self._packets.answer if answers else self._packets.outbound)(flow, since_ns)
        self._count["offered"] += 1
        self._count["window_offered"] += in_window
        late = in_window and time.monotonic_ns() - due_ns > LATE_NS
        self._count["late"] += late
        try:
            self._sockets[OUTSIDE if answers else INSIDE].outs.send(frame)
        except OSError:
            return  # a full queue: a packet that is due and never becomes a frame
        self._count["sent"] += 1

    def _receive(self, opened: Any, side: int) -> None:
        for _ in range(BURST):
            try:
                _, frame, _ = opened.recv_raw()
            except BlockingIOError:
                return
            if frame is not None:  # it is for one that this side sent itself
                self._take(self._packets.read(frame), side, time.monotonic_ns())

    def _take(self, packet: Parsed | None, side: int, now_ns: int) -> None:
        wanted = INSIDE if packet is not None and packet.answer else OUTSIDE
        if packet is None or side != wanted or packet.flow >= len(self._flows):
            self._count["corrupted"] += 1
            return
        flow = self._flows[packet.flow]
        if packet.answer and packet.destination != (flow.address, flow.port):
            self._count["corrupted"] += 1
            return
        numbers = flow.back if packet.answer else flow.out
        fresh, behind = numbers.take(packet.number)
        if not fresh:
            self._count["duplicated"] += 1
            return
        self._count["reordered"] += behind
        self._count["altered"] += not flow.carried(packet.payload)
        self._deliver(packet, now_ns)
        if not packet.answer:
            self._learn(flow, packet)

    def _deliver(self, packet: Parsed, now_ns: int) -> None:
        self._count["delivered"] += 1
        if now_ns - self._last_ns > 2 * self._step_ns:
            self._gaps.append((self._last_ns, now_ns - self._last_ns))
            if len(self._gaps) > KEPT_GAPS:
                self._gaps = [(start, length) for start, length in longest(self._gaps)]
        self._last_ns = now_ns
        intended_ns = self._t0_ns + packet.intended_ns
        if self._window[0] <= intended_ns < self._window[1]:
            self._latencies.add(max(0, now_ns - intended_ns))
        if self._window[0] <= now_ns < self._window[1]:
            self._count["window_delivered"] += 1

    def _learn(self, flow: Flow, packet: Parsed) -> None:
        """Under which address and port a flow is seen outside, and that nobody else has them."""
        if flow.outside == packet.source:
            return
        key = (packet.protocol, *packet.source)
        if flow.outside is not None:
            self._count["mapping_changed"] += 1
        if self._outside.setdefault(key, flow.number) != flow.number:
            self._count["mapping_shared"] += 1
        flow.outside = packet.source

    def complete(self) -> bool:
        """Whether all that was sent has arrived, and nothing is due."""
        return self._due_ns() is None and self._count["delivered"] == self._count["sent"]

    def last_ns(self) -> int:
        """When the last distinct packet arrived."""
        return self._last_ns

    def told(self) -> Told:
        """Everything; and the histogram's file."""
        self._latencies.write(Path(self._traffic["histogram"]))
        return Told(
            **self._count,
            window_ns=self._window[1] - self._window[0],
            exact=not any(map(_dropped, self._sockets)),
            gaps=longest(self._gaps),
            latency=self._latencies.summary(),
        )

    def close(self) -> None:
        """Close both interfaces."""
        for each in self._sockets:
            each.close()
        self._sockets = []


def _dropped(opened: Any) -> int:
    """Frames that came while the buffer was full. The kernel begins anew with each question."""
    counts = opened.ins.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
    return int(struct.unpack("II", counts)[1])
