"""The generator `trex`: a TRex server, with a port at each side of the middlebox."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ftmb.errors import FtmbError
from ftmb.generators.told import Latencies, Told
from ftmb.generators.trex_client import Server
from ftmb.generators.trex_streams import Stream, streams

LOOK_NS = 500_000_000  # as often as the server takes stock itself
SOURCE_AT, IPV4_AT = 26, 14  # in a frame
US = 1000


class Trex:
    """See ftmb.generators.child.Generator."""

    def __init__(self, tree: dict[str, Any]) -> None:
        """tree: the child's spec. Nothing is connected yet."""
        self._traffic, self._trex = tree["traffic"], tree["trex"]
        self._server: Server | None = None
        self._streams: list[Stream] = []
        self._window = (0, 0)
        # What the server had counted at the window's begin, at its end, and last.
        self._begin: Counts | None = None
        self._end: Counts | None = None
        self._now: Counts | None = None
        self._looked_ns, self._last_ns = 0, 0

    def open(self) -> None:
        """Connect, take both ports, load the streams."""
        traffic = self._traffic
        self._streams = streams(
            _templates(Path(traffic["template"])),
            traffic["inside"],
            traffic["flows"],
            traffic["rate_pps"],
            self._trex["latency_pps"],
        )
        self._server = Server(self._trex)
        self._server.connect()
        self._server.acquire()
        self._ask(self._load)

    def _ask(self, work: Any, *words: Any) -> Any:
        """Call the client; what it refuses, or that the server is gone, is one line."""
        assert self._server is not None
        try:
            return work(self._server.client, self._server.api, *words)
        except FtmbError:
            raise
        except Exception as error:
            words_said = " ".join(str(error).replace("***", " ").split())
            raise self._server.fail(f"it stopped doing as asked: {words_said}") from None

    def _load(self, client: Any, api: Any) -> None:
        inside, outside = self._trex["ports"]
        ports = [inside, outside]
        client.remove_all_streams(ports)
        if client.ports[outside].is_prom_supported():
            client.set_port_attr(ports, promiscuous=True)
        client.add_streams([_stream(api, each) for each in self._streams], ports=[inside])

    def start(self, t0_ns: int, window_ns: tuple[int, int]) -> None:
        """Let the server send; it stops by itself."""
        self._window, self._last_ns = window_ns, t0_ns
        seconds = (window_ns[1] - t0_ns) / 1e9
        self._ask(lambda client, _: client.start(ports=[self._trex["ports"][0]], duration=seconds))

    def step(self, until_ns: int) -> None:
        """Look at the counts now and then, and when the window begins and ends."""
        now_ns = time.monotonic_ns()
        if not self._window[1]:
            time.sleep(max(0.0, (until_ns - now_ns) / 1e9))
            return
        begins = self._begin is None and now_ns >= self._window[0]
        ends = self._end is None and now_ns >= self._window[1]
        if begins or ends or now_ns - self._looked_ns >= LOOK_NS:
            self._look()
        wake_ns = min(until_ns, self._looked_ns + LOOK_NS)
        for edge_ns in self._window:
            if edge_ns > time.monotonic_ns():
                wake_ns = min(wake_ns, edge_ns)
        time.sleep(max(0.0, (wake_ns - time.monotonic_ns()) / 1e9))

    def _look(self) -> None:
        groups = [stream.group for stream in self._streams]
        told = self._ask(lambda client, _: client.get_pgid_stats(groups))
        assert self._server is not None
        try:
            before, self._now = self._now, Counts(told, self._streams)
        except ValueError as error:
            raise self._server.fail(str(error)) from None
        self._looked_ns = time.monotonic_ns()
        if before is None or self._now.received != before.received:
            self._last_ns = self._looked_ns
        if self._begin is None and self._looked_ns >= self._window[0]:
            self._begin = self._now
        if self._end is None and self._looked_ns >= self._window[1]:
            self._end = self._now

    def complete(self) -> bool:
        """Whether all that was sent has arrived."""
        if self._end is None:
            self._look()
        assert self._now is not None
        return self._end is not None and self._now.sent == self._now.received

    def last_ns(self) -> int:
        """When the count of those that arrived was last seen to grow."""
        return self._last_ns

    def told(self) -> Told:
        """What the server counted; and the histogram's file."""
        self._look()
        begin, end, now = self._begin, self._end, self._now
        assert (
            begin is not None and end is not None and now is not None and self._server is not None
        )
        latencies = now.latencies(begin)
        latencies.write(Path(self._traffic["histogram"]))
        whole = all(stream.timed for stream in self._streams)
        sample = now.sample()
        return Told(
            offered=now.sent,
            sent=now.sent,
            delivered=now.received - sample["duplicated"] if whole else now.received,
            window_offered=end.sent - begin.sent,
            window_delivered=end.received - begin.received,
            window_ns=self._window[1] - self._window[0],
            duplicated=sample["duplicated"] if whole else None,
            reordered=sample["reordered"] if whole else None,
            latency=latencies.summary(),
            sample=sample,
            notes={"client": self._server.package},
        )

    def close(self) -> None:
        """Stop, release, hang up."""
        if self._server is not None:
            self._server.close()


class Counts:
    """What the server had counted at one time."""

    def __init__(self, told: dict[str, Any], made: list[Stream]) -> None:
        """told: as `STLClient.get_pgid_stats` returns it. Raises ValueError where one lacks."""
        flows, self._timed = told.get("flow_stats", {}), told.get("latency", {})
        timed = [stream.group for stream in made if stream.timed]
        groups = [stream.group for stream in made]
        self.sent = sum(_count(flows, group, "tx_pkts") for group in groups)
        self.received = sum(_count(flows, group, "rx_pkts") for group in groups)
        self._groups = timed
        self._sampled = (
            sum(_count(flows, group, "tx_pkts") for group in timed),
            sum(_count(flows, group, "rx_pkts") for group in timed),
        )

    def _errors(self, name: str) -> int:
        found = (self._timed.get(group, {}).get("err_cntrs", {}) for group in self._groups)
        return sum(int(each.get(name, 0)) for each in found)

    def sample(self) -> dict[str, int]:
        """Of the latency streams. Lost: what is still missing, not what was for a while."""
        sent, received = self._sampled
        duplicated = self._errors("dup")
        return {
            "sent": sent,
            "lost": sent - received + duplicated,
            "duplicated": duplicated,
            "reordered": self._errors("out_of_order"),
        }

    def _histogram(self) -> dict[int, int]:
        sums: dict[int, int] = {}
        for group in self._groups:
            found = self._timed.get(group, {}).get("latency", {}).get("histogram", {})
            for low_us, count in found.items():
                sums[int(low_us)] = sums.get(int(low_us), 0) + int(count)
        return sums

    def latencies(self, since: Counts) -> Latencies:
        """Of those that arrived since then. Buckets are the server's: 100 is 100 to 199 us."""
        made, before = Latencies(), since._histogram()
        most = [
            self._timed.get(group, {}).get("latency", {}).get("total_max", 0)
            for group in self._groups
        ]
        top_ns = max((int(us) for us in most if isinstance(us, int | float)), default=0) * US
        for low_us, total in sorted(self._histogram().items()):
            count = total - before.get(low_us, 0)
            low, high = low_us * US, (low_us + _width(low_us)) * US - 1
            if count > 0:
                made.put(low, high, count, min(high, max(low, top_ns)) if top_ns else high)
        return made


def _width(low_us: int) -> int:
    """How wide a bucket is that begins there: one of the leading digit's; the first is to 9."""
    width = 10
    while low_us >= width * 10:
        width *= 10
    return width


def _count(flows: dict[Any, Any], group: int, name: str) -> int:
    value = flows.get(group, {}).get(name, {}).get("total")
    if not isinstance(value, int | float):
        raise ValueError(f"it does not count group {group}: {name} is {value}")
    return int(value)


def _templates(path: Path) -> list[bytes]:
    """The frames of a template file, which is little-endian pcap (ftmb.traffic.template); scapy's
    reader is not at hand here: the client brings another scapy."""
    data, at, frames = path.read_bytes(), 24, []
    order = "little" if data[:4] == b"\xd4\xc3\xb2\xa1" else "big"
    while at < len(data):
        length = int.from_bytes(data[at + 8 : at + 12], order)  # type: ignore[arg-type]
        frames.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return frames


def _stream(api: Any, stream: Stream) -> Any:
    """A stream as the client knows it. MAC addresses are those of the server's configuration."""
    changes = None
    if stream.last is not None:
        first = ".".join(map(str, stream.frame[SOURCE_AT : SOURCE_AT + 4]))
        changes = [
            api.STLVmFlowVar("source", min_value=first, max_value=stream.last, size=4, op="inc"),
            api.STLVmWrFlowVar("source", pkt_offset=SOURCE_AT),
            api.STLVmFixIpv4(offset=IPV4_AT),
        ]
    stats = (api.STLFlowLatencyStats if stream.timed else api.STLFlowStats)(pg_id=stream.group)
    return api.STLStream(
        packet=api.STLPktBuilder(pkt_buffer=stream.frame, vm=changes, remove_fcs=False),
        mode=api.STLTXCont(pps=stream.pps),
        flow_stats=stats,
        mac_src_override_by_pkt=0,
        mac_dst_override_mode=0,
    )
