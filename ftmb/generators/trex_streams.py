"""Which streams a TRex server is to send for a trial's traffic. Pure: nothing of TRex is loaded.

What is timed and numbered is a latency stream, one for each flow, since TRex numbers the packets
of a stream and FTMB keeps the order within a flow. The others are counted: one stream for each
kind of packet of the profile, over all flows.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ftmb.errors import SpecError
from ftmb.generators.flows import ETHERNET, UDP, internet_sum
from ftmb.generators.kinds import TREX_LATENCY_FLOWS

FIRST_LATENCY_ID = 1024  # of packet groups; below are those that are only counted
SAMPLED_FLOWS = 8  # where a part is timed
PORT = (1024).to_bytes(2, "big")


@dataclass(frozen=True)
class Stream:
    """frame: without the check sequence. last: source addresses from the frame's to this, in
    turns, each a flow; None: only the frame's."""

    group: int
    pps: float
    frame: bytes
    timed: bool
    last: str | None


def streams(
    templates: Sequence[bytes], inside: str, flows: int, rate_pps: int, latency_pps: int
) -> list[Stream]:
    """Streams whose rates add up to `rate_pps`, of which `latency_pps` are timed. Raises SpecError.

    templates: frames of one cycle of the profile. inside: network of the hosts that send.
    """
    # Frames of one size differ in their payloads alone.
    sizes = Counter(len(frame) for frame in templates)
    frames = list({len(frame): frame for frame in templates}.values())
    for frame in templates:
        if frame[ETHERNET + 9] != UDP:
            raise SpecError(
                "traffic.profile: the generator trex sends UDP only (udp64, udp512, imix, ...); "
                "take one of these, or native"
            )
    first = int(ipaddress.IPv4Network(inside).network_address) + 1
    timed_pps = min(rate_pps, latency_pps)
    timed_flows = min(flows, TREX_LATENCY_FLOWS if timed_pps == rate_pps else SAMPLED_FLOWS)
    made = []
    for i in range(timed_flows):
        frame = _from(frames[i % len(frames)], first + i)
        made.append(Stream(FIRST_LATENCY_ID + i, timed_pps / timed_flows, frame, True, None))
    rest_pps = rate_pps - timed_pps
    if rest_pps:
        # Addresses beyond those of the timed flows: a number of theirs is then one packet.
        begin = first + timed_flows
        last = str(ipaddress.IPv4Address(begin + max(1, flows - timed_flows) - 1))
        made += [
            Stream(
                i, rest_pps * sizes[len(frame)] / len(templates), _from(frame, begin), False, last
            )
            for i, frame in enumerate(frames, 1)
        ]
    return made


def _from(frame: bytes, address: int) -> bytes:
    """The template as it comes from this host. Without a UDP checksum (RFC 768): the server writes
    into the payload, and not every card mends a checksum."""
    made = bytearray(frame)
    l4 = ETHERNET + (made[ETHERNET] & 15) * 4
    made[ETHERNET + 12 : ETHERNET + 16] = address.to_bytes(4, "big")
    made[ETHERNET + 10 : ETHERNET + 12] = b"\0\0"
    total = internet_sum(bytes(made[ETHERNET:l4]))
    made[ETHERNET + 10 : ETHERNET + 12] = total.to_bytes(2, "big")
    made[l4 : l4 + 2] = PORT
    made[l4 + 6 : l4 + 8] = b"\0\0"
    return bytes(made)
