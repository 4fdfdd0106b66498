"""What a crash did, from what client and server saw: pure functions of arrays.

*Externalised*: the server had received a packet of the flow, so its translated address was known
outside. *Lost*: when the flow sends again after the takeover, the server sees it come from
elsewhere. *Misdelivered*: a reply to an address that the server saw, which reaches another flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftmb.model import Model

# Layouts of native/peers: struct seen, struct flow, struct arrival.
SERVER_FLOW = np.dtype(
    [("first_ns", "u8"), ("last_ns", "u8"), ("first_address", "u4"), ("last_address", "u4"),
     ("first_port", "u2"), ("last_port", "u2"), ("changes", "u4"), ("again", "u4"), ("_", "u4")]
)  # fmt: skip
CLIENT_FLOW = np.dtype(
    [("first_ns", "u8"), ("sent", "u4"), ("replies", "u4"), ("late", "u4"), ("again", "u4")]
)
ARRIVAL = np.dtype(
    [("at_ns", "u8"), ("kind", "u4"), ("number", "u4"), ("flow", "u4"), ("source", "u4")]
)
PROBE, PUSH, LATE = 4, 6, 7  # enum kind
FLOOR_S = 1.0  # before the crash: the longest gap of the machine itself
SETTLE_S = 0.5  # a gap that begins so long after the takeover is not its doing
NEAR_S = 0.25  # a stream that is silent for so long when it is stopped is not back


@dataclass(frozen=True)
class Seen:
    """What client and server told of one crash. Flows are by number, from 0."""

    server: NDArray[np.void]
    client: NDArray[np.void]
    arrived: NDArray[np.void]  # probes at the server
    returned: NDArray[np.void]  # their answers and the server's own, at the client
    astray: NDArray[np.void]  # number: the flow that was meant, flow: the one that got it
    sent: dict[str, int]  # by the client, and what came back
    got: dict[str, int]  # by the server
    tcp: dict[str, Any]


class Gap(Model):
    """The longest silence of a stream that begins while one box takes over from the other."""

    ms: float
    restored: bool  # False: the stream was silent when it was stopped
    lost: int  # packets of the stream that never arrived
    floor_ms: float | None  # longest silence in the second before: the machine's own


class Mappings(Model):
    """What became of the mappings."""

    externalised: int  # new flows whose packet the server had before the crash
    checked: int  # of these and of the fill, those looked at afterwards
    lost: int
    lost_new: int  # of those, new flows
    moved: int  # looked at and not lost, but came from elsewhere in between
    unknown: int  # their packet after the takeover never arrived: neither kept nor lost
    unreachable: int  # the server's late datagram to their first address did not arrive there
    misdelivered: int  # late datagrams that reached another flow
    astray: int  # all answers that reached another flow, those included
    after: int  # new flows after the crash
    after_changed: int  # of all flows that the server saw at all, those that ever changed


class Packets(Model):
    """Requests and answers of new flows, known flows and probes. A lost request has no answer."""

    sent: int
    arrived: int
    returned: int


def gap(at_ns: NDArray[np.uint64], begin_ns: int, done_ns: int, end_ns: int) -> tuple[float, bool]:
    """Milliseconds of the longest silence that begins from begin to shortly after done, and whether
    it ended and something arrived close to end_ns, the end of the stream, or later."""
    before = at_ns[at_ns < begin_ns]
    start = int(before[-1]) if len(before) else begin_ns
    later = np.concatenate(([start], at_ns[at_ns >= begin_ns], [end_ns])).astype(np.int64)
    silences = np.diff(later)
    chosen = silences[later[:-1] <= done_ns + SETTLE_S * 1e9]
    longest = int(np.argmax(chosen))
    near = len(at_ns) > 0 and int(at_ns[-1]) >= end_ns - round(NEAR_S * 1e9)
    return float(chosen[longest]) / 1e6, near and longest < len(silences) - 1


def floor(at_ns: NDArray[np.uint64], begin_ns: int) -> float | None:
    """Milliseconds of the longest silence within the second before; None: nothing to tell it by."""
    quiet = at_ns[(at_ns >= begin_ns - round(FLOOR_S * 1e9)) & (at_ns < begin_ns)]
    return float(np.diff(quiet).max()) / 1e6 if len(quiet) > 1 else None


def stream(at_ns: NDArray[np.uint64], begin_ns: int, done_ns: int, end_ns: int, sent: int) -> Gap:
    """A stream of probes, judged. sent: how many there were in all."""
    silence, restored = gap(at_ns, begin_ns, done_ns, end_ns)
    return Gap(ms=silence, restored=restored, lost=max(0, sent - len(at_ns)),
               floor_ms=floor(at_ns, begin_ns))  # fmt: skip


def mappings(seen: Seen, table: int, stride: int, crash_ns: int) -> Mappings:
    """What the crash at crash_ns did to the mappings. table: flows of the fill; every stride-th of
    them was looked at afterwards, and all others."""
    count = min(len(seen.server), len(seen.client))
    server, client = seen.server[:count], seen.client[:count]
    number = np.arange(count)
    new = number >= table
    known_outside = (server["first_ns"] > 0) & (server["first_ns"] < crash_ns)
    looked = known_outside & (new | (number % stride == 0))
    again = looked & (server["again"] > 0)
    elsewhere = (server["first_address"] != server["last_address"]) | (
        server["first_port"] != server["last_port"]
    )
    lost = again & elsewhere
    late = seen.astray[seen.astray["kind"] == LATE]
    return Mappings(
        externalised=int((known_outside & new).sum()),
        checked=int(looked.sum()),
        lost=int(lost.sum()),
        lost_new=int((lost & new).sum()),
        moved=int((again & ~elsewhere & (server["changes"] > 0)).sum()),
        unknown=int((looked & ~again).sum()),
        unreachable=int((looked & (client["late"] == 0)).sum()),
        misdelivered=len(np.unique(late["number"])),
        astray=len(seen.astray),
        after=int((new & (server["first_ns"] >= crash_ns)).sum()),
        after_changed=int(((server["first_ns"] > 0) & (server["changes"] > 0)).sum()),
    )


def packets(seen: Seen) -> Packets:
    """Requests of the traffic, fill and sweeps left out."""
    kinds = ("known", "new", "probe")
    return Packets(
        sent=sum(seen.sent[kind] for kind in kinds),
        arrived=sum(seen.got[kind] for kind in kinds),
        returned=sum(seen.sent[f"{kind}_back"] for kind in kinds),
    )
