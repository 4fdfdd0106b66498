"""What a NAT promises, for oracles: packets and errors with their checksums, built from nothing,
and what must become of them.

There is one outside address, whose ports are given out in order, and no mapping expires.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from nf_stream import ACK, ICMP, INSIDE, OUTSIDE, TCP, UDP, echo, ipv4
from nf_stream import tcp as segment
from nf_stream import udp as datagram

SECOND, MS = 1_000_000_000, 1_000_000
OURS, HOST, ROUTER, SERVER = 0xC6120001, 0x0A000001, 0x0A0000FE, 0xC0000201
REQUEST, REPLY = 8, 0
End = tuple[int, int]  # address, port


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def put(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


def sealed(frame: bytes) -> bytes:
    """The same IPv4 frame with every checksum right, also that of UDP."""
    end = 14 + 4 * (frame[14] & 15)
    ip, body = put(frame[14:end], 10, 0), frame[end:]
    ip = put(ip, 10, checksum(ip))
    at = {ICMP: 2, TCP: 16, UDP: 6}[ip[9]]
    pseudo = b"" if ip[9] == ICMP else ip[12:20] + struct.pack("!HH", ip[9], len(body))
    body = put(body, at, 0)
    body = put(body, at, checksum(pseudo + body) or (0xFFFF if ip[9] == UDP else 0))
    return frame[:14] + ip + body


@dataclass(frozen=True)
class Packet:
    """Of TCP, UDP, or an echo, whose identifier is the port of both ends."""

    protocol: int
    source: End
    destination: End
    payload: int = 18
    flags: int = ACK
    type: int = REQUEST

    def frame(self) -> bytes:
        if self.protocol == UDP:
            return sealed(datagram(*self.source, *self.destination, payload=self.payload))
        if self.protocol == TCP:
            ends = (self.source, self.destination)
            return sealed(segment(*ends, 5, 6, self.flags, 100, self.payload))
        reply = self.type == REPLY
        return sealed(echo(self.source[0], self.destination[0], self.source[1], reply=reply))

    def with_source(self, end: End) -> Packet:
        if self.protocol == ICMP:
            return replace(self, source=end, destination=(self.destination[0], end[1]))
        return replace(self, source=end)

    def with_destination(self, end: End) -> Packet:
        if self.protocol == ICMP:
            return replace(self, source=(self.source[0], end[1]), destination=end)
        return replace(self, destination=end)


@dataclass(frozen=True)
class Error:
    """An ICMP error that quotes the beginning of a packet."""

    source: int
    destination: int
    about: Packet
    type: int = 3
    quoted: int = 28  # bytes

    def frame(self) -> bytes:
        body = struct.pack("!BBHI", self.type, 1, 0, 0) + self.about.frame()[14:][: self.quoted]
        return sealed(ipv4(ICMP, self.source, self.destination, body))


@dataclass
class Nat:
    """What is promised: the fate of a packet, and the frame that leaves with the side."""

    outside: dict[tuple[int, End], End] = field(default_factory=dict)
    inside: dict[tuple[int, End], End] = field(default_factory=dict)

    def bind(self, protocol: int, end: End) -> End:
        new = (OURS, 1024 + len(self.outside))
        bound = self.outside.setdefault((protocol, end), new)
        self.inside[protocol, bound] = end
        return bound

    def packet(self, side: int, p: Packet) -> tuple[str, int, bytes]:
        wanted = REQUEST if side == INSIDE else REPLY
        if p.protocol == ICMP and p.type != wanted:
            return "dropped_icmp", 0, b""
        if side == INSIDE and p.source[0] == OURS:
            return "dropped_spoofed", 0, b""
        to_us = p.destination[0] == OURS
        if side == INSIDE and p.protocol == ICMP and to_us:
            return "dropped_hairpin", 0, b""
        receiver = self.inside.get((p.protocol, p.destination))
        if receiver is None and (side == OUTSIDE or to_us):
            return "dropped_no_mapping", 0, b""
        if side == INSIDE:
            p = p.with_source(self.bind(p.protocol, p.source))
        if receiver is not None:
            p = p.with_destination(receiver)
        if side == OUTSIDE:
            return "inbound", INSIDE, p.frame()
        return ("hairpinned", INSIDE, p.frame()) if to_us else ("outbound", OUTSIDE, p.frame())

    def error(self, side: int, e: Error) -> tuple[str, int, bytes]:
        about = e.about
        wanted = REQUEST if side == OUTSIDE else REPLY
        strange = about.protocol == ICMP and about.type != wanted
        if strange or e.type not in (3, 11, 12) or about.source[0] != e.destination:
            return "dropped_icmp", 0, b""
        if side == INSIDE:
            sender = self.outside.get((about.protocol, about.destination))
            if sender is None:
                return "dropped_no_mapping", 0, b""
            e = replace(e, source=sender[0], about=about.with_destination(sender))
        if side == INSIDE and e.destination != OURS:
            return "icmp_errors", OUTSIDE, e.frame()
        receiver = self.inside.get((about.protocol, about.source))
        if receiver is None:
            return "dropped_no_mapping", 0, b""
        e = replace(e, destination=receiver[0], about=e.about.with_source(receiver))
        return "icmp_errors", INSIDE, e.frame()


def cut(frame: bytes, number: int, every: int) -> list[bytes]:
    """The fragments of an IPv4 frame, each with `every` bytes of its body."""
    body, pieces = frame[34:], []
    for at in range(0, len(body), every):
        part = body[at : at + every]
        more = 0x2000 if at + every < len(body) else 0
        head = put(put(put(frame[:34], 16, 20 + len(part)), 18, number), 20, more | at // 8)
        pieces.append(put(head, 24, 0) + part)
    return [put(each, 24, checksum(each[14:34])) for each in pieces]
