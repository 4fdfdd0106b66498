"""Flows and packets of the generator `scapy`: what is filled into a template, and found again.

The last 16 bytes of a packet's payload say who it is: flow u32 (bit 31: an answer), number in flow
and direction u32, intended time 48 bits, ns since the start of the run, check 16 bits.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

TRAILER = struct.Struct("<IIQ")
ANSWER = 1 << 31
TIME_BITS = 48
ETHERNET = 14
UDP, TCP, ICMP = 17, 6, 1
FIRST_PORT, PORTS = 1024, 60_000
SYN = 0x02
# Where the checksum of a protocol is, behind its header's start.
SUM_AT = {UDP: 6, TCP: 16, ICMP: 2}


def internet_sum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); 0 of data that holds its own, right one."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass
class Numbers:
    """Which numbers of a flow and direction arrived, in the space of those that are missing."""

    sent: int = 0
    below: int = 0  # all below arrived
    beyond: set[int] = field(default_factory=set)
    newest: int = -1

    def take(self, number: int) -> tuple[bool, bool]:
        """One arrived: whether it is new, and whether a later one came before it."""
        if number < self.below or number in self.beyond:
            return False, False
        late = number < self.newest
        self.newest = max(self.newest, number)
        self.beyond.add(number)
        while self.below in self.beyond:
            self.beyond.remove(self.below)
            self.below += 1
        return True, late


@dataclass
class Flow:
    """An inside host's address and port (of ICMP: identifier), and under what it is seen outside.

    Addresses and ports are as on the wire."""

    number: int
    address: bytes
    port: bytes
    template: bytes
    outside: tuple[bytes, bytes] | None = None
    out: Numbers = field(default_factory=Numbers)
    back: Numbers = field(default_factory=Numbers)

    def carried(self, payload: bytes) -> bool:
        """Whether that is what its packets carry."""
        return self.template.endswith(payload, 0, -TRAILER.size)


def make_flows(count: int, inside: str, templates: Sequence[bytes]) -> list[Flow]:
    """Flows over the hosts of the inside network; each has one template, in turns."""
    first = int(ipaddress.IPv4Network(inside).network_address) + 1
    return [
        Flow(
            i,
            (first + i // PORTS).to_bytes(4, "big"),
            (FIRST_PORT + i % PORTS).to_bytes(2, "big"),
            templates[i % len(templates)],
        )
        for i in range(count)
    ]


@dataclass(frozen=True)
class Parsed:
    """What an arrived frame says."""

    source: tuple[bytes, bytes]  # address and port; of ICMP the identifier
    destination: tuple[bytes, bytes]
    protocol: int
    flow: int
    number: int
    intended_ns: int
    answer: bool
    payload: bytes  # without the last 16 bytes


class Packets:
    """Makes frames of flows, and reads those that arrive."""

    def __init__(self, seed: int) -> None:
        """seed: frames of another run do not pass for one's own."""
        self._salt = struct.pack("<Q", seed)

    def _check(self, flow: int, number: int, when: int) -> int:
        return zlib.crc32(TRAILER.pack(flow, number, when) + self._salt) & 0xFFFF

    def _trailer(self, flow: int, number: int, intended_ns: int) -> bytes:
        when = intended_ns & ((1 << TIME_BITS) - 1)
        check = self._check(flow, number, when)
        return TRAILER.pack(flow, number, when | check << TIME_BITS)

    def outbound(self, flow: Flow, intended_ns: int) -> bytes:
        """The next frame of a flow from its inside host. A TCP flow begins with a SYN."""
        frame = bytearray(flow.template)
        l4 = ETHERNET + (frame[ETHERNET] & 15) * 4
        protocol = frame[ETHERNET + 9]
        frame[ETHERNET + 12 : ETHERNET + 16] = flow.address
        at = l4 + (4 if protocol == ICMP else 0)
        frame[at : at + 2] = flow.port
        if protocol == TCP and flow.out.sent == 0:
            frame[l4 + 13] = SYN
        return self._finish(frame, l4, flow.number, flow.out, intended_ns)

    def answer(self, flow: Flow, intended_ns: int) -> bytes:
        """The next frame to a flow's outside address, which must be known."""
        assert flow.outside is not None
        frame = bytearray(flow.template)
        l4 = ETHERNET + (frame[ETHERNET] & 15) * 4
        protocol = frame[ETHERNET + 9]
        frame[0:6], frame[6:12] = flow.template[6:12], flow.template[0:6]
        frame[ETHERNET + 12 : ETHERNET + 16] = flow.template[ETHERNET + 16 : ETHERNET + 20]
        frame[ETHERNET + 16 : ETHERNET + 20] = flow.outside[0]
        if protocol == ICMP:
            frame[l4] = 0  # echo reply
            frame[l4 + 4 : l4 + 6] = flow.outside[1]
        else:
            frame[l4 : l4 + 2] = flow.template[l4 + 2 : l4 + 4]
            frame[l4 + 2 : l4 + 4] = flow.outside[1]
        return self._finish(frame, l4, flow.number | ANSWER, flow.back, intended_ns)

    def _finish(
        self, frame: bytearray, l4: int, who: int, numbers: Numbers, intended_ns: int
    ) -> bytes:
        frame[-TRAILER.size :] = self._trailer(who, numbers.sent, intended_ns)
        numbers.sent += 1
        frame[ETHERNET + 10 : ETHERNET + 12] = b"\0\0"
        total = internet_sum(bytes(frame[ETHERNET:l4]))
        frame[ETHERNET + 10 : ETHERNET + 12] = total.to_bytes(2, "big")
        protocol = frame[ETHERNET + 9]
        at = l4 + SUM_AT[protocol]
        frame[at : at + 2] = b"\0\0"
        total = internet_sum(_summed(bytes(frame), l4, len(frame)))
        if total == 0 and protocol == UDP:
            total = 0xFFFF
        frame[at : at + 2] = total.to_bytes(2, "big")
        return bytes(frame)

    def read(self, frame: bytes) -> Parsed | None:
        """Who a frame is. None: it is none of ours, or damaged."""
        if len(frame) < ETHERNET + 20 or frame[12:14] != b"\x08\x00" or frame[ETHERNET] >> 4 != 4:
            return None
        l4 = ETHERNET + (frame[ETHERNET] & 15) * 4
        end = ETHERNET + int.from_bytes(frame[ETHERNET + 2 : ETHERNET + 4], "big")
        protocol = frame[ETHERNET + 9]
        if protocol not in SUM_AT or end > len(frame) or end < l4 + 8 + TRAILER.size:
            return None
        if internet_sum(frame[ETHERNET:l4]) or internet_sum(_summed(frame, l4, end)):
            return None
        who, number, word = TRAILER.unpack(frame[end - TRAILER.size : end])
        when = word & ((1 << TIME_BITS) - 1)
        if word >> TIME_BITS != self._check(who, number, when):
            return None
        ports = (frame[l4 : l4 + 2], frame[l4 + 2 : l4 + 4])
        if protocol == ICMP:
            ports = (frame[l4 + 4 : l4 + 6],) * 2
        source = (frame[ETHERNET + 12 : ETHERNET + 16], ports[0])
        destination = (frame[ETHERNET + 16 : ETHERNET + 20], ports[1])
        flow, answer = who & ~ANSWER, bool(who & ANSWER)
        payload = frame[_payload_at(frame, l4) : end - TRAILER.size]
        return Parsed(source, destination, protocol, flow, number, when, answer, payload)


def _payload_at(frame: bytes, l4: int) -> int:
    """Where the payload begins."""
    return l4 + ((frame[l4 + 12] >> 4) * 4 if frame[ETHERNET + 9] == TCP else 8)


def _summed(frame: bytes, l4: int, end: int) -> bytes:
    """What the protocol's checksum is over: of UDP and TCP with the pseudo header."""
    protocol, segment = frame[ETHERNET + 9], frame[l4:end]
    if protocol == ICMP:
        return segment
    head = frame[ETHERNET + 12 : ETHERNET + 20] + struct.pack("!BBH", 0, protocol, len(segment))
    return head + segment
