"""Packet templates: a small capture file that the generator fills with flows.

What is in it: one frame for every packet of the profile's cycle, mixed so that sizes alternate.
Addresses, the inside port and the last 16 bytes of the payload are the generator's to fill in.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from ftmb.traffic.profile import Packets, Synthetic

INSIDE_HOST, SERVER = "10.0.0.1", "192.0.2.1"
INSIDE_MAC, SERVER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
INSIDE_PORT = 1024
FCS = 4  # bytes of check sequence: counted in a frame's size, not in a capture file


def cycle(profile: Synthetic) -> list[Packets]:
    """All packets of one cycle, each kind spread evenly over it (not in blocks)."""
    places = [
        ((index + 0.5) / kind.count, number, kind)
        for number, kind in enumerate(profile.packets)
        for index in range(kind.count)
    ]
    return [kind for _, _, kind in sorted(places, key=lambda place: place[:2])]


def _frame(kind: Packets, noise: random.Random) -> Any:
    """One frame with a random payload and correct checksums."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    head = Ether(src=INSIDE_MAC, dst=SERVER_MAC) / IP(
        src=INSIDE_HOST, dst=SERVER, id=0, flags="DF", ttl=64
    )
    if kind.protocol == "udp":
        head /= UDP(sport=INSIDE_PORT, dport=53)
    elif kind.protocol == "tcp":
        head /= TCP(sport=INSIDE_PORT, dport=80, flags="PA", seq=1, ack=1, window=65535)
    else:
        head /= ICMP(type="echo-request", id=INSIDE_PORT, seq=1)
    return head / Raw(noise.randbytes(kind.size - FCS - len(head)))


def write(profile: Synthetic, path: Path, seed: int) -> None:
    """Write the template file of a profile. The same seed gives the same bytes."""
    from scapy.utils import PcapWriter  # late, like the others: scapy is slow to load

    noise = random.Random(seed)
    with PcapWriter(str(path), linktype=1, sync=False) as writer:
        for number, kind in enumerate(cycle(profile)):
            frame = _frame(kind, noise)
            frame.time = number / 1000  # not the clock's, or no two files would be equal
            writer.write(frame)
