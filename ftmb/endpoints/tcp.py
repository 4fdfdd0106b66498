"""What the kernel knows of TCP: of each connection (TCP_INFO) and of all (its counters)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

# linux/netlink.h, sock_diag.h, inet_diag.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
INET_DIAG_INFO = 2
HEADER, SOCKET_BYTES = struct.Struct("=IHHII"), 72
# From its begin to total_retrans, then 64 bits of pacing, and bytes acked and received.
INFO = struct.Struct("=8B24I4Q")
TOTAL_RTO_AT = 240  # since Linux 6.7
ESTABLISHED, LOSS = 1, 4  # states of a connection, of its congestion control
LIVE = 1 << ESTABLISHED | 1 << 4 | 1 << 5 | 1 << 8  # FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT


@dataclass(frozen=True)
class Sample:
    """One connection at one moment. Sizes in bytes, windows in segments."""

    sport: int
    dport: int
    state: int
    ca_state: int
    backoff: int
    cwnd: int
    ssthresh: int
    unacked: int
    retrans: int  # segments sent again, since it began
    rtos: int  # timeouts since it began; -1: the kernel does not tell
    acked: int
    received: int
    rtt_us: int

    @property
    def line(self) -> str:
        """As a line of a table."""
        return ",".join(map(str, astuple(self)))


COLUMNS = tuple(field.name for field in fields(Sample))


def parse_info(info: bytes) -> dict[str, int]:
    """The fields of a `struct tcp_info` that are sampled. Raises ValueError if it is cut short."""
    if len(info) < INFO.size:
        raise ValueError(f"TCP_INFO of {len(info)} bytes; {INFO.size} are needed")
    v = INFO.unpack_from(info)
    rtos = -1
    if len(info) >= TOTAL_RTO_AT + 2:
        (rtos,) = struct.unpack_from("=H", info, TOTAL_RTO_AT)
    return {
        "state": v[0], "ca_state": v[1], "backoff": v[4], "unacked": v[12], "rtt_us": v[23],
        "ssthresh": v[25], "cwnd": v[26], "retrans": v[31], "acked": v[34], "received": v[35],
        "rtos": rtos,
    }  # fmt: skip


def parse_answer(data: bytes) -> tuple[list[Sample], bool]:
    """The connections in one datagram of sock_diag, and whether the list ends there.

    Raises OSError with what the kernel complains of."""
    found: list[Sample] = []
    at = 0
    while at + HEADER.size <= len(data):
        size, kind, *_ = HEADER.unpack_from(data, at)
        if kind == NLMSG_DONE:
            return found, True
        if kind == NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, at + HEADER.size)
            raise OSError(-code, "sock_diag")
        begin = at + HEADER.size
        ports = struct.unpack_from("!HH", data, begin + 4)
        for attribute, value in _attributes(data[begin + SOCKET_BYTES : at + size]):
            if attribute == INET_DIAG_INFO:
                found.append(Sample(*ports, **parse_info(value)))
        at += (size + 3) & ~3
    return found, False


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind, data[at + 4 : at + size]
        at += (size + 3) & ~3


class Connections:
    """Asks for all TCP connections of this network, IPv4."""

    def __init__(self) -> None:
        """Opens a socket; made in the network that is asked about."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        wanted = struct.pack(
            "=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), LIVE
        )
        size = HEADER.size + len(wanted)
        flags = NLM_F_REQUEST | NLM_F_DUMP
        self._request = HEADER.pack(size, SOCK_DIAG_BY_FAMILY, flags, 1, 0) + wanted

    def look(self) -> list[Sample]:
        """All of them now. Raises OSError."""
        self._socket.send(self._request)
        found: list[Sample] = []
        done = False
        while not done:
            some, done = parse_answer(self._socket.recv(1 << 18))
            found += some
        return found


# Counters of a network, by what they tell here. Timeouts are counted by what was going on then.
TIMEOUTS = ("TCPTimeouts", "TCPSackRecoveryFail", "TCPRenoRecoveryFail", "TCPLossFailures",
            "TCPSackFailures", "TCPRenoFailures")  # fmt: skip
COUNTERS: dict[str, tuple[str, ...]] = {
    "timeouts": TIMEOUTS,
    "spurious_timeouts": ("TCPSpuriousRTOs",),
    "syn_retransmits": ("TCPSynRetrans",),
    "fast_retransmits": ("TCPFastRetrans",),
    "fast_recoveries": ("TCPSackRecovery", "TCPRenoRecovery"),
    "probes": ("TCPLossProbes",),
    "probe_recoveries": ("TCPLossProbeRecovery",),
    "duplicates_told": ("TCPDSACKRecv", "TCPDSACKOfoRecv"),
    "undone": ("TCPFullUndo", "TCPPartialUndo", "TCPDSACKUndo", "TCPLossUndo"),
    "retransmitted": ("RetransSegs",),
    "resets": ("EstabResets",),
    "gave_up": ("TCPAbortOnTimeout",),
    "sent": ("OutSegs",),
}


def parse_counters(text: str) -> dict[str, int]:
    """/proc/net/netstat and /proc/net/snmp: pairs of lines, names and values.

    Raises ValueError where a pair does not fit."""
    lines = text.splitlines()
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group, *keys = names.split()
        told, *numbers = values.split()
        if group != told:
            raise ValueError(f"counters of {group} are followed by those of {told}")
        found.update(zip(keys, map(int, numbers), strict=True))
    return found


def counters(text: str) -> list[int | None]:
    """The counters of COUNTERS, in its order; None where this kernel lacks one of its names."""
    known = parse_counters(text)
    return [
        sum(known[name] for name in names) if all(name in known for name in names) else None
        for names in COUNTERS.values()
    ]
